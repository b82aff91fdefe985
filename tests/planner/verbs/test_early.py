"""A misspelt name and a file in the place of another are told before torch is imported and without the network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import bitplan
from bitplan.planner.verbs import COMMANDS
from bitplan.planner.verbs.early import clip
from bitplan.planner.verbs.parameters import PARAMETERS

MISSPELT = {  # a command -> what its error says; in the folder of `place`
    "profile scenes -o x --schemes w8q8": "did you mean 'w8a8'",
    "profile scenes -o x --metric lpisp": "did you mean 'lpips'",
    "profile scenes -o x --method probe": "'probes', 'exhaustive'",
    "profile scenes -o x --engine rey": "'local', 'ray'",
    "profile scenes -o x --dtype float64": "'float32', 'bfloat16'",
    "profile scenes -o x --call guidance_scale=abc": "set by --guidance",
    "profile scenes -o x --prompts gone.txt": "cannot read the prompts file gone.txt",
    "profile scenes -o x --time 5": "90s, 10m or 2h",
    "profile scenes -o x --time 90s --around lots": "'lots' is not an amount",
    "profile scenes -o x --part 4/3": "4/3 is not a share",
    "profile scenes -o x --steps 0": "--steps is 0",
    "profile scenes -o x --guidance nan": "not finite",
    "profile scenes -o x --clip my-clip": "there is no folder my-clip of a CLIP model",
    "profile scene -o x": "did you mean 'scenes'",
    "profile pipelin -o x": "did you mean 'pipeline'",
    "apply p.yaml scene -o x.png": "did you mean 'scenes'",
    "apply scene@12% scenes -o x.png": "did you mean 'scenes'",
    "apply gone.yaml scenes -o x.png": "cannot read the plan gone.yaml",
    "evaluate p.yaml scenes -o x --metric lpisp": "did you mean 'lpips'",
    "bench p.yaml scenes --against floa32": "'float32'",
    "check t.profile scene": "did you mean 'scenes'",
    "check gone.profile scenes": "create it with `bitplan profile PIPELINE --out gone.profile`",
    "check t.profile scenes --plan gone.yaml": "cannot read the plan gone.yaml",
    "export p.yaml --to sdnk -o x": "did you mean 'sdnq'",
    "import mixdk pipeline -o x": "did you mean 'mixdq'",
    "solve t.profile -o x --uniform w8q8": "did you mean 'w8a8'",
    "solve t.profile -o x --cap nsr=w8q8": "did you mean 'w8a8'",
    "solve t.profile -o x --pin unet.conv_in=w8q8": "did you mean 'w8a8'",
    "solve t.profile -o x --solver exat": "exact, ilp",
    "solve t.profile -o x --backend higs": "did you mean 'highs'",
    "solve t.profile -o x --candidates 2 --rerank joit": "there is no pipeline folder joit",
    "sweep t.profile -o x --images 2 --pipeline scene": "did you mean 'scenes'",
    "explore t.profile --pipeline scene": "did you mean 'scenes'",
    "inspect --config x.json --schemes w8q8": "did you mean 'w8a8'",
    "inspect p.yaml --profile gone.profile": "create it with",
}
SWAPPED = {  # a command in the wrong order -> the right one
    "apply scenes p.yaml -o x.png": "the order is PLAN PIPELINE: bitplan apply p.yaml scenes",
    "apply my.module:name p.yaml -o x.png": "the order is PLAN PIPELINE: bitplan apply p.yaml my.module:name",
    "apply owner/name p.yaml -o x.png": "the order is PLAN PIPELINE: bitplan apply p.yaml owner/name",
    "apply scenes scenes@12% -o x.png": "the order is PLAN PIPELINE: bitplan apply scenes@12% scenes",
    "evaluate pipeline p.yaml -o x": "the order is PLANS PIPELINE: bitplan evaluate p.yaml pipeline",
    "bench scenes p.yaml": "the order is PLAN PIPELINE: bitplan bench p.yaml scenes",
    "check scenes t.profile": "the order is PROFILE PIPELINE: bitplan check t.profile scenes",
    "verify t.profile p.yaml": "the order is PLAN PROFILE: bitplan verify p.yaml t.profile",
    "predict t.profile p.yaml": "the order is PLAN PROFILE: bitplan predict p.yaml t.profile",
    "why t.profile unet.conv_in p.yaml": "the order is PLAN PROFILE LAYER: bitplan why p.yaml t.profile unet.conv_in",
    "solve p.yaml -o x": "p.yaml is a plan, where a profile is needed; name a file that `bitplan profile` wrote",
    "sweep p.yaml -o x": "p.yaml is a plan, where a profile is needed",
    "explore run": "run is the folder of a sweep, where a profile is needed",
    "cost p.yaml -o x": "p.yaml is a plan, where a profile is needed",
    "merge t.profile p.yaml -o x": "p.yaml is a plan, where a profile is needed",
    "report t.profile -o x": "t.profile is a profile, where the folder of a sweep is needed",
    "export t.profile --to sdnq -o x": "t.profile is a profile, where a plan is needed",
    "profile t.profile -o x": "t.profile is a profile, where a pipeline is needed",
    "inspect p.yaml --profile p.yaml": "p.yaml is a plan, where a profile is needed",
    "check t.profile scenes --plan t.profile": "t.profile is a profile, where a plan is needed",
}
RUN = """
import json, shlex, sys
from click.testing import CliRunner
from bitplan.planner.cli import main
told = {}
for line in json.load(sys.stdin):
    done = CliRunner().invoke(main, shlex.split(line))
    heavy = sorted({"torch", "diffusers", "transformers", "huggingface_hub"} & {*sys.modules})
    told[line] = done.exit_code, done.stderr, heavy
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def place(finished: Path, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("early")
    (folder / "t.profile").write_bytes(finished.read_bytes())
    (folder / "pipeline").symlink_to(tiny_folder)
    bitplan.solve(finished, folder / "p.yaml", uniform="w8a8")
    bitplan.sweep(finished, folder / "run", points=2)
    return folder


@pytest.fixture(scope="module")
def told(place: Path) -> dict[str, tuple[int, str, list[str]]]:
    lines = json.dumps([*MISSPELT, *SWAPPED])
    done = subprocess.run([sys.executable, "-c", RUN], input=lines, capture_output=True, text=True, cwd=place)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("line", [*MISSPELT, *SWAPPED])
def test_it_is_told_without_torch_and_network(
    line: str, told: dict[str, tuple[int, str, list[str]]], place: Path
) -> None:
    code, says, heavy = told[line]
    assert not heavy and code == 2 and (MISSPELT | SWAPPED)[line] in says, says
    assert not list(place.glob("x*"))


def test_every_command_with_a_kind_of_input_is_tried() -> None:
    taking = {key.partition(".")[0] for key, row in PARAMETERS.items() if row.takes and "." in key}
    tried = {line.split()[0] for line in SWAPPED}
    assert tried >= {*COMMANDS} & taking and tried >= {*COMMANDS} - {"import", "doctor"}


def test_python_says_the_same(place: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a profile, where a plan is needed; the order is PLAN PROFILE: bitplan"):
        bitplan.verify(place / "t.profile", place / "p.yaml")
    with pytest.raises(ValueError, match="names no scheme; did you mean 'w8a8'"):
        bitplan.profile("scenes", tmp_path / "x.profile", schemes=["w8q8"])


def test_what_may_be_elsewhere_is_not_refused(tmp_path: Path) -> None:
    for name in ("openai/clip-vit-base-patch32", str(tmp_path), object()):
        clip(name)
