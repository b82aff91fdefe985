"""Writes plans as they are found, and continues the search for several plans that was interrupted. Imports no torch.

`P.candidates.json` beside them lists the files of the last search for several plans. While it is not finished, it says
of which request they are and how many there are.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitplan.planner.choice.answer import Search, find_plans
from bitplan.planner.choice.ranking import ranking_at, sibling, stem_of
from bitplan.planner.choice.request import Request
from bitplan.planner.files import kind_of, plain_name, plan_files, read_text, write_json, write_plan
from bitplan.planner.interrupts import keeps
from bitplan.planner.profiles.digests import digest_of, profile_digest
from bitplan.planner.profiles.profile import Profile
from bitplan.planner.progress import Course
from bitplan.plans.plan import Plan, load_plan
from bitplan.plans.reading import parse_json


@dataclass(frozen=True)
class CandidateFiles:
    """The files that searches for several plans write beside the best one.

    Attributes:
        out: the file of the best plan; the others are its siblings.
        asked: digest of what the plans depend on.
        made: name -> sha256 of the files that this search and earlier ones wrote; filled as they are written.
    """

    out: Path
    asked: str
    made: dict[str, str]

    @property
    def path(self) -> Path:
        """The file that lists them."""
        return _listed_at(self.out)

    def plans(self) -> list[Plan]:
        """Return the plans of an unfinished search of the same; none if it was another, or a file is damaged."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            said: Any = parse_json(read_text(self.path))
            if said["asked"] == self.asked and not said["finished"]:
                return [load_plan(sibling(self.out, number + 1)) for number in range(said["found"])]
        return []

    def add(self, files: Iterable[Path], found: int) -> None:
        """State that these files are written, and that the first `found` plans are."""
        self.made.update((file.name, _sha256(file)) for file in files)
        self._write(found, finished=False)

    def finish(self, plans: Sequence[Plan] = (), ranked: bool = False) -> None:
        """State that the search is finished; remove the files of earlier searches for this name.

        A file that was changed since it was written is not removed. plans: those that have a file of their own;
        ranked: whether there is a file with their ranking.
        """
        files = [file for number, plan in enumerate(plans) for file in plan_files(plan, sibling(self.out, number + 1))]
        current = {file.name: file for file in (*files, *([ranking_at(self.out)] if ranked else []))}
        for name, digest in [item for item in self.made.items() if item[0] not in current]:
            if _sha256(self.out.with_name(name)) == digest:
                self.out.with_name(name).unlink()
            del self.made[name]
        self.made.update((name, _sha256(file)) for name, file in current.items())
        if self.made:
            self._write(0, finished=True)
        elif kind_of(self.out) != "stream" and _listed(self.out):
            self.path.unlink()

    def _write(self, found: int, finished: bool) -> None:
        write_json({"asked": self.asked, "found": found, "finished": finished, "files": self.made}, self.path)


def candidate_files(store: Profile, request: Request, search: Search, out: Path) -> CandidateFiles:
    """Return the files as they lie beside `out`. How many plans the search looks for does not matter."""
    asked = [profile_digest(store), request.to_json(), search.effort.to_json(), search.distance, search.worth]
    return CandidateFiles(out, digest_of(asked), {} if kind_of(out) == "stream" else _listed(out))


def solve_into(store: Profile, request: Request, search: Search, files: CandidateFiles, course: Course) -> list[Plan]:
    """Find the plans and write each as it is found: the best as `files.out`, and, where several are looked for, each in
    its own file. The first ones are those that an interrupted search of the same wrote. Raises as `find_plans`.
    """
    out = files.out
    if search.candidates == 1:
        if not (request.order or search.worth):  # a single solve
            course.deadline = time.monotonic() + search.effort.time_limit
        with course.phase("searching"):
            (plan,) = find_plans(store, request, search)
        write_plan(plan, out)
        return [plan]
    known = files.plans()[: search.candidates]
    plans: list[Plan] = []
    with course.phase("searching", search.candidates, "plans", len(known)):
        for plan in find_plans(store, request, search, known):
            plans.append(plan)
            if len(plans) > len(known):
                files.add(write_plan(plan, sibling(out, len(plans))), len(plans))
                course.advance()
            if len(plans) == 1:
                write_plan(plan, out)
            keeps(f"{len(plans)} of {search.candidates} plans are kept, up to {sibling(out, len(plans))}, and the same "
                  "command continues from there")  # fmt: skip
    return plans


def _listed_at(out: Path) -> Path:
    return sibling(out, "candidates").with_suffix("").with_suffix(".json")


def _listed(out: Path) -> dict[str, str]:
    """Return name -> sha256 of the files that earlier searches wrote for this name; none where no list of them lies
    there. A list that names other files is not one of theirs."""
    name_of_one = re.compile(re.escape(stem_of(out)) + r"\.(\d+|ranking)\.[^/]*")
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        files: dict[str, str] = dict(parse_json(read_text(_listed_at(out)))["files"])
        if all(name_of_one.fullmatch(plain_name(name)) for name in files):
            return files
    return {}


def _sha256(file: Path) -> str:
    """Return the sha256 (hex) of a file; empty where it cannot be read."""
    with contextlib.suppress(OSError):
        return hashlib.sha256(file.read_bytes()).hexdigest()
    return ""
