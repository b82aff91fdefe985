"""The cluster that an engine may work on. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cluster:
    """Where an engine finds workers.

    Attributes:
        address: HOST:PORT of a running cluster; None starts one on this machine.
        workers: number of workers; None leaves it to the engine.
    """

    address: str | None = None
    workers: int | None = None
