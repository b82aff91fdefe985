"""Plan files: the same bytes again, nothing but data, and one line for everything that is wrong."""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitplan.plans.parameters import encoded
from bitplan.plans.plan import Plan, PlanError, check_fingerprint, check_layers, dump_plan, load_plan, save_plan
from bitplan.plans.plan_schema import PARTS
from bitplan.plans.scheme import EXAMPLES
from bitplan.plans.transforms import TRANSFORMS, TransformLine

DOCS = Path(__file__).parents[2] / "docs" / "plan-file.md"
EXAMPLE = re.search(r"```yaml\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)[1]  # type: ignore[index]
CALM = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def example(tmp_path: Path) -> Plan:
    return load_text(EXAMPLE, tmp_path)


def load_text(text: str, folder: Path) -> Plan:
    path = folder / "some.plan.yaml"
    path.write_text(text, "utf-8")
    return load_plan(path)


def refuse(text: str, folder: Path) -> str:
    with pytest.raises(PlanError) as caught:
        load_text(text, folder)
    line = str(caught.value)
    assert "\n" not in line and "some.plan.yaml" in line
    return line


def test_documented_example_is_what_we_write(example: Plan, tmp_path: Path) -> None:
    assert dump_plan(example) == EXAMPLE
    save_plan(example, tmp_path / "again.yaml")
    assert (tmp_path / "again.yaml").read_text("utf-8") == EXAMPLE


def test_documented_keys_are_those_of_the_schema() -> None:
    table = re.findall(r"^\| `(\w+)` \|", DOCS.read_text("utf-8"), re.MULTILINE)
    assert table == list(PARTS)


numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
words = st.text(st.characters(exclude_categories=["C", "Z"], include_characters=" "), min_size=1, max_size=12)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    schemes = draw(st.dictionaries(words, st.sampled_from(EXAMPLES), min_size=1, max_size=5))
    components = draw(st.lists(words, min_size=1, max_size=2))
    return Plan(
        model={"name": draw(words), "fingerprint": "0" * 64, "architecture": "1" * 64, "components": components},
        schemes=schemes,
        simulated=tuple(draw(st.lists(st.sampled_from(list(schemes)), max_size=2))),
        calibration={"guidance": draw(st.none() | numbers), "ranges": {name: {"tensor": 0.1} for name in schemes}},
        budgets=draw(st.dictionaries(words, numbers, max_size=3)),
        predictions={"total": draw(st.dictionaries(words, numbers, max_size=3))},
        solver={"status": "optimal", "objective": draw(numbers), "stopped": draw(words)},
    )


@given(plan=plans())
@CALM
def test_saved_loaded_saved_gives_the_same_bytes(plan: Plan, tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    save_plan(plan, first)
    loaded = load_plan(first)
    save_plan(loaded, second)
    assert loaded == plan and list(loaded.schemes) == list(plan.schemes)
    assert first.read_bytes() == second.read_bytes()


@given(noise=st.binary(max_size=40), at=st.integers(0, len(EXAMPLE)))
@CALM
def test_damaged_files_load_or_are_refused_in_one_line(noise: bytes, at: int, tmp_path: Path) -> None:
    path = tmp_path / "damaged.yaml"
    path.write_bytes(EXAMPLE.encode()[:at] + noise + EXAMPLE.encode()[at + len(noise) :])
    try:
        load_plan(path)
    except PlanError as error:
        assert "\n" not in str(error) and "damaged.yaml" in str(error)


EDITS = [
    ("bitplan: 1", "bitplan: 3", "version 3 .* upgrade"),
    ("bitplan: 1", "bitplan: 3.0", "version 3.0 .* upgrade"),
    ("simulated:", "groups: []\nsimulated:", "groups: version 1 has no such key; write `bitplan: 2`"),
    ("bitplan: 1", "bitplan: true", "bitplan: True is not an integer"),
    ("bitplan: 1\n", "", "no `bitplan` version"),
    ("solver:", "solvr:", "unknown key 'solvr'; did you mean 'solver'"),
    ("  name: scenes\n", "", "model: 'name' is missing"),
    ("9f86d", "zzzzz", "model.fingerprint: .*is not a sha256"),
    ("w8a8t", "w8a9t", "schemes.unet.mid_block.attentions.0.to_k: .*8, 6, 4 bits, or a16 without `t`, not a9"),
    ("w4a4", "w4q4", "schemes.unet.conv_out: 'w4q4' names no scheme; did you mean 'w4a4'"),
    ("unet.conv_out: w4a4", "unet.conv_in: w4a4", "'unet.conv_in' is given twice"),
    ("  unet.conv_out: w4a4", "  7: w4a4", "schemes: key 7 is not text"),
    ("  unet.conv_out: w4a4", "  unet.conv_out: 4", "schemes.unet.conv_out: 4 is not text"),
    ("- unet.conv_out", "- unet.conv_ou", "simulated: unet.conv_ou has no scheme"),
    ("objective: 0.0156", "objective: .nan", "solver.objective: nan is not finite"),
    ("bytes: 1200000", "bytes: .inf", "budgets.bytes: inf is not finite"),
    ("bytes: 1200000", "bytes: 1" + "0" * 400, "budgets.bytes: 10+\\.\\.\\.0+ is not finite"),
    ("bytes: 1200000", "bytes: 1" + "0" * 5000, "a value cannot be read"),
    ("bytes: 1200000", "bytes: 0x" + "f" * 9000, "budgets.bytes: a number of 36000 bits is not finite"),
    ("bytes: 1200000", "bytes: !!bool maybe", "a value cannot be read .KeyError: 'maybe'"),
    ("bytes: 1200000", "bytes: !!timestamp nope", "a value cannot be read .AttributeError"),
    ("bytes: 1200000", "bytes: " + "[" * 5000, "a value cannot be read .RecursionError"),
    ("bytes: 1200000", "bytes: '1200000'", "budgets.bytes: '1200000' is not a number"),
    ("bytes: 1200000", "bytes: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
    ("bytes: 1200000", "bytes: &a 1\n  ms: *a", "aliases are not allowed"),
    ("bytes: 1200000", "<<: {bytes: 1}", "merge"),
    ("bytes: 1200000", "? [a]\n  : 1", "unhashable|found"),
    ("name: scenes", "name: sce\0nes", "special characters"),
    ("status: optimal", "status: perfect", "solver.status: 'perfect' is not one of"),
    ("tensor: 3.25", "tensor: -1.0", "tensor: -1.0 is not finite and at least 0"),
    ("  blocks:", "    blocks:", "predictions.total.blocks: None is not a number"),
]


@pytest.mark.parametrize(("old", "new", "message"), EDITS, ids=[f"{old}-{new}"[:50].strip() for old, new, _ in EDITS])
def test_wrong_files_are_told_what_is_wrong(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert old in EXAMPLE
    assert re.search(message, refuse(EXAMPLE.replace(old, new, 1), tmp_path))


@pytest.mark.parametrize("text", ["", "[]", "plan", "bitplan: 1", "{", "- " * 5000, "[" * 5000, "\t", "a: b: c"])
def test_what_is_no_plan_at_all(text: str, tmp_path: Path) -> None:
    refuse(text, tmp_path)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="cannot read the plan .*none.yaml: No such file"):
        load_plan(tmp_path / "none.yaml")
    with pytest.raises(PlanError, match="cannot read the plan"):
        load_plan(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00SQLite")
    with pytest.raises(PlanError, match="not a text file"):
        load_plan(tmp_path / "binary")


def test_no_file_is_left_behind_or_harmed_when_a_write_fails(
    example: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kept.yaml"
    save_plan(example, path)
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(PlanError, match="cannot write the plan .*No space left.*--out"):
        save_plan(replace(example, simulated=()), path)
    assert [file.name for file in tmp_path.iterdir() if "kept" in file.name] == ["kept.yaml"]
    assert path.read_text("utf-8") == EXAMPLE
    with pytest.raises(PlanError, match="cannot write"):
        save_plan(example, tmp_path / "no" / "folder.yaml")


UNWRITABLE = [{"bytes": math.nan}, {"bytes": object()}, {"bytes": np.int64(1)}, {"bytes": "many"}, {1: 2}, {"\x85": 1}]


@pytest.mark.parametrize("budgets", UNWRITABLE)
def test_what_could_not_be_read_back_is_not_written(budgets: dict[str, float], example: Plan, tmp_path: Path) -> None:
    with pytest.raises(PlanError) as caught:
        save_plan(replace(example, budgets=budgets), tmp_path / "bad.yaml")
    assert "\n" not in str(caught.value) and not (tmp_path / "bad.yaml").exists()


def test_order_of_layers_is_kept_and_text_is_plain_yaml(example: Plan) -> None:
    turned = replace(example, schemes=dict(reversed(example.schemes.items())))
    assert list(yaml.safe_load(dump_plan(turned))["schemes"]) == list(reversed(example.schemes))


def test_a_plan_prints_and_encodes_itself(example: Plan) -> None:
    text, data = str(example), example.to_json()
    assert text.startswith(f"plan for {example.model['name']}, {len(example.schemes)} layers: ") and "\n" not in text
    assert all(scheme in text for scheme in example.schemes.values())
    assert f"bytes {example.predictions['total']['bytes']:,}" in text and text.endswith(example.solver["status"])
    assert {"bitplan": 1} | data == yaml.safe_load(dump_plan(example)) and json.loads(json.dumps(data)) == data


def test_layers_that_the_model_lacks_name_the_nearest(example: Plan) -> None:
    layers = list(example.schemes)
    check_layers(example, [*layers, "unet.never_run"])
    with pytest.raises(PlanError, match="1 of 4 layers .* unet.conv_out; .* did you mean 'unet.conv_out_2'"):
        check_layers(example, [*layers[:-1], "unet.conv_out_2"])
    with pytest.raises(PlanError, match="no layers"):
        check_layers(example, [])


def test_fingerprint_of_another_model(example: Plan) -> None:
    check_fingerprint(example, example.model["fingerprint"])
    with pytest.raises(PlanError, match="made for scenes with fingerprint 9f86d081884c, .*--allow-mismatch"):
        check_fingerprint(example, "0" * 64)
    check_fingerprint(example, "0" * 64, allow_mismatch=True)


@pytest.fixture
def scaled(monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A plan with fitted parameters, of a transform that is registered for the test."""
    line = TransformLine("even", "a scale for each channel", "nowhere:NOTHING", word="even", scope="inputs")
    monkeypatch.setitem(TRANSFORMS, "even", line)
    model = {"name": "net", "fingerprint": "0" * 64, "architecture": "1" * 64, "components": ["net"]}
    schemes = {"net.q": "w8a8+even", "net.k": "w4a8+even", "net.out": "w8a8+even", "net.last": "keep"}
    scales = {("net.q", "+even"): {"scale": np.arange(1, 5, dtype=np.float32)},
              ("net.out", "+even"): {"scale": np.ones(3, np.float32)}}  # fmt: skip
    groups = ({"members": ["net.q", "net.k"], "transforms": ["+even"]},)
    return Plan(model, schemes, solver={"status": "uniform"}, groups=groups, fitted=encoded(scales))


def test_fitted_parameters_are_a_file_beside_the_plan(scaled: Plan, tmp_path: Path) -> None:
    path = tmp_path / "some.plan.yaml"
    save_plan(scaled, path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["some.plan.safetensors", "some.plan.yaml"]
    assert path.read_text().startswith("bitplan: 2\n") and "file: some.plan.safetensors" in path.read_text()
    again = load_plan(path)
    assert again == scaled and again.version == 2
    assert [again.owner_of(layer, "+even") for layer in again.schemes] == ["net.q", "net.q", "net.out", "net.last"]
    assert again.parameters["net.q", "+even"]["scale"].tolist() == [1, 2, 3, 4]
    save_plan(again, tmp_path / "other.yaml")
    assert (tmp_path / "other.plan.safetensors").read_bytes() == (tmp_path / "some.plan.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("file: some.plan", "file: ../some.plan", "parameters.file: .*is not the name of a file"),
        ("file: some.plan", "file: /etc/some.plan", "parameters.file: .*is not the name of a file"),
        ("file: some.plan", "file: .some.plan", "parameters.file: .*is not the name of a file"),
        ("file: some.plan", "file: another.plan", "cannot read .*another.plan.safetensors.*beside the plan"),
        ("sha256: ", "sha256: 0", "parameters.sha256: .*is not a sha256"),
        ("  - net.k\n", "  - net.last\n", "groups.0: the scheme of net.last has no \\+even"),
        ("  - net.k\n", "  - net.none\n", "groups.0: the scheme of net.none has no \\+even"),
        ("net.out: w8a8+even", "net.out: w8a8", "no layer uses net.out\\+even"),
        ("bitplan: 2", "bitplan: 1", "groups: version 1 has no such key"),
        ("+even", "+odd", "names no scheme"),
    ],
)
def test_fitted_parameters_that_do_not_belong_to_the_plan(
    old: str, new: str, message: str, scaled: Plan, tmp_path: Path
) -> None:
    save_plan(scaled, tmp_path / "some.plan.yaml")
    text = (tmp_path / "some.plan.yaml").read_text()
    assert old in text
    assert re.search(message, refuse(text.replace(old, new, 1), tmp_path))


def test_the_file_of_fitted_parameters_must_have_the_digest_and_finite_numbers(scaled: Plan, tmp_path: Path) -> None:
    save_plan(scaled, tmp_path / "some.plan.yaml")
    text, other = (tmp_path / "some.plan.yaml").read_text(), tmp_path / "some.plan.safetensors"
    digest = hashlib.sha256(scaled.fitted).hexdigest()
    for data, message in (
        (scaled.fitted[:-1] + b"\1", "parameters.sha256"),
        (b"nonsense", "cannot be read"),
        (encoded({("net.q", "+even"): {"scale": np.array([np.nan], np.float32)}}), "not finite"),
        (encoded({("net.q", "+even"): {"scale": np.array([1])}}), "not finite floats"),
        (encoded({("net.k", "+even"): {"scale": np.ones(1, np.float32)}}), "no layer uses net.k"),
    ):
        other.write_bytes(data)
        found = digest if message == "parameters.sha256" else hashlib.sha256(data).hexdigest()
        assert message in refuse(text.replace(digest, found), tmp_path)
