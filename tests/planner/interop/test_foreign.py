"""Imports of foreign measurements: small folders written here, and the published one where BITPLAN_MIXDQ names it."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import bitplan
from bitplan.planner.choice.evidence import read_evidence
from bitplan.planner.errors import BAD_INPUT, UserError
from bitplan.planner.interop.foreign import FORMATS
from bitplan.planner.interop.foreign.mixdq import FILES, FLOOR, RATIO, SCHEMES, SQNR, SSIM, UNIT
from bitplan.planner.profiles.profile import content_digest, open_profile
from bitplan.plans.plan import load_plan
from bitplan.plans.scheme import parse_scheme

PUBLISHED = os.environ.get("BITPLAN_MIXDQ")
GOOD: dict[str, dict[str, Any]] = {
    SQNR: {
        "model.conv_in": [10.0, 30.0, 50],
        "model.mid_block.attn2.to_q": [80.0, 83.9, 83.85],  # both above the floor
        "model.mid_block.ff.net.2": [40.0, 39.0, 60.0],  # 4 bits lose more than 2
    },
    SSIM: {"model.mid_block.attn2.to_q": [0.5, 0.9, 0.75], "model.mid_block.ff.net.2": [0.25, 0.5, 1.0]},
    RATIO: {"model.conv_in": 1.0, "model.mid_block.attn2.to_q": 142.22222222222223, "model.mid_block.ff.net.2": 0.5},
}
ADDRESSES = ("unet.conv_in", "unet.mid_block.attn2.to_q", "unet.mid_block.ff.net.2")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A valid folder, to be damaged."""
    (tmp_path / "measured").mkdir()
    for name, data in GOOD.items():
        (tmp_path / "measured" / name).write_text(yaml.safe_dump(data, sort_keys=False))
    return tmp_path / "measured"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "m.profile"


