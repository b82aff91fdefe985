"""Writes outputs to files: images, animations, and arrays for other outputs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from bitplan.planner.errors import UserError
from bitplan.planner.files import beside, inside, written

_LABEL, _GAP = 150, 4


def to_picture(image: torch.Tensor) -> Image.Image:
    """Converts (3, H, W) in 0..1 to an 8-bit picture."""
    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(pixels)


def save_grid(rows: Mapping[str, torch.Tensor], path: Path) -> None:
    """Writes a labelled grid of images; small images are enlarged to 128 px.

    rows: label -> (N, 3, H, W) in 0..1, all of one shape.
    """
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
    with written(path, "picture") as partial:
        sheet.save(partial)


ARRAY, MOVING = ".npy", (".gif", ".webp", ".png")
MILLISECONDS = 125  # per frame
SMALL, EXACT = 384, 128  # px: the size limit of pictures on a page, and of lossless ones


def check_output(path: Path) -> None:
    """Checks before slow work that the kind of file is known. Raises UserError."""
    if path.suffix.lower() not in {ARRAY, *Image.registered_extensions()}:
        raise UserError(f"{path} has an unknown extension; end --out in .png, in .gif or in {ARRAY}")


def save_outputs(outputs: Tensor, kind: str, out: Path, part: tuple[int, int] | None = None) -> list[Path]:
    """Writes each output and returns the paths: `out`, or `out` with -1, -2, ... if there are several.

    An output that the file format cannot hold is written as an array beside it. part: the place of the first of these
    outputs among all, and the number of all; None where these are all.
    """
    first, count = part or (0, len(outputs))
    numbers = range(first + 1, first + 1 + len(outputs))
    paths = [beside(out, f"{out.stem}-{number}{out.suffix}") if count > 1 else out for number in numbers]
    return [_save(output, kind, path) for output, path in zip(outputs, paths, strict=True)]


def save_small(picture: Image.Image, folder: Path, name: str) -> str:
    """Writes the picture as a WebP file into the folder, for a page, and returns its name."""
    picture.thumbnail((SMALL, SMALL), Image.Resampling.LANCZOS)
    picture.save(inside(folder, name), "WEBP", lossless=max(picture.size) <= EXACT, quality=90, method=6)
    return name


def _save(output: Tensor, kind: str, path: Path) -> Path:
    suffix = path.suffix.lower()
    drawn = (kind == "images" and suffix != ARRAY) or (kind == "video" and suffix in MOVING)
    path = path if drawn else path.with_suffix(ARRAY)
    with written(path, "picture") as partial:
        if not drawn:
            np.save(partial, output.cpu().numpy())
        elif kind == "images":
            to_picture(output).save(partial)
        else:
            first, *rest = map(to_picture, output)
            first.save(partial, save_all=True, append_images=rest, duration=MILLISECONDS, loop=0)
    return path
