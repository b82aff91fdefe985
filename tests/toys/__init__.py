"""One toy member of each of four families: each is one module, and one line that registers it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bitplan.plans import formats, kernels, transforms
from bitplan.plans.terms import MULTIPLIED, Line
from bitplan.plans.transforms import TransformLine
from bitplan.sensitivity.metrics import METRICS
from tests.toys.kernel import TERNARY_PRODUCT
from tests.toys.metric import POWER


@contextmanager
def registered() -> Iterator[None]:
    """Within the `with`, the toys are members of their tables."""
    formats.register(Line("ternary", "signs and zeros", "tests.toys.format:TERNARY", word="tern", fixed=(("bits", 8),)))
    transforms.register(
        TransformLine("even", "a scale for each input channel", "tests.toys.transform:EVEN", word="even",
                      kinds=MULTIPLIED, scope="inputs")
    )  # fmt: skip
    kernels.register(TERNARY_PRODUCT, before="reference")
    METRICS.register(POWER)
    try:
        yield
    finally:
        METRICS.unregister("toy_power")
        kernels.unregister("toy_product")
        transforms.unregister("even")
        formats.unregister("ternary")
