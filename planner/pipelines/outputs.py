"""Outputs as files: pictures, moving pictures, and plain arrays for all else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from bitplan.planner.errors import UserError
from bitplan.planner.files import check_place

_LABEL, _GAP = 150, 4


def to_picture(image: torch.Tensor) -> Image.Image:
    """(3, H, W) in 0..1 to an 8-bit picture."""
    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(pixels)


def save_grid(rows: Mapping[str, torch.Tensor], path: Path) -> None:
    """rows: label -> (N, 3, H, W) in 0..1, of one shape; small images are enlarged to 128 px."""
    columns, _, height, width = next(iter(rows.values())).shape
    zoom = max(1, 128 // height)
    cell = (width * zoom + _GAP, height * zoom + _GAP)
    sheet = Image.new("RGB", (_LABEL + columns * cell[0], len(rows) * cell[1]), "white")
    pen = ImageDraw.Draw(sheet)
    for r, (label, images) in enumerate(rows.items()):
        pen.multiline_text((6, r * cell[1] + cell[1] // 3), label.replace(" ", "\n", 1), fill="black")
        for c, image in enumerate(images):
            picture = to_picture(image).resize((width * zoom, height * zoom), Image.Resampling.NEAREST)
            sheet.paste(picture, (_LABEL + c * cell[0], r * cell[1]))
    sheet.save(path)


ARRAY, MOVING = ".npy", (".gif", ".webp", ".png")
MILLISECONDS = 125  # a frame
SMALL, EXACT = 384, 128  # px: no picture on a page is larger, and up to this size each is kept to the bit


def check_output(path: Path) -> None:
    """Checks before slow work that the folder of `path` exists and its kind of file is known. Raises UserError."""
    check_place(path)
    if path.suffix.lower() not in {ARRAY, *Image.registered_extensions()}:
        raise UserError(f"{path} ends in no known kind of picture; end --out in .png, in .gif or in {ARRAY}")


def save_outputs(outputs: Tensor, kind: str, out: Path) -> list[Path]:
    """Each output as `out`, or where there are several as `out` with -1, -2, ...; what the kind of file cannot hold
    goes beside it as an array. Returns the files."""
    paths = [out if len(outputs) == 1 else out.with_stem(f"{out.stem}-{i + 1}") for i in range(len(outputs))]
    return [_save(output, kind, path) for output, path in zip(outputs, paths, strict=True)]


def save_small(picture: Image.Image, folder: Path, name: str) -> str:
    """The picture as a WebP file for a page; its name below the folder is returned."""
    picture.thumbnail((SMALL, SMALL), Image.Resampling.LANCZOS)
    picture.save(folder / name, "WEBP", lossless=max(picture.size) <= EXACT, quality=90, method=6)
    return name


def _save(output: Tensor, kind: str, path: Path) -> Path:
    suffix = path.suffix.lower()
    if kind == "images" and suffix != ARRAY:
        to_picture(output).save(path)
    elif kind == "video" and suffix in MOVING:
        first, *rest = map(to_picture, output)
        first.save(path, save_all=True, append_images=rest, duration=MILLISECONDS, loop=0)
    else:
        path = path.with_suffix(ARRAY)
        np.save(path, output.cpu().numpy())
    return path
