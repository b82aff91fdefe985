"""Turns the pictures of views into `data:` addresses that are small enough together for one page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from bitplan.planner.errors import UserError
from bitplan.planner.files import inside, read_bytes
from bitplan.planner.texts import system_reason

_SHOWN = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif"}
_ROOM = 6_500_000  # bytes of all pictures of a page; as text they take a third more


@dataclass(frozen=True)
class Fit:
    """How pictures are reduced.

    Attributes:
        side: largest width or height in px.
        quality: quality of WebP; None for lossless.
    """

    side: int
    quality: int | None

    def __str__(self) -> str:
        how = "without loss" if self.quality is None else f"at WebP quality {self.quality}"
        return f"at most {self.side} px, {how}"


_FITS = (Fit(2048, None), Fit(768, 90), Fit(512, 85), Fit(384, 80), Fit(256, 75), Fit(192, 60), Fit(128, 50))


@dataclass(frozen=True)
class Album:
    """The pictures of one page.

    Attributes:
        addresses: `data:` address of each different picture.
        place: (folder, path) -> index of the picture in `addresses`.
        fit: how the pictures were reduced; None for the original ones.
    """

    addresses: tuple[str, ...]
    place: Mapping[tuple[Path, str], int]
    fit: Fit | None


def album_of(paths: Sequence[tuple[Path, str]], room: int = _ROOM) -> Album:
    """The album of the pictures at `paths`: (folder, path below it). room: bytes of all pictures.

    Raises UserError for a path that leaves its folder, and for a file that is missing or not a picture.
    """
    read = {pair: _read(*pair) for pair in dict.fromkeys(paths)}
    different = list(dict.fromkeys(read.values()))
    place = {pair: different.index(data) for pair, data in read.items()}
    names = {data: pair[0] / pair[1] for pair, data in read.items()}
    kinds = {data: _kind(data, names[data]) for data in different}
    if sum(map(len, different)) <= room:
        return Album(tuple(_address(data, kinds[data]) for data in different), place, None)
    still = [data for data in different if kinds[data] != "image/gif"]
    moving = sum(len(data) for data in different if kinds[data] == "image/gif")
    fit, small = _fitted(still, room - moving)
    addresses = [
        _address(small[data], "image/webp") if data in small else _address(data, kinds[data]) for data in different
    ]
    return Album(tuple(addresses), place, fit)


def _read(folder: Path, path: str) -> bytes:
    file = inside(folder, path)
    try:
        return read_bytes(file)
    except OSError as error:
        raise UserError(f"cannot read the picture {file}: {system_reason(error)}; make the sweep again") from None


def _kind(data: bytes, file: Path) -> str:
    try:
        with Image.open(io.BytesIO(data)) as picture:
            if picture.format in _SHOWN:
                return _SHOWN[picture.format]
            kind = picture.format
    except (UnidentifiedImageError, Image.DecompressionBombError):
        kind = "not a picture"
    raise UserError(f"{file} is {kind}, and a page shows {', '.join(_SHOWN)}; make the sweep again")


def _fitted(pictures: Sequence[bytes], room: int) -> tuple[Fit, dict[bytes, bytes]]:
    """The first of `_FITS` with which all pictures fit into the room, else the last, and the reduced pictures. Each is
    tried on a sample first."""
    step = max(1, len(pictures) // 12)
    some = pictures[::step]
    for fit in _FITS[:-1]:
        if sum(len(_smaller(data, fit)) for data in some) * len(pictures) / max(1, len(some)) > 1.1 * room:
            continue
        small = {data: _smaller(data, fit) for data in pictures}
        if sum(map(len, small.values())) <= room:
            return fit, small
    return _FITS[-1], {data: _smaller(data, _FITS[-1]) for data in pictures}


def _smaller(data: bytes, fit: Fit) -> bytes:
    with Image.open(io.BytesIO(data)) as picture:
        image = picture.convert("RGB")
    image.thumbnail((fit.side, fit.side), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "WEBP", lossless=fit.quality is None, quality=fit.quality or 80, method=4)
    return out.getvalue()


def _address(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
