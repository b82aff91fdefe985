"""A measuring station: one process with the pipeline loaded once, that works off jobs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import nn

from planner.arguments import FLOAT32
from planner.errors import UserError
from planner.graph import LayerGraph
from planner.graph_trace import fingerprint
from planner.measure import Rig, build_rig
from planner.methods import method_named
from planner.methods.base import Found, Job
from planner.pipelines import Generation, components, load_encoder, load_pipeline
from planner.resuming import Recorded, recorded
from planner.space import scales_of
from plans.formats import Grid
from plans.scheme import WeightFormat, parse_scheme
from plans.swap import find_layer, variant
from sensitivity.calibration import ActivationRange
from sensitivity.metrics import Encoder


@dataclass(frozen=True)
class Settings:
    """How a profile is measured. pipeline: its name; timesteps: denoiser calls that are judged by their own output;
    probes: of each metric of the image; dtype: the pipeline's float type."""

    pipeline: str
    prompts: tuple[str, ...]
    schemes: tuple[str, ...]
    generation: Generation
    timesteps: int
    probes: int
    components: tuple[str, ...]
    clip: str | None
    dtype: str = FLOAT32


@dataclass(frozen=True)
class Context:
    """All that a worker needs to build a station like the driver's; it can be pickled.

    graph, fingerprint: of the pipeline that was traced; ranges: calibrated, by layer address; size: bytes of all of the
    pipeline's weights; threads: of torch, on which the rounding of every loss depends.
    """

    settings: Settings
    graph: LayerGraph
    fingerprint: str
    ranges: Mapping[str, ActivationRange]
    size: int
    threads: int


@dataclass(frozen=True, eq=False)
class Station:
    """A pipeline set up for measuring."""

    context: Context
    pipe: Any
    parts: Mapping[str, nn.Module]
    encoder: Encoder

    @cached_property
    def denoiser(self) -> nn.Module:
        """What runs at every step."""
        return next(iter(self.parts.values()))

    @cached_property
    def rig(self) -> Rig:
        """Full precision on all prompts, recorded when first asked for."""
        settings = self.context.settings
        return build_rig(self.pipe, self.denoiser, settings.prompts, settings.generation, settings.timesteps)

    @cached_property
    def recorded(self) -> Recorded:
        """The rig with what it computes before each layer."""
        return recorded(self.pipe, self.rig)

    def module(self, layer: str) -> nn.Module:
        """The float layer of that address."""
        found: nn.Module = find_layer(self.parts, layer)
        return found

    @cached_property
    def _grids(self) -> dict[str, dict[WeightFormat, Grid]]:
        return {}

    def grids(self, layer: str) -> dict[WeightFormat, Grid]:
        """Of a layer's weight, as far as they were found: that takes longer than all that is done with them."""
        return self._grids.setdefault(layer, {})

    def measure(self, job: Job) -> Iterator[Found]:
        """What the job's method finds, one (layer, scheme) at a time."""
        return method_named(job.method).measure(self, job)

    def variant(self, layer: str, scheme: str, packed: dict[Any, Any]) -> AbstractContextManager[object]:
        """Within it the layer uses the scheme, all else is in full precision. packed: see `plans.swap.variant`."""
        parsed = parse_scheme(scheme)
        return variant(self.parts, layer, parsed, scales_of(self.context.ranges[layer], parsed), packed)


def open_station(context: Context) -> Station:
    """Load pipeline and encoder as the settings name them, and set up.

    Raises UserError when they cannot be loaded here or the weights are not those that the context is about.
    """
    settings = context.settings
    pipe = load_pipeline(settings.pipeline, settings.dtype)
    found = fingerprint(components(pipe, settings.components), context.graph)
    if found != context.fingerprint:
        raise UserError(
            f"{settings.pipeline} has fingerprint {found[:12]} at a worker and {context.fingerprint[:12]} at the "
            "driver; put the same files on every machine"
        )
    return set_up(context, pipe, load_encoder(settings.pipeline, settings.clip))


def set_up(context: Context, pipe: Any, encoder: Encoder) -> Station:
    """A station of what is loaded already."""
    return Station(context, pipe, components(pipe, context.settings.components), encoder)
