"""Small artificial sweeps for tests of their displays: nothing is solved, pictures have one colour."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from PIL import Image

from bitplan.planner.views.view import Cell, Column, Option, Variant, View, write_view

SCHEMES = {"keep": 16, "w8a8": 8, "w4a8": 4, "w2a8": 2}
METRICS = {"nsr": "quality", "dssim": "quality", "clip_drop": "alignment"}
COLUMNS = (Column("bytes", "bytes", ""), Column("ms", "ms", ""), Column("quality", "", ""), Column("alignment", "", ""),
           *(Column(name, "", family) for name, family in METRICS.items()))  # fmt: skip
PLACES = ("conv_in", "down.0.a", "down.0.b", "down.1.a", "down.1.b", "mid.a", "up.0.a", "up.0.b", "conv_out")
ROLES = ("in", "convolution", "feed-forward", "convolution", "feed-forward", "cross-attention", "convolution",
         "feed-forward", "out")  # fmt: skip


def cell(place: int, name: str) -> Cell:
    def option(scheme: str, bits: int) -> Option:
        loss = {} if scheme == "keep" else dict.fromkeys(METRICS, ((place + 1) * 0.001 / bits**2, 0.0001 / bits))
        return Option(scheme, bits, 64 * 64 * bits // 8 * (place + 1), bits / 8 + place, loss, scheme != "w2a8")

    block = name if name.startswith("conv") else ".".join(name.split(".")[:-1])
    options = tuple(option(*pair) for pair in SCHEMES.items())
    return Cell(f"unet.{name}", ROLES[place], f"unet.{block}", "linear", (64, 64 * (place + 1)), 4096, 2, options)


CELLS = tuple(cell(place, name) for place, name in enumerate(PLACES))


def variant(
    name: str, status: str, picks: tuple[int, ...], limit: float | None = None, cells: tuple[Cell, ...] = CELLS
) -> Variant:
    taken = [one.options[pick] for one, pick in zip(cells, picks, strict=True)]
    losses = {m: sum(option.losses.get(m, (0.0, 0.0))[0] for option in taken) for m in METRICS}
    totals: dict[str, float] = {"bytes": sum(o.bytes for o in taken), "ms": sum(o.ms for o in taken)} | losses
    totals |= {"quality": losses["nsr"] + losses["dssim"], "alignment": losses["clip_drop"]}
    return Variant(name, status, picks, limit, totals=totals, errors=dict.fromkeys(METRICS, 1e-4))


def view_of(points: int = 6, by: str = "bytes") -> View:
    """Returns points from 8 bits to 2, layer by layer; the last one has no plan."""
    made = []
    for i in range(points):
        picks = tuple(min(3, 1 + (i + place) // 3) for place in range(len(CELLS)))
        one = variant(f"{i:02d}", "optimal" if i % 2 else "feasible", picks)
        gap = {"gap": 0.0} if i % 2 else {"gap": 0.004}
        made.append(replace(one, limit=one.totals[by], **gap))
    missed = Variant("none", "infeasible", limit=1.0)
    uniform = tuple(variant(name, "uniform", (i,) * len(CELLS)) for i, name in enumerate(SCHEMES) if i)
    full = variant("full precision", "full precision", (0,) * len(CELLS))
    model = {"name": "toy", "pipeline": "ToyPipeline", "components": ["unet"]}
    return View(model, by, {"quality": 1.0}, {}, None, COLUMNS, CELLS, (*made, missed), uniform, full)


def run_in(folder: Path, view: View, prompts: tuple[str, ...] = ("a red circle", "a blue square")) -> Path:
    """Writes the folder of a sweep: every second point is painted and measured, and pictures darken from point to
    point.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def paint(one: Variant, level: int) -> Variant:
        names = tuple(f"{one.name.replace(' ', '-')}-{i}.png" for i in range(len(prompts)))
        for i, name in enumerate(names):
            Image.new("RGB", (8, 8), (level, 40 * i, 0)).save(folder / name)
        return replace(one, pictures=names)

    points = [
        replace(paint(one, 200 - 10 * i), measured=dict.fromkeys(METRICS, (2e-3, 5e-4))) if one.picks and i % 2 else one
        for i, one in enumerate(view.points)
    ]
    painted = replace(view, points=tuple(points), full=paint(view.full, 200), conditions=prompts)
    write_view(painted, folder / "sweep.json")
    return folder
