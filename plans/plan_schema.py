"""What a plan file may hold, as a JSON schema. Imports no torch."""

from __future__ import annotations

from typing import Any

VERSION = 2  # the newest that is read; plans without `groups` and `parameters` are written as version 1
_DIGEST = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_NUMBERS = {"type": "object", "additionalProperties": {"type": "number"}}
_AMOUNTS = {"type": "object", "additionalProperties": {"type": "number", "minimum": 0}}


_MODEL = {
    "type": "object",
    "required": ["name", "fingerprint", "architecture", "components"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string"},
        "dtype": {"enum": ["float32", "bfloat16", "float16"]},
        "fingerprint": _DIGEST,
        "architecture": _DIGEST,
        "components": {"type": "array", "items": {"type": "string"}, "minItems": 1},
    },
}


_RANGE = {
    "type": "object",
    "required": ["tensor"],
    "additionalProperties": False,
    "properties": {"tensor": {"type": "number", "minimum": 0}, "first": {"type": "number", "minimum": 0}},
}


_CALIBRATION = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "prompts": {"type": "integer", "minimum": 1},
        "prompts_sha256": {"type": "string"},
        "steps": {"type": "integer", "minimum": 1},
        "guidance": {"type": ["number", "null"]},
        "seed": {"type": "integer"},
        "options": {"type": "object"},
        "metrics": {"type": "array", "items": {"type": "string"}},
        "ranges": {"type": "object", "additionalProperties": _RANGE},
    },
}


_SOLVER = {
    "type": "object",
    "required": ["status"],
    "additionalProperties": False,
    "properties": {
        "status": {"enum": ["optimal", "feasible", "uniform"]},
        "objective": {"type": "number"},
        "bound": {"type": "number"},
        "gap": {"type": "number"},
        "backend": {"type": "string"},
        "stopped": {"type": "string"},
        "weights": _NUMBERS,
        "prices": _AMOUNTS,
        "worth": _AMOUNTS,
        "pins": {"type": "object", "additionalProperties": {"type": "string"}},
        "confidence": {"type": "number", "minimum": 0.5, "exclusiveMaximum": 1},
    },
}


_BLOCKS = {"type": "object", "additionalProperties": _NUMBERS}


_PREDICTIONS = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"total": _NUMBERS, "blocks": _BLOCKS, "full": _BLOCKS},
}


_GROUPS = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["members", "transforms"],
        "additionalProperties": False,
        "properties": {
            "members": {"type": "array", "items": {"type": "string"}, "minItems": 2, "uniqueItems": True},
            "transforms": {"type": "array", "items": {"type": "string"}, "minItems": 1, "uniqueItems": True},
        },
    },
}


_PARAMETERS = {
    "type": "object",
    "required": ["file", "sha256"],
    "additionalProperties": False,
    "properties": {"file": {"type": "string", "pattern": r"^[^/\\.:][^/\\:]*\.plan\.safetensors$"}, "sha256": _DIGEST},
}


_PARTS: dict[str, Any] = {
    "bitplan": {"type": "integer", "minimum": 1},
    "model": _MODEL,
    "schemes": {"type": "object", "minProperties": 1, "additionalProperties": {"type": "string"}},
    "simulated": {"type": "array", "items": {"type": "string"}},
    "calibration": _CALIBRATION,
    "budgets": _NUMBERS,
    "predictions": _PREDICTIONS,
    "solver": _SOLVER,
    "groups": _GROUPS,
    "parameters": _PARAMETERS,
}


OPTIONAL = ("groups", "parameters")  # of version 2


SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": [name for name in _PARTS if name not in OPTIONAL],
    "additionalProperties": False,
    "properties": _PARTS,
}
