"""The kinds of layers: one line of the table for each class of torch.nn that can be planned. Imports no torch.

A layer is a module of such a class, or of a subclass that runs as that class does, but not a transposed convolution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bitplan.plans.formats import FORMATS
from bitplan.plans.inputs import INPUTS
from bitplan.plans.scheme import Scheme
from bitplan.plans.terms import Line, Table
from bitplan.plans.transforms import TRANSFORMS

_CONVOLUTION = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups",
                "padding_mode", "transposed", "output_padding")  # fmt: skip


_TABLE = ("num_embeddings", "embedding_dim", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse")


@dataclass(frozen=True)
class Kind:
    """One kind of layer. What a scheme may be there is said by the lines of its terms, in their tables.

    Attributes:
        name: as in graphs and profiles.
        layer: its class in torch.nn.
        says: what comes in, and what shares a scale of rounded inputs.
        attributes: what the class knows of itself beside its tensors.
        dims: dimensions that a convolution walks over, 0 for others.
        looks_up: whether inputs are numbers of rows of the weight, which is what comes out.
    """

    name: str
    layer: str
    says: str
    attributes: tuple[str, ...]
    dims: int = 0
    looks_up: bool = False

    def rows(self, x: Any) -> Any:
        """A layer's input with one last dimension for each row, which is what shares a scale: (..., features) as it is,
        (samples, channels * positions) of a convolution, whose patches overlap."""
        if not self.dims:
            return x
        return x.flatten(1) if x.dim() == self.dims + 2 else x.flatten().unsqueeze(0)

    def refuses(self, scheme: Scheme) -> str | None:
        """The term of `scheme` that is not defined for such a layer, and why; None where all are."""
        terms: list[tuple[str, str, Mapping[str, Line]]] = [
            (scheme.weight.kind, str(scheme.weight), FORMATS), (scheme.inputs.kind, str(scheme.inputs), INPUTS)
        ]  # fmt: skip
        terms += [(term.name, str(term), TRANSFORMS) for term in scheme.transforms]
        for name, text, table in terms:
            line = table.get(name)
            if line is None or self.name not in line.kinds:
                taken = ", ".join(each.name for each in table.values() if self.name in each.kinds) or "none"
                reason = f" ({line.only})" if line is not None and line.only else ""
                return f"a layer of kind {self.name} takes {taken}, not {text}{reason}"
        return None

    def macs(self, weight: tuple[int, ...], outputs: int) -> int:
        """Multiply-adds of a call with this many outputs: each is a dot product, or a number of a row as it is."""
        inputs = 1
        for size in weight[1:]:
            inputs *= size
        return 0 if self.looks_up else outputs * inputs


KINDS: Table[Kind] = Table("kind of layer")
register, unregister = KINDS.register, KINDS.unregister

register(Kind("linear", "Linear", "(..., features); a token shares a scale", ("in_features", "out_features")))
register(Kind("conv1d", "Conv1d", "(N, C, L); a sample shares a scale", _CONVOLUTION, 1))
register(Kind("conv2d", "Conv2d", "(N, C, H, W); a sample shares a scale", _CONVOLUTION, 2))
register(Kind("conv3d", "Conv3d", "(N, C, D, H, W); a sample shares a scale", _CONVOLUTION, 3))
register(Kind("embedding", "Embedding", "row numbers; only the rows of its input are unpacked, so a16 alone", _TABLE,
              looks_up=True))  # fmt: skip


CLASSES = ", ".join(f"nn.{kind.layer}" for kind in KINDS.values())  # for sentences
