"""A mark of 64 bits in a model's weights: a low-rank adapter writes it, and the weights alone tell it.

For each carrier l, an attention projection with weight W of root mean square w, the secret key draws 8 bits and for
each a column v and a row u, all orthonormal, with u orthogonal to W v. The adapter adds strength w s u v^T for a bit of
sign s. What was there says nothing along u, v, nor do the other bits, so that u^T W' v / w is s times the strength; a
bit is the sign of the mean over its carriers. That is spread spectrum (Cox et al. 1997) in weights (Uchida et al.
2017), with the host's own part taken out, for who marks the model knows it.

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
    """The secret: seeds of the directions and of the message, two different ones."""

    directions: int = 0
    message: int = 1


KEY = Key()


@dataclass(frozen=True, eq=False)
class Carrier:
    """Where one layer holds its bits.

    host: (O, I), the weight without the mark; rows: (O, R), columns: (I, R), both orthonormal; bits: (R,), which.
    """

    host: Tensor
    rows: Tensor
    columns: Tensor
    bits: Tensor

    @property
    def scale(self) -> float:
        """Root mean square of the host."""
        return float(self.host.square().mean().sqrt())


def carried(unet: nn.Module) -> dict[str, Tensor]:
    """The weights that may carry bits, float64 by path; those of packed layers are what their codes stand for."""
    found = {name: part for name, part in unet.named_modules() if PROJECTIONS.search(name)}
    return {name: part.weight.detach().double() for name, part in found.items()}  # type: ignore[union-attr,operator]


def carriers_of(hosts: Mapping[str, Tensor], key: Key = KEY) -> dict[str, Carrier]:
    """The secret part of every carrier, from the weights of the model without the mark.

    The key deals the bits out: all of them once in K / R carriers, then anew, so that each has as many carriers, give
    or take one.
    """
    generator = torch.Generator().manual_seed(key.directions)
    names = list(hosts)
    order = torch.randperm(len(names), generator=generator).tolist()
    rounds = -(-len(names) * RANK // BITS)
    dealt = torch.cat([torch.randperm(BITS, generator=generator) for _ in range(rounds)]).split(RANK)
    bits = {names[at]: some for at, some in zip(order, dealt, strict=False)}
    return {name: Carrier(host, *_directions(host, generator), bits[name]) for name, host in hosts.items()}


def _directions(host: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rows and columns, with every row orthogonal to the host's images of all columns: host of (O, I), O >= 2 R."""
    outputs, inputs = host.shape
    columns, _ = torch.linalg.qr(torch.randn(inputs, RANK, generator=generator, dtype=torch.float64))
    images, _ = torch.linalg.qr(host @ columns)
    drawn = torch.randn(outputs, RANK, generator=generator, dtype=torch.float64)
    rows, _ = torch.linalg.qr(drawn - images @ (images.T @ drawn))
    return rows, columns


def message_of(seed: int) -> Tensor:
    """(K,) float64 signs: the bits, -1 for 0."""
    return 2.0 * torch.randint(0, 2, (BITS,), generator=torch.Generator().manual_seed(seed)).double() - 1


def adapter_of(carriers: Mapping[str, Carrier], message: Tensor, strength: float = STRENGTH) -> dict[str, Tensor]:
    """The low-rank adapter: float32 by name, lora_B (O, R) and lora_A (R, I) for each carrier, to be multiplied."""
    found: dict[str, Tensor] = {}
    for name, carrier in carriers.items():
        found[f"{name}.lora_A.weight"] = carrier.columns.T.float().contiguous()
        signed = strength * carrier.scale * carrier.rows * message[carrier.bits]
        found[f"{name}.lora_B.weight"] = signed.float().contiguous()
    return found


def marked(carriers: Mapping[str, Carrier], message: Tensor, strength: float = STRENGTH) -> dict[str, Tensor]:
    """The carriers' weights with the mark: what fusing the adapter gives, float64 by path."""
    adapter = adapter_of(carriers, message, strength)
    return {
        name: carrier.host + adapter[f"{name}.lora_B.weight"].double() @ adapter[f"{name}.lora_A.weight"].double()
        for name, carrier in carriers.items()
    }


def statistics_of(weights: Mapping[str, Tensor], carriers: Mapping[str, Carrier]) -> Tensor:
    """(K,): of each bit the mean over its carriers of u^T W v in units of the host's root mean square.

    Rounding to few bits shrinks a weight a little; each one is first brought back to its host by least squares.
    """
    sums, counts = torch.zeros(BITS, dtype=torch.float64), torch.zeros(BITS, dtype=torch.float64)
    for name, carrier in carriers.items():
        gain = (weights[name] * carrier.host).sum() / carrier.host.square().sum()
        found = (carrier.rows * (weights[name] @ carrier.columns)).sum(0) / (gain * carrier.scale)
        sums.index_add_(0, carrier.bits, found)
        counts.index_add_(0, carrier.bits, torch.ones_like(found))
    return sums / counts


def agreeing(weights: Mapping[str, Tensor], carriers: Mapping[str, Carrier], message: Tensor) -> int:
    """How many of the K bits that the weights tell are those of the message."""
    return int((statistics_of(weights, carriers) * message > 0).sum())
