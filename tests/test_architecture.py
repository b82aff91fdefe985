"""The walls of the house: who imports whom, what needs torch, how long things get, and that names do not drift."""

from __future__ import annotations

import ast
import inspect
import os
import re
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from bitplan.planner.choice.request import KERNELS
from bitplan.planner.cli import commands as cli
from bitplan.planner.verbs import COMMANDS, VERBS, parameters
from bitplan.planner.verbs import verb as verb_named
from bitplan.planner.verbs.parameters import DEFAULT_SCHEMES
from bitplan.plans.scheme import EXAMPLES, parse_scheme

ROOT = Path(__file__).parents[1]
ROOMS = ("planner", "plans", "sensitivity", "solvers")
LONGEST_FILE, LONGEST_FUNCTION, MOST_ARGUMENTS = 300, 30, 6  # lines, lines, arguments without self
# `file:function` -> why it may be longer. Of a verb only the body counts: its docstring has a line for each parameter.
LONG = {
    "plans/kernels/gpu/product.py:product_kernel": "a Triton kernel is one function",
    "plans/layers/attention.py:forward": "its signature is that of torch's MultiheadAttention",
}
# Functions that are to be split.
STILL_LONG = {
    "plans/layers/simulation.py:variant", "plans/layers/simulation.py:output_changes",
    "planner/outlines/inputs.py:unet_condition",
    "planner/graph/trace.py:_trace",
}  # fmt: skip
# `file:function` -> why it may take more arguments. Verbs may, too: their keywords are the options of the commands.
MANY_ARGUMENTS = {
    "plans/layers/attention.py:forward": "its signature is that of torch's MultiheadAttention",
    **{
        f"plans/kernels/gpu/{name}": "Triton functions take no objects"
        for name in ("product.py:product_kernel", "product.py:_weights", "rounding.py:round_kernel",
                     "tiles.py:plane_tile", "tiles.py:code_tile", "tiles.py:input_tile", "tiles.py:conv_tile")
    },
}  # fmt: skip
SHELL_ONLY = {"completion"}  # the commands that are no verbs
WITHOUT_TORCH = (  # modules and whole packages
    "bitplan", "solvers", "plans.scheme", "plans.kinds", "plans.plan", "plans.plan_schema",
    "sensitivity.table", "sensitivity.responses", "sensitivity.correction",
    "planner.errors", "planner.units", "planner.texts", "planner.progress", "planner.files", "planner.interrupts",
    "planner.cli", "planner.verbs", "planner.page", "planner.choice", "planner.profiles", "planner.scenes",
    "planner.graph.layers", "planner.graph.roles", "planner.graph.components", "planner.pipelines.conditions",
    "planner.finetunes.ratios", "planner.finetunes.verdict", "planner.interop", "planner.targets",
    "planner.applied.__init__",
    "planner.measurement.engines", "planner.measurement.methods.__init__", "planner.measurement.jobs",
    "planner.views.sweep", "planner.views.run", "planner.views.view", "planner.views.bitmap", "planner.views.roles",
    "planner.views.inspect", "planner.views.profile_view",
)  # fmt: skip
WITH_TORCH = ("planner.page.painter", "planner.measurement.engines.ray", "planner.measurement.engines.local",
              "planner.interop.model")  # fmt: skip
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
    code = "import sys, bitplan; before = {*sys.modules}; import bitplan.solvers.solve; print(*{*sys.modules} - before)"
    names = python(code).stdout.split()
    assert "bitplan.solvers.solve" in names and not {"torch", "diffusers"} & {*names}
    assert {name for name in names if name.startswith("bitplan.")} == {
        name for name in names if name.startswith("bitplan.solvers")
    }


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


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """`file:function` and its definition."""
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.relative_to(ROOT)}:{node.name}", node


def verb_functions() -> set[str]:
    return {f"planner/verbs/{verb.file}.py:{verb.name}" for verb in VERBS.values()}


def lines_of(node: ast.FunctionDef | ast.AsyncFunctionDef, body_alone: bool) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - (node.body[0].end_lineno or 0 if body_alone else node.lineno - 1)


def arguments_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    args = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
    return sum(each.arg not in ("self", "cls") for each in args)


