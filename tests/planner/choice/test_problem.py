"""The problem against sums made by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitplan.planner.choice.evidence import Evidence, groups_of, twins_of
from bitplan.planner.choice.problem import formulate
from bitplan.planner.choice.request import weights_of
from bitplan.planner.errors import UserError
from bitplan.plans.scheme import parse_scheme
from bitplan.sensitivity.table import FAMILIES, LossTable, Measurement, MeasurementError
from bitplan.solvers.problem import Problem
from bitplan.solvers.solve import solve

SCHEMES = ("keep", "w8a8", "w4a8", "w4a4", "w4a16")
METRICS = {"noise": "quality", "ssim": "quality", "drift": "alignment"}


@st.composite
def evidences(draw: Any) -> Evidence:
    """Up to 5 layers with some of the schemes each; some read one input, some are tied in pairs."""
    layers = [f"unet.{i}" for i in range(draw(st.integers(1, 5)))]
    tied = tuple(zip(layers[::2], layers[1::2], strict=False))[: draw(st.integers(0, 1))]
    shared = (tuple(layers[-3:]),) if len(layers) > 2 and draw(st.booleans()) else ()
    offered = {layer: ("keep", *draw(st.lists(st.sampled_from(SCHEMES[1:]), unique=True))) for layer in layers}
    loss = st.floats(-0.01, 10).map(lambda x: x if abs(x) > 1e-100 else 0.0)  # subnormals have no exact ratios
    measured = [
        Measurement(layer, scheme, metric, draw(loss), 0.1, 4)
        for layer in layers for scheme in offered[layer][1:] for metric in METRICS
    ]  # fmt: skip
    pairs = [(layer, scheme) for layer in layers for scheme in offered[layer]]
    return Evidence(
        offered=offered,
        size={pair: draw(st.integers(1, 10**9)) for pair in pairs},
        ms={pair: draw(st.floats(0, 100)) for pair in pairs},
        losses=LossTable.of(measured), metrics=METRICS, shared=shared, tied=tied,
        simulated=frozenset(pair for pair in pairs if pair[1] == "w4a4"),
        weights=100,
    )  # fmt: skip


def rows(problem: Problem) -> dict[tuple[str, str], int]:
    pairs = [(g, c) for g, names in zip(problem.groups, problem.candidates, strict=True) for c in names]
    return {pair: row for row, pair in enumerate(pairs)}


@given(evidences())
def test_every_cell_is_the_sum_over_the_layers_of_its_group(evidence: Evidence) -> None:
    problem = formulate(evidence, {"quality": 1.0}, (), real=True)
    groups = groups_of(evidence)
    assert sorted(layer for layers in groups.values() for layer in layers) == sorted(evidence.offered)
    table = evidence.losses.measurements
    for (group, scheme), row in rows(problem).items():
        layers = groups[group]
        assert problem.column("ms")[row] == pytest.approx(sum(evidence.ms[layer, scheme] for layer in layers))
        for metric in METRICS:
            by_hand = 0.0 if scheme == "keep" else sum(max(table[a, scheme, metric].mean, 0) for a in layers)
            assert problem.column(metric)[row] == pytest.approx(by_hand)
        if len(layers) == 1:
            assert problem.column("bytes")[row] == evidence.size[group, scheme]
        assert problem.allowed[row] == (not any((layer, scheme) in evidence.simulated for layer in layers))


@given(evidences())
def test_a_group_is_offered_what_all_its_layers_are(evidence: Evidence) -> None:
    problem = formulate(evidence, {}, (), real=False)
    for (_, layers), names in zip(groups_of(evidence).items(), problem.candidates, strict=True):
        assert set(names) == set.intersection(*(set(evidence.offered[layer]) for layer in layers))
        assert names[0] == "keep"
    assert problem.allowed.all()


@given(evidences(), st.sampled_from(sorted(METRICS)), st.floats(1e-3, 1e3))
def test_families_do_not_depend_on_the_scale_of_a_metric(evidence: Evidence, metric: str, factor: float) -> None:
    scaled = LossTable.of(
        dataclasses.replace(m, mean=m.mean * factor) if m.metric == metric else m
        for m in evidence.losses.measurements.values()
    )
    before = formulate(evidence, {}, (), real=True)
    after = formulate(dataclasses.replace(evidence, losses=scaled), {}, (), real=True)
    for family in FAMILIES:
        np.testing.assert_allclose(after.column(family), before.column(family), rtol=1e-9, atol=1e-12)


@given(evidences())
def test_a_family_is_the_mean_of_its_metrics_in_their_own_units(evidence: Evidence) -> None:
    """Without those that help somewhere, unless there are no others, and those that do not see a layer at all."""
    problem = formulate(evidence, {}, (), real=True)
    measured = evidence.losses.measurements.values()
    for family in FAMILIES:
        parts, seen = [], []
        members = [m for m, its in METRICS.items() if its == family]
        plain = [m for m in members if all(one.mean >= 0 for one in measured if one.metric == m)]
        for metric in plain or members:
            losses = [max(m.mean, 0) for m in measured if m.metric == metric]
            unit = np.mean(losses) if losses else 0
            parts.append(problem.column(metric) / (unit or 1))
            groups = np.split(problem.column(metric), np.cumsum([len(names) for names in problem.candidates])[:-1])
            seen.append(np.concatenate([np.full(len(group), max(group) > 0) for group in groups]))
        expected = np.sum(parts, axis=0) / np.maximum(np.sum(seen, axis=0), 1)
        np.testing.assert_allclose(problem.column(family), expected)


@given(evidences(), st.integers(1, 10**9))
def test_solutions_keep_layers_of_one_input_in_one_activation_format(evidence: Evidence, weight: int) -> None:
    """Minimising bytes pulls each layer its own way; ties hold them together."""
    problem = formulate(evidence, {"bytes": 1.0, "quality": float(weight)}, (), real=True)
    chosen = solve(problem).chosen
    scheme = {layer: chosen[group] for group, layers in groups_of(evidence).items() for layer in layers}
    for family in evidence.shared:
        assert len({parse_scheme(scheme[layer]).shared_side for layer in family}) == 1


def test_tied_weights_are_held_once_in_full_precision_and_apart_when_packed() -> None:
    layers = ("unet.a", "unet.b")
    pairs = [(layer, scheme) for layer in layers for scheme in ("keep", "w8a8")]
    evidence = Evidence(
        offered=dict.fromkeys(layers, ("keep", "w8a8")),
        size={pair: 400 if pair[1] == "keep" else 104 for pair in pairs},
        ms=dict.fromkeys(pairs, 1.0),
        losses=LossTable.of([Measurement(layer, "w8a8", "noise", 0.5, 0.1, 2) for layer in layers]),
        metrics={"noise": "quality"}, shared=(), tied=(layers,), simulated=frozenset(), weights=100,
    )  # fmt: skip
    problem = formulate(evidence, {}, (), real=True)
    assert problem.groups == ("unet.a",)
    assert problem.column("bytes").tolist() == [400, 208]
    assert problem.column("noise").tolist() == [0.0, 1.0]
    assert twins_of(evidence.tied) == {"unet.b"}


def test_a_measurement_that_is_missing_is_an_error() -> None:
    evidence = Evidence(
        offered={"unet.a": ("keep", "w8a8")}, size={("unet.a", "keep"): 4, ("unet.a", "w8a8"): 1},
        ms={("unet.a", "keep"): 1.0, ("unet.a", "w8a8"): 1.0}, losses=LossTable.of([]), metrics={"noise": "quality"},
        shared=(), tied=(), simulated=frozenset(), weights=4,
    )  # fmt: skip
    with pytest.raises(MeasurementError, match="run the profile"):
        formulate(evidence, {}, (), real=True)


@pytest.mark.parametrize(
    ("text", "weights"),
    [("both", {"quality": 1.0, "alignment": 1.0}), ("quality", {"quality": 1.0}), ("nsr=2", {"nsr": 2.0}),
     ("quality=1, alignment=0.5", {"quality": 1.0, "alignment": 0.5})],
)  # fmt: skip
def test_objectives(text: str, weights: dict[str, float]) -> None:
    assert weights_of(text) == weights


@pytest.mark.parametrize("text", ["quality=lots", "quality=-1", "quality=nan", "quality=inf"])
def test_no_objectives(text: str) -> None:
    with pytest.raises(UserError, match="quality"):
        weights_of(text)
