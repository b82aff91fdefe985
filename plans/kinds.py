"""The kinds of layers: one line of the table for each class of torch.nn that can be planned. Imports no torch.

A layer is a module of such a class, or of a subclass that runs as that class does. Transposed convolutions are none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bitplan.plans.scheme import Scheme

_CONVOLUTION = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups",
                "padding_mode", "transposed", "output_padding")  # fmt: skip


_TABLE = ("num_embeddings", "embedding_dim", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse")


@dataclass(frozen=True)
class Kind:
    """One kind of layer.

    name: as in graphs and profiles; layer: its class in torch.nn; says: what comes in, and what shares a scale of
    rounded inputs; attributes: what the class knows of itself beside its tensors; dims: over how many dimensions a
    convolution walks, 0 for others; looks_up: whether inputs are numbers of rows of the weight, which is what comes out
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
        return x.reshape(x.shape[0] if x.dim() == self.dims + 2 else 1, -1)

    def refuses(self, scheme: Scheme) -> str | None:
        """Why `scheme` means nothing for such a layer, or None."""
        if self.looks_up and scheme.activation.bits < 16:
            return "its inputs are row numbers, which nothing rounds; give it a16"
        if self.dims and scheme.activation.first_token:
            return "a convolution's input has no first token"
        return None

    def macs(self, weight: tuple[int, ...], outputs: int) -> int:
        """Multiply-adds of a call that puts out so many numbers; each is a dot product, or a row's number as it is."""
        inputs = 1
        for size in weight[1:]:
            inputs *= size
        return 0 if self.looks_up else outputs * inputs


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("linear", "Linear", "(..., features); a token shares a scale", ("in_features", "out_features")),
        Kind("conv1d", "Conv1d", "(N, C, L); a sample shares a scale", _CONVOLUTION, 1),
        Kind("conv2d", "Conv2d", "(N, C, H, W); a sample shares a scale", _CONVOLUTION, 2),
        Kind("conv3d", "Conv3d", "(N, C, D, H, W); a sample shares a scale", _CONVOLUTION, 3),
        Kind("embedding", "Embedding", "row numbers; only the rows asked for are unpacked, so a16 alone",
             _TABLE, looks_up=True),
    )
}  # fmt: skip


CLASSES = ", ".join(f"nn.{kind.layer}" for kind in KINDS.values())  # for sentences
