"""Fitted parameters: which layers share them, how they are fitted, and those that one layer needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

import torch
from torch import Tensor, nn

from bitplan.planner.costs.candidates import fits
from bitplan.planner.graph.layers import LayerGraph
from bitplan.planner.profiles.fitted import read_parameters, write_parameters
from bitplan.planner.profiles.profile import Profile
from bitplan.plans.numerics import fit, named, range_tensor
from bitplan.plans.parameters import Arrays, Key
from bitplan.plans.scheme import Scheme, Term, static_range
from bitplan.plans.transforms import TRANSFORMS
from bitplan.plans.transforms.base import Fitted
from bitplan.sensitivity.calibration.ranges import ActivationRange

Ranges = Mapping[str, ActivationRange]


def owner_of(graph: LayerGraph, layer: str, term: Term) -> str:
    """The layer under which the parameters of a transform are held: the first reader of the same input for transforms
    of scope `inputs`, else the layer."""
    if TRANSFORMS[term.name].scope != "inputs":
        return layer
    return next((readers[0] for readers in graph.shared_inputs if layer in readers), layer)


def fit_parameters(
    graph: LayerGraph, modules: Mapping[str, nn.Module], schemes: Iterable[Scheme], observed: Ranges
) -> dict[Key, dict[str, Tensor]]:
    """The parameters of every transform of the schemes, by (owner, term), wherever the transform has any.

    Args:
        graph: of the model.
        modules: the float layers, by address.
        schemes: that are offered.
        observed: what calibration saw of each layer's input.
    """
    terms = {term: scheme for scheme in schemes for term in scheme.transforms}
    found: dict[Key, dict[str, Tensor]] = {}
    for term, scheme in terms.items():
        for owner, layers in _sharing(graph, term, scheme, observed).items():
            weights = [modules[layer].weight for layer in layers]
            if fitted := fit(term, weights, asdict(observed[layers[0]])):
                found[owner, str(term)] = fitted
    return found


def _sharing(graph: LayerGraph, term: Term, scheme: Scheme, observed: Ranges) -> dict[str, list[str]]:
    """Owner -> the layers that share its parameters and that the transform is defined for."""
    layers: dict[str, list[str]] = {}
    for layer in graph.layers:
        if layer.address in observed and fits(layer, scheme, observed[layer.address]):
            layers.setdefault(owner_of(graph, layer.address, term), []).append(layer.address)
    return layers


def fitted_of(
    graph: LayerGraph, layer: str, scheme: Scheme, observed: ActivationRange, parameters: Mapping[Key, Fitted]
) -> Fitted:
    """All fitted parameters that the scheme needs in the layer, by the names of `bitplan.plans.numerics`."""
    found = range_tensor(static_range(asdict(observed), scheme))
    for term in scheme.transforms:
        found |= named(term, parameters.get((owner_of(graph, layer, term), str(term)), {}))
    return found


def profile_parameters(
    store: Profile, graph: LayerGraph, modules: Mapping[str, nn.Module], schemes: Sequence[Scheme], observed: Ranges
) -> dict[Key, dict[str, Tensor]]:
    """The fitted parameters that the profile holds; they are fitted and written first if it holds none."""
    if not any(scheme.transforms for scheme in schemes):
        return {}
    if not (held := read_parameters(store)):
        held = arrays_of(fit_parameters(graph, modules, schemes, observed))
        write_parameters(store, held)
    return {key: {name: torch.from_numpy(part.copy()) for name, part in parts.items()} for key, parts in held.items()}


def arrays_of(parameters: Mapping[Key, Fitted]) -> dict[Key, Arrays]:
    """As files hold them."""
    return {
        key: {name: tensor.detach().float().cpu().numpy() for name, tensor in fitted.items()}
        for key, fitted in parameters.items()
    }
