"""The walls of the house: who imports whom, what needs torch, how long things get, and that names do not drift."""

from __future__ import annotations

import ast
import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from bitplan.planner.choice.request import KERNELS
from bitplan.planner.cli import commands as cli
from bitplan.planner.verbs import parameters
from bitplan.planner.verbs import verb as verb_named
from bitplan.planner.verbs.parameters import DEFAULT_SCHEMES
from bitplan.plans.scheme import EXAMPLES, parse_scheme

ROOT = Path(__file__).parents[1]
ROOMS = ("planner", "plans", "sensitivity", "solvers")
LONGEST_FILE, LONGEST_FUNCTION = 300, 40  # lines
EXCEPTIONS = {  # `file` or `file:function` -> why it may be longer
    "planner/verbs/choose.py:sweep": "its parameters", "planner/verbs/choose.py:solve": "its parameters",
    "planner/verbs/measure.py:profile": "its parameters", "planner/verbs/measure.py:check": "its parameters",
    "planner/verbs/use.py:evaluate": "its parameters", "planner/verbs/use.py:bench": "its parameters",
}  # fmt: skip
PYTHON_NAMES = {"apply": "paint", "import": "import_profile"}  # verbs that are called otherwise in Python
SHELL_ONLY = {"completion"}  # verbs that Python has no use for
WITHOUT_TORCH = (  # modules and whole packages
    "bitplan", "solvers", "plans.scheme", "plans.kinds", "plans.plan", "plans.plan_schema",
    "sensitivity.table", "sensitivity.responses", "sensitivity.correction",
    "planner.errors", "planner.units", "planner.texts", "planner.progress", "planner.files",
    "planner.cli", "planner.verbs", "planner.page", "planner.choice", "planner.profiles", "planner.scenes",
    "planner.graph.layers", "planner.graph.roles", "planner.graph.components", "planner.pipelines.conditions",
    "planner.finetunes.ratios", "planner.finetunes.verdict", "planner.interop", "planner.applied.__init__",
    "planner.measurement.engines", "planner.measurement.methods.__init__", "planner.measurement.jobs",
    "planner.views.sweep", "planner.views.run", "planner.views.view", "planner.views.bitmap", "planner.views.roles",
    "planner.views.inspect", "planner.views.profile_view",
)  # fmt: skip
WITH_TORCH = ("planner.page.painter", "planner.measurement.engines.ray", "planner.measurement.engines.local",
              "planner.interop.targets.model")  # fmt: skip
BLOCK = "import sys; sys.modules |= dict.fromkeys(('torch', 'diffusers', 'transformers'))\n"  # None: an ImportError


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)


