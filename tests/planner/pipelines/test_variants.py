"""A folder whose weights are there as a variant alone, such as fp16, is loaded; several variants are named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import bitplan
from bitplan.planner.applied.pipeline import load_applied
from bitplan.planner.errors import UserError
from bitplan.planner.pipelines.sources import load_pipeline
from bitplan.planner.pipelines.variants import only_variant
from tests import tiny
from tests.packed import plan_for, same, stored


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("variant")
    tiny.build_pipeline().save_pretrained(path, variant="fp16")
    return path


def test_the_only_variant_is_loaded(folder: Path) -> None:
    expected, found = tiny.build_pipeline().unet.state_dict(), load_pipeline(str(folder)).unet.state_dict()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_the_only_variant_is_packed_as_it_is_read(folder: Path) -> None:
    plan = plan_for(tiny.build_pipeline())
    expected = stored(bitplan.apply(tiny.build_pipeline(), plan).unet)
    assert same(stored(load_applied(str(folder), plan, "int", False).unet), expected)


FILES: list[tuple[dict[str, tuple[str, ...]], str | None]] = [
    ({"unet": ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors")}, None),
    ({"unet": ("diffusion_pytorch_model.fp16.bin",), "vae": ("diffusion_pytorch_model.bin",)}, "fp16"),
    ({"unet": ("diffusion_pytorch_model.bf16-00001-of-00002.safetensors",)}, "bf16"),
    ({"unet": ("diffusion_pytorch_model-00001-of-00002.bf16.safetensors",)}, "bf16"),
    ({"unet": ("diffusion_pytorch_model-00001-of-00002.safetensors",)}, None),
    ({"unet": ("diffusion_pytorch_model.a.bin", "diffusion_pytorch_model.b.bin"), "te": ("model.b.bin",)}, "b"),
    ({"scheduler": ("scheduler_config.json",)}, None),
]


@pytest.mark.parametrize(("files", "expected"), FILES)
def test_which_variant(files: dict[str, tuple[str, ...]], expected: str | None, tmp_path: Path) -> None:
    touch(tmp_path, files)
    assert only_variant("p", tmp_path, [*files, "_class_name"]) == expected


def test_several_variants_are_named(tmp_path: Path) -> None:
    touch(tmp_path, {"unet": ("diffusion_pytorch_model.fp16.bin", "diffusion_pytorch_model.bf16.bin")})
    with pytest.raises(UserError, match=r"p has weights in variants alone, .*: unet \(bf16 and fp16\); keep those of"):
        only_variant("p", tmp_path, ["unet"])


def touch(folder: Path, files: dict[str, tuple[str, ...]]) -> None:
    for component, names in files.items():
        (folder / component).mkdir()
        for name in names:
            (folder / component / name).touch()
