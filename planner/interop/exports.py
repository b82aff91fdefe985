"""What an export wrote, in words and as data: the files, the bytes, and the changed layers by kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bitplan.planner.targets.base import Target
from bitplan.planner.texts import table
from bitplan.planner.units import show_bytes


@dataclass(frozen=True)
class Change:
    """A layer whose scheme was replaced.

    Attributes:
        layer: its address.
        planned: the planned scheme.
        written: the exported scheme.
        reason: why the target cannot express the planned scheme.
        bytes_planned: the bytes of the planned scheme, as BitPlan stores it; None where they are not known.
        bytes_written: the bytes of the exported scheme, as the target holds it.
    """

    layer: str
    planned: str
    written: str
    reason: str
    bytes_planned: int | None
    bytes_written: int


@dataclass(frozen=True)
class ExportSize:
    """The bytes of the planned layers.

    Attributes:
        target: the tool that holds them.
        written: their bytes as it holds them.
        planned: their bytes by the plan; None where it does not state them.
        budget: the plan's bound on them, if any.
    """

    target: Target
    written: int
    planned: int | None
    budget: float | None

    @property
    def within(self) -> bool | None:
        """Whether the budget holds; None without one, and where the tool simulates, so that it packs nothing."""
        return None if self.budget is None or self.target.stored is None else self.written <= self.budget

    def to_json(self) -> dict[str, Any]:
        """Returns data for `json.dumps`."""
        return {"written": self.written, "planned": self.planned, "budget": self.budget, "within_budget": self.within}

    def __str__(self) -> str:
        """Says in one line what the tool needs, what the plan states, and whether the budget holds."""
        holds = f"{self.target.name} holds the planned layers in {_amount(self.written)}"
        if self.target.stored is None:
            holds = (
                f"{self.target.name} simulates, and holds the planned layers in full precision, {_amount(self.written)}"
            )
        planned = "" if self.planned is None else f"; the plan states {_amount(self.planned)}"
        if self.budget is None:
            return f"{holds}{planned}{'' if self.planned is None else ', without a budget'}"
        budget = f"the budget of {_amount(self.budget)}"
        if self.within is None:
            return f"{holds}{planned}, within {budget}, which a runtime that packs the weights may meet"
        if self.within:
            return f"{holds}, within {budget}{planned}"
        return f"OVER BUDGET: {holds}, {_amount(self.written - self.budget)} more than {budget}{planned}"


@dataclass(frozen=True)
class Export:
    """One exported file.

    Attributes:
        path: the file.
        target: the tool that reads it.
        component: the component that it describes.
        schemes: layer address -> exported scheme.
        changes: the replaced schemes.
    """

    path: Path
    target: Target
    component: str
    schemes: Mapping[str, str]
    changes: tuple[Change, ...]

    @property
    def use(self) -> str:
        """How the file is used."""
        return self.target.use.format(file=str(self.path), component=self.component)

    def to_json(self) -> dict[str, Any]:
        """Returns data for `json.dumps`."""
        return {
            "path": str(self.path), "target": self.target.name, "component": self.component,
            "schemes": dict(self.schemes), "changes": [asdict(change) for change in self.changes],
            "lost": self.target.lost, "use": self.use,
        }  # fmt: skip

    def __str__(self) -> str:
        """Lists the schemes, the losses of the format, and the use of the file."""
        counts = Counter(self.schemes.values())
        kinds = ", ".join(f"{scheme} x {count}" for scheme, count in counts.most_common())
        lines = [f"{self.path}: {self.target.name} for {self.component}, {_layers(len(self.schemes))}: {kinds}"]
        return "\n".join([*lines, f"lost: {self.target.lost}", f"use: {self.use}"])


@dataclass(frozen=True)
class Exports(Sequence[Export]):
    """The exported files of a plan, in order of its components.

    Attributes:
        files: one for each component.
        size: the bytes of the planned layers.
        unchecked: the columns other than bytes on which the plan has a budget.
    """

    files: tuple[Export, ...]
    size: ExportSize
    unchecked: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: Any) -> Any:
        return self.files[index]

    @property
    def changes(self) -> tuple[Change, ...]:
        """The replaced schemes of all files."""
        return tuple(change for file in self.files for change in file.changes)

    def to_json(self) -> dict[str, Any]:
        """Returns data for `json.dumps`."""
        return {"files": [export.to_json() for export in self.files], "bytes": self.size.to_json()}

    def __str__(self) -> str:
        """Says what the tool needs, then the changes by kind, then describes the files one after another."""
        return "\n".join([str(self.size), *self._changed(), *map(str, self.files)])

    def _changed(self) -> list[str]:
        if not self.changes:
            return []
        note = (
            f"changed: {_layers(len(self.changes))}; the plan's predictions are no longer valid, so measure the result"
        )
        budgets = (
            f", and whether its budgets on {', '.join(self.unchecked)} hold is not known" if self.unchecked else ""
        )
        return ["", note + budgets, "", table(_kinds(self.changes, self.size.target)), ""]


def _kinds(changes: Sequence[Change], target: Target) -> list[dict[str, str]]:
    """Returns one row for each pair of schemes and reason, the most frequent first."""
    kinds: dict[tuple[str, str, str], list[Change]] = {}
    for change in changes:
        kinds.setdefault((change.planned, change.written, change.reason), []).append(change)
    return [
        {
            "from": planned, "to": written, "layers": str(len(alike)),
            "bytes before": _sum([change.bytes_planned for change in alike]),
            "bytes after": "-" if target.stored is None else _sum([change.bytes_written for change in alike]),
            "because": reason,
        }
        for (planned, written, reason), alike in sorted(kinds.items(), key=lambda item: -len(item[1]))
    ]  # fmt: skip


def _sum(sizes: Sequence[int | None]) -> str:
    known = [size for size in sizes if size is not None]
    return f"{sum(known):,}" if len(known) == len(sizes) else "-"


def _amount(size: float) -> str:
    return f"{size:,} bytes ({show_bytes(size)})"


def _layers(count: int) -> str:
    return f"{count} layer{'s' * (count != 1)}"
