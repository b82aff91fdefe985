"""Merges profiles that were measured separately, each with a part of the (layer, scheme) pairs. Imports no torch.

The profiles must have one model and the same layers, schemes, settings, versions, processor and device, because losses
depend on all of these. Only the number of threads may differ; it changes losses by rounding alone. Schemes, metrics and
components may come in any order; in every order of the profiles, the merged one has the same digest.

Costs are never mixed, because milliseconds belong to the machine that measured them: all costs, and the description of
the machine, come from one profile. If the profiles hold different costs, the user chooses one. Losses from all profiles
are combined; a loss in several profiles must be the same number in each. Estimates by probes are corrected again by the
exhaustive measurements of all profiles together, whatever corrections each profile had.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from bitplan.planner.errors import UserError
from bitplan.planner.profiles.continuing import SETS
from bitplan.planner.profiles.copies import check_new, new_profile
from bitplan.planner.profiles.corrections import correct
from bitplan.planner.profiles.fitted import read_parameters, write_parameters
from bitplan.planner.profiles.profile import Profile, Response, open_profile
from bitplan.planner.profiles.responses import PROBED, Probed, probed, record_of
from bitplan.planner.profiles.speeds import PRODUCTS, TIMED
from bitplan.planner.progress import tell
from bitplan.sensitivity.table import ESTIMATES, Measurement, describe

_TOLERANCE = 1e-4  # relative difference of calibrated ranges, from rounding with other threads or processors
_FREE = (("machine", "threads"), ("model", "name"), ("model", "variant"))  # entries of the header that may differ
_SHOWN = 60  # characters of a value in an error
Rows = dict[tuple[str, str], tuple[Measurement, ...]]
Responses = dict[tuple[str, str, str], Response]  # by (layer, scheme, metric)


def merge(paths: Sequence[Path], out: Path, costs: Path | None = None) -> None:
    """Writes the new profile `out` with everything that the profiles hold; it can be continued like any other.

    Args:
        paths: the profiles.
        out: the file to write.
        costs: the one of `paths` whose costs to use; needed if they hold different costs.

    Raises:
        ProfileError: a file is not a profile.
        UserError: the profiles differ in something that must be equal.
    """
    _check_files(paths, out, costs)
    with ExitStack() as stack:
        stores = [stack.enter_context(open_profile(path)) for path in paths]
        for other in stores[1:]:
            _check_same(stores[0], other)
        timed = _costs_source(stores, costs)
        responses = _responses(stores)
        _write(stores, timed, (_measurements(stores, responses), responses), out)
        _tell_missing(stores, out)


def _tell_missing(stores: Sequence[Profile], out: Path) -> None:
    """Says on standard error which profiles hold nothing that the others lack, and what is still missing in `out`."""
    measured = [store.measured() for store in stores]
    for place, store in enumerate(stores):
        others = [own for number, own in enumerate(measured) if number != place]
        if measured[place] <= set().union(*others) and not (place == 0 and measured[0] == others[0]):
            tell(f"{store.path} adds no loss to the other profiles")
    with open_profile(out) as merged:
        pairs = {(cost.layer, cost.scheme) for cost in merged.costs() if cost.scheme != "keep"}
        missing = sorted(pairs - merged.measured())
        if not pairs:
            tell(f"{out} is not finished: no profile holds costs, which --part 1/N measures")
        elif missing:
            told = f"{len(missing)} of {len(pairs)} (layer, scheme) are missing, such as {' at '.join(missing[0])}"
            tell(f"{out} is not finished: {told}; merge it with the profiles of the other parts")


def _check_files(paths: Sequence[Path], out: Path, costs: Path | None) -> None:
    if len(paths) < 2:
        raise UserError("there is nothing to merge; name two profiles or more")
    check_new(out)
    if costs is not None and costs not in paths:
        raise UserError(
            f"--costs {costs} is not one of the profiles to merge; name one of {', '.join(map(str, paths))}"
        )


def _check_same(first: Profile, other: Profile) -> None:
    """Raises UserError with the first difference between the two profiles."""
    _compare("", _fixed(first.header()), _fixed(other.header()), first, other)
    _compare("layer graph", first.graph(), other.graph(), first, other)
    if set(first.schemes()) != set(other.schemes()):
        raise _different("schemes", first.schemes(), other.schemes(), first, other)
    if not first.layers():
        raise UserError(f"{first.path} holds no layers yet; run its `bitplan profile` again")
    metrics = first.families(), other.families()
    if all(metrics) and metrics[0] != metrics[1]:
        raise _different("metrics", *metrics, first, other)
    ours, theirs = (record_of(replace(probed(store), unreached=(), idle=())) for store in (first, other))
    if ours["prompts"] and theirs["prompts"]:
        _compare(PROBED, ours, theirs, first, other)
    _check_parameters(first, other)
    ranges, others = first.ranges(), other.ranges()
    for layer in ranges.keys() & others.keys():
        if not _near(ranges[layer], others[layer]):
            raise _different(f"range of {layer}", ranges[layer], others[layer], first, other)


def _check_parameters(first: Profile, other: Profile) -> None:
    """Raises UserError where both profiles hold fitted parameters of one name that differ by more than rounding."""
    ours, theirs = read_parameters(first), read_parameters(other)
    for key in ours.keys() & theirs.keys():
        for name in ours[key].keys() & theirs[key].keys():
            one, two = ours[key][name], theirs[key][name]
            if one.shape != two.shape or not np.allclose(one, two, rtol=_TOLERANCE):
                raise _different(f"the parameter {name} of {''.join(key)}", one.shape, two.shape, first, other)


def _fixed(header: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the header without the entries that may differ."""
    return {
        key: {k: v for k, v in value.items() if (key, k) not in _FREE} if isinstance(value, dict) else value
        for key, value in header.items()
    }


