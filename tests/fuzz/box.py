"""The folder of one case, and what may not happen while the case runs: writes, imports and processes outside it.

Process-wide effect: an audit hook cannot be removed, so cases run in processes of their own (`tests/fuzz/engine.py`).
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.fuzz.values import CANARY, Below

VICTIM = "a file that is not BitPlan's\n"
_MOVES = {"os.remove": 1, "os.rename": 2, "os.mkdir": 1, "os.rmdir": 1, "os.link": 2, "os.symlink": 2, "os.truncate": 1,
          "os.chmod": 1, "os.chown": 1, "os.utime": 1}  # event -> number of paths among its arguments  # fmt: skip
_IN_FOLDER = ("os.remove", "os.rmdir", "os.mkdir")  # their last argument is the number of an open folder
_FORBIDDEN = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect", "socket.bind",
              "webbrowser.open", "pty.spawn")  # fmt: skip
_PROGRAMS = ("bash", "cbc", "uname")  # click asks for its version; a solver; a report of a crash names the system
_HARMLESS = (os.devnull, "/proc", "/sys")


@dataclass(frozen=True)
class Box:
    """The folder of one case.

    Attributes:
        root: the folder; the current one is `root/cwd`, which holds the canary.
        inputs: the folder of the files that the case spoils.
        out: the folder that the case may write to.
        events: what happened outside `root/out` and the other places.
        places: other paths that the running command may write to, as its `--out` names them.
    """

    root: Path
    events: list[str] = field(default_factory=list)
    places: list[Path] = field(default_factory=list)
    inputs, out = Below("in"), Below("out")

    def may_write(self, path: str) -> bool:
        if path.startswith((f"{self.out}/", f"{self.root}/tmp/", *_HARMLESS)) or path == str(self.out):
            return True
        return any(map(partial(_is_of, path), self.places))


def _is_of(path: str, place: Path) -> bool:
    """Whether a verb that writes to `place` may write to `path`: into it, beside it by its name, or a folder above."""
    name, folder = os.path.basename(path), os.path.dirname(path)
    beside = folder == str(place.parent) and place.name.partition(".")[0] in name
    return beside or path.startswith(f"{place}/") or str(place).startswith(f"{path}/")


def new_box(root: Path) -> Box:
    """Makes the folder, empty but for the canary and the victims beside `out`."""
    shutil.rmtree(root, ignore_errors=True)
    for name in ("in", "out", "cwd", "sibling", "tmp"):
        (root / name).mkdir(parents=True)
    (root / "cwd" / f"{CANARY}.py").write_text("pipe = Metric = object()\n")
    for name in ("victim.yaml", "picture.png"):
        (root / "sibling" / name).write_text(VICTIM)
    return Box(root)


_now: list[Box] = []  # the box of the running case; the hook of this process reads it


def install() -> None:
    """Installs the audit hook of this process, once."""
    sys.dont_write_bytecode = True
    sys.addaudithook(_audit)


@contextmanager
def watched(box: Box) -> Iterator[None]:
    """Within the `with`, what happens elsewhere is noted in the box's events; the current folder is the box's."""
    before, folder = _tree(box), Path.cwd()
    os.chdir(box.root / "cwd")
    _now.append(box)
    try:
        yield
    finally:
        _now.clear()
        os.chdir(folder)
        if sys.modules.pop(CANARY, None) is not None:
            box.events.append(f"imported {CANARY}")
        after = _tree(box)
        changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path)
                         and not box.may_write(f"{box.root}/{path}")
                         and not any(str(place.parent) == f"{box.root}/{path}" for place in box.places))  # fmt: skip
        box.events.extend(f"changed {path}" for path in changed)


def _tree(box: Box) -> dict[str, tuple[int, ...]]:
    """Each path of the box outside `out` -> kind, size, time and inode."""
    found = {}
    for name in ("in", "cwd", "sibling"):
        for folder, _, files in os.walk(box.root / name):
            for path in (folder, *(f"{folder}/{file}" for file in files)):
                facts = os.lstat(path)
                size = 0 if path == folder else facts.st_size
                found[os.path.relpath(path, box.root)] = (facts.st_mode, size, facts.st_mtime_ns, facts.st_ino)
    return found


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if not _now:
        return
    box = _now[0]
    if event == "open":
        _opened(box, *args)
    elif event in _MOVES:
        number = args[-1] if event in _IN_FOLDER and isinstance(args[-1], int) else -1
        for path in args[: _MOVES[event]]:
            if not box.may_write(_absolute(path, number)):
                box.events.append(f"{event} {_short(box, path)}")
    elif event in _FORBIDDEN and _program(args) not in _PROGRAMS:
        box.events.append(f"{event} {args[0]!r}")


def _program(args: tuple[Any, ...]) -> str:
    """The name of the program; where setpriv starts it, as the solver is started, of the one behind its options."""
    name = os.path.basename(str(args[0]))
    words = [os.path.basename(str(word)) for word in args[1]] if name == "setpriv" else []
    return "cbc" if "cbc" in words else name


def _opened(box: Box, path: Any, mode: Any, flags: Any) -> None:
    if not isinstance(path, (str, bytes)):
        return
    place = _absolute(path)
    writes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)) if isinstance(flags, int) else False
    if writes and not box.may_write(place):
        box.events.append(f"wrote {_short(box, place)}")
    elif place.startswith(f"{box.root}/") and os.path.realpath(place).startswith(_strange(box)):
        box.events.append(f"read {_short(box, place)}")


def _strange(box: Box) -> tuple[str, ...]:
    """How the paths of the files begin that no command may read, by their name or through a link."""
    root = os.path.realpath(box.root)
    return f"{root}/sibling/", f"{root}/cwd/{CANARY}"


def _absolute(path: Any, folder: int = -1) -> str:
    """The absolute path; folder: the number of the open folder that it is relative to, or -1."""
    try:
        start = os.readlink(f"/proc/self/fd/{folder}") if folder >= 0 else "."
        return os.path.abspath(os.path.join(start, os.fsdecode(path)))
    except TypeError:  # a file's number
        return os.devnull


def _short(box: Box, path: Any) -> str:
    return _absolute(path).replace(str(box.root), "@box")
