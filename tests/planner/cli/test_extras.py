"""The wheel in environments that hold what it declares to need and nothing else: without torch, and with it."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from packaging.requirements import Requirement

from bitplan.planner.errors import UserError
from bitplan.planner.extras import EXTRAS, Extra, require, telling_missing
from tests.installed import ROOT, build_wheel, called, declared_environment, install, pip, python_of, run
from tests.planner.support.documented import PAGES

Bitplan = Callable[..., CompletedProcess[str]]
README = (ROOT / "README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DECLARED = PROJECT["optional-dependencies"]
FILES = [*PAGES, ROOT / "docs/notebook.ipynb", *ROOT.glob("p*/**/*.py"), *ROOT.glob("s[eo]*/**/*.py")]
INSTALL = re.findall(r"^    pip install '?\.(?:\[([\w,]+)\])?'?(?= |$)", README, re.M)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def light(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python, where `pip install .` was run."""
    site = declared_environment(tmp_path_factory.mktemp("light") / "env", wheel)
    install(site, wheel)
    return python_of(site)


@pytest.fixture
def bitplan(light: Path, finished: Path, tmp_path: Path) -> Bitplan:
    """The command there, in a folder with a profile."""
    shutil.copy(finished, tmp_path / "t.profile")
    return lambda *words: called(light, "-m", "bitplan", *words, cwd=tmp_path)


def test_there_is_all_that_is_declared_and_no_torch(light: Path) -> None:
    run(*pip(light, "check"))
    names = [name for extra in EXTRAS.values() for name in extra.packages]
    code = f"import importlib.util as u; print([name for name in {names} if u.find_spec(name)])"
    assert run(light, "-c", code).stdout == "[]\n"


def test_what_needs_no_torch_runs_without_it(bitplan: Bitplan, tmp_path: Path) -> None:
    shutil.copy(tmp_path / "t.profile", tmp_path / "u.profile")
    for line in ("--help", "completion bash", "solve t.profile --memory 40% --out p.plan.yaml", "inspect p.plan.yaml",
                 "verify p.plan.yaml t.profile --prove", "why p.plan.yaml t.profile unet.conv_in", "inspect t.profile",
                 "predict p.plan.yaml t.profile", "sweep t.profile --points 3 --out RUN", "report RUN --out r.html",
                 "export p.plan.yaml --to sdnq --approximate --model t.profile --out s.json", "inspect scenes@12%",
                 "solve t.profile --memory 40% --candidates 2 --rerank joint --out q.plan.yaml"):  # fmt: skip
        done = bitplan(*line.split())
        assert done.returncode == 0, (line, done.stderr)
    assert {"p.plan.yaml", "q.plan.yaml", "r.html", "s.json"} <= {path.name for path in tmp_path.iterdir()}


def test_doctor_says_what_is_missing(bitplan: Bitplan) -> None:
    done = bitplan("doctor")
    assert done.returncode == 0 and "running a model needs torch, which is not installed" in done.stdout
    assert "| highs " in done.stdout and "| sdnq " in done.stdout
    for extra in EXTRAS.values():
        assert f"pip install 'bitplan[{extra.name}]'" in done.stdout


@pytest.mark.parametrize(
    "line, what",
    [
        ("profile scenes --out x.profile", "profile"),
        ("apply scenes@12% scenes --out i.png", "apply"),
        ("cost t.profile --out c.profile", "cost"),
        ("export scenes@12% --to sdnq --approximate --out s.json", "export"),
        ("inspect --config .", "inspect"),
        ("sweep t.profile --points 3 --images 2 --out RUN", "sweep --images"),
        ("sweep t.profile --points 3 --threads 1 --out RUN", "sweep --threads"),
        ("solve t.profile --memory 40% --candidates 2 --rerank scenes --out q.plan.yaml", "solve --rerank PIPELINE"),
    ],
)
def test_what_needs_torch_says_so_before_it_begins(bitplan: Bitplan, tmp_path: Path, line: str, what: str) -> None:
    done = bitplan(*line.split())
    advice = "needs torch, which is not installed: pip install 'bitplan[torch]'"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"bitplan: {what} {advice}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["t.profile"]


def test_every_function_that_needs_an_extra_says_so(light: Path, tmp_path: Path) -> None:
    code = """
import bitplan
from bitplan.planner.errors import UserError
from bitplan.planner.verbs import VERBS
for name in [verb.name for verb in VERBS.values() if verb.needs] + ["Subject"]:
    try:
        getattr(bitplan, name)()
    except UserError as error:
        print(error)
"""
    lines = run(light, "-c", code, cwd=tmp_path).stdout.splitlines()
    found = {line.partition(" needs ")[0]: line.partition("bitplan[")[2].partition("]")[0] for line in lines}
    torch = {"profile", "cost", "check", "apply", "restore", "config", "evaluate", "bench", "bitplan.Subject"}
    assert found == dict.fromkeys(torch, "torch") | {"explore": "explore"}


