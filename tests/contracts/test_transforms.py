"""The contract of every line in the table of transforms."""

from __future__ import annotations

import pytest
import torch

from bitplan.plans.transforms import TRANSFORMS, Term
from bitplan.plans.transforms.base import Transform

ALL = [Term(line.name, tuple(term.values())) for line in TRANSFORMS.values() for term in line.every()]
WEIGHTS = [torch.randn(5, 16, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]
X = torch.randn(3, 4, 16, generator=torch.Generator().manual_seed(9))
OBSERVED = {"absmax": float(X.abs().max()), "first_absmax": float(X[:, 0].abs().max()),
            "rest_absmax": float(X[:, 1:].abs().max())}  # fmt: skip


def member_and_parameters(term: Term) -> tuple[Transform, dict[str, torch.Tensor]]:
    member: Transform = TRANSFORMS[term.name].member
    shares = WEIGHTS if TRANSFORMS[term.name].scope == "inputs" else WEIGHTS[:1]
    return member, dict(member.fit(shares, OBSERVED, term.numbers))


@pytest.mark.parametrize("term", ALL, ids=str)
def test_the_product_stays_the_same_in_full_precision(term: Term) -> None:
    member, fitted = member_and_parameters(term)
    weight, x = member.weight(WEIGHTS[0], fitted, term.numbers), member.inputs(X, fitted, term.numbers)
    assert weight.shape == WEIGHTS[0].shape and x.shape == X.shape
    assert torch.allclose(x @ weight.T, X @ WEIGHTS[0].T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("term", ALL, ids=str)
def test_fitted_tensors_have_their_layout(term: Term) -> None:
    member, fitted = member_and_parameters(term)
    layout = member.layout(*WEIGHTS[0].shape, term.numbers)
    assert fitted.keys() == layout.keys()
    for name, tensor in layout.items():
        assert tensor.is_meta and (fitted[name].shape, fitted[name].dtype) == (tensor.shape, tensor.dtype)


@pytest.mark.parametrize("term", ALL, ids=str)
def test_the_text_names_the_line(term: Term) -> None:
    assert str(term).startswith(f"+{TRANSFORMS[term.name].word}") and TRANSFORMS[term.name].scope in ("inputs", "layer")
