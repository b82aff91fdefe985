"""`bitplan inspect` takes a pipeline by its name: the embedded one, a folder, a hub id."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest

import bitplan
from bitplan.planner.errors import UserError
from bitplan.planner.pipelines.places import is_pipeline


def test_scenes_is_told_without_its_weights() -> None:
    told = bitplan.inspect("scenes")
    assert told.facts["name"] == "scenes" and told.facts["planned"] == ["unet"]
    assert {part["component"] for part in told.facts["parts"]} == {"text_encoder", "unet", "vae"}
    assert (
        "planned by default: unet (133 layers)" in str(told)
        and told.facts["parameters"] > told.facts["layer_parameters"]
    )


def test_what_is_said_to_be_planned_is_planned(finished: Path, tiny_folder: Path) -> None:
    planned = bitplan.inspect(tiny_folder).facts["planned"]
    assert {address.partition(".")[0] for address in bitplan.inspect(finished).facts["layers"]} == set(planned)


def test_of_a_hub_id_the_configurations_are_read(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def downloaded(name: str, allow_patterns: list[str]) -> str:
        assert (name, allow_patterns) == ("owner/name", ["*.json"])
        return str(tiny_folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", downloaded)
    told, local = bitplan.inspect("owner/name").facts, bitplan.inspect(tiny_folder).facts
    assert told == local | {"name": "owner/name"}


def test_a_hub_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: 1 / 0)
    with pytest.raises(UserError, match=r"^cannot read the configurations of owner/name on the hub: .*$"):
        bitplan.inspect("owner/name")


def test_other_files_are_no_pipelines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    for name in ("gone", "x/gone.profile", "x/p.plan.yaml", "folder", "folder/gone", "/a/b", "./a", "a/b/c"):
        assert not is_pipeline(name), name


def test_the_profile_of_a_pipeline_is_refused(finished: Path) -> None:
    with pytest.raises(UserError, match="scenes is a pipeline; --profile goes with a plan"):
        bitplan.inspect("scenes", finished)
