"""Profiles measured apart, as one: each holds a part of the (layer, scheme) grid. Imports no torch.

They must be of one model, with the same layers, schemes, settings, versions, processor and device: what a loss is
depends on all of these. Only the number of threads may differ, which moves a loss by rounding alone.

Milliseconds belong to the machine that timed them, so that costs are never mixed: all come from one profile, and with
them the account of the machine. Where several profiles hold costs that differ, the user says whose to take. Losses mix
freely; one measured twice must be the same number twice. Estimates by probes are corrected anew, by the exhaustive
measurements of all profiles together, so that what each share's own checks made of them does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from bitplan.planner.errors import UserError
from bitplan.planner.profiles.corrections import correct
from bitplan.planner.profiles.profile import Profile, Response, open_profile
from bitplan.planner.profiles.responses import PROBED
from bitplan.sensitivity.table import ESTIMATES, Measurement, describe

_TOLERANCE = 1e-4  # by which calibrated ranges may differ, relatively: rounding by other threads or processors
_FREE = (("machine", "threads"),)  # of the header
_SHOWN = 60  # characters of a value in an error
Rows = dict[tuple[str, str], tuple[Measurement, ...]]
Sums = dict[tuple[str, str, str], Response]  # by (layer, scheme, metric)


def merge(paths: Sequence[Path], out: Path, costs: Path | None = None) -> None:
    """Write the profile `out`, which must be new, of all that the profiles hold; it can be continued like any other.

    costs: the one of `paths` whose costs are taken, where several have some that differ. Raises ProfileError for files
    that are none, UserError saying what differs where they do not belong together.
    """
    _check_files(paths, out, costs)
    with ExitStack() as stack:
        stores = [stack.enter_context(open_profile(path)) for path in paths]
        for other in stores[1:]:
            _check_same(stores[0], other)
        timed = _timed(stores, costs)
        sums = _responses(stores)
        _write(stores, timed, (_union(stores, sums), sums), out)


def _check_files(paths: Sequence[Path], out: Path, costs: Path | None) -> None:
    if len(paths) < 2:
        raise UserError("there is nothing to merge; name two profiles or more")
    if out.exists():
        raise UserError(f"{out} is there already; choose another --out")
    if costs is not None and costs not in paths:
        raise UserError(f"--costs {costs} is none of the profiles to merge; name one of {', '.join(map(str, paths))}")


def _check_same(first: Profile, other: Profile) -> None:
    """Raises UserError naming the first thing in which the two profiles differ."""
    _compare("", _fixed(first.header()), _fixed(other.header()), first, other)
    _compare("layer graph", first.graph(), other.graph(), first, other)
    if first.schemes() != other.schemes():
        raise _different("schemes", first.schemes(), other.schemes(), first, other)
    if not first.layers():
        raise UserError(f"{first.path} holds no layers yet; run its `bitplan profile` again")
    metrics = first.families(), other.families()
    if all(metrics) and metrics[0] != metrics[1]:
        raise _different("metrics", *metrics, first, other)
    ours, theirs = (store.baseline().get(PROBED) for store in (first, other))
    if ours and theirs:
        _compare(PROBED, ours, theirs, first, other)
    seen, again = first.ranges(), other.ranges()
    for layer in seen.keys() & again.keys():
        if not _near(seen[layer], again[layer]):
            raise _different(f"range of {layer}", seen[layer], again[layer], first, other)


def _fixed(header: Mapping[str, Any]) -> dict[str, Any]:
    """The header without what may differ."""
    return {
        key: {k: v for k, v in value.items() if (key, k) not in _FREE} if isinstance(value, dict) else value
        for key, value in header.items()
    }


def _compare(what: str, a: Any, b: Any, first: Profile, other: Profile) -> None:
    """Raises UserError naming the first place at which two JSON values differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in dict.fromkeys((*a, *b)):
            _compare(f"{what}.{key}".lstrip("."), a.get(key), b.get(key), first, other)
    elif a != b:
        raise _different(what, a, b, first, other)