def _compare(what: str, a: Any, b: Any, first: Profile, other: Profile) -> None:
    """Raises UserError with the first place where two JSON values differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in dict.fromkeys((*a, *b)):
            _compare(f"{what}.{key}".lstrip("."), a.get(key), b.get(key), first, other)
    elif a != b and not (what in SETS and sorted(a or ()) == sorted(b or ())):
        raise _different(what, a, b, first, other)


def _different(what: str, a: object, b: object, first: Profile, other: Profile) -> UserError:
    one, two = (text if len(text := str(v)) <= _SHOWN else text[: _SHOWN - 3] + "..." for v in (a, b))
    return UserError(
        f"{first.path} and {other.path} differ in {what}: {one} and {two}; "
        "merge profiles of one model with the same settings"
    )


def _near(a: Any, b: Any) -> bool:
    """Returns whether two JSON values are equal up to rounding."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_near(a[key], b[key]) for key in a)
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=_TOLERANCE)
    return bool(a == b)


def _costs_source(stores: Sequence[Profile], costs: Path | None) -> Profile:
    """Returns the profile whose costs to use. Raises UserError if that is not determined."""
    if costs is not None:
        return next(store for store in stores if store.path == costs)
    with_costs = [store for store in stores if store.costs()]
    for other in with_costs[1:]:
        if other.costs() != with_costs[0].costs():
            raise UserError(
                f"{with_costs[0].path} and {other.path} hold different costs; choose one of them with --costs"
            )
    return with_costs[0] if with_costs else stores[0]


def _responses(stores: Sequence[Profile]) -> Responses:
    """Returns the responses of all profiles. Raises UserError if two profiles have different ones of one pair."""
    responses: Responses = {}
    source: dict[tuple[str, str, str], Profile] = {}
    for store in stores:
        for new in store.responses():
            key = new.layer, new.scheme, new.metric
            old, where = responses.setdefault(key, new), source.setdefault(key, store)
            if old.sums != new.sums:
                raise _different(f"the responses of {describe(*key)}", _size(old), _size(new), where, store)
    return responses


def _size(response: Response) -> str:
    return f"mean square {np.square(np.frombuffer(response.sums, '<f4')).mean():.6g}"


def _measurements(stores: Sequence[Profile], responses: Collection[tuple[str, str, str]]) -> Rows:
    """Returns the measurements of all profiles by (layer, scheme), without estimates that are computed from responses.

    Raises UserError if two profiles have different measurements of one pair.
    """
    rows: Rows = {}
    source: dict[tuple[str, str], Profile] = {}
    for store in stores:
        for pair, row in _rows(store, responses).items():
            if rows.setdefault(pair, row) != row:
                old, new = (f"{m[0].metric} {m[0].mean:.6g}" for m in _unequal(rows[pair], row))
                what = f"the losses of {pair[0]} at {pair[1]}"
                raise _different(what, old, new, source[pair], store)
            source.setdefault(pair, store)
    return rows


def _unequal(a: Sequence[Measurement], b: Sequence[Measurement]) -> tuple[list[Measurement], list[Measurement]]:
    """Returns the measurements in one of them only, or all of a side without such."""
    return [m for m in a if m not in b] or list(a), [m for m in b if m not in a] or list(b)


def _rows(store: Profile, responses: Collection[tuple[str, str, str]]) -> Rows:
    rows: dict[tuple[str, str], list[Measurement]] = {}
    for m in store.measurements():
        if m.source not in ESTIMATES or (m.layer, m.scheme, m.metric) not in responses:
            rows.setdefault((m.layer, m.scheme), []).append(m)
    return {pair: tuple(sorted(row, key=lambda m: m.metric)) for pair, row in rows.items()}


def _write(stores: Sequence[Profile], timed: Profile, contents: tuple[Rows, Responses], out: Path) -> None:
    rows, responses = contents
    ordered = min(stores, key=lambda store: store.schemes())  # whatever the order of the profiles
    with new_profile(out, _header(timed, ordered)) as store:
        store.write_graph(timed.graph(), ordered.schemes())
        store.write_baseline({name: value for old in (*stores, timed) for name, value in _baseline(old, timed)})
        if responses:
            store.write_baseline({PROBED: record_of(_probed(stores))})
        store.write_ranges(timed.ranges() or next((old.ranges() for old in stores if old.ranges()), {}))
        write_parameters(store, next((held for old in stores if (held := read_parameters(old))), {}))
        store.write_costs(timed.costs())
        families = {metric: family for old in stores for metric, family in old.families().items()}
        store.write_measurements((m for row in rows.values() for m in row), families, responses.values())
        if responses:
            correct(store, families)


def _header(timed: Profile, ordered: Profile) -> dict[str, Any]:
    """Returns the header of `timed` with the schemes in the order of `ordered`."""
    header, settings = timed.header(), ordered.header()["settings"]
    schemes = {"schemes": settings["schemes"]} if "schemes" in settings else {}
    return header | {"settings": header["settings"] | schemes}


def _probed(stores: Sequence[Profile]) -> Probed:
    """What all profiles were probed on, with the layers that are unreached or idle in any of them."""
    every = [found for store in stores if (found := probed(store)).prompts]
    unreached, idle = (
        tuple(dict.fromkeys(chain(*lists))) for lists in zip(*((p.unreached, p.idle) for p in every), strict=True)
    )
    return replace(every[0], unreached=unreached, idle=idle)


def _baseline(store: Profile, timed: Profile) -> list[tuple[str, Any]]:
    """The numbers of one profile; what belongs to its costs is left out where these are not taken."""
    own = (PRODUCTS, TIMED)
    return [(name, value) for name, value in store.baseline().items() if name not in own or store is timed]
