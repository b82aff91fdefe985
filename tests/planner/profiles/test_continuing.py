"""A profile is continued by whatever means the same; what differs is named with both values and its option."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import bitplan
from bitplan.planner.profiles.continuing import check_same
from bitplan.planner.profiles.profile import ProfileError, content_digest, open_profile
from tests import tiny

HEADER: dict[str, Any] = {
    "model": {"name": "tiny/pipe", "components": ["unet", "vae"], "fingerprint": "ab", "architecture": "cd"},
    "settings": {
        "prompts": ["a", "b"], "schemes": ["w8a8", "w4a8"], "timesteps": 4, "components": [], "clip": "hub/clip",
        "generation": {"steps": 20, "guidance": None, "seed": 0},
    },
    "machine": {"processor": "x86_64", "threads": 4},
}  # fmt: skip


def with_change(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    header = copy.deepcopy(HEADER)
    change(header)
    return header


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h["model"].update(name="./tiny/pipe", components=["vae", "unet"]),
        lambda h: h["settings"].update(schemes=["w4a8", "keep", "w8a8"], components=["unet", "vae"], metrics=[]),
        lambda h: h["settings"].update(clip="./hub/../hub/clip"),
        lambda h: h["machine"].update(threads=1),
    ],
)
def test_what_means_the_same_is_continued(change: Callable[[dict[str, Any]], object]) -> None:
    check_same(Path("x.profile"), HEADER, with_change(change))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda h: h["model"].update(fingerprint="ef"), 'PIPELINE (the fingerprint of its weights) "ab" -> "ef"'),
        (lambda h: h["settings"].update(prompts=["a", "c"]), '--prompts (entry 2) "b" -> "c"'),
        (lambda h: h["settings"].update(prompts=["a"]), "--prompts 2 entries -> 1"),
        (lambda h: h["settings"].update(schemes=["w8a8", "w3a8"]), "--schemes w8a8,w4a8 -> w8a8,w3a8"),
        (lambda h: h["settings"].update(metrics=["psnr"]), "--metric none -> psnr"),
        (lambda h: h["settings"].update(clip="hub/other"), '--clip "hub/clip" -> "hub/other"'),
        (lambda h: h["settings"]["generation"].update(steps=8, seed=1), "--steps 20 -> 8; --seed 0 -> 1; give the old"),
        (lambda h: h["settings"]["generation"].update(options={"eta": 1}), '--call absent -> {"eta": 1}'),
    ],
)
def test_what_differs_is_named(change: Callable[[dict[str, Any]], object], said: str) -> None:
    with pytest.raises(ProfileError, match=r"^x.profile: cannot be continued: .*--out$") as refused:
        check_same(Path("x.profile"), HEADER, with_change(change))
    assert said in str(refused.value)


def test_a_profile_is_continued_from_elsewhere_with_lists_in_another_order(
    tiny_folder: Path, clip_folder: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = Path(shutil.copy(finished, tmp_path / "t.profile"))
    with open_profile(out, "a") as store, store._transaction() as db:
        db.execute("UPDATE header SET value = json_set(value, '$.threads', 63) WHERE key = 'machine'")
    monkeypatch.chdir(tiny_folder.parent)
    again = {**tiny.SETTINGS, "schemes": tiny.SCHEMES[::-1], "components": ["unet"]}
    bitplan.profile(f"./{tiny_folder.name}", out, clip=f"{clip_folder}/../{clip_folder.name}", **again)
    with open_profile(finished) as one, open_profile(out) as two:
        assert content_digest(one) == content_digest(two) and one.schemes() == two.schemes()
    now = torch.get_num_threads()
    assert f"was begun with 63 threads and goes on with {now}; timings may differ" in capsys.readouterr().err