def _different(what: str, a: object, b: object, first: Profile, other: Profile) -> UserError:
    one, two = (text if len(text := str(v)) <= _SHOWN else text[: _SHOWN - 3] + "..." for v in (a, b))
    return UserError(
        f"{first.path} and {other.path} differ in {what}: {one} and {two}; merge profiles of one model, made alike"
    )


def _near(a: Any, b: Any) -> bool:
    """Whether two JSON values are equal but for rounding."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_near(a[key], b[key]) for key in a)
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=_TOLERANCE)
    return bool(a == b)


def _timed(stores: Sequence[Profile], costs: Path | None) -> Profile:
    """The profile whose costs are taken. Raises UserError where that is left open."""
    if costs is not None:
        return next(store for store in stores if store.path == costs)
    having = [store for store in stores if store.costs()]
    for other in having[1:]:
        if other.costs() != having[0].costs():
            raise UserError(
                f"{having[0].path} and {other.path} hold costs that differ, timed apart; say whose to take with --costs"
            )
    return having[0] if having else stores[0]


def _responses(stores: Sequence[Profile]) -> Sums:
    """What probes saw, in all profiles. Raises UserError where they saw a (layer, scheme) twice, and not the same."""
    found: Sums = {}
    source: dict[tuple[str, str, str], Profile] = {}
    for store in stores:
        for new in store.responses():
            key = new.layer, new.scheme, new.metric
            old, where = found.setdefault(key, new), source.setdefault(key, store)
            if old.sums != new.sums:
                raise _different(f"the responses of {describe(*key)}", _size(old), _size(new), where, store)
    return found


def _size(response: Response) -> str:
    return f"mean square {np.square(np.frombuffer(response.sums, '<f4')).mean():.6g}"


def _union(stores: Sequence[Profile], sums: Collection[tuple[str, str, str]]) -> Rows:
    """The measurements of all profiles by (layer, scheme), but for the estimates that are made anew from responses.
    Raises UserError where one was measured twice, and not to the same numbers."""
    rows: Rows = {}
    source: dict[tuple[str, str], Profile] = {}
    for store in stores:
        for pair, found in _rows(store, sums).items():
            if rows.setdefault(pair, found) != found:
                old, new = (f"{m[0].metric} {m[0].mean:.6g}" for m in _unequal(rows[pair], found))
                what = f"the losses of {pair[0]} at {pair[1]}"
                raise _different(what, old, new, source[pair], store)
            source.setdefault(pair, store)
    return rows


def _unequal(a: Sequence[Measurement], b: Sequence[Measurement]) -> tuple[list[Measurement], list[Measurement]]:
    """What is in one of them alone, or, where nothing is, all."""
    return [m for m in a if m not in b] or list(a), [m for m in b if m not in a] or list(b)


def _rows(store: Profile, sums: Collection[tuple[str, str, str]]) -> Rows:
    rows: dict[tuple[str, str], list[Measurement]] = {}
    for m in store.measurements():
        if m.source not in ESTIMATES or (m.layer, m.scheme, m.metric) not in sums:
            rows.setdefault((m.layer, m.scheme), []).append(m)
    return {pair: tuple(found) for pair, found in rows.items()}


def _write(stores: Sequence[Profile], timed: Profile, found: tuple[Rows, Sums], out: Path) -> None:
    """Under another name first: a file of the name `out` is always whole."""
    rows, sums = found
    part = out.with_name(out.name + ".part")
    part.unlink(missing_ok=True)
    try:
        with Profile.create(part, timed.header()) as store:
            store.write_graph(timed.graph(), timed.schemes())
            store.write_baseline({name: value for old in (*stores, timed) for name, value in old.baseline().items()})
            store.write_ranges(timed.ranges() or next((old.ranges() for old in stores if old.ranges()), {}))
            store.write_costs(timed.costs())
            families = {metric: family for old in stores for metric, family in old.families().items()}
            store.write_measurements((m for some in rows.values() for m in some), families, sums.values())
            if sums:
                correct(store, families)
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
