"""Colours of the map: more bits are darker. Lightness alone distinguishes them, so colour-blind people can read it."""

from __future__ import annotations

from collections.abc import Iterable

from plotly.colors import sample_colorscale, unlabel_rgb

SCALE = "Viridis_r"  # light to dark; it works for people who cannot distinguish red and green


def palette_of(bits: Iterable[int]) -> dict[int, tuple[str, str]]:
    """Bits -> (colour of a cell, colour of its text: black or white, whichever has more contrast)."""
    known = sorted(set(bits))
    steps = [i / max(1, len(known) - 1) for i in range(len(known))]
    colours = [unlabel_rgb(text) for text in sample_colorscale(SCALE, steps)]
    return {bit: (_hex(rgb), _ink(rgb)) for bit, rgb in zip(known, colours, strict=True)}


def luminance(rgb: Iterable[float]) -> float:
    """Relative luminance of WCAG 2, from sRGB in 0..255 (https://www.w3.org/TR/WCAG22/#dfn-relative-luminance)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (part / 255 for part in rgb)]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _ink(rgb: Iterable[float]) -> str:
    light = luminance(rgb)
    return "#000000" if (light + 0.05) / 0.05 >= 1.05 / (light + 0.05) else "#ffffff"


def _hex(rgb: Iterable[float]) -> str:
    return "#" + "".join(f"{round(part):02x}" for part in rgb)
