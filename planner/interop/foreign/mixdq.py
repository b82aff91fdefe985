"""Reads MixDQ's published sensitivities of a UNet's weights (Zhao et al. 2024, `mixed_precision_scripts`).

A folder holds `sensitivity_weight_sqnr.yaml` (dB for all layers) and `sensitivity_weight_ssim.yaml` (SSIM for the
cross-attention and feed-forward layers), each with three numbers a layer, at 2, 4 and 8 bits, and `ratio_weight.yaml`
(the layers' numbers of weights). They are interpreted as follows:

- `nsr`, family quality, is noise power over signal power of the UNet's output, 10^(-dB / 10). dB are clamped to FLOOR,
  the value of two runs in full precision, so `nsr` is at least 10^(-FLOOR / 10).
- `dssim`, 1 - SSIM of the image, is MixDQ's content metric and belongs to our family alignment. Layers without an SSIM
  have a `dssim` of 0, since MixDQ scores them by the other metric.
- A loss must not rise with the bits: where it does, fewer bits get the larger loss too (a running maximum).
- Schemes are affine with one scale a channel and unquantized inputs, as measured. Bytes are weights * bits / 8 without
  scales, as in MixDQ's mean bits. There are no times.
- The files hold the number of weights of a layer, not its shape: the graph holds (1, number), so plans made from it
  can be read but not applied.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from bitplan.planner.errors import UserError
from bitplan.planner.files import read_bytes
from bitplan.planner.graph.layers import Layer, LayerGraph, architecture_fingerprint
from bitplan.planner.interop.foreign.base import ForeignProfile, check_same_layers, read_numbers
from bitplan.planner.profiles.profile import Cost
from bitplan.sensitivity.table import Measurement

FILES = SQNR, SSIM, RATIO = ("sensitivity_weight_sqnr.yaml", "sensitivity_weight_ssim.yaml", "ratio_weight.yaml")
BITS = (2, 4, 8)  # the order of the numbers in the files
SCHEMES = tuple(f"w{bits}za16" for bits in BITS)
FLOOR = 83.8  # dB between two runs in full precision, from the authors' log
LEAST = -300.0  # dB; noise of 10^30 times the signal is no measurement
MOST = 2**40  # weights of a layer
UNIT = 320 * 4 * 3 * 3  # weights of conv_in, the smallest layer of the UNets of Stable Diffusion: ratio 1
ITEMSIZE = 2  # bytes a weight in half precision
IMAGES = 32  # captions of COCO val2014 in the authors' calibration, with one step of SDXL-Turbo
FAMILIES = {"nsr": "quality", "dssim": "alignment"}
Losses = dict[str, tuple[float, ...]]  # layer -> one loss for each of BITS


@dataclass(frozen=True)
class _Corrections:
    """Numbers of entries that were changed on reading.

    Attributes:
        clamped: SQNRs above FLOOR.
        raised: metric -> number of layers whose losses were not monotone.
    """

    clamped: int
    raised: Mapping[str, int]


def read(folder: Path) -> ForeignProfile:
    """Reads the measurements in `folder`. Raises UserError for missing, malformed or inconsistent files."""
    sqnr, ssim = _by_address(folder / SQNR, len(BITS)), _by_address(folder / SSIM, len(BITS))
    counts = {layer: _count(folder / RATIO, layer, r) for layer, (r,) in _by_address(folder / RATIO, 1).items()}
    names = {SQNR: list(sqnr), SSIM: list(ssim), RATIO: list(counts)}
    for reference, others in ((SQNR, RATIO), (RATIO, SQNR), (SQNR, SSIM)):
        check_same_layers(folder / reference, names[reference], folder / others, names[others])
    if outlier := next(((layer, s) for layer, values in ssim.items() for s in values if not -1 <= s <= 1), None):
        raise UserError(f"{folder / SSIM}: {outlier[0]} has an SSIM of {outlier[1]:g}; give values between -1 and 1")
    if outlier := next(((layer, s) for layer, values in sqnr.items() for s in values if s < LEAST), None):
        raise UserError(f"{folder / SQNR}: {outlier[0]} has an SQNR of {outlier[1]:g} dB; give at least {LEAST:g}")
    noise = {layer: tuple(10 ** (-min(dB, FLOOR) / 10) for dB in values) for layer, values in sqnr.items()}
    blur = {layer: tuple(1 - value for value in values) for layer, values in ssim.items()}
    losses = {"nsr": _monotone(noise), "dssim": _monotone(blur)}
    raised = {name: sum(old[k] != new[k] for k in old) for name, old, new in
              (("nsr", noise, losses["nsr"]), ("dssim", blur, losses["dssim"]))}  # fmt: skip
    corrections = _Corrections(sum(dB > FLOOR for values in sqnr.values() for dB in values), raised)
    graph = _graph(counts)
    return ForeignProfile(
        header=_header(folder, graph, _decided(losses, corrections)), graph=graph, schemes=("keep", *SCHEMES),
        costs=tuple(_costs(counts)), measurements=tuple(_measurements(losses)), families=FAMILIES,
    )  # fmt: skip


def address(name: str) -> str:
    """Converts MixDQ's name of a layer to a layer address: `model.conv_in` to `unet.conv_in`."""
    return "unet." + name.removeprefix("model.")


