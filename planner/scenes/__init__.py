"""The embedded pipeline: a small text-to-image model of captioned scenes, its data and its scene reader."""

from __future__ import annotations

from pathlib import Path

SCENES = "scenes"
PIPELINE_FOLDER = Path(__file__).parent / "pipeline"
CLIP_FOLDER = Path(__file__).parent / "clip"
