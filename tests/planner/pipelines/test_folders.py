"""A saved pipeline is data: its files run no code and read no files elsewhere."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from diffusers import DiffusionPipeline

from bitplan.planner.errors import UserError
from bitplan.planner.pipelines.references import typed
from bitplan.planner.pipelines.sources import load_pipeline
from bitplan.plans.files import PathError

CODE = (
    "open('imported.txt', 'w').close()\nfrom diffusers import StableDiffusionPipeline as P, UNet2DConditionModel as U\n"
)


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a pipeline, with code in the current folder, in its own and in one of its component's."""
    copy = Path(shutil.copytree(tiny_folder, tmp_path / "copy"))
    for place in (tmp_path, copy, copy / "unet"):
        (place / "strange.py").write_text(CODE, "utf-8")
    (copy / "pipeline.py").write_text(CODE, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [str(tmp_path), *sys.path])
    return copy


def changed(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads(path.read_text("utf-8"))
    change(data)
    path.write_text(json.dumps(data), "utf-8")


@pytest.mark.parametrize("imported", [False, True])
@pytest.mark.parametrize(
    ("entry", "value"),
    [("unet", ["strange", "U"]), ("unet", ["os", "abort"]), ("unet", ["diffusers.utils.x", "U"]), ("unet", [7, "U"]),
     ("_class_name", ["strange", "P"]), ("_class_name", None)],
)  # fmt: skip
def test_classes_of_other_code_are_refused(
    entry: str, value: Any, imported: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older diffusers import what the index names; newer ones take any module that is imported already."""
    if imported:
        monkeypatch.setitem(sys.modules, "strange", sys.modules["diffusers"])
    changed(folder / "model_index.json", lambda index: index.update({entry: value}))
    with pytest.raises(UserError, match="package.module:name"):
        load_pipeline(typed(str(folder)))
    assert not (folder.parent / "imported.txt").exists()


def test_code_that_no_file_names_stays_unused(folder: Path) -> None:
    assert type(load_pipeline(str(folder)).unet).__name__ == "UNet2DConditionModel"
    assert not (folder.parent / "imported.txt").exists()


@pytest.mark.parametrize("name", ["None.py", "unet/diffusers.py", "text_encoder/transformers.py"])
def test_code_that_older_diffusers_runs_unasked_is_refused(name: str, folder: Path) -> None:
    (folder / name).write_text(CODE, "utf-8")
    with pytest.raises(UserError, match="brings code in"):
        load_pipeline(typed(str(folder)))
    assert not (folder.parent / "imported.txt").exists()


def test_classes_that_look_for_code_of_the_folder_are_refused(folder: Path) -> None:
    """transformers would ask on standard input whether to run it."""
    changed(folder / "model_index.json", lambda index: index.update(tokenizer=["transformers", "AutoTokenizer"]))
    code = {"auto_map": {"AutoTokenizer": ["strange.P", None]}}
    changed(folder / "tokenizer" / "tokenizer_config.json", lambda config: config.update(code))
    with pytest.raises(UserError, match="the tokenizer of .* is a class of its own code"):
        load_pipeline(str(folder))


def test_a_pipeline_of_the_hub_is_checked_before_it_is_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "None.py").write_text(CODE, "utf-8")
    monkeypatch.setattr(DiffusionPipeline, "load_config", lambda name: index)
    monkeypatch.setattr(DiffusionPipeline, "download", lambda name, trust_remote_code, variant: str(folder))
    monkeypatch.setattr(DiffusionPipeline, "from_pretrained", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(UserError, match="some/pipeline brings code in None.py"):
        load_pipeline("some/pipeline")


def test_weights_in_several_files_lie_beside_their_index(folder: Path) -> None:
    pipe = load_pipeline(str(folder))
    pipe.unet.save_pretrained(folder / "unet", max_shard_size="100KB")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    [index] = (folder / "unet").glob("*.index.json")
    assert load_pipeline(str(folder)).unet.num_parameters() == pipe.unet.num_parameters()
    names = json.loads(index.read_text())["weight_map"]
    for outside in (str(folder / "unet" / names["conv_in.weight"]), "../unet/" + names["conv_in.weight"], "a\0"):
        changed(index, lambda data, outside=outside: data["weight_map"].update({"conv_in.weight": outside}))
        with pytest.raises(PathError, match="is refused as a file name"):
            load_pipeline(str(folder))
    for wrong in ("[]", '{"weight_map": 3}', "{", "[" * 10**5):
        index.write_text(wrong)
        with pytest.raises(UserError, match="is not an index of weights"):
            load_pipeline(str(folder))
