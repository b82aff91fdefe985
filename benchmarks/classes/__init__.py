"""More pipeline classes of diffusers, each built small; `python -m benchmarks.pipeline_classes` runs them."""

from __future__ import annotations

from benchmarks.classes.films import FILMS
from benchmarks.classes.others import OTHERS
from benchmarks.classes.stable import STABLE
from benchmarks.classes.xl import XL
from tests.zoo.animal import Animal

CLASSES: dict[str, Animal] = {animal.name: animal for animal in (*STABLE, *XL, *OTHERS, *FILMS)}
