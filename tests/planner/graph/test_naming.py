"""One name for several layers: blocks and patterns, in pins, in components and where one layer is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import bitplan
from bitplan.planner.choice.request import resolve
from bitplan.planner.errors import UserError
from bitplan.planner.graph.naming import components_in, layer_named, matching
from bitplan.planner.pipelines.generation import Generation
from bitplan.planner.pipelines.sources import load_subject
from bitplan.planner.pipelines.traced import examine

LAYERS = ("unet.in", "unet.down.0.attn1.to_q", "unet.down.0.attn1.to_k", "unet.down.0.conv", "unet.down.01.conv",
          "unet.down.1.conv", "unet.down.1.attn1.to_q", "text.in", "text.a[0]")  # fmt: skip


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("unet.in", (0,)), ("unet.down.0", (1, 2, 3)), ("unet.down.0.attn1", (1, 2)), ("text", (7, 8)),
        ("unet.down.*.attn*", (1, 2, 6)), ("*.conv", (3, 4, 5)), ("unet.down.?", (1, 2, 3, 5, 6)),
        ("unet.down.[!0]", (5, 6)), ("*.in", (0, 7)), ("text.a[0]", (8,)), ("unet.dow", ()), ("unet.down.2", ()),
        ("UNET", ()),
    ],
)  # fmt: skip
def test_a_name_is_a_layer_or_a_block_or_a_pattern(name: str, places: tuple[int, ...]) -> None:
    assert matching(name, LAYERS) == tuple(LAYERS[i] for i in places)


def test_where_one_layer_is_asked_for() -> None:
    assert layer_named("unet.down.01", LAYERS) == "unet.down.01.conv"
    with pytest.raises(UserError, match="unet.down.0 stands for 3 layers, such as unet.down.0.attn1.to_q and "):
        layer_named("unet.down.0", LAYERS)
    with pytest.raises(UserError, match="no layer or block is named 'unet.dwn.0'; did you mean 'unet.down.0'"):
        layer_named("unet.dwn.0", LAYERS)


def test_components_of_names() -> None:
    parts = ("unet", "text_encoder", "text_encoder_2")
    assert components_in(["text_encoder*", "unet.down.*", "unet"], parts) == ("text_encoder", "text_encoder_2", "unet")
    assert components_in(["vae.*"], parts) == ("vae",)  # which the pipeline refuses, and names its own


def test_a_pin_of_a_layer_beats_patterns_and_patterns_that_differ_are_refused() -> None:
    roles, groups = dict.fromkeys(LAYERS, "in"), {layer: (layer,) for layer in LAYERS}
    assert resolve({"text": "keep", "text.in": "w8a8"}, roles, groups) == {"text.in": "w8a8", "text.a[0]": "keep"}
    assert resolve({"*.in": "keep", "text": "keep"}, roles, groups) == dict.fromkeys(
        ("unet.in", "text.in", "text.a[0]"), "keep"
    )
    with pytest.raises(UserError, match=r"text.in .*pinned twice, \*.in = keep and text = w8a8; pin text.in itself"):
        resolve({"*.in": "keep", "text": "w8a8"}, roles, groups)
    with pytest.raises(UserError, match="unet.in .*pinned twice, role:in = keep and unet = w8a8"):
        resolve({"role:in": "keep", "unet": "w8a8"}, roles, groups)


def test_blocks_and_patterns_are_pinned_and_their_layers_counted(
    finished: Path, tmp_path: Path, command_line: Any
) -> None:
    out, pins = tmp_path / "p.yaml", ("--pin", "unet.*.attn2*=w2ma8", "--keep", "unet.conv_in")
    done = command_line("solve", finished, "--out", out, "--memory", "40%", *pins)
    assert done.exit_code == 0 and "unet.*.attn2* stands for 4 layers\n" in done.output
    pinned = bitplan.inspect(out).facts["solver"]["pins"]
    assert {name: scheme for name, scheme in pinned.items() if scheme != "w2ma8"} == {"unet.conv_in": "keep"}
    assert len(pinned) == 5 and all(".attn2." in name for name in pinned if name != "unet.conv_in")
    done = command_line("solve", finished, "--out", out, "--keep", "unet.down_block.*")
    assert done.exit_code == 2 and "no layer or block is named 'unet.down_block.*'; did you mean 'unet." in done.output


def test_a_block_of_a_component_is_planned_alone(tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    subject = load_subject(str(tiny_folder), Generation(1, 1.0))
    traced = examine(subject, ["a cat"], 0, ["unet.*.attn1"])
    layers = list(traced.graph.by_address)
    assert layers and all(".attn1." in layer for layer in layers) and list(traced.parts) == ["unet"]
    assert capsys.readouterr().err == f"unet.*.attn1 stands for {len(layers)} layers\n"
    assert list(examine(subject, ["a cat"], 0, ["text_*"]).parts) == ["text_encoder"]
    with pytest.raises(UserError, match="no layer or block is named 'unet.nothing'"):
        examine(subject, ["a cat"], 0, ["unet.nothing"])
    with pytest.raises(UserError, match="no component transformer; it has vae, text_encoder, unet"):
        examine(subject, ["a cat"], 0, ["transformer.*"])
