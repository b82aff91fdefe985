"""Transforms of a layer's input: the table."""

from __future__ import annotations

from bitplan.plans.transforms.base import Transform  # noqa: F401
from bitplan.plans.transforms.first_token import FIRST_TOKEN  # noqa: F401

__all__ = ["TRANSFORMS", "Transform"]
TRANSFORMS: dict[str, Transform] = {transform.name: transform for transform in (FIRST_TOKEN,)}
