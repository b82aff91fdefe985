"""The pictures of views, small enough together for one page, as data addresses."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image, UnidentifiedImageError

from bitplan.planner.errors import UserError

_SHOWN = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif"}
_ROOM = 6_500_000  # bytes of all pictures of a page, before they are written as text, which takes a third more


@dataclass(frozen=True)
class Fit:
    """How pictures are made smaller: side: of the largest, in px; quality: of WebP, None without loss."""

    side: int
    quality: int | None

    def __str__(self) -> str:
        how = "without loss" if self.quality is None else f"at WebP quality {self.quality}"
        return f"at most {self.side} px, {how}"


_FITS = (Fit(2048, None), Fit(768, 90), Fit(512, 85), Fit(384, 80), Fit(256, 75), Fit(192, 60), Fit(128, 50))


@dataclass(frozen=True)
class Album:
    """addresses: a `data:` one for each different picture; place: (folder, path) -> its index; fit: how they were made
    smaller, None where they are as they were painted."""

    addresses: tuple[str, ...]
    place: Mapping[tuple[Path, str], int]
    fit: Fit | None


def album_of(asked: Sequence[tuple[Path, str]], room: int = _ROOM) -> Album:
    """asked: (folder, path below it) of each picture. Raises UserError for a path that leaves its folder, and for a
    file that is missing or no picture."""
    read = {pair: _read(*pair) for pair in dict.fromkeys(asked)}
    different = list(dict.fromkeys(read.values()))
    place = {pair: different.index(data) for pair, data in read.items()}
    names = {data: pair[0] / pair[1] for pair, data in read.items()}
    kinds = {data: _kind(data, names[data]) for data in different}
    if sum(map(len, different)) <= room:
        return Album(tuple(_address(data, kinds[data]) for data in different), place, None)
    still = [data for data in different if kinds[data] != "image/gif"]
    moving = sum(len(data) for data in different if kinds[data] == "image/gif")
    fit, small = _fitted(still, room - moving)
    made = [_address(small[data], "image/webp") if data in small else _address(data, kinds[data]) for data in different]
    return Album(tuple(made), place, fit)


def picture_path(folder: Path, path: str) -> Path:
    """The file. Raises UserError where the path is absolute, or leaves the folder."""
    parts = PurePosixPath(path).parts
    if not path or "\\" in path or "\0" in path or PurePosixPath(path).is_absolute() or ".." in parts:
        raise UserError(f"{folder}: the picture {path!r} does not lie below it; make the sweep again")
    file = folder / path
    if not file.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{folder}: the picture {path!r} does not lie below it, it is a link; make the sweep again")
    return file


def _read(folder: Path, path: str) -> bytes:
    file = picture_path(folder, path)
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the picture {file}: {error.strerror}; make the sweep again") from None


def _kind(data: bytes, file: Path) -> str:
    try:
        with Image.open(io.BytesIO(data)) as picture:
            if picture.format in _SHOWN:
                return _SHOWN[picture.format]
            kind = picture.format
    except (UnidentifiedImageError, Image.DecompressionBombError):
        kind = "no picture"
    raise UserError(f"{file} is {kind}, and a page shows {', '.join(_SHOWN)}; make the sweep again")


def _fitted(pictures: Sequence[bytes], room: int) -> tuple[Fit, dict[bytes, bytes]]:
    """The first of `_FITS` that gets all into the room; the last one where none does. Tried on some, then on all."""
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