def test_the_advice_finds_the_extra_of_the_installed_bitplan(light: Path) -> None:
    """It asks the index, which is closed here, for the first package of the extra, not for BitPlan."""
    done = called(*pip(light, "install", "bitplan[ray]"))
    assert done.returncode == 1 and "No matching distribution found for ray" in done.stderr


def test_only_missing_packages_of_extras_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch.nothing", "own_helper"):
        with pytest.raises(ModuleNotFoundError), telling_missing("apply"):
            raise ModuleNotFoundError(name=name)
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(UserError, match=r"apply needs lpips, which .*bitplan\[lpips\]"), telling_missing("apply"):
        raise ModuleNotFoundError(name="lpips.networks")
    require("torch", "this test")


@pytest.mark.parametrize("extra", EXTRAS.values(), ids=lambda extra: extra.name)
def test_extras_are_those_of_the_distribution(extra: Extra) -> None:
    assert {Requirement(text).name for text in DECLARED[extra.name]} == set(extra.packages)


def test_releases_that_are_known_to_fail_are_not_installed() -> None:
    """PuLP 4.0 and later build programs otherwise; `verify --prove` failed with them."""
    allowed = {Requirement(text).name: Requirement(text).specifier for text in PROJECT["dependencies"]}
    assert "3.3.2" in allowed["pulp"] and not {"4.0", "4.2.0"} & {*allowed["pulp"].filter(["4.0", "4.2.0"])}


def test_extras_that_are_named_exist() -> None:
    named = [name for path in FILES for name in re.findall(r"(?:bitplan|'\.)\[([a-z,]+)\]'", path.read_text())]
    assert len(named) > 5 and {extra for each in named for extra in each.split(",")} <= set(DECLARED)


def test_no_page_installs_bitplan_from_an_index() -> None:
    """None has it: pages install a clone. What the program prints, where BitPlan is installed, may be quoted."""
    pages = {path.name: path.read_text() for path in FILES if path.suffix != ".py"}
    assert not [
        name
        for name, text in pages.items()
        if re.search(r"(?<!not installed: pip )install (?:-\S+ )*[\"']?bitplan\b", text)
    ]


@pytest.fixture(scope="module")
def whole(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python, where README's line for everything that runs models was run."""
    assert INSTALL[0] == "torch"
    site = declared_environment(tmp_path_factory.mktemp("whole") / "env", wheel, "torch")
    run(*pip(python_of(site), "install", f"{wheel}[torch]"))
    return python_of(site)


def test_the_lines_of_the_readme_install(wheel: Path, tmp_path: Path) -> None:
    assert len(INSTALL) > 1 and "" in INSTALL
    for number, extras in enumerate(INSTALL):
        site = declared_environment(tmp_path / str(number), wheel, *filter(None, extras.split(",")))
        run(*pip(python_of(site), "install", f"{wheel}[{extras}]" if extras else wheel))
        run(*pip(python_of(site), "check"))
        assert "bitplan, version" in run(python_of(site).with_name("bitplan"), "--version", cwd=tmp_path).stdout


def test_a_hobbyist_paints_by_a_published_plan(whole: Path, tmp_path: Path) -> None:
    command = re.search(r"bitplan (apply scenes@\S+ scenes[^`\n]*)", README)
    assert command
    words = shlex.split(command[1], comments=True)
    done = run(whole, "-m", "bitplan", *words, "--steps", "2", cwd=tmp_path)
    assert "wrote img.png" in done.stdout and (tmp_path / "img.png").read_bytes().startswith(b"\x89PNG")


PACK = """
import bitplan
from bitplan.planner.pipelines.sources import load_pipeline
pipe = bitplan.apply(load_pipeline("scenes"), "scenes@12%")
pipe.save_pretrained("packed")
"""
SERVE = """
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.request import urlopen

import bitplan
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("packed")

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        picture = pipe("a red circle", num_inference_steps=2).images[0]
        self.send_response(200)
        self.end_headers()
        picture.save(self.wfile, "PNG")

server = HTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(urlopen(f"http://127.0.0.1:{server.server_port}/").read()[:4])
server.shutdown()
"""


def test_an_engineer_exports_and_serves(whole: Path, tmp_path: Path) -> None:
    words = ("export", "scenes@12%", "--to", "sdnq", "--approximate", "--out", "s.json")
    assert "wrote s.json" in run(whole, "-m", "bitplan", *words, cwd=tmp_path).stdout
    run(whole, "-c", PACK, cwd=tmp_path)
    assert run(whole, "-c", SERVE, cwd=tmp_path).stdout.strip() == str(b"\x89PNG")
