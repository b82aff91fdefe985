"""Where an engine may work. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cluster:
    """address: of a running cluster, None starts one here; workers: how many, None is for the engine to say."""

    address: str | None = None
    workers: int | None = None
