"""The wheel, installed: it works beside files and distributions that have the old import names, and changes none."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.installed import build_wheel, environment, python_of, run

NAMES = ("planner", "plans", "sensitivity", "solvers")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


def other_wheel(folder: Path, files: Mapping[str, str]) -> Path:
    """A distribution of another owner, which has these files."""
    path, info = folder / "other-1.0-py3-none-any.whl", "other-1.0.dist-info"
    meta = {
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: other\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in (files | meta).items():
            archive.writestr(name, text)
        record = "".join(f"{name},,\n" for name in (*files, *meta, f"{info}/RECORD"))
        archive.writestr(f"{info}/RECORD", record)
    return path


@pytest.fixture(scope="module")
def alone(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site-packages of an environment where nothing else has the old names."""
    return environment(tmp_path_factory.mktemp("alone") / "env", wheel)


def check_works(site: Path, folder: Path) -> None:
    """`import bitplan`, `python -m bitplan` and the command work in the folder, and are those of the wheel."""
    python = python_of(site)
    code = "import bitplan, bitplan.plans.scheme; bitplan.solve; bitplan.verify; print(bitplan.__file__)"
    assert Path(run(python, "-c", code, cwd=folder).stdout.strip()) == site / "bitplan/__init__.py"
    for command in ((python, "-m", "bitplan"), (python.with_name("bitplan"),)):
        assert "bitplan, version" in run(*command, "--version", cwd=folder).stdout
        assert "plan for scenes" in run(*command, "inspect", "scenes@12%", cwd=folder).stdout


def test_the_wheel_holds_the_data_and_no_tests(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("planner/page/assets", "planner/scenes", "plans/published"):
        files = run("git", "ls-files", folder).stdout.split()
        assert files and {f"bitplan/{name}" for name in files} <= names, folder
    assert any(name.endswith("unet/diffusion_pytorch_model.safetensors") for name in names)
    assert not [name for name in names if "test" in Path(name).name or name.startswith(("tests", "benchmarks"))]
    tops = {name.partition("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"bitplan", "bitplan_old_names.py", "bitplan_old_names.pth"}


def test_it_works_in_a_folder_with_files_of_the_old_names(alone: Path, tmp_path: Path) -> None:
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans/a.plan.yaml").write_text("mine")
    (tmp_path / "planner.py").write_text("OWNER = 'me'")
    check_works(alone, tmp_path)
    code = "import planner, plans, bitplan; print(planner.OWNER, *plans.__path__)"
    done = run(python_of(alone), "-W", "error", "-c", code, cwd=tmp_path)
    assert done.stdout.split() == ["me", str(tmp_path / "plans")]


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_it_works_beside_another_distribution_of_the_old_names(wheel: Path, tmp_path: Path, first: bool) -> None:
    packages = NAMES[:2] if first else NAMES[2:]
    files = {f"{name}/__init__.py" if name in packages else f"{name}.py": f"OWNER = 'other {name}'\n" for name in NAMES}
    other = other_wheel(tmp_path, files)
    site = environment(tmp_path / "env", *((other, wheel) if first else (wheel, other)))
    assert {name: (site / name).read_text() for name in files} == files
    check_works(site, tmp_path)
    code = f"import bitplan, {', '.join(NAMES)}; print({', '.join(f'{name}.OWNER' for name in NAMES)}, sep=',')"
    for order in (code, code.replace("bitplan, ", "").replace("; ", "; import bitplan; ", 1)):
        done = run(python_of(site), "-W", "error", "-c", order, cwd=tmp_path)
        assert done.stdout.strip() == ",".join(f"other {name}" for name in NAMES)


def test_the_old_names_work_with_a_warning(alone: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("""
import planner, plans.scheme, sensitivity.table, solvers.reduction.ties
from planner.choice.request import Request
from solvers import problem
import bitplan.plans.scheme, bitplan.solvers.problem, bitplan.planner.choice.request as request
assert planner.solve is bitplan.solve and planner.Subject is bitplan.Subject
assert plans.scheme is bitplan.plans.scheme and problem is bitplan.solvers.problem and Request is request.Request
assert solvers.reduction.ties is __import__("sys").modules["bitplan.solvers.reduction.ties"]
try:
    import planner.nothing_like_it
except ModuleNotFoundError as error:
    assert "planner.nothing_like_it" in str(error)
""")
    done = run(python_of(alone), script, cwd=tmp_path)
    for name, new in zip(NAMES, ("bitplan", *(f"bitplan.{name}" for name in NAMES[1:])), strict=True):
        line = next(line for line in done.stderr.splitlines() if f"the module {name} is now {new};" in line)
        assert line.startswith(f"{script}:2: DeprecationWarning")


def test_a_finder_that_came_later_goes_first(alone: Path, tmp_path: Path) -> None:
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden/plans.py").write_text("OWNER = 'hidden'")
    code = """
import sys
from importlib.machinery import PathFinder
class Late:
    find_spec = lambda name, path=None, target=None: PathFinder.find_spec(name, ["hidden"])
sys.meta_path.append(Late)
import plans
print(plans.OWNER)
"""
    assert run(python_of(alone), "-W", "error", "-c", code, cwd=tmp_path).stdout == "hidden\n"


def test_python_starts_as_quietly_as_without_it(alone: Path, tmp_path: Path) -> None:
    code = "import sys; print('bitplan_old_names' in sys.modules, 'bitplan' in sys.modules, 'warnings' in sys.modules)"
    done = run(python_of(alone), "-c", code, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("True False False\n", "")
