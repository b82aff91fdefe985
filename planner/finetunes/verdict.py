"""States the result of checking a profile against a fine-tune, in sentences and tables. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from bitplan.planner.texts import plain, shell_command, table
from bitplan.sensitivity.agreement import Agreement, Compared
from bitplan.solvers.questions.regret import BROKEN, HOLDS, UNSURE, RegretVerdict

SAME = "same weights"
SENSIBLE = 8  # times the sample: what is still advised
SHOWN = 3  # pairs that disagree most


@dataclass(frozen=True)
class CheckInputs:
    """What is checked.

    Attributes:
        profile: path of the profile.
        pipeline: name of the fine-tune.
        tolerance: share of extra loss that still counts as good.
        static: whether plans may hold calibrated ranges.
        one: whether a single plan was judged.
    """

    profile: str
    pipeline: str
    tolerance: float
    static: bool
    one: bool


@dataclass(frozen=True)
class Check:
    """The result of a check.

    Attributes:
        verdict: `holds`, `does not hold`, `cannot tell` or `same weights`.
        sentence: the verdict with its numbers, and what to do.
        families: the verdict on each loss column.
        metrics: agreement of old and new losses for each metric.
        compared: old and new losses of the sample.
        inputs: what was checked.
    """

    verdict: str
    sentence: str
    families: tuple[RegretVerdict, ...]
    metrics: tuple[Agreement, ...]
    compared: tuple[Compared, ...]
    inputs: CheckInputs

    @property
    def holds(self) -> bool:
        """Whether the old plans may be used."""
        return self.verdict in (HOLDS, SAME)

    def __str__(self) -> str:
        tables = [_table([_metric_row(each) for each in self.metrics]), _table([_row(each) for each in self.families])]
        return "\n\n".join([*(tables if self.families else ()), self.sentence])

    def to_json(self) -> dict[str, Any]:
        """What `json.dumps` takes; numbers that are not finite are null."""
        values = {each.name: plain(getattr(self, each.name)) for each in fields(self)}
        return {("told" if name == "inputs" else name): value for name, value in values.items()}


def conclude(
    inputs: CheckInputs, families: Sequence[RegretVerdict], metrics: Sequence[Agreement], compared: Sequence[Compared]
) -> Check:
    """Returns the overall verdict, which is that of the worst family.

    Without families the weights are those of the profile, and nothing was measured.
    """
    verdicts = {each.verdict for each in families}
    verdict = next((v for v in (BROKEN, UNSURE, HOLDS) if v in verdicts), SAME)
    sentence = " ".join([_finding(inputs, verdict, families, compared), _advice(inputs, verdict, families)]).strip()
    return Check(verdict, sentence, tuple(families), tuple(metrics), tuple(compared), inputs)


def _finding(inputs: CheckInputs, verdict: str, families: Sequence[RegretVerdict], compared: Sequence[Compared]) -> str:
    if verdict == SAME:
        return f"{SAME}: {inputs.pipeline} has the very weights that {inputs.profile} was measured on."
    what = "the plan" if inputs.one else f"plans by {inputs.profile}"
    each = " and ".join(f"{_share(j.regret)} ({_share(j.low)} to {_share(j.high)}) in {j.column}" for j in families)
    text = (
        f"{verdict}: on {inputs.pipeline}, the loss of {what} is above the best of the same bytes by {each}, where up "
        f"to {_share(inputs.tolerance)} counts as good; {families[0].pairs} pairs were measured again."
    )
    broken = {(c.new.layer, c.new.scheme) for c in compared if not c.new.finite}
    if broken:
        layer, scheme = min(broken)
        text += f" {len(broken)} of them gave outputs that are not finite, such as {layer} at {scheme}."
    return text + (_odd(compared) if verdict != HOLDS else "")


def _odd(compared: Sequence[Compared]) -> str:
    """Returns a sentence on the pairs whose losses changed most relative to the others, by the first metric."""
    pairs = [c for c in compared if c.new.metric == compared[0].new.metric and min(c.old.mean, c.new.mean) > 0]
    if len(pairs) < 2:
        return ""
    logs = [math.log(c.new.mean) - math.log(c.old.mean) for c in pairs]
    centre = sorted(logs)[len(logs) // 2]
    far = sorted(zip(pairs, logs, strict=True), key=lambda pair: -abs(pair[1] - centre))[:SHOWN]
    each = (f"{c.new.layer} at {c.new.scheme} ×{math.exp(min(log - centre, 700.0)):.2g}" for c, log in far)
    return f" Most against the others moved, in {pairs[0].new.metric}: {', '.join(each)}."


def _advice(inputs: CheckInputs, verdict: str, families: Sequence[RegretVerdict]) -> str:
    if verdict == SAME:
        return "Its plans are for it."
    if verdict == BROKEN:
        return f"Profile it: {shell_command('bitplan', 'profile', inputs.pipeline, '--out', 'X.profile')}"
    if verdict == UNSURE:
        pairs, more = families[0].pairs, _more(inputs, families)
        enough = (
            f"measure about {more} pairs (--sample {more})" if more <= 8 * pairs else "no sample of a sensible size"
        )
        return (
            f"To tell, {enough}, or profile it." if more <= 8 * pairs else f"To tell, {enough} is enough: profile it."
        )
    text = "Use them with `bitplan apply --allow-mismatch`, or bitplan.apply(pipe, plan, allow_mismatch=True)."
    if inputs.static:
        text += (
            " Layers with static activations (t) would keep the ranges of the old model, which this check has "
            "calibrated anew: plan without them (a8), or profile this model."
        )
    return text


def _more(inputs: CheckInputs, families: Sequence[RegretVerdict]) -> int:
    """One family that is likely to be broken settles it; else all must be settled."""
    likely = [each.needed for each in families if each.needed and each.regret > inputs.tolerance]
    return min(likely) if likely else max(each.needed for each in families)


def _row(verdict: RegretVerdict) -> dict[str, str]:
    return {
        "family": verdict.column, "extra loss of old plans": _share(verdict.regret),
        "90 % interval": f"{_share(verdict.low)} to {_share(verdict.high)}", "verdict": verdict.verdict,
        "new/old scatters by": _times(verdict.spread), "errors explain": _times(verdict.noise),
    }  # fmt: skip


def _metric_row(agreement: Agreement) -> dict[str, str]:
    return {
        "metric": agreement.metric, "Spearman": _number(agreement.spearman),
        "90 % interval": f"{_number(agreement.low)} to {_number(agreement.high)}",
        "without noise": _number(agreement.clean),
        "new/old": _number(agreement.factor), "scatters by": _times(agreement.spread),
        "errors explain": _times(agreement.noise),
    }  # fmt: skip


def _table(rows: Sequence[dict[str, str]]) -> str:
    return table(rows)


def _share(value: float) -> str:
    return "unknown" if not math.isfinite(value) else f"{value:.1%}"


def _number(value: float) -> str:
    return "–" if not math.isfinite(value) else f"{value:.2f}"


def _times(deviation: float) -> str:
    """A standard deviation of logarithms as a factor."""
    return "–" if not math.isfinite(deviation) else f"×{math.exp(deviation):.2f}"
