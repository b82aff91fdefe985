"""A profile checked against a fine-tune: the regret by brute force, error rates by simulation, and the tiny model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from diffusers import UNet2DConditionModel
from scipy.stats import spearmanr

import bitplan
from bitplan.planner.choice.evidence import Evidence
from bitplan.planner.cli import main
from bitplan.planner.errors import BAD_INPUT, NO, UserError
from bitplan.planner.finetunes.ratios import ratios_of
from bitplan.planner.finetunes.verdict import SAME, CheckInputs, conclude
from bitplan.planner.profiles.profile import open_profile
from bitplan.sensitivity.agreement import Compared, agreement_of, compare, spearman
from bitplan.sensitivity.table import LossTable, Measurement
from bitplan.solvers.questions.regret import (
    BROKEN,
    HOLDS,
    UNSURE,
    RegretVerdict,
)

# comparing -------------------------------------------------------------------------------------------------------


def one(layer: int, metric: str, mean: float, stderr: float = 0.0, source: str = "exhaustive") -> Measurement:
    return Measurement(f"unet.{layer}", "w4a8", metric, mean, stderr, 8, True, source)


def evidence(losses: list[Measurement]) -> Evidence:
    metrics = {"nsr": "quality", "dssim": "quality"}
    return Evidence({}, {}, {}, LossTable.of(losses), metrics, (), (), frozenset(), 1)


def test_factors_of_metrics_are_taken_out_before_they_are_averaged() -> None:
    rng = np.random.default_rng(0)
    sizes = np.exp(rng.standard_normal(20))
    old = [one(i, metric, size) for i, size in enumerate(sizes) for metric in ("nsr", "dssim")]
    new = [one(i, m, size * f) for i, size in enumerate(sizes) for m, f in (("nsr", 3.0), ("dssim", 0.1))]
    known = evidence(old)
    pairs = [(f"unet.{i}", "w4a8") for i in range(20)]
    ratios, noise = ratios_of(known, "quality", pairs, compare(known.losses.measurements, new, {}))
    assert np.ptp(ratios) == pytest.approx(0, abs=1e-12) and (noise == 0).all()


def test_a_loss_of_nothing_is_no_infinite_ratio() -> None:
    old = [one(i, "nsr", float(i)) for i in range(8)]
    known = evidence(old)
    new = [one(i, "nsr", float(i or 1)) for i in range(8)]
    pairs = [(f"unet.{i}", "w4a8") for i in range(8)]
    ratios, _ = ratios_of(known, "quality", pairs, compare(known.losses.measurements, new, {}))
    assert np.isfinite(ratios).all() and np.ptp(ratios) == pytest.approx(np.log(1000))


def test_estimates_count_their_scatter_and_measurements_do_not() -> None:
    guess, sure = (Compared(one(0, "nsr", 1.0, 0.2, s), one(0, "nsr", 1.0, 0.1), x)
                   for s, x in (("probes", 0.3), ("exhaustive", 0.0)))  # fmt: skip
    assert guess.errors == pytest.approx((0.09 + 0.005, 0.005))
    assert sure.errors == pytest.approx((0.02, 0.005))
    old = {(m.layer, m.scheme, m.metric): m for m in (one(0, "nsr", 1.0, 0, "corrected"), one(1, "nsr", 1.0))}
    found = compare(old, [one(0, "nsr", 1.0), one(1, "nsr", 1.0)], {"nsr": 0.4})
    assert [each.scatter for each in found] == [0.4, 0.0]


def test_the_rank_correlation_and_its_interval_cover_the_truth() -> None:
    """Of losses that agree in truth, measured with errors: the interval tells what was seen, `clean` what is true."""
    rng, inside, clean = np.random.default_rng(0), 0, []
    for _ in range(100):
        truth = rng.standard_normal(24)
        old, new = (np.exp(truth + 0.5 * rng.standard_normal(24)) for _ in range(2))
        pairs = [Compared(one(i, "nsr", a, a * 0.5**0.5), one(i, "nsr", b, b * 0.5**0.5), 0.0)
                 for i, (a, b) in enumerate(zip(old, new, strict=True))]  # fmt: skip
        found = agreement_of(pairs, "nsr", "quality")
        inside += found.low <= 0.786 <= found.high  # of normals that correlate by 1 / 1.25
        clean.append(found.clean)
    assert 80 <= inside <= 98
    assert np.median(clean) > 0.93


@pytest.mark.parametrize("seed", range(4))
def test_rank_correlation_with_ties(seed: int) -> None:
    a, b = np.random.default_rng(seed).integers(0, 6, (2, 15)).astype(float)
    assert spearman(a, b) == pytest.approx(spearmanr(a, b)[0])
    assert np.isnan(spearman(a, np.ones(15))) and np.isnan(spearman(a[:2], b[:2]))


def test_a_signed_metric_has_ranks_alone() -> None:
    pairs = [Compared(one(i, "nsr", i - 3.0), one(i, "nsr", 2.0 * i - 6), 0.0) for i in range(8)]
    found = agreement_of(pairs, "nsr", "quality")
    assert found.spearman == pytest.approx(1) and np.isnan(found.spread)


def test_what_one_family_cannot_do_the_plans_cannot() -> None:
    told = CheckInputs("x.profile", "tuned", 0.1, False, False)
    good, bad, open_ = (
        RegretVerdict(name, regret, regret / 2, regret * 2, 0.1, 0.1, 24, verdict, 99 * (verdict == UNSURE))
        for name, regret, verdict in (("quality", 0.01, HOLDS), ("alignment", 0.9, BROKEN), ("alignment", 0.1, UNSURE))
    )
    assert conclude(told, [good, bad], (), ()).verdict == BROKEN
    found = conclude(told, [good, open_], (), ())
    assert found.verdict == UNSURE and "--sample 99" in found.sentence and not found.holds
    assert conclude(told, [good], (), ()).holds and conclude(told, (), (), ()).verdict == SAME


# the tiny model --------------------------------------------------------------------------------------------------


@torch.no_grad()
def tuned(pipeline: Path, out: Path, change: Any) -> Path:
    """A copy whose UNet is changed."""
    shutil.copytree(pipeline, out)
    unet = UNet2DConditionModel.from_pretrained(out / "unet")
    change(unet)
    unet.save_pretrained(out / "unet")
    return out


def nudge(unet: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    for weight in unet.parameters():
        weight *= 1 + 1e-4 * torch.randn(weight.shape, generator=generator)


def spoil(unet: torch.nn.Module) -> None:
    """Every second layer gets a weight that makes its scale useless for the others."""
    layers = [m for m in unet.modules() if isinstance(m, (torch.nn.Linear, torch.nn.Conv2d))]
    for layer in layers[::2]:
        layer.weight.flatten(1)[:, 0] += 30 * layer.weight.abs().max()


@pytest.fixture(scope="module")
def mild(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tuned(tiny_folder, tmp_path_factory.mktemp("mild") / "pipeline", nudge)


def test_a_mild_fine_tune_is_found_to_agree(oracle: Path, mild: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["check", str(oracle), str(mild), "--sample", "12", "--out", f"{tmp_path}/c.json"])
    assert done.exit_code == 0, done.output
    assert "holds: on" in done.output and "--allow-mismatch" in done.output and "static activations" in done.output
    found = json.loads((tmp_path / "c.json").read_text())
    assert found["verdict"] == HOLDS and len(found["compared"]) == 12 * 4
    assert all(0.9 < each["factor"] < 1.1 for each in found["metrics"] if each["factor"])


def test_a_spoilt_one_is_found_not_to(oracle: Path, tiny_folder: Path, tmp_path: Path) -> None:
    bad = tuned(tiny_folder, tmp_path / "bad", spoil)
    done = CliRunner().invoke(main, ["check", str(oracle), str(bad), "--sample", "16"])
    assert done.exit_code == NO, done.output
    assert "does not hold" in done.output and f"bitplan profile {bad}" in done.output


def test_the_same_weights_are_not_measured(finished: Path, tiny_folder: Path, tmp_path: Path) -> None:
    found = bitplan.check(finished, str(tiny_folder), clip=str(tmp_path))  # from which nothing can be loaded
    assert found.verdict == SAME and found.holds and found.compared == ()


def test_a_plan_alone_is_judged_by_the_families_that_it_weighs(finished: Path, mild: Path, tmp_path: Path) -> None:
    plan = bitplan.solve(finished, tmp_path / "p.plan.yaml", memory="20%", objective="nsr")
    found = bitplan.check(finished, str(mild), sample=6, plan=plan)
    assert [each.column for each in found.families] == ["quality"]
    assert {c.new.layer for c in found.compared} <= set(plan.schemes) and "the loss of the plan is" in found.sentence


def test_a_plan_is_applied_as_the_message_says(oracle: Path, mild: Path, tmp_path: Path) -> None:
    from bitplan.planner.pipelines.sources import load_pipeline

    plan = bitplan.solve(oracle, tmp_path / "p.plan.yaml", memory="20%")
    bitplan.restore(bitplan.apply(load_pipeline(str(mild)), plan, allow_mismatch=True))


@pytest.mark.parametrize(("options", "says"), [
    ({"sample": 0}, "a sample of 0"), ({"tolerance": 0.0}, "--tolerance 0.0"), ({"tolerance": float("nan")}, "nan"),
    ({"out": "/nowhere/c.json"}, "does not exist"),
])  # fmt: skip
def test_bad_options_are_refused_before_anything_is_loaded(
    finished: Path, options: Any, says: str, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bitplan.planner.pipelines.sources.load_subject", lambda *_: pytest.fail("loaded"))
    with pytest.raises(UserError, match=says):
        bitplan.check(finished, str(tiny_folder), **options)


def test_another_architecture_is_refused(finished: Path, tiny_folder: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(tiny_folder, tmp_path / "other"))
    config = json.loads((other / "unet" / "config.json").read_text())
    torch.manual_seed(0)
    UNet2DConditionModel.from_config(config | {"block_out_channels": [32, 96]}).save_pretrained(other / "unet")
    done = CliRunner().invoke(main, ["check", str(finished), str(other)])
    assert done.exit_code == BAD_INPUT and "other layers" in done.output and "Traceback" not in done.output


def test_plans_of_others_and_profiles_from_elsewhere_are_refused(finished: Path, mild: Path, tmp_path: Path) -> None:
    import dataclasses

    plan = bitplan.solve(finished, tmp_path / "p.plan.yaml", memory="20%")
    alien = dataclasses.replace(plan, model={**plan.model, "fingerprint": "0" * 64})
    with pytest.raises(UserError, match="own profile"):
        bitplan.check(finished, str(mild), plan=alien)
    from bitplan.planner.finetunes.check import settings_of

    with open_profile(finished) as store:
        header = store.header()

    class Imported:
        path = "mixdq.profile"

        def header(self) -> dict[str, Any]:
            return header | {"settings": {"metric": "nsr"}}

    with pytest.raises(UserError, match="not measured by BitPlan"):
        settings_of(Imported())  # type: ignore[arg-type]
