"""What a plan file may hold, checked when it is read and before it is written. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping

from bitplan.plans.checks import (
    DIGEST,
    LINE,
    VARIANT,
    Check,
    list_of,
    mapping_of,
    matching,
    name,
    number,
    one_of,
    optional,
    plain,
    record,
    text,
    whole,
)
from bitplan.plans.dtypes import FLOATS

VERSION = 2  # the newest that is read; plans without `groups` and `parameters` are written as version 1
_SEED = 2**64
_NAME, _SCHEME = name(), text(200)
_NUMBERS, _AMOUNTS = mapping_of(number(), _NAME), mapping_of(number(0), _NAME)


_MODEL = record(
    {"name": text(LINE), "fingerprint": DIGEST, "architecture": DIGEST, "components": list_of(_NAME, 1)},
    {"dtype": one_of(FLOATS), "variant": VARIANT},
)
_RANGE = record({"tensor": number(0)}, {"first": number(0)})
_CALIBRATION = record(
    {},
    {
        "prompts": whole(1), "prompts_sha256": _NAME, "steps": whole(1), "guidance": optional(number()),
        "seed": whole(-_SEED, _SEED), "options": mapping_of(plain()), "metrics": list_of(_NAME),
        "ranges": mapping_of(_RANGE, _NAME),
    },
)  # fmt: skip
_SOLVER = record(
    {"status": one_of(("optimal", "feasible", "uniform"))},
    {
        "objective": number(), "bound": number(), "gap": number(), "backend": _NAME, "stopped": _NAME,
        "weights": _NUMBERS, "prices": _AMOUNTS, "worth": _AMOUNTS, "pins": mapping_of(_SCHEME, _NAME),
        "confidence": number(0.5, math.nextafter(1, 0)), "target": _NAME,
    },
)  # fmt: skip
_BLOCKS = mapping_of(_NUMBERS, _NAME)
_GROUP = record({"members": list_of(_NAME, 2, distinct=True), "transforms": list_of(_SCHEME, 1, distinct=True)})
_FILE = matching(r"[^/\\.:][^/\\:]*\.plan\.safetensors", "the name of a file P.plan.safetensors beside the plan")


OPTIONAL = ("groups", "parameters")  # of version 2
PARTS: Mapping[str, Check] = {
    "bitplan": whole(1),
    "model": _MODEL,
    "schemes": mapping_of(_SCHEME, _NAME, 1),
    "simulated": list_of(_NAME),
    "calibration": _CALIBRATION,
    "budgets": _NUMBERS,
    "predictions": record({}, {"total": _NUMBERS, "blocks": _BLOCKS, "full": _BLOCKS}),
    "solver": _SOLVER,
    "groups": list_of(_GROUP),
    "parameters": record({"file": _FILE, "sha256": DIGEST}),
}
PLAN = record(
    {part: check for part, check in PARTS.items() if part not in OPTIONAL}, {part: PARTS[part] for part in OPTIONAL}
)