def sources() -> list[Path]:
    return sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def test_imports_go_the_way_they_should() -> None:
    tool = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([tool, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


def without_torch() -> Iterator[str]:
    for name in WITHOUT_TORCH:
        folder = ROOT / name.replace(".", "/")
        files = folder.rglob("*.py") if folder.is_dir() else [folder.with_suffix(".py")] if "." in name else []
        names = {str(path.relative_to(ROOT).with_suffix("")).replace("/", ".") for path in files}
        yield from (f"bitplan.{each.removesuffix('.__init__')}" for each in names - set(WITH_TORCH))


def test_a_laptop_without_torch_can_solve() -> None:
    names = sorted(without_torch())
    assert len(names) > 100
    done = python(BLOCK + "".join(f"import {name}\n" for name in names))
    assert done.returncode == 0, done.stderr


def test_importing_torch_is_really_blocked_in_that_test() -> None:
    assert python(BLOCK + "import torch").returncode == 1
    assert python(BLOCK + "import bitplan.planner.pipelines.sources").returncode == 1


def test_solvers_know_nothing_of_layers() -> None:
    done = python("import sys, solvers.solve; print(*{name.split('.')[0] for name in sys.modules})")
    assert not set(done.stdout.split()) & {"planner", "plans", "sensitivity", "torch", "diffusers"}


def test_help_is_quick_and_loads_nothing() -> None:
    code = (
        "import sys\nfrom bitplan.planner.cli import main\nmain(['--help'], standalone_mode=False)\nprint(*sys.modules)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = python(code)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert all(f"\n  {command} " in done.stdout for command in cli.main.commands)
    assert not set(done.stdout.splitlines()[-1].split()) & {"torch", "diffusers", "transformers", "numpy", "scipy"}
    assert (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime) < 0.5


def test_the_command_is_installed() -> None:
    tool = Path(sys.executable).with_name("bitplan")
    done = subprocess.run([tool, "--version"], capture_output=True, text=True, env=os.environ)
    assert re.fullmatch(r"bitplan, version \d+\.\d+\.\d+\n", done.stdout)


def too_long() -> Iterator[str]:
    for path in sources():
        name, text = str(path.relative_to(ROOT)), path.read_text()
        if text.count("\n") > LONGEST_FILE:
            yield name
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno is not None
                if node.end_lineno - node.lineno >= LONGEST_FUNCTION:
                    yield f"{name}:{node.name}"


def test_files_and_functions_are_short() -> None:
    assert len(sources()) > 60
    assert set(too_long()) == set(EXCEPTIONS)


def option(command: str, name: str) -> click.Option:
    verb = cli.main.commands[command]
    return next(p for p in verb.params if isinstance(p, click.Option) and f"--{name}" in p.opts)


def test_verbs_are_commands() -> None:
    import bitplan

    assert {PYTHON_NAMES.get(name, name) for name in cli.main.commands.keys() - SHELL_ONLY} | {
        "apply", "config", "restore", *bitplan.NOUNS,
    } == set(bitplan.__all__)  # fmt: skip
    assert bitplan.Subject.__name__ == "Subject" and bitplan.Metric.__name__ == "Metric"
    for name in set(bitplan.__all__) - bitplan.NOUNS.keys():
        assert getattr(bitplan, name) is verb_named(name)
    with pytest.raises(AttributeError, match="nothing_like_it"):
        bitplan.nothing_like_it  # noqa: B018


def test_command_line_and_python_have_the_same_defaults() -> None:
    import inspect

    for name in cli.main.commands.keys() - SHELL_ONLY:
        verb = cli.main.commands[name]
        function = verb_named(PYTHON_NAMES.get(name, name))
        defaults = {p.name: p.default for p in inspect.signature(function).parameters.values()}
        for parameter in verb.params:
            default = parameter.get_default(click.Context(verb))
            if parameter.name in defaults and isinstance(default, int | float | str) and default != "":
                assert default == defaults[parameter.name], (name, parameter.name)


def test_names_in_the_help_are_those_of_the_tables() -> None:
    from bitplan.sensitivity.metrics import METRICS
    from bitplan.sensitivity.table import FAMILIES
    from bitplan.solvers.programs.backends import BACKENDS
    from bitplan.solvers.strategies import STRATEGIES

    losses = re.search(r"\((.*?)\)", str(option("solve", "cap").help))
    assert losses and losses.group(1).split(", ") == [
        *(name for name, its in METRICS.items() if its.additive),
        *FAMILIES,
    ]
    assert parameters.METRICS is METRICS and parameters.FAMILIES is FAMILIES
    for command in ("solve", "sweep", "why"):
        names = re.match(r"(\w+) or (\w+) ", str(option(command, "backend").help)).groups()
        assert names == tuple(b.name for b in BACKENDS)
    solvers = re.findall(r"\w+(?=,|\.| or )|(?<=or )\w+", str(option("solve", "solver").help))
    assert solvers == [s.name for s in STRATEGIES] and option("solve", "solver").default == solvers[0]
    for command in ("solve", "apply", "evaluate"):
        assert tuple(option(command, "kernels").type.choices) == KERNELS


def test_the_doctor_names_every_member_of_every_family() -> None:
    from bitplan.planner.measurement.engines import ENGINES
    from bitplan.planner.measurement.methods import METHODS
    from bitplan.plans.formats import FORMATS
    from bitplan.plans.kernels import KERNELS
    from bitplan.plans.kinds import KINDS
    from bitplan.sensitivity.metrics import METRICS
    from bitplan.solvers.programs.backends import BACKENDS
    from bitplan.solvers.strategies import STRATEGIES

    text = str(verb_named("doctor")())
    solvers = (row.name for row in (*BACKENDS, *STRATEGIES))
    for name in (*FORMATS, *KINDS, *KERNELS, *METRICS, *METHODS, *ENGINES, *solvers):
        assert re.search(rf"\b{name}\b", text), name


def test_the_schemes_offered_by_default_are_written_as_they_are_read() -> None:
    for text in (*DEFAULT_SCHEMES, *EXAMPLES):
        assert str(parse_scheme(text)) == text


def test_the_documents_name_the_files_as_they_are() -> None:
    from bitplan.planner.profiles.file import _SCHEMA as TABLES  # noqa: N811
    from bitplan.plans.plan_schema import SCHEMA

    profile, plan = ((ROOT / "docs" / name).read_text() for name in ("profile-file.md", "plan-file.md"))
    for table, columns in re.findall(r"CREATE TABLE (\w+) \((.*?)\);", TABLES, re.DOTALL):
        row = re.search(rf"^\| `{table}` \| (.*?) \|", profile, re.MULTILINE)
        declared = re.findall(r"(\w+) (?:TEXT|INTEGER|REAL|BLOB)", columns)
        assert row and row.group(1).split(", ") == declared, table
    assert re.findall(r"^\| `(\w+)` \|", plan, re.MULTILINE) == list(SCHEMA["properties"])
