"""Transforms of a layer's input: the table."""

from __future__ import annotations

from plans.transforms.base import Transform
from plans.transforms.first_token import FIRST_TOKEN

__all__ = ["TRANSFORMS", "Transform"]

TRANSFORMS: dict[str, Transform] = {transform.name: transform for transform in (FIRST_TOKEN,)}
