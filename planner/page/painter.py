"""Painting for a page: one picture at a time, in a thread of its own. torch is loaded at the first one."""

from __future__ import annotations

import base64
import io
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bitplan.planner.errors import UserError
from bitplan.planner.texts import one_line
from bitplan.plans.plan import Plan, dtype_of

log = logging.getLogger(__name__)
STATES = ("idle", "solving", "loading", "painting", "done", "failed")


class BusyError(UserError):
    """One picture is under way."""


@dataclass(frozen=True)
class Painted:
    """How far it is. state: of STATES; error: a sentence where it failed; prompt: what was painted; plan, full:
    addresses of the pictures, those of the plan and of full precision."""

    state: str = "idle"
    error: str = ""
    prompt: str = ""
    seed: int = 0
    plan: str = ""
    full: str = ""

    @property
    def busy(self) -> bool:
        return self.state in ("solving", "loading", "painting")


@dataclass(frozen=True)
class PaintOptions:
    """What is painted with; the words are those of `bitplan.planner.verbs.choose.paint`."""

    pipeline: str | None = None
    steps: int | None = None
    guidance: float | None = None
    kernels: str = "int"
    call: Mapping[str, Any] = field(default_factory=dict)


class Painter:
    """`start` begins a picture, `told` says how far it is; the pipeline stays loaded in between."""

    def __init__(self, studio: PaintOptions) -> None:
        self.studio = studio
        self.told = Painted()
        self._lock = threading.Lock()
        self._subject: Any = None
        self._full: dict[tuple[str, int], str] = {}  # of the last one only

    def start(self, make: Callable[[], Plan], prompt: str, seed: int) -> Painted:
        """Begin the picture of the plan that `make` gives. Raises BusyError where another one is under way."""
        with self._lock:
            if self.told.busy:
                raise BusyError("one picture is being painted; wait until it is done")
            self.told = Painted("solving", prompt=prompt, seed=seed)
        threading.Thread(target=self._run, args=(make, prompt, seed), daemon=True).start()
        return self.told

    def _run(self, make: Callable[[], Plan], prompt: str, seed: int) -> None:
        try:
            plan = make()
            self._tell("loading")
            subject = self._loaded(plan)
            self._tell("painting")
            self.told = _paint(subject, plan, self.studio.kernels, (prompt, seed), self._full)
        except Exception as error:  # whatever a model throws is told on the page, and ends nothing else
            if not isinstance(error, ValueError):
                log.exception("painting failed")
            named = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            self.told = replace(self.told, state="failed", error=(named + one_line(error))[:500])

    def _tell(self, state: str) -> None:
        self.told = replace(self.told, state=state)

    def _loaded(self, plan: Plan) -> Any:
        if self._subject is None:
            from bitplan.planner.pipelines.sources import generation_of, load_subject

            studio, name = self.studio, self.studio.pipeline or plan.model["name"]
            generation = generation_of(name, studio.steps, studio.guidance, 0, studio.call)
            self._subject = load_subject(name, generation, dtype_of([plan]))
        return self._subject


def _paint(subject: Any, plan: Plan, kernels: str, asked: tuple[str, int], full: dict[tuple[str, int], str]) -> Painted:
    """Both pictures, full precision's from `full` where it is there. Raises UserError and what the model raises."""
    from bitplan.planner.applied.pipeline import apply_plan, restore_pipeline
    from bitplan.planner.pipelines.subject import conditions_of

    prompt, seed = asked
    conditions = conditions_of(subject, [prompt] if prompt else None, 1, held_out=True)[:1]
    if asked not in full:
        full.clear()
        full[asked] = _picture(subject, conditions, seed)
    apply_plan(subject, plan, kernels)
    try:
        made = _picture(subject, conditions, seed)
    finally:
        restore_pipeline(subject)
    shown = conditions[0] if isinstance(conditions[0], str) else prompt
    return Painted("done", prompt=shown, seed=seed, plan=made, full=full[asked])


def _picture(subject: Any, conditions: list[Any], seed: int) -> str:
    """The address of one picture, that holds all of it."""
    from bitplan.planner.pipelines.outputs import to_picture
    from bitplan.planner.pipelines.subject import output_of, run_subject

    outputs = run_subject(subject, conditions, seed)
    if (kind := output_of(subject, outputs)) != "images":
        raise UserError(f"{subject.name} puts out {kind}, and the page shows pictures; take `bitplan apply` for it")
    file = io.BytesIO()
    to_picture(outputs[0]).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