def test_the_numbers_are_those_of_the_files(folder: Path, out: Path) -> None:
    bitplan.import_profile("mixdq", folder, out)
    with open_profile(out) as store:
        evidence, header = read_evidence(store), store.header()
        assert store.layers() == ADDRESSES and store.families() == {"nsr": "quality", "dssim": "alignment"}
        assert all(cost.ms is None for cost in store.costs())
    counts = dict(zip(ADDRESSES, (11520, 1280 * 1280, 5760), strict=True))
    assert UNIT == 11520 and evidence.weights == sum(counts.values())
    bits = dict(zip(("keep", *SCHEMES), (16, 2, 4, 8), strict=True))
    assert evidence.size == {(a, s): counts[a] * bits[s] // 8 for a in ADDRESSES for s in bits}
    floor, lost = 10 ** (-FLOOR / 10), evidence.losses.loss
    noise = {a: [lost(a, s, "nsr") for s in SCHEMES] for a in ADDRESSES}
    blur = {a: [lost(a, s, "dssim") for s in SCHEMES] for a in ADDRESSES}
    assert noise["unet.conv_in"] == pytest.approx([1e-1, 1e-3, 1e-5])
    assert noise["unet.mid_block.attn2.to_q"] == pytest.approx([1e-8, floor, floor])
    assert noise["unet.mid_block.ff.net.2"] == pytest.approx([10**-3.9, 10**-3.9, 1e-6])
    assert list(blur.values()) == [[0, 0, 0], [0.5, 0.25, 0.25], [0.75, 0.5, 0]]
    said = header["source"]["decided"]
    assert "3 layers" in said and "2 of 9 SQNRs above 83.8 dB" in said
    assert "1 layers by SQNR, 1 by SSIM; 1 layers have no SSIM" in said


def test_schemes_parse_and_the_unit_carries_bits() -> None:
    assert [parse_scheme(s).weight.bits for s in SCHEMES] == [2, 4, 8]
    assert all(parse_scheme(s).weight.affine and parse_scheme(s).inputs.bits == 16 for s in SCHEMES)


def test_the_story_goes_on_from_an_imported_profile(folder: Path, out: Path, tmp_path: Path, command_line: Any) -> None:
    told = command_line("import", "mixdq", folder, "--out", out)
    assert told.exit_code == 0 and "2 of 9 SQNRs" in told.output.splitlines()[0]
    assert "3 layers" in command_line("inspect", out).output
    plan = bitplan.solve(out, tmp_path / "p.plan.yaml", bits=4, objective="nsr", caps={"dssim": "w4za16"})
    total = plan.predictions["total"]
    assert total["bytes"] <= 4 * (11520 + 1280 * 1280 + 5760) / 8 and total["dssim"] <= 0.75
    assert load_plan(tmp_path / "p.plan.yaml") == plan and tuple(plan.schemes) == ADDRESSES
    assert bitplan.solve(out, tmp_path / "q.plan.yaml", bits=3).solver["status"] == "optimal"  # default objective
    assert command_line("inspect", tmp_path / "p.plan.yaml").exit_code == 0


def test_importing_again_changes_nothing_and_a_killed_import_is_finished(folder: Path, out: Path) -> None:
    bitplan.import_profile("mixdq", folder, out)
    with open_profile(out) as store:
        whole = content_digest(store)
    bitplan.import_profile("mixdq", folder, out)
    with open_profile(out, "a") as store, store._transaction() as db:
        db.execute("DELETE FROM measurements WHERE layer = ?", (ADDRESSES[1],))
        db.execute("DELETE FROM costs")
    bitplan.import_profile("mixdq", folder, out)
    with open_profile(out) as store:
        assert content_digest(store) == whole and len(store.costs()) == 12


def test_other_measurements_do_not_go_into_the_same_profile(folder: Path, out: Path) -> None:
    bitplan.import_profile("mixdq", folder, out)
    (folder / SQNR).write_text((folder / SQNR).read_text().replace("10.0", "11.0"))
    with pytest.raises(ValueError, match="cannot be continued"):
        bitplan.import_profile("mixdq", folder, out)


def entry(file: str, layer: str, value: Any) -> Callable[[Path], None]:
    """Replaces, adds or, for None, removes one entry."""

    def spoil(folder: Path) -> None:
        data = {key: old for key, old in GOOD[file].items() if key != layer}
        data |= {} if value is None else {layer: value}
        (folder / file).write_text(yaml.safe_dump(data))

    return spoil


def text(file: str, value: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_bytes(value.encode("latin-1")) and None


CONV = "model.conv_in"
SPOILT: dict[str, tuple[Callable[[Path], Any], str]] = {
    **{f"no {name}": (lambda folder, name=name: (folder / name).unlink(), "cannot read") for name in FILES},
    "no folder": (shutil.rmtree, "give the folder"),
    "broken yaml": (text(SQNR, "a: [1, 2"), "is not YAML"),
    "bytes": (text(SSIM, "\xff\xfe\x00"), "is not YAML"),
    "control characters": (text(RATIO, "a: \x00"), "is not YAML"),
    "a tag that runs code": (text(RATIO, "!!python/object/apply:os.getcwd []"), "is not YAML"),
    "a tag of no value": (text(RATIO, "a: !!bool maybe"), "is not YAML"),
    "a tag of no time": (text(RATIO, "a: !!timestamp nope"), "is not YAML"),
    "deep lists": (text(RATIO, "a: " + "[" * 5000 + "]" * 5000), "ratio_weight.yaml"),
    "more digits than a float has": (entry(SQNR, CONV, [1.0, 10**400, 3.0]), "3 finite numbers"),
    "digits without end": (text(SQNR, "model.conv_in: 0x" + "f" * 9000), "3 finite numbers"),
    "a name that a terminal obeys": (entry(RATIO, "model.\x1b[2J", 1.0), "unet.\\x1b[2J"),
    "more noise than a float has": (entry(SQNR, CONV, [-1e5, 2.0, 3.0]), "at least -300"),
    "more weights than a file holds": (entry(RATIO, CONV, 1e300), "whole number"),
    "a list": (text(RATIO, "- 1\n- 2\n"), "maps no layers"),
    "empty": (text(SQNR, ""), "maps no layers"),
    "two numbers": (entry(SQNR, CONV, [1.0, 2.0]), "3 finite numbers"),
    "four numbers": (entry(SQNR, CONV, [1.0, 2.0, 3.0, 4.0]), "3 finite numbers"),
    "one number": (entry(SQNR, CONV, 1.0), "3 finite numbers"),
    "a list of ratios": (entry(RATIO, CONV, [1.0, 2.0]), "1 finite numbers"),
    "nan": (entry(SQNR, CONV, [1.0, math.nan, 3.0]), "nan"),
    "infinite": (entry(RATIO, CONV, math.inf), "inf"),
    "a word": (entry(SQNR, CONV, [1.0, "high", 3.0]), "high"),
    "a truth": (entry(RATIO, CONV, True), "True"),
    "nothing": (entry(SQNR, CONV, [1.0, None, 3.0]), "None"),
    "no whole count": (entry(RATIO, CONV, 1.00001), "whole number"),
    "no weights": (entry(RATIO, CONV, 0.0), "whole number"),
    "negative": (entry(RATIO, CONV, -1.0), "whole number"),
    "ssim of dB": (entry(SSIM, "model.mid_block.ff.net.2", [20.0, 30.0, 40.0]), "between -1 and 1"),
    "layer without ratio": (entry(RATIO, CONV, None), "unet.conv_in"),
    "layer without dB": (entry(SQNR, CONV, None), "unet.conv_in"),
    "ssim of another model": (entry(SSIM, "model.stranger", [0.1, 0.2, 0.3]), "unet.stranger"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_bad_folders_are_one_line_of_advice(name: str, folder: Path, out: Path, command_line: Any) -> None:
    spoil, words = SPOILT[name]
    spoil(folder)
    done = command_line("import", "mixdq", folder, "--out", out)
    assert done.exit_code == BAD_INPUT and words in done.stderr
    assert done.stderr.startswith("bitplan: ") and done.stderr.count("\n") == 1
    assert not out.exists()


def test_unknown_formats_are_refused_and_known_ones_are_in_the_help(folder: Path, out: Path, command_line: Any) -> None:
    with pytest.raises(UserError, match=r"no foreign format 'hawq' \(formats: mixdq\)"):
        bitplan.import_profile("hawq", folder, out)
    assert all(name in command_line("import", "--help").output for name in FORMATS)


@pytest.mark.skipif(not PUBLISHED, reason="BITPLAN_MIXDQ does not name the folder of MixDQ's files")
def test_the_published_files(out: Path, tmp_path: Path) -> None:
    said = bitplan.import_profile("mixdq", str(PUBLISHED), out)
    assert "794 layers" in said and "2 layers by SQNR, 8 by SSIM; 374 layers" in said
    with open_profile(out) as store:
        assert read_evidence(store).weights == 2_565_880_320
    plan = bitplan.solve(out, tmp_path / "p.plan.yaml", bits=4.0064, objective="nsr", caps={"dssim": "0.7584"})
    assert plan.solver["status"] == "optimal" and plan.predictions["total"]["nsr"] < 2.2126e-3 / 1.4
