"""Subjects made of pipelines, and their conditions: from a file, or drawn."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import bitplan
from bitplan.planner.errors import UserError
from bitplan.planner.pipelines.conditions import labels_of
from bitplan.planner.pipelines.generation import Generation, arguments_of, outputs_of
from bitplan.planner.pipelines.subject import conditions_in, run_subject, subject_of
from bitplan.planner.profiles.profile import open_profile
from tests import tiny
from tests.planner.pipelines.toy_subjects import made, profiled, run_with

torch.set_num_threads(1)


def test_pipelines_are_called_by_their_signature(pipe: Any) -> None:
    given = arguments_of(pipe, tiny.PROMPTS, Generation(2, 1.5, 3, {"height": 16}))
    assert given["prompt"] == list(tiny.PROMPTS) and given["height"] == 16 and given["guidance_scale"] == 1.5
    assert [g.initial_seed() for g in given["generator"]] == [3, 4] and given["output_type"] == "pt"
    rows = [{"prompt": p, "negative_prompt": "blurry"} for p in tiny.PROMPTS]
    assert arguments_of(pipe, rows, Generation(2))["negative_prompt"] == ["blurry"] * 2
    assert "guidance_scale" not in arguments_of(pipe, rows, Generation(2))
    for conditions, generation, reason in (
        (
            tiny.PROMPTS,
            Generation(2, options={"frames": 3}),
            "StableDiffusionPipeline has no argument frames; its",
        ),
        ([{"class_labels": 3}], Generation(2), "has no argument class_labels"),
        ([{"prompt": "a"}, {"negative_prompt": "b"}], Generation(2), "use the same keys in each"),
        ([3], Generation(2), "a prompt or a mapping, not a int"),
    ):
        with pytest.raises(UserError, match=reason):
            arguments_of(pipe, conditions, generation)


def test_a_pipeline_gives_the_same_through_its_subject(pipe: Any) -> None:
    generation = Generation(2, 2.0, 5)
    subject = subject_of(pipe, generation)
    with torch.no_grad():
        direct = outputs_of(pipe, tiny.PROMPTS, generation)
    assert torch.equal(run_subject(subject, tiny.PROMPTS, 5), direct)
    assert set(subject.modules) == {"unet", "vae", "text_encoder"} and subject.kind == "StableDiffusionPipeline"
    assert subject_of(subject, Generation()) is subject


def test_text_encoder_and_decoder_of_a_pipeline_are_probed(
    tiny_folder: Path, clip_folder: Path, tmp_path: Path
) -> None:
    """All layers that ran, in three components, a table of positions for all prompts among them."""
    settings = tiny.SETTINGS | {"schemes": ("w8a16",), "components": ("unet", "text_encoder", "vae"), "checks": 0}
    out = bitplan.profile(str(tiny_folder), tmp_path / "t.profile", clip=str(clip_folder), **settings)
    with open_profile(out) as store:
        sources = {m.layer: m.source for m in store.measurements()}
        graph = store.graph()
    assert set(sources) == {layer["address"] for layer in graph["layers"]}
    for component in ("text_encoder", "vae", "unet"):
        assert sum(layer.startswith(f"{component}.") for layer in sources) > 4
    assert set(sources.values()) == {"probes"} and "text_encoder.embeddings.position_embedding" in sources


def test_conditions_from_a_file(tiny_folder: Path, clip_folder: Path, tmp_path: Path, command_line: Any) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "- {prompt: a red circle, negative_prompt: blue}\n- {prompt: a cat, negative_prompt: dog}\n", "utf-8"
    )
    result = command_line(
        "profile", tiny_folder, "--out", tmp_path / "t.profile", "--prompts", path, "--clip", clip_folder, "--steps", 2,
        "--schemes", "w8a8", "--checks", 0, "--timesteps", 1, "--call", "height=16", "--call", "guidance_rescale=0.1",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    with open_profile(tmp_path / "t.profile") as store:
        settings = store.header()["settings"]
    assert settings["prompts"][1] == {"prompt": "a cat", "negative_prompt": "dog"}
    assert settings["generation"]["options"] == {"height": 16, "guidance_rescale": 0.1}
    for text, reason in (("a: 1", "not a list of prompts or mappings"), ("- [1]", "not a list"), ("{", "cannot read")):
        path.write_text(text, "utf-8")
        refused = command_line("profile", tiny_folder, "--out", tmp_path / "u.profile", "--prompts", path)
        assert refused.exit_code == 2 and reason in refused.stderr


def test_drawn_conditions_come_back_from_their_digests() -> None:
    """A subject that draws tensors: a profile holds digests of them, and asks for the tensors again."""
    drawn = torch.randn(4, 5, generator=torch.Generator().manual_seed(3))
    subject = replace(made(), conditions=lambda count, held_out: list(drawn[:count]))
    labels = labels_of(subject.conditions(3, False))
    assert all(torch.equal(a, b) for a, b in zip(conditions_in(subject, labels), drawn[:3], strict=True))
    assert conditions_in(subject, ("a", {"prompt": "b"})) == ("a", {"prompt": "b"})
    for other in (replace(subject, conditions=lambda count, held_out: list(drawn[:count] + 1)), run_with(None)):
        other = replace(other, conditions=()) if not callable(other.conditions) else other
        with pytest.raises(UserError, match="neither text nor JSON, and .* does not return"):
            conditions_in(other, labels)


def test_a_subject_that_draws_its_conditions_is_profiled_and_evaluated(tmp_path: Path) -> None:
    """Given as an object: held-out conditions are others."""
    subject = replace(made(), conditions=lambda count, held_out: list(torch.full((count, 5), 1.0 + held_out)))
    profile = profiled(subject, tmp_path / "t.profile", schemes=("w8a8",), count=2)
    bitplan.solve(profile, tmp_path / "p.plan.yaml", uniform="w8a8")
    found = bitplan.evaluate([tmp_path / "p.plan.yaml"], subject, tmp_path / "report", count=3, blocks=False)
    assert json.loads((tmp_path / "report/report.json").read_text())["about"]["pipeline"] == "toy"
    assert torch.equal(found.results[0].outputs, run_subject(subject, [torch.full((5,), 2.0)] * 3, 1000))
