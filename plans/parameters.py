"""Fitted parameters as files hold them: arrays by (owner, term), in the format of safetensors. Imports no torch.

The owner is a layer's address, or the first layer of a group that shares the parameters; the term is a transform's
text, such as `+smooth`. A tensor's name in a file is the owner, the term, a dot, and the parameter's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

Key = tuple[str, str]  # owner, term
Arrays = Mapping[str, np.ndarray[Any, Any]]  # name -> array
Parameters = Mapping[Key, Arrays]


class ParameterError(ValueError):
    """Bytes that do not hold fitted parameters."""


def encoded(parameters: Parameters) -> bytes:
    """The bytes of a file: the same parameters give the same bytes; none for no parameters."""
    flat = {
        f"{owner}{term}.{name}": np.ascontiguousarray(array)
        for (owner, term), arrays in sorted(parameters.items())
        for name, array in sorted(arrays.items())
    }
    return save(flat) if flat else b""


def decoded(data: bytes) -> dict[Key, dict[str, np.ndarray[Any, Any]]]:
    """The parameters in a file's bytes. Raises ParameterError for bytes that `encoded` does not write."""
    found: dict[Key, dict[str, np.ndarray[Any, Any]]] = {}
    if not data:
        return found
    try:
        flat = load(data)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ParameterError(f"the fitted parameters cannot be read ({' '.join(str(error).split())[:120]})") from None
    for text, array in flat.items():
        owner, plus, rest = text.rpartition("+")
        term, dot, name = rest.partition(".")
        if not (owner and plus and term and dot and name):
            raise ParameterError(f"the fitted parameter {text[:120]!r} names no layer and transform")
        if not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all():
            raise ParameterError(f"the fitted parameter {text[:120]!r} holds numbers that are not finite floats")
        found.setdefault((owner, f"+{term}"), {})[name] = array
    return found
