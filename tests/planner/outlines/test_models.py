"""Configurations that are damaged, or not what they seem, are refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bitplan.planner.pipelines.sources import load_pipeline

SPOILT: dict[str, tuple[str, str]] = {
    "deep lists": ("[" * 10_000 + "]" * 10_000, "is not JSON"),
    "a class that is no list": ('{"architectures": {"a": 1}}', "names no class"),
    "a number of classes": ('{"architectures": 5}', "names no class"),
    "no class": ('{"architectures": []}', "names no class"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_configuration_is_one_line(name: str, tmp_path: Path, command_line: Any) -> None:
    text, words = SPOILT[name]
    (tmp_path / "config.json").write_text(text)
    done = command_line("inspect", "--config", tmp_path / "config.json")
    assert done.exit_code == 2 and words in done.stderr and done.stderr.count("\n") == 1


def test_an_index_names_classes_by_texts(tmp_path: Path, command_line: Any) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"unet": ["diffusers", 5]}))
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text("{}")
    done = command_line("inspect", "--config", tmp_path)
    assert done.exit_code == 2 and "no configuration of a module" in done.stderr


def test_a_pipeline_that_cannot_be_loaded_is_one_line(
    tiny_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Diffusers also logs what it raises, which would be a second line."""
    import logging
    import shutil

    folder = shutil.copytree(tiny_folder, tmp_path / "copy")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    logger, seen = logging.getLogger("diffusers"), logging.Handler()
    seen.emit = caplog.records.append  # type: ignore[method-assign]
    logger.addHandler(seen)
    try:
        with pytest.raises(ValueError, match="cannot load the pipeline"):
            load_pipeline(str(folder))
    finally:
        logger.removeHandler(seen)
    assert not caplog.records


@pytest.mark.parametrize("size", [[8], [8, 8, 8], "8", 0.5, -8, [8, True], ["8", 8], {"a": 8}])
def test_a_sample_size_that_is_none_is_one_line(size: Any, tmp_path: Path, command_line: Any) -> None:
    data = {"_class_name": "UNet2DModel", **SMALL, "sample_size": size}
    (tmp_path / "config.json").write_text(json.dumps(data))
    done = command_line("inspect", "--config", tmp_path)
    assert done.exit_code == 2 and "the configuration states the sample size" in done.stderr
    assert done.stderr.count("\n") == 1


def test_values_that_the_inputs_cannot_be_made_of_are_told(tmp_path: Path, command_line: Any) -> None:
    data = {"_class_name": "UNet2DModel", **SMALL, "sample_size": 2**62}
    (tmp_path / "config.json").write_text(json.dumps(data))
    done = command_line("inspect", "--config", tmp_path)
    assert done.exit_code == 0 and "does not run without values" in done.stdout + done.stderr


SMALL = {
    "block_out_channels": [8], "layers_per_block": 1, "norm_num_groups": 4, "down_block_types": ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"], "mid_block_type": None,
}  # fmt: skip
