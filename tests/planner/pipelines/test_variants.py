"""A folder whose weights are there as a variant alone, such as fp16, is loaded; several variants are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline

import bitplan
from bitplan.planner.applied.pipeline import load_applied
from bitplan.planner.errors import UserError
from bitplan.planner.pipelines.generation import Generation
from bitplan.planner.pipelines.references import typed
from bitplan.planner.pipelines.sources import _downloaded, load_pipeline, load_subject
from bitplan.planner.pipelines.variants import chosen_variant
from bitplan.planner.pipelines.weights import PLAIN, Weights
from tests import tiny
from tests.packed import plan_for, same, stored
from tests.planner.pipelines.toy_subjects import made


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
    assert chosen_variant("p", tmp_path, [*files, "_class_name"], PLAIN) == expected


def test_several_variants_are_named(tmp_path: Path) -> None:
    touch(tmp_path, {"unet": ("diffusion_pytorch_model.fp16.bin", "diffusion_pytorch_model.bf16.bin")})
    with pytest.raises(UserError, match=r"p has weights in variants alone, .*: unet \(bf16 and fp16\); give one of"):
        chosen_variant("p", tmp_path, ["unet"], PLAIN)
    assert chosen_variant("p", tmp_path, ["unet"], Weights(variant="bf16")) == "bf16"
    assert chosen_variant("p", tmp_path, ["unet"], Weights(recorded="fp16")) == "fp16"


BOTH = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors")


@pytest.mark.parametrize(
    ("files", "weights", "expected"),
    [
        ({"unet": BOTH, "vae": BOTH[:1]}, Weights(variant="fp16"), "fp16"),
        ({"unet": BOTH, "vae": BOTH[:1]}, Weights(recorded="fp16"), "fp16"),
        ({"unet": BOTH}, Weights(recorded="bf16"), None),
        ({"unet": BOTH[1:]}, Weights(recorded="bf16"), "fp16"),
        ({"unet": BOTH}, Weights(variant="bf16"), r"bf16; it has unet \(fp16 and plain ones\); give"),
        ({"unet": BOTH[:1]}, Weights(variant="fp16"), r"it has unet \(plain ones\)"),
        ({"unet": BOTH, "vae": ("model.a.bin",)}, Weights(variant="fp16"), r"unet \(.*\), vae \(a\)"),
        ({"scheduler": ()}, Weights(variant="fp16"), "it has none"),
    ],
)
def test_a_variant_that_is_asked_for(
    files: dict[str, tuple[str, ...]], weights: Weights, expected: str | None, tmp_path: Path
) -> None:
    touch(tmp_path, files)
    if expected in (None, "fp16"):
        assert chosen_variant("p", tmp_path, files, weights) == expected
    else:
        with pytest.raises(UserError, match=f"^p lacks weights of the variant .*{expected}"):
            chosen_variant("p", tmp_path, files, weights)


def test_the_hub_is_asked_for_the_recorded_variant_first(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []

    def download(place: str, trust_remote_code: bool, variant: str | None = None) -> str:
        asked.append(variant)
        if variant:
            raise ValueError("no such modeling files")
        return place

    monkeypatch.setattr(DiffusionPipeline, "download", download)
    assert _downloaded("some/pipeline", Weights(recorded="fp16")) == "some/pipeline"
    with pytest.raises(ValueError, match="no such"):
        _downloaded("some/pipeline", Weights(variant="bf16", recorded="fp16"))
    assert asked == ["fp16", None, "bf16"]


@pytest.mark.parametrize("name", [typed("torch.nn:Identity"), made()])
def test_what_loads_its_own_weights_takes_no_variant(name: Any) -> None:
    with pytest.raises(UserError, match="loads its own weights, and the variant fp16 is asked for; load it there"):
        load_subject(name, Generation(), Weights(variant="fp16"))


def touch(folder: Path, files: dict[str, tuple[str, ...]]) -> None:
    for component, names in files.items():
        (folder / component).mkdir()
        for name in names:
            (folder / component / name).touch()
