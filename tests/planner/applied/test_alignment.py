"""A packed pipeline that is saved and loaded gives the same bits, wherever its files put the tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from torch import nn

import bitplan
from bitplan.plans.layers.alignment import ALIGNMENT, is_misaligned
from bitplan.plans.layers.stored import Stored
from tests import tiny
from tests.packed import plan_for

INPUTS = (torch.randn(1, 4, 8, 8), torch.tensor(3), torch.randn(1, 5, tiny.WIDTH))


def shift(file: Path, offset: int) -> None:
    """Rewrites a safetensors file so that its tensors begin `offset` bytes behind a multiple of `ALIGNMENT`."""
    data = file.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + size])).encode()
    header += b" " * ((offset - 8 - len(header)) % ALIGNMENT)
    file.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + size :])


def floats(module: nn.Module) -> list[torch.Tensor]:
    return [one for one in (*module.parameters(), *module.buffers()) if not isinstance(one, Stored)]


@pytest.mark.parametrize("offset", [8, 16, 40])
@pytest.mark.parametrize("components", [("unet",), ("unet", "text_encoder")], ids=" ".join)
def test_tensors_of_shifted_files_are_aligned_and_outputs_equal(
    components: tuple[str, ...], offset: int, tmp_path: Path
) -> None:
    pipe = tiny.build_pipeline()
    packed = bitplan.apply(pipe, plan_for(pipe, components))
    packed.save_pretrained(tmp_path)
    for file in tmp_path.rglob("*.safetensors"):
        shift(file, offset)
    loaded: Any = DiffusionPipeline.from_pretrained(tmp_path)
    with torch.no_grad():
        for name in components:
            assert not any(map(is_misaligned, floats(loaded.components[name])))
        assert torch.equal(loaded.unet(*INPUTS).sample, packed.unet(*INPUTS).sample)
        if "text_encoder" in components:
            words = torch.arange(7)[None]
            assert torch.equal(loaded.text_encoder(words)[0], packed.text_encoder(words)[0])


def test_apply_aligns_what_stays_float(tmp_path: Path) -> None:
    built = tiny.build_pipeline()
    plan = plan_for(built)
    built.save_pretrained(tmp_path)
    for file in tmp_path.rglob("*.safetensors"):
        shift(file, 8)
    mapped = DiffusionPipeline.from_pretrained(tmp_path)
    assert any(map(is_misaligned, floats(mapped.unet)))
    with torch.no_grad():
        expected = bitplan.apply(built, plan).unet(*INPUTS).sample
        assert torch.equal(bitplan.apply(mapped, plan).unet(*INPUTS).sample, expected)
        assert not any(map(is_misaligned, floats(mapped.unet)))
