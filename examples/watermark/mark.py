"""A watermark of 64 bits in a model's weights: a low-rank adapter writes it, and a decoder reads it from the weights.

A carrier is an attention projection with weight W of root mean square w. For each carrier the secret key draws 8 bits
and for each bit a column v and a row u, all orthonormal, with u orthogonal to W v. The adapter adds strength w s u v^T
for a bit of sign s. W and the other bits have no component along u, v, so u^T W' v / w is s times the strength. The
decoder takes the sign of a bit's mean over its carriers. This is spread spectrum (Cox et al. 1997) in weights (Uchida
et al. 2017), without interference from the original weight, which the embedder knows.

Shapes: K bits, R bits of a carrier (the adapter's rank), O outputs and I inputs of a layer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

BITS, RANK = 64, 8
STRENGTH = 0.06  # of the weights' root mean square: the margin of every bit in full precision
PROJECTIONS = re.compile(r"\.attn\d\.to_(q|k|v|out\.0)$")  # what adapters usually adapt


@dataclass(frozen=True)
class Key:
    """The secret key.

    Attributes:
        directions: seed of the directions.
        message: seed of the message, different from that of the directions.
    """

    directions: int = 0
    message: int = 1


KEY = Key()


@dataclass(frozen=True, eq=False)
class Carrier:
    """The directions of one layer's bits.

    Attributes:
        host: (O, I), the weight without the mark.
        rows: (O, R), orthonormal.
        columns: (I, R), orthonormal.
        bits: (R,), the indices of the bits.
    """

    host: Tensor
    rows: Tensor
    columns: Tensor
    bits: Tensor

    @property
    def scale(self) -> float:
        """Root mean square of the host."""
        return float(self.host.square().mean().sqrt())


def carrier_weights(unet: nn.Module) -> dict[str, Tensor]:
    """Returns the weights that can carry bits, float64 by path; those of packed layers are dequantized."""
    modules = {name: part for name, part in unet.named_modules() if PROJECTIONS.search(name)}
    return {name: part.weight.detach().double() for name, part in modules.items()}  # type: ignore[union-attr,operator]


def carriers_of(hosts: Mapping[str, Tensor], key: Key = KEY) -> dict[str, Carrier]:
    """Draws the directions and bits of every carrier from the weights of the model without the mark.

    The bits are assigned in rounds: each group of K / R carriers holds every bit once, so the numbers of carriers of
    two bits differ by at most one.
    """
    generator = torch.Generator().manual_seed(key.directions)
    names = list(hosts)
    order = torch.randperm(len(names), generator=generator).tolist()
    rounds = -(-len(names) * RANK // BITS)
    assigned = torch.cat([torch.randperm(BITS, generator=generator) for _ in range(rounds)]).split(RANK)
    bits = {names[at]: some for at, some in zip(order, assigned, strict=False)}
    return {name: Carrier(host, *_directions(host, generator), bits[name]) for name, host in hosts.items()}


def _directions(host: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draws rows and columns; every row is orthogonal to the host's images of all columns. host: (O, I), O >= 2 R."""
    outputs, inputs = host.shape
    columns, _ = torch.linalg.qr(torch.randn(inputs, RANK, generator=generator, dtype=torch.float64))
    images, _ = torch.linalg.qr(host @ columns)
    random = torch.randn(outputs, RANK, generator=generator, dtype=torch.float64)
    rows, _ = torch.linalg.qr(random - images @ (images.T @ random))
    return rows, columns


def message_of(seed: int) -> Tensor:
    """Draws the message: (K,) float64 signs, -1 for a bit of 0."""
    return 2.0 * torch.randint(0, 2, (BITS,), generator=torch.Generator().manual_seed(seed)).double() - 1


def adapter_of(carriers: Mapping[str, Carrier], message: Tensor, strength: float = STRENGTH) -> dict[str, Tensor]:
    """Returns the low-rank adapter: for each carrier lora_B (O, R) and lora_A (R, I), float32 by name."""
    adapter: dict[str, Tensor] = {}
    for name, carrier in carriers.items():
        adapter[f"{name}.lora_A.weight"] = carrier.columns.T.float().contiguous()
        signed = strength * carrier.scale * carrier.rows * message[carrier.bits]
        adapter[f"{name}.lora_B.weight"] = signed.float().contiguous()
    return adapter


def marked_weights(carriers: Mapping[str, Carrier], message: Tensor, strength: float = STRENGTH) -> dict[str, Tensor]:
    """Returns the carriers' weights with the adapter added, float64 by path."""
    adapter = adapter_of(carriers, message, strength)
    return {
        name: carrier.host + adapter[f"{name}.lora_B.weight"].double() @ adapter[f"{name}.lora_A.weight"].double()
        for name, carrier in carriers.items()
    }


def statistics_of(weights: Mapping[str, Tensor], carriers: Mapping[str, Carrier]) -> Tensor:
    """Returns (K,): each bit's mean over its carriers of u^T W v, in units of the host's root mean square.

    Rounding to few bits shrinks a weight slightly, so each weight is first scaled to its host by least squares.
    """
    sums, counts = torch.zeros(BITS, dtype=torch.float64), torch.zeros(BITS, dtype=torch.float64)
    for name, carrier in carriers.items():
        gain = (weights[name] * carrier.host).sum() / carrier.host.square().sum()
        values = (carrier.rows * (weights[name] @ carrier.columns)).sum(0) / (gain * carrier.scale)
        sums.index_add_(0, carrier.bits, values)
        counts.index_add_(0, carrier.bits, torch.ones_like(values))
    return sums / counts


def count_matching(weights: Mapping[str, Tensor], carriers: Mapping[str, Carrier], message: Tensor) -> int:
    """Returns how many of the K decoded bits match the message."""
    return int((statistics_of(weights, carriers) * message > 0).sum())
