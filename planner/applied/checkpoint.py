"""Checks, from their files, that the float weights to be quantized are those of the plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from bitplan.planner.errors import UserError
from bitplan.plans.layers.attention import Piece, pieces
from bitplan.plans.layers.opening import closed_in, opened
from bitplan.plans.plan import Plan, check_architecture, check_fingerprint, check_layers


@dataclass(frozen=True)
class Checkpoint:
    """The files of a component's weights.

    Attributes:
        places: key in the model -> file, key in it.
        dtype: float type of the plan, in which tensors are read whatever they are stored in.
        pieces: key of a part of another tensor, such as a projection of an attention -> key of that tensor, rows.

    A file is mapped for one tensor at a time: what is mapped counts as memory of the process once it is touched.
    """

    places: dict[str, tuple[str, str]]
    dtype: torch.dtype
    pieces: Mapping[str, tuple[str, Piece]] = field(default_factory=dict)

    def read(self, key: str) -> Tensor:
        """The tensor. Raises UserError where there is none."""
        if key in self.pieces:
            whole, piece = self.pieces[key]
            return piece.of(self.read(whole))
        if key not in self.places:
            raise UserError(f"the checkpoint has no {key}; take the pipeline that the plan was made for")
        file, name = self.places[key]
        if not file.endswith(".safetensors"):
            tensor: Tensor = torch.load(file, map_location="cpu", weights_only=True, mmap=True)[name]
            return tensor.to(self.dtype)
        with safe_open(file, framework="pt") as handle:
            return handle.get_tensor(name).to(self.dtype)


def open_checkpoint(files: Sequence[Any], model: Any, dtype: str) -> Checkpoint:
    """The checkpoint in `files`, its keys as `model`, one of diffusers, names them."""
    places: dict[str, tuple[str, str]] = {}
    for file in map(str, files):
        places |= {name: (file, name) for name in _names(file)}
    if len(files) == 1:  # as diffusers does: checkpoints with the old names of attention layers are all in one file
        model._fix_state_dict_keys_on_load(places)
    return Checkpoint(places, getattr(torch, dtype), pieces_in(model, closed_in({"": model}).values()))


def pieces_in(model: nn.Module, attentions: Iterable[nn.MultiheadAttention]) -> dict[str, tuple[str, Piece]]:
    """Key in the model while these attentions are open -> that of the whole while they are closed, and where."""
    chosen = set(attentions)
    return {
        f"{path}.{name}": (f"{path}.{piece.name}", piece)
        for path, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, nn.MultiheadAttention) and module in chosen
        for name, piece in pieces(module).items()
    }


def _names(file: str) -> list[str]:
    if file.endswith(".safetensors"):
        with safe_open(file, framework="pt") as handle:
            return list(handle.keys())
    return list(torch.load(file, map_location="cpu", weights_only=True, mmap=True))


@dataclass
class CheckpointState:
    """The components that were loaded so far: they are loaded one by one, and the plan's fingerprint is of all.

    Attributes:
        plan: the plan to check against.
        allow_mismatch: whether other weights are allowed.
        awaited: components to be loaded.
        met: component -> its graph and checkpoint, of those loaded so far.
    """

    plan: Plan
    allow_mismatch: bool
    awaited: frozenset[str]
    met: dict[str, tuple[Any, Checkpoint]] = field(default_factory=dict)

    def meet(self, component: str, model: nn.Module, checkpoint: Checkpoint) -> None:
        """Checks `model`, on the meta device, and once all components are there their weights in the files.

        Raises PlanError as `bitplan.planner.applied.binding.bind` does, UserError for layers that share a
        module or a weight,
        GraphError for weights that are NaN or infinite.
        """
        from bitplan.planner.graph.trace import graph_of, list_layers

        parts = {component: model}
        schemes = {name: text for name, text in self.plan.schemes.items() if name.startswith(f"{component}.")}
        with opened(parts):
            listed = list_layers(parts)
        check_layers(replace(self.plan, schemes=schemes), list(listed.layers))
        graph = graph_of(listed, list(schemes))
        shared = [(layer.address, *layer.aliases) for layer in graph.layers if layer.aliases] + list(graph.tied)
        if shared:
            raise UserError(f"{' and '.join(shared[0])} share one weight, which cannot be quantized while it is "
                            f"loaded; load the float pipeline and call bitplan.apply")  # fmt: skip
        self.met[component] = (graph, checkpoint)
        if self.awaited <= set(self.met):
            met, self.met = self.met, {}
            self._judge(met)

    def _judge(self, met: dict[str, tuple[Any, Checkpoint]]) -> None:
        from bitplan.planner.graph.fingerprint import fingerprint_of
        from bitplan.planner.graph.layers import LayerGraph, architecture_fingerprint

        def read(address: str, name: str) -> Tensor | None:
            component, _, path = address.partition(".")
            if name == "bias" and not whole.by_address[address].bias:
                return None
            return met[component][1].read(f"{path}.{name}")

        whole = LayerGraph(tuple(layer for graph, _ in met.values() for layer in graph.layers), (), (), (), ())
        if self.awaited >= {address.partition(".")[0] for address in self.plan.schemes}:
            check_architecture(self.plan, architecture_fingerprint(whole))
        check_fingerprint(self.plan, fingerprint_of(whole, read), self.allow_mismatch)
