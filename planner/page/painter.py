"""Paints pictures for the page, one at a time, in a thread of its own. The first picture loads torch."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bitplan.planner.crash import where_reported
from bitplan.planner.errors import UserError, is_own
from bitplan.planner.extras import require
from bitplan.planner.texts import cause_of, one_line
from bitplan.plans.plan import Plan

STATES = ("idle", "solving", "loading", "painting", "done", "failed")


class BusyError(UserError):
    """Another picture is being painted."""


@dataclass(frozen=True)
class Painted:
    """How far a picture is.

    Attributes:
        state: one of STATES.
        error: a sentence where painting failed.
        prompt: the prompt of the picture.
        seed: the seed of its noise.
        plan: `data:` address of the plan's picture.
        full: `data:` address of full precision's picture.
    """

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
    """What paints; the words are those of `bitplan.planner.verbs.use.paint`.

    Attributes:
        pipeline: `scenes`, a folder, a hub id or `package.module:name`; None for the one that the plan names.
        steps: denoising steps; None for the pipeline's default.
        guidance: guidance scale; None for the pipeline's default.
        kernels: `int` or `fake`.
        call: further arguments of the pipeline's call.
        trust: whether the pipeline that the profile names may be imported.
        variant: variant of the weights' files; None for that of the plan.
    """

    pipeline: str | None = None
    steps: int | None = None
    guidance: float | None = None
    kernels: str = "int"
    call: Mapping[str, Any] = field(default_factory=dict)
    trust: bool = False
    variant: str | None = None


class Painter:
    """Paints one picture at a time; the pipeline stays loaded in between.

    Attributes:
        options: what paints.
        picture: the latest picture, or how far it is.
    """

    def __init__(self, options: PaintOptions) -> None:
        self.options = options
        self.picture = Painted()
        self._lock = threading.Lock()
        self._subject: Any = None
        self._full: dict[tuple[str, int], str] = {}  # (prompt, seed) -> address, of the last picture only

    def start(self, make: Callable[[], Plan], prompt: str, seed: int) -> Painted:
        """Start painting with the plan that `make` returns. Raises BusyError while another picture is being painted."""
        with self._lock:
            if self.picture.busy:
                raise BusyError("one picture is being painted; wait until it is done")
            self.picture = Painted("solving", prompt=prompt, seed=seed)
        threading.Thread(target=self._run, args=(make, prompt, seed), daemon=True).start()
        return self.picture

    def _run(self, make: Callable[[], Plan], prompt: str, seed: int) -> None:
        try:
            require("torch", "painting")
            plan = make()
            self._tell("loading")
            subject = self._loaded(plan)
            self._tell("painting")
            self.picture = _paint(subject, plan, self.options.kernels, (prompt, seed), self._full)
        except (Exception, SystemExit) as error:  # the page shows whatever a model raises, and the server goes on
            known = is_own(error)
            why = one_line(error) if known else f"{cause_of(error, 300)}; {where_reported(error, 'painting')}"
            self.picture = replace(self.picture, state="failed", error=why[:500])

    def _tell(self, state: str) -> None:
        self.picture = replace(self.picture, state=state)

    def _loaded(self, plan: Plan) -> Any:
        if self._subject is None:
            from bitplan.planner.pipelines.sources import generation_of, load_subject
            from bitplan.planner.pipelines.weights import weights_for

            options, name = self.options, self.options.pipeline or plan.model["name"]
            generation = generation_of(name, options.steps, options.guidance, 0, options.call)
            self._subject = load_subject(name, generation, weights_for([plan], options.variant))
        return self._subject


def _paint(
    subject: Any, plan: Plan, kernels: str, prompt_seed: tuple[str, int], full: dict[tuple[str, int], str]
) -> Painted:
    """Paint by the plan and, unless `full` holds it, in full precision. Raises UserError and what the model raises."""
    from bitplan.planner.applied.pipeline import apply_plan, restore_pipeline
    from bitplan.planner.pipelines.subject import conditions_of

    prompt, seed = prompt_seed
    conditions = conditions_of(subject, [prompt] if prompt else None, 1, held_out=True)[:1]
    if prompt_seed not in full:
        full.clear()
        full[prompt_seed] = _picture(subject, conditions, seed)
    apply_plan(subject, plan, kernels)
    try:
        planned = _picture(subject, conditions, seed)
    finally:
        restore_pipeline(subject)
    shown = conditions[0] if isinstance(conditions[0], str) else prompt
    return Painted("done", prompt=shown, seed=seed, plan=planned, full=full[prompt_seed])


def _picture(subject: Any, conditions: list[Any], seed: int) -> str:
    """One picture as a `data:` address."""
    from bitplan.planner.pipelines.outputs import to_picture
    from bitplan.planner.pipelines.subject import output_of, run_subject

    outputs = run_subject(subject, conditions, seed)
    if (kind := output_of(subject, outputs)) != "images":
        raise UserError(f"{subject.name} puts out {kind}, and the page shows pictures only; use `bitplan apply` for it")
    file = io.BytesIO()
    to_picture(outputs[0]).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
