"""What schemes change in a layer's output: the swapped layer's output less the float layer's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bitplan.plans.kinds import KINDS
from bitplan.plans.layers.modules import kind_of
from bitplan.plans.layers.simulation import output_changes, variant
from bitplan.plans.numerics import NONE, range_tensor
from bitplan.plans.scheme import Scheme, parse_scheme
from bitplan.plans.transforms.base import Fitted

SCHEMES = ("w8a8", "w4a4", "w4g64ma8", "w2ma8", "w3a16", "w8a8t", "w4a8t+first")
RANGES = {"tensor": 1.5, "first": 2.5}  # so narrow that some numbers are clipped


def layers() -> dict[str, tuple[nn.Module, Tensor]]:
    torch.manual_seed(0)
    return {
        "linear": (nn.Linear(64, 5), torch.randn(2, 7, 64)),
        "linear without bias": (nn.Linear(64, 5, bias=False), torch.randn(3, 64)),
        "conv": (nn.Conv2d(64, 4, 3, stride=2, padding=1), torch.randn(2, 64, 6, 6)),
        "conv that pads by reflection": (
            nn.Conv2d(64, 4, 3, padding=1, padding_mode="reflect"), torch.randn(2, 64, 6, 6)
        ),
        "conv1d": (nn.Conv1d(64, 4, 3, padding="same", padding_mode="circular"), torch.randn(2, 64, 6)),
        "conv3d": (nn.Conv3d(64, 4, (1, 2, 3), stride=(1, 2, 1)), torch.randn(2, 64, 2, 4, 5)),
        "embedding": (nn.Embedding(30, 70), torch.randint(30, (2, 7))),
    }  # fmt: skip


def fitted_for(scheme: Scheme) -> Fitted:
    return range_tensor(RANGES) if scheme.inputs.static else NONE


@pytest.mark.parametrize("kind", layers())
def test_changes_are_those_of_the_swapped_layer(kind: str) -> None:
    layer, x = layers()[kind]
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    parts = {"unet": nn.ModuleDict({"layer": layer})}
    packed: dict[Any, Any] = {}
    refuses = KINDS[kind_of(layer)].refuses
    schemes = [s for s in map(parse_scheme, SCHEMES) if not refuses(s) and not (s.transforms and x.dim() < 3)]
    assert schemes
    found = list(output_changes(layer, x, [(scheme, fitted_for(scheme)) for scheme in schemes], packed))
    assert [scheme for scheme, _ in found] == schemes
    with torch.no_grad():
        full = layer(x)
        for scheme, change in found:
            with variant(parts, "unet.layer", scheme, fitted_for(scheme), {}):
                expected = parts["unet"]["layer"](x) - full
            assert change.shape == full.shape
            torch.testing.assert_close(change, expected, rtol=1e-4, atol=1e-5)
            assert float(change.abs().max()) > 0
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


def test_packed_weights_are_made_once() -> None:
    layer, x = layers()["linear"]
    packed: dict[Any, Any] = {}
    schemes = [(parse_scheme(text), NONE) for text in ("w4a8", "w4a4", "w8a8")]
    first = [change for _, change in output_changes(layer, x, schemes, packed)]
    kept = dict(packed)
    assert len(kept) == 2
    again = [change for _, change in output_changes(layer, x, schemes, packed)]
    assert all(packed[key] is kept[key] for key in kept)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
