"""What the `quantization_config` of a packed component may hold, checked when it is read. Imports no torch."""

from __future__ import annotations

from bitplan.plans.checks import Check, list_of, mapping_of, name, number, one_of, record, text, whole

VERSION = 1
_MAGNITUDE = number(0)
CONFIG: Check = record(
    {
        "quant_method": text(100), "version": whole(1), "component": name(),
        "schemes": mapping_of(list_of(name(), 1), name(200)),
    },
    {
        "kernels": one_of(("int", "fake")), "source": mapping_of(text(1000)),
        "ranges": mapping_of(list_of(_MAGNITUDE, 1, 2), name()),
    },
)  # fmt: skip
