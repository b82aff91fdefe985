"""A picture of pictures: one row a variant, one column a prompt, same seeds down each column."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from PIL import Image, ImageDraw

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