def test_files_and_functions_are_short() -> None:
    assert len(sources()) > 60
    assert not [path for path in sources() if path.read_text().count("\n") > LONGEST_FILE]
    verbs = verb_functions()
    long = {name for name, node in functions() if lines_of(node, name in verbs) > LONGEST_FUNCTION}
    assert long >= LONG.keys() and long - LONG.keys() <= STILL_LONG


def test_functions_take_few_arguments() -> None:
    found = {name for name, node in functions() if arguments_of(node) > MOST_ARGUMENTS}
    assert found - verb_functions() == MANY_ARGUMENTS.keys()


def test_no_name_is_of_two_classes() -> None:
    names = Counter(
        node.name
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    )
    assert len(names) > 100 and names.most_common(1)[0][1] == 1, names.most_common(3)


def imported(text: str) -> set[str]:
    """The top-level names that a file imports."""
    nodes = [*ast.walk(ast.parse(text))]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    return {name.partition(".")[0] for name in names}


def test_nothing_is_imported_by_an_old_name() -> None:
    assert imported("import os, solvers.solve\nfrom plans import x") == {"os", "solvers", "plans"}
    files = python("import subprocess; subprocess.run(['git', 'ls-files', '*.py', '*.md', '*.ipynb'])").stdout.split()
    assert len(files) > 300
    line = re.compile(rf"^\W*(?:from|import) (?:{'|'.join(ROOMS)})\b", re.MULTILINE)
    for name in files:
        text = (ROOT / name).read_text()
        wrong = imported(text) & {*ROOMS} if name.endswith(".py") else set(line.findall(text))
        assert not wrong, (name, wrong)


def option(command: str, name: str) -> click.Option:
    verb = cli.main.commands[command]
    return next(p for p in verb.params if isinstance(p, click.Option) and f"--{name}" in p.opts)


def test_verbs_are_commands() -> None:
    import bitplan

    assert cli.main.commands.keys() - SHELL_ONLY == COMMANDS.keys()
    assert {*VERBS, *bitplan.NOUNS} == set(bitplan.__all__)
    assert {verb.name for verb in VERBS.values() if verb not in COMMANDS.values()} == {"apply", "config", "restore"}
    assert bitplan.Subject.__name__ == "Subject" and bitplan.Metric.__name__ == "Metric"
    for name in VERBS:
        assert getattr(bitplan, name) is verb_named(name)
    with pytest.raises(AttributeError, match="nothing_like_it"):
        bitplan.nothing_like_it  # noqa: B018


def test_command_line_and_python_have_the_same_words_and_defaults() -> None:
    for command, verb in COMMANDS.items():
        defaults = {p.name: p.default for p in inspect.signature(verb.function).parameters.values()}
        options = {p.name: p for p in cli.main.commands[command].params}
        assert options.keys() - {"as_json", "quiet"} == {*defaults, *verb.extra}
        for name, parameter in options.items():
            default = parameter.get_default(click.Context(cli.main.commands[command]))
            if name in defaults and isinstance(default, int | float | str):
                assert default == defaults[name], (command, name)


def test_each_word_is_in_the_table_once_and_in_its_verbs_docstring() -> None:
    used = set()
    for verb in VERBS.values():
        words = [*inspect.signature(verb.function).parameters]
        documented = re.findall(r"^        (\w+): ", str(verb.function.__doc__), re.MULTILINE)
        assert sorted(documented) == sorted(words), verb.name
        if verb in COMMANDS.values():
            for word in (*words, *verb.extra):
                used.add(f"{verb.name}.{word}" if f"{verb.name}.{word}" in parameters.PARAMETERS else word)
    assert used == parameters.PARAMETERS.keys()


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
    from bitplan.planner.profiles.tables import NEWEST, statements
    from bitplan.plans.plan_schema import PARTS

    profile, plan = ((ROOT / "docs" / name).read_text() for name in ("profile-file.md", "plan-file.md"))
    for table, columns in re.findall(r"CREATE TABLE (\w+) \((.*?)\);", ";".join([*statements(NEWEST), ""]), re.DOTALL):
        row = re.search(rf"^\| `{table}` \| (.*?) \|", profile, re.MULTILINE)
        declared = re.findall(r"(\w+) (?:TEXT|INTEGER|REAL|BLOB)", columns)
        assert row and row.group(1).split(", ") == declared, table
    assert re.findall(r"^\| `(\w+)` \|", plan, re.MULTILINE) == list(PARTS)
