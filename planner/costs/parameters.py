"""Fits the parameters of transforms, shares them among layers, and selects those of one layer."""

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
    """Returns the layer that owns the parameters of a transform: the first reader of the same input for transforms of
    scope `inputs`, else the layer itself."""
    if TRANSFORMS[term.name].scope != "inputs":
        return layer
    return next((readers[0] for readers in graph.shared_inputs if layer in readers), layer)


def fit_parameters(
    graph: LayerGraph, modules: Mapping[str, nn.Module], schemes: Iterable[Scheme], observed: Ranges
) -> dict[Key, dict[str, Tensor]]:
    """Fits the parameters of every transform of the schemes, and returns them by (owner, term).

    Args:
        graph: of the model.
        modules: the float layers, by address.
        schemes: the candidates.
        observed: layer -> calibrated range of its input.
    """
    terms = {term: scheme for scheme in schemes for term in scheme.transforms}
    parameters: dict[Key, dict[str, Tensor]] = {}
    for term, scheme in terms.items():
        for owner, layers in _sharing(graph, term, scheme, observed).items():
            weights = [modules[layer].weight for layer in layers]
            if fitted := fit(term, weights, asdict(observed[layers[0]])):
                parameters[owner, str(term)] = fitted
    return parameters


def _sharing(graph: LayerGraph, term: Term, scheme: Scheme, observed: Ranges) -> dict[str, list[str]]:
    """Returns owner -> the layers that share its parameters and for which the transform is defined."""
    layers: dict[str, list[str]] = {}
    for layer in graph.layers:
        if layer.address in observed and fits(layer, scheme, observed[layer.address]):
            layers.setdefault(owner_of(graph, layer.address, term), []).append(layer.address)
    return layers


def fitted_of(
    graph: LayerGraph, layer: str, scheme: Scheme, observed: ActivationRange, parameters: Mapping[Key, Fitted]
) -> Fitted:
    """Returns the fitted parameters that the scheme needs in the layer, by the names of `bitplan.plans.numerics`."""
    fitted = range_tensor(static_range(asdict(observed), scheme))
    for term in scheme.transforms:
        fitted |= named(term, parameters.get((owner_of(graph, layer, term), str(term)), {}))
    return fitted


def profile_parameters(
    store: Profile, graph: LayerGraph, modules: Mapping[str, nn.Module], schemes: Sequence[Scheme], observed: Ranges
) -> dict[Key, dict[str, Tensor]]:
    """Returns the profile's fitted parameters; fits and writes them first if it has none."""
    if not any(scheme.transforms for scheme in schemes):
        return {}
    if not (arrays := read_parameters(store)):
        arrays = arrays_of(fit_parameters(graph, modules, schemes, observed))
        write_parameters(store, arrays)
    return {key: {name: torch.from_numpy(part.copy()) for name, part in parts.items()} for key, parts in arrays.items()}


def arrays_of(parameters: Mapping[Key, Fitted]) -> dict[Key, Arrays]:
    """Converts the parameters to float32 arrays, as files store them."""
    return {
        key: {name: tensor.detach().float().cpu().numpy() for name, tensor in fitted.items()}
        for key, fitted in parameters.items()
    }
