"""Pipelines around a U-Net."""

from __future__ import annotations

from typing import Any

from planner.calling import Generation
from tests import tiny
from tests.zoo.animal import Animal


def stable_diffusion() -> Any:
    return tiny.build_pipeline()


UNETS: tuple[Animal, ...] = (
    Animal("StableDiffusionPipeline", "U-Net", stable_diffusion, ("unet",), Generation(2, 2.0)),
)
