"""Writes plans as they are found, and continues the search for several plans that was interrupted. Imports no torch.

While a search for several plans is not finished, `P.candidates.json` beside them says of which request they are and how
many there are.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitplan.planner.choice.answer import Search, find_plans
from bitplan.planner.choice.ranking import sibling
from bitplan.planner.choice.request import Request
from bitplan.planner.files import read_text, write_json
from bitplan.planner.interrupts import keeps
from bitplan.planner.profiles.digests import digest_of, profile_digest
from bitplan.planner.profiles.profile import Profile
from bitplan.planner.progress import Course
from bitplan.plans.plan import Plan, PlanError, load_plan, save_plan
from bitplan.plans.reading import parse_json


@dataclass(frozen=True)
class Unfinished:
    """The plans of a search that is not finished.

    Attributes:
        out: the file of the best plan; the others are its siblings.
        asked: digest of what they depend on.
    """

    out: Path
    asked: str

    @property
    def path(self) -> Path:
        """The file that says how many there are."""
        return sibling(self.out, "candidates").with_suffix("").with_suffix(".json")

    def plans(self) -> list[Plan]:
        """Return the plans that an earlier search of the same wrote; none if it was another, or a file is damaged."""
        with contextlib.suppress(OSError, ValueError, TypeError, PlanError):
            said: Any = parse_json(read_text(self.path))
            if said["asked"] == self.asked:
                return [load_plan(sibling(self.out, number + 1)) for number in range(said["found"])]
        return []

    def write(self, found: int) -> None:
        """State that the first `found` plans are written."""
        write_json({"asked": self.asked, "found": found}, self.path)

    def finish(self) -> None:
        """State that the search is finished."""
        self.path.unlink(missing_ok=True)


def unfinished(store: Profile, request: Request, search: Search, out: Path) -> Unfinished:
    """Return the search as it lies beside `out`. How many plans it looks for does not matter."""
    asked = [profile_digest(store), request.to_json(), search.effort.to_json(), search.distance, search.worth]
    return Unfinished(out, digest_of(asked))


def solve_into(store: Profile, request: Request, search: Search, out: Path, course: Course) -> list[Plan]:
    """Find the plans and write each as it is found: the best as `out`, and, where several are looked for, each one in
    its own file. The first ones are those that an interrupted search of the same wrote. Raises as `find_plans`.
    """
    if search.candidates == 1:
        if not (request.order or search.worth):  # a single solve
            course.deadline = time.monotonic() + search.effort.time_limit
        with course.phase("searching"):
            (plan,) = find_plans(store, request, search)
        save_plan(plan, out)
        return [plan]
    mark = unfinished(store, request, search, out)
    known = mark.plans()[: search.candidates]
    plans: list[Plan] = []
    with course.phase("searching", search.candidates, "plans", len(known)):
        for plan in find_plans(store, request, search, known):
            plans.append(plan)
            if len(plans) > len(known):
                save_plan(plan, sibling(out, len(plans)))
                mark.write(len(plans))
                course.advance()
            if len(plans) == 1:
                save_plan(plan, out)
            keeps(f"{len(plans)} of {search.candidates} plans are kept, up to {sibling(out, len(plans))}, and the same "
                  "command continues from there")  # fmt: skip
    return plans
