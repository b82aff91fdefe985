"""What a profile will take is said before it starts, and alone by `--estimate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bitplan.planner.profiles.profile import open_profile
from tests import tiny

SCHEMES = ("w8a8", "w2ma8")


def test_an_estimate_counts_the_work_and_writes_nothing(
    tiny_folder: Path, clip_folder: Path, tmp_path: Path, command_line: Any
) -> None:
    prompts, out = tmp_path / "p.txt", tmp_path / "t.profile"
    prompts.write_text("\n".join(tiny.PROMPTS))
    asked = ("profile", tiny_folder, "--prompts", prompts, "--schemes", ",".join(SCHEMES), "--clip", clip_folder,
             "--steps", 2, "--timesteps", 2, "--checks", 3)  # fmt: skip
    found = json.loads(command_line(*asked, "--estimate", "--json").stdout)
    assert [path.name for path in tmp_path.iterdir()] == ["p.txt"]
    count = len(tiny.PROMPTS)
    done = command_line(*asked, "--out", out)
    assert done.exit_code == 0, done.stderr
    with open_profile(out) as store:
        assert (found["layers"], found["pairs"]) == (len(store.layers()), len(store.measured()))
        probes = {(r.metric, r.probes) for r in store.responses()}
    assert (found["kind"], found["prompts"]) == ("estimate", count)
    assert found["passes"] == count * sum(number for _, number in probes)
    assert found["runs"] == count * (1 + 3)  # in full precision, and to check 3 estimates
    assert found["disk"] < 2 * out.stat().st_size and out.stat().st_size < 2 * found["disk"]
    assert found["seconds"] > 0 and found["memory"] > 100 * 2**20
    told = f"{found['runs']:,} runs and {found['passes']:,} gradient passes"
    assert told in done.stderr and told in command_line(*asked, "--estimate").stdout


def test_a_place_or_an_estimate_is_asked_for(tmp_path: Path, command_line: Any) -> None:
    for words in ((), ("--estimate", "--out", tmp_path / "t.profile")):
        done = command_line("profile", "scenes", *words)
        assert done.exit_code == 2 and "--out FILE, or else --estimate" in done.stderr