def _by_address(path: Path, count: int) -> Losses:
    return {address(name): values for name, values in read_numbers(path, count).items()}


def _count(path: Path, layer: str, ratio: float) -> int:
    """Returns the layer's number of weights. Raises UserError where the ratio gives no whole number."""
    count = round(max(min(ratio, MOST), 0.0) * UNIT)
    if not 1 <= count <= MOST or abs(ratio * UNIT - count) > 1e-6 * count:
        raise UserError(f"{path}: {layer} has ratio {ratio:g}, {ratio * UNIT:.6g} weights; ratios are in units of "
                        f"{UNIT} weights and give a whole number")  # fmt: skip
    return count


def _monotone(losses: Losses) -> Losses:
    """Returns the running maximum from the most bits to the fewest."""
    return {layer: tuple(accumulate(values[::-1], max))[::-1] for layer, values in losses.items()}


def _graph(counts: Mapping[str, int]) -> LayerGraph:
    layers = (Layer(name, (), "linear", (1, count), False, count, None, ()) for name, count in counts.items())
    return LayerGraph(tuple(layers), edges=(), shared_inputs=(), tied=(), unused=())


def _costs(counts: Mapping[str, int]) -> list[Cost]:
    sizes = {"keep": 8 * ITEMSIZE} | dict(zip(SCHEMES, BITS, strict=True))
    return [
        Cost(layer, scheme, -(-count * bits // 8), None, "none", simulated=False)
        for layer, count in counts.items()
        for scheme, bits in sizes.items()
    ]


def _measurements(losses: Mapping[str, Losses]) -> list[Measurement]:
    zeros = (0.0,) * len(BITS)
    return [
        Measurement(layer, scheme, metric, values.get(layer, zeros)[place], float("inf"), IMAGES, source="imported")
        for layer in losses["nsr"]
        for place, scheme in enumerate(SCHEMES)
        for metric, values in losses.items()
    ]


def _decided(losses: Mapping[str, Losses], corrections: _Corrections) -> str:
    layers, scored = len(losses["nsr"]), len(losses["dssim"])
    return (
        f"{layers} layers at {', '.join(map(str, BITS))} bits; {corrections.clamped} of {layers * len(BITS)} SQNRs "
        f"above {FLOOR} dB are clamped to it; where a loss rises with the bits, fewer bits get the larger loss too: "
        f"{corrections.raised['nsr']} layers by SQNR, {corrections.raised['dssim']} by SSIM; {layers - scored} layers "
        "have no SSIM and a dssim of 0"
    )


def _header(folder: Path, graph: LayerGraph, decided: str) -> dict[str, Any]:
    digests = {name: hashlib.sha256(read_bytes(folder / name)).hexdigest() for name in FILES}
    return {
        "model": {
            "name": folder.absolute().name,
            "pipeline": "unknown",
            "components": ["unet"],
            "fingerprint": hashlib.sha256("".join(digests.values()).encode()).hexdigest(),
            "architecture": architecture_fingerprint(graph),
            "dtype": "float16",
        },
        "settings": {
            "pipeline": folder.absolute().name,
            "prompts": [f"COCO val2014, caption {number + 1}" for number in range(IMAGES)],
            "schemes": list(SCHEMES),
            "generation": {"steps": 1, "guidance": 0.0, "seed": 42},
            "timesteps": 1,
            "components": ["unet"],
            "clip": None,
        },
        "source": {"format": "mixdq", "sha256": digests, "floor_dB": FLOOR, "unit": UNIT, "decided": decided},
    }
