"""What a loss is, by the plainest way to measure it: one layer computes as its scheme says, every condition runs again
from its own seed, and the outputs are compared. It uses no code that measures or estimates."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from bitplan.planner.pipelines.subject import Subject
from bitplan.plans.layers.swap import swap, undo
from bitplan.plans.scheme import parse_scheme

METRIC = "output_nsr"  # what `loss` computes


def outputs(subject: Subject) -> Tensor:
    """The outputs of all conditions, one call for each, condition i from seed i."""
    conditions = subject.conditions
    assert not callable(conditions)
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):  # compiling takes seconds
        return torch.cat([subject.run([condition], i) for i, condition in enumerate(conditions)])


def loss(full: Tensor, variant: Tensor) -> float:
    """Noise over signal power, (variant - full)^2 / full^2, the mean over conditions."""
    full, variant = full.double().flatten(1), variant.double().flatten(1)
    return float(((variant - full).square().sum(1) / full.square().sum(1)).mean())


def originals(subject: Subject) -> dict[str, nn.Module]:
    """The modules inside those that are compiled, and the others."""
    return {name: getattr(module, "_orig_mod", module) for name, module in subject.modules.items()}


@contextmanager
def simulated(subject: Subject, schemes: Mapping[str, str]) -> Iterator[None]:
    """Within the `with`, these layers compute as their schemes say. schemes: address -> text of a scheme."""
    chosen = {layer: parse_scheme(text) for layer, text in schemes.items()}
    swapped = swap(originals(subject), chosen, real=False)
    try:
        yield
    finally:
        undo(swapped)


def losses(build: Callable[[], Subject], pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], float]:
    """(layer, scheme) -> loss, each measured by itself on a subject that nothing else has touched."""
    subject = build()
    full, found = outputs(subject), {}
    for layer, scheme in pairs:
        with simulated(subject, {layer: scheme}):
            found[layer, scheme] = loss(full, outputs(subject))
    return found


def called(subject: Subject) -> set[str]:
    """The addresses of the linear layers that run on any condition."""
    names: set[str] = set()
    layers = {
        f"{component}.{path}": module
        for component, root in originals(subject).items()
        for path, module in root.named_modules()
        if type(module) is nn.Linear
    }
    hooks = [m.register_forward_hook(lambda *_, name=name: names.add(name)) for name, m in layers.items()]
    outputs(subject)
    for hook in hooks:
        hook.remove()
    return names


def denoised_losses(build: Callable[[], Subject], pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], float]:
    """(layer, scheme) -> loss of the denoiser's own output, on copies of what it gets in a run in full precision."""
    subject, found, calls = build(), {}, list[tuple[Any, Any]]()
    net = subject.modules["net"]

    def repeated() -> list[Tensor]:
        return [net(*copy.deepcopy(args), **copy.deepcopy(kwargs)).clone() for args, kwargs in calls]

    with torch.no_grad():
        hook = net.register_forward_pre_hook(lambda _, *got: calls.append(copy.deepcopy(got)), with_kwargs=True)
        subject.run(list(subject.conditions), 0)  # type: ignore[arg-type]
        hook.remove()
        full = repeated()
        for layer, scheme in pairs:
            with simulated(subject, {layer: scheme}):
                found[layer, scheme] = sum(map(loss, full, repeated())) / len(full)
    return found
