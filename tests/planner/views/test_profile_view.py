"""The options of a view add up to the sums of its variants."""

from __future__ import annotations

from bitplan.planner.choice.evidence import Evidence
from bitplan.planner.graph.layers import Layer, LayerGraph
from bitplan.planner.views.profile_view import ProfileView, cells_of, full_precision_variant, uniform_variants
from bitplan.sensitivity.table import LossTable, Measurement

LAYERS = ("unet.a", "unet.b", "unet.c")


def test_a_shared_weight_is_counted_once_in_options_as_in_sums() -> None:
    sizes = {"keep": 400, "w8a8": 110}
    evidence = Evidence(
        offered=dict.fromkeys(LAYERS, tuple(sizes)),
        size={(layer, scheme): size for layer in LAYERS for scheme, size in sizes.items()},
        ms=dict.fromkeys(((layer, scheme) for layer in LAYERS for scheme in sizes), 1.5),
        losses=LossTable.of([Measurement(layer, "w8a8", "noise", 0.25, 0.0, 1) for layer in LAYERS]),
        metrics={"noise": "quality"}, shared=(), tied=(LAYERS[:2],), simulated=frozenset(), weights=100,
    )  # fmt: skip
    layers = tuple(Layer(layer, (), "linear", (10, 10), False, 100, None, ()) for layer in LAYERS)
    data = ProfileView({"dtype": "float32"}, evidence, LayerGraph(layers, (), (), (LAYERS[:2],), ()))
    cells, (packed,), full = cells_of(data), uniform_variants(data, False), full_precision_variant(data)
    assert [cell.options[0].bytes for cell in cells] == [400, 0, 400]
    for variant, size, loss in ((full, 800, 0.0), (packed, 330, 0.75)):
        picked = [cell.options[pick] for cell, pick in zip(cells, variant.picks, strict=True)]
        assert sum(option.bytes for option in picked) == variant.totals["bytes"] == size
        assert sum(option.ms for option in picked) == variant.totals["ms"] == 4.5
        assert sum(option.losses.get("noise", (0.0, 0.0))[0] for option in picked) == variant.totals["noise"] == loss
