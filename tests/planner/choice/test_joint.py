"""What a whole plan does, out of responses: against sums and squares done here by hand."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import bitplan
from bitplan.planner.choice.joint import Prediction
from bitplan.planner.errors import UserError
from bitplan.planner.profiles.corrections import estimates_of
from bitplan.planner.profiles.profile import open_profile
from bitplan.planner.profiles.responses import probed, responses_of
from bitplan.plans.plan import Plan, load_plan
from bitplan.sensitivity.metrics import TEXT_TO_IMAGE
from bitplan.sensitivity.table import Measurement
from tests import tiny
from tests.planner.interop.test_foreign import GOOD

FAMILIES_OF = {name: metric.family for name, metric in TEXT_TO_IMAGE.items()}
UNSIGNED = [name for name, metric in TEXT_TO_IMAGE.items() if not metric.signed]
SCHEME = "w2ma8"


@pytest.fixture(scope="module")
def bare(tiny_folder: Path, clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile of estimates alone."""
    out = tmp_path_factory.mktemp("bare") / "t.profile"
    return bitplan.profile(
        str(tiny_folder), out, clip=str(clip_folder), checks=0, **(tiny.SETTINGS | {"schemes": (SCHEME, "w8a8")})
    )


@pytest.fixture(scope="module")
def kept(bare: Path, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Every layer in full precision."""
    return bitplan.solve(bare, tmp_path_factory.mktemp("kept") / "p.yaml", uniform="keep")


def changed(plan: Plan, *layers: str, scheme: str = SCHEME) -> Plan:
    assert set(layers) <= plan.schemes.keys()
    return dataclasses.replace(plan, schemes=dict(plan.schemes) | dict.fromkeys(layers, scheme))


def sums(path: Path) -> dict[tuple[str, str, str], Any]:
    with open_profile(path) as store:
        return {key: np.array(some, float) for key, some in responses_of(store).items()}


def losses(path: Path) -> dict[tuple[str, str, str], Measurement]:
    with open_profile(path) as store:
        return {(m.layer, m.scheme, m.metric): m for m in store.measurements()}


def test_keeping_everything_changes_nothing(bare: Path, kept: Plan) -> None:
    found = bitplan.predict(kept, bare)
    assert list(found) == list(TEXT_TO_IMAGE)
    assert all((p.added, p.joint, p.stderr, p.interaction) == (0, 0, 0, 1) for p in found.values())


def test_one_layer_is_its_own_loss(bare: Path, kept: Plan) -> None:
    measured = losses(bare)
    for layer in ("unet.conv_in", "unet.conv_out"):
        for name, p in bitplan.predict(changed(kept, layer), bare).items():
            loss = measured[layer, SCHEME, name]
            assert p.joint == pytest.approx(loss.mean, rel=1e-9)
            assert p.stderr == pytest.approx(loss.stderr, rel=1e-9)
            assert p.added == pytest.approx(max(loss.mean, 0), rel=1e-9)
            assert math.isnan(p.interaction) if TEXT_TO_IMAGE[name].signed else p.interaction == pytest.approx(1)


def test_two_layers_by_brute_force(bare: Path, kept: Plan) -> None:
    """Responses first added, then squared; their cross term is not 0."""
    a, b = "unet.conv_in", "unet.conv_out"
    held, measured = sums(bare), losses(bare)
    found = bitplan.predict(changed(kept, a, b), bare)
    for name in TEXT_TO_IMAGE:
        one, other = held[a, SCHEME, name], held[b, SCHEME, name]
        if TEXT_TO_IMAGE[name].signed:
            assert found[name].joint == pytest.approx(float((one + other)[0].mean()), rel=1e-6)
            continue
        joint = float(np.square(one + other).mean())
        assert found[name].joint == pytest.approx(joint, rel=1e-6)
        assert found[name].added == pytest.approx(measured[a, SCHEME, name].mean + measured[b, SCHEME, name].mean)
        assert found[name].interaction == pytest.approx(joint / (np.square(one).mean() + np.square(other).mean()))
        assert abs(found[name].interaction - 1) > 1e-4


def test_the_whole_model_by_brute_force(bare: Path, kept: Plan) -> None:
    held = sums(bare)
    for scheme in (SCHEME, "w8a8"):
        plan = changed(kept, *kept.schemes, scheme=scheme)
        for name in UNSIGNED:
            every = sum(held[layer, scheme, name] for layer in plan.schemes)
            assert bitplan.predict(plan, bare)[name].joint == pytest.approx(float(np.square(every).mean()), rel=1e-5)


def test_measured_and_corrected_losses_are_kept(finished: Path, tmp_path: Path) -> None:
    """The interaction is the responses'; the sizes are the profile's."""
    path = shutil.copy(finished, tmp_path / "t.profile")
    with open_profile(path, "a") as store:
        moved = [m for m in store.measurements() if m.source == "probes"][::3]
        store.write_measurements(
            [dataclasses.replace(m, mean=2 * m.mean, source="corrected") for m in moved], FAMILIES_OF
        )
    plan = bitplan.solve(path, tmp_path / "p.yaml", uniform="w4g64ma8", kernels="fake")
    held, measured = sums(path), losses(path)
    with open_profile(path) as store:
        estimates = estimates_of(store)
        readings = probed(store).readings
    assert {m.source for m in measured.values()} == {"exhaustive", "probes", "corrected"}
    for name, p in bitplan.predict(plan, path).items():
        keys = [(layer, scheme, name) for layer, scheme in plan.schemes.items() if scheme != "keep"]
        assert p.added == pytest.approx(sum(max(measured[key].mean, 0) for key in keys))
        if readings[name].signed:
            continue
        joint = float(np.square(sum(held[key] for key in keys)).mean())
        alone = sum(estimates[key].mean for key in keys)
        assert p.interaction == pytest.approx(joint / alone, rel=1e-5)
        assert p.joint == pytest.approx(p.added * p.interaction)


def test_a_plan_may_be_a_file_and_the_shell_says_the_same(command_line: Any, finished: Path, tmp_path: Path) -> None:
    path = tmp_path / "p.plan.yaml"
    plan = bitplan.solve(finished, path, memory="30%")
    found = bitplan.predict(path, finished)
    assert repr(found) == repr(bitplan.predict(plan, finished))
    assert all(isinstance(p, Prediction) for p in found.values())
    text = command_line("predict", path, finished).output
    for name, p in found.items():
        assert f"{p.joint:.4g} ± {p.stderr:.1g}" in text
        assert name in text
    assert "nan" not in text


def test_another_model_is_refused(bare: Path, kept: Plan) -> None:
    other = dataclasses.replace(kept, model=dict(kept.model) | {"fingerprint": "0" * 64})
    with pytest.raises(UserError, match="own profile"):
        bitplan.predict(other, bare)


def test_a_profile_of_another_tool_is_refused(tmp_path: Path, command_line: Any) -> None:
    out, plan = tmp_path / "m.profile", tmp_path / "p.plan.yaml"
    for name, data in GOOD.items():
        (tmp_path / name).write_text(yaml.safe_dump(data, sort_keys=False))
    bitplan.import_profile("mixdq", tmp_path, out)
    bitplan.solve(out, plan, bits=6, kernels="fake", objective="quality")
    result = command_line("predict", plan, out)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "profile with --method probes" in result.stderr


def test_candidates_are_put_in_order_by_the_joint_estimate(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.plan.yaml"
    best = bitplan.solve(finished, out, memory="22%", objective="nsr", candidates=3, rerank="joint")
    plans = [load_plan(tmp_path / f"p.{number}.plan.yaml") for number in (1, 2, 3)]
    joint = [bitplan.predict(plan, finished)["nsr"].joint for plan in plans]
    assert len(set(joint)) == 3
    assert load_plan(out).schemes == best.schemes == plans[int(np.argmin(joint))].schemes
    ranking = json.loads((tmp_path / "p.ranking.json").read_text())["ranking"]
    assert [row["losses"]["nsr"][0] for row in ranking] == pytest.approx(sorted(joint))


def test_a_layer_without_responses_counts_by_its_loss_alone(profile: Path, tmp_path: Path) -> None:
    plan = bitplan.solve(profile, tmp_path / "p.yaml", uniform="w8a8")
    before = bitplan.predict(plan, profile)["nsr"]
    with sqlite3.connect(profile) as db:
        db.execute("DELETE FROM responses WHERE layer = 'unet.conv_in'")
    after = bitplan.predict(plan, profile)["nsr"]
    assert after.added == before.added
    assert after.joint != before.joint
