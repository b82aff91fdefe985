"""No kernel, kind of layer or export target accepts a term that it does not list: it declines it by name."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from bitplan.planner.graph.layers import Layer
from bitplan.planner.targets import TARGETS
from bitplan.planner.targets.base import Target, why
from bitplan.plans.formats import FORMATS
from bitplan.plans.inputs import INPUTS
from bitplan.plans.kernels import KERNELS, Kernel
from bitplan.plans.kinds import KINDS, Kind
from bitplan.plans.scheme import InputFormat, Scheme, Term, WeightFormat, every_scheme, parse_scheme
from bitplan.plans.terms import EVERY_KIND, Line
from bitplan.plans.transforms import TRANSFORMS, TransformLine

STRANGE = {
    "weight": Scheme(WeightFormat("strange", 4), InputFormat()),
    "inputs": Scheme(WeightFormat("int", 8), InputFormat("strange", 8)),
    "transform": Scheme(WeightFormat("int", 8), InputFormat("int", 8), (Term("strange"),)),
    "transform of a16": Scheme(WeightFormat("int", 8), InputFormat(), (Term("strange"),)),
}


@pytest.fixture(params=[False, True], ids=["not in the tables", "in the tables"])
def strange(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the strange terms are registered: then they have a meaning, and still nobody lists them."""
    if request.param:
        for table, line in ((FORMATS, Line), (INPUTS, Line), (TRANSFORMS, TransformLine)):
            monkeypatch.setitem(table, "strange", line("strange", "a new one", "nowhere:NOTHING", word="strange"))  # type: ignore[arg-type]
    return bool(request.param)


@pytest.mark.parametrize("scheme", STRANGE.values(), ids=STRANGE)
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=list(KERNELS))
def test_kernels_decline_unknown_terms(kernel: Kernel, scheme: Scheme, strange: bool) -> None:
    for kind in kernel.kinds:
        anywhere = replace(kernel, available=lambda device: None)
        reason = anywhere.supports(scheme, kind)
        if strange and not kernel.real and KINDS[kind].refuses(scheme) is None:
            assert reason is None  # the simulation goes through the members themselves
        else:
            assert reason and "takes" in reason and re.search("not .?strange|not a8|not a16|not w8", reason)


@pytest.mark.parametrize("scheme", STRANGE.values(), ids=STRANGE)
@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_kinds_decline_unknown_terms(kind: Kind, scheme: Scheme, strange: bool) -> None:
    reason = kind.refuses(scheme)
    if strange and not (kind.looks_up and scheme.inputs.kind == "int"):
        assert reason is None
    else:
        assert reason and kind.name in reason and "takes" in reason and ("strange" in reason or "not a8" in reason)


@pytest.mark.parametrize("scheme", STRANGE.values(), ids=STRANGE)
@pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))
def test_targets_decline_unknown_terms(target: Target, scheme: Scheme, strange: bool) -> None:
    layer = Layer("net.layer", (), "linear", (512, 256), False, 1, None, ())
    reason = why(target, scheme, layer)
    assert reason and "takes" in reason and "strange" in reason and "\n" not in reason


def test_a_field_that_is_not_listed_must_have_its_default() -> None:
    declined = {text: TARGETS["torchao"].takes.declines(parse_scheme(text)) for text in ("w8a16", "w8ma16", "w4a16")}
    assert declined["w8a16"] is None
    assert declined["w8ma16"] == (
        "takes weights int with least_squares off, not w8m (its scales are min-max, not of least squares)"
    )
    assert "takes weights int with bits 8, not w4" in str(declined["w4a16"])


def test_every_scheme_is_taken_by_the_simulation_or_has_no_meaning_for_the_layer() -> None:
    for scheme in every_scheme():
        for kind in KINDS.values():
            assert (KERNELS["reference"].refuses(scheme, kind.name) is None) == (kind.refuses(scheme) is None)


def test_the_kinds_that_lines_name_exist() -> None:
    assert set(EVERY_KIND) == set(KINDS)
