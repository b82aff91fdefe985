"""Wheels, and environments that hold them: with everything that this one has, or with what they declare to need."""

from __future__ import annotations

import email
import importlib.metadata
import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
HERE = Path(sysconfig.get_path("purelib"))


def called(*command: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, env=ENVIRONMENT)


def run(*command: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a command that succeeds."""
    done = called(*command, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def pip(python: Path, *words: object) -> tuple[object, ...]:
    """The command that is `pip` in the environment of `python`, without an index."""
    named = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", *words)
    return (*named, "--no-index") if "install" in words else named


def build_wheel(folder: Path) -> Path:
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT)
    return next(folder.glob("*.whl"))


def python_of(site: Path) -> Path:
    return site.parents[2] / "bin/python"


def empty_environment(folder: Path) -> Path:
    """The site-packages of a new virtual environment."""
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    return next(folder.glob("lib/python*/site-packages"))


def install(site: Path, *wheels: Path) -> None:
    for each in wheels:
        run(*pip(python_of(site), "install"), "--no-deps", "--no-compile", "--ignore-installed", each)


def environment(folder: Path, *wheels: Path) -> Path:
    """A virtual environment with the wheels, which finds everything else in that of this process."""
    site = empty_environment(folder)
    (site / "shared.pth").write_text(f"{HERE}\n")  # without its .pth files: no editable bitplan
    install(site, *wheels)
    return site


def declared_environment(folder: Path, wheel: Path, *extras: str) -> Path:
    """A virtual environment with what the wheel declares to need with these extras, and nothing else: no wheel yet."""
    site = empty_environment(folder)
    for name in {name for each in _needed(wheel, extras) for name in _tops(each)}:
        (site / name).symlink_to(HERE / name)
    return site


def _needed(wheel: Path, extras: Iterable[str]) -> Iterator[importlib.metadata.Distribution]:
    """The distributions of this environment that the wheel needs, and those that they need."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        texts = email.message_from_bytes(archive.read(name)).get_all("Requires-Dist", [])
    known: set[str] = set()
    waiting = list(_chosen(texts, extras))
    while waiting:
        each = waiting.pop()
        if str(each) not in known:
            known.add(str(each))
            found = importlib.metadata.distribution(each.name)
            yield found
            waiting += _chosen(found.requires or (), each.extras)


def _chosen(texts: Iterable[str], extras: Iterable[str]) -> Iterator[Requirement]:
    for each in map(Requirement, texts):
        if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield each


def _tops(distribution: importlib.metadata.Distribution) -> set[str]:
    """The names in site-packages that are the distribution's."""
    return {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}
