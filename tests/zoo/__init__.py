"""The zoo: pipeline classes of diffusers, each built small from configs, on which the tests run all verbs.

The classes of diffusers and transformers are unmodified. `python -m tests.zoo` writes docs/pipelines.md from real
runs.
"""

from __future__ import annotations

from tests.zoo.animal import Animal
from tests.zoo.audios import AUDIOS
from tests.zoo.dits import DITS
from tests.zoo.unets import UNETS
from tests.zoo.videos import VIDEOS

ZOO: dict[str, Animal] = {animal.name: animal for animal in (*UNETS, *DITS, *VIDEOS, *AUDIOS)}
