"""Pipelines around a diffusion transformer."""

from __future__ import annotations

from tests.zoo.animal import Animal

DITS: tuple[Animal, ...] = ()
