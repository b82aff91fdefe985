"""Models whose calls are recorded: two of diffusers, and toys that write in place, keep, append or call twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor, nn

from tests import tiny


class Net(nn.Module):
    """Subclasses put a chain of parts between two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head, self.middle, self.tail = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)


class Twice(Net):
    """One module called twice a run, inside another module and outside of it, the second time after the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(self.head, nn.Tanh(), self.middle)

    def forward(self, x: Tensor) -> Tensor:
        return self.middle(self.tail(self.middle(self.head(self.block(x)))).tanh())


class InPlace(Net):
    """Writes into what modules returned and were given, directly and through an alias of it."""

    def __init__(self) -> None:
        super().__init__()
        self.same, self.cut = nn.Identity(), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x)
        alias = self.same(x)
        x += 1
        kept = self.middle(alias)
        self.cut(kept)
        return self.tail(kept + alias)


class Adder(nn.Module):
    def forward(self, found: list[Tensor], x: Tensor) -> None:
        found.append(2 * x)


class Appending(Net):
    """A module that hands its result on in a list that it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.adder = Adder()

    def forward(self, x: Tensor) -> Tensor:
        found: list[Tensor] = []
        self.adder(found, self.head(x))
        return self.tail(self.middle(found[0]))


class Box:
    """Something that no tree of tensors describes."""

    def __init__(self, value: Tensor) -> None:
        self.value = value


class Boxing(nn.Module):
    def forward(self, x: Tensor, box: Box | None = None) -> Box:
        return Box(x)


class Unknown(Net):
    def __init__(self) -> None:
        super().__init__()
        self.boxing = Boxing()

    def forward(self, x: Tensor) -> Tensor:
        box = self.boxing(x=self.head(x))
        box.value = self.middle(box.value)
        return self.tail(box.value)


class Scale(nn.Module):
    def forward(self, x: Tensor, box: Box | None = None) -> Tensor:
        return 2 * x if box is None else 3 * x + box.value


class Often(Net):
    """Modules called often before the last layer, once with an argument that forbids a look-up."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = Scale()

    def forward(self, x: Tensor) -> Tensor:
        y = self.scale(self.head(x), Box(x))
        return self.tail(self.middle(self.scale(self.middle(y))) + y)


class Pairs(nn.Module):
    def forward(self, *, x: Tensor) -> dict[str, Any]:
        return {"both": [x, x + 1], "none": None}


class Trees(Net):
    """Keyword arguments, and trees as outputs that the caller changes."""

    def __init__(self) -> None:
        super().__init__()
        self.pairs = Pairs()

    def forward(self, x: Tensor) -> Tensor:
        tree = self.pairs(x=self.head(x))
        first = tree["both"].pop()
        return self.tail(self.middle(first) + tree.pop("both")[0])


class Lucky(Net):
    """Draws random numbers before a layer and after it."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.tail(self.middle(self.drop(self.head(x)))))


def unet() -> tuple[nn.Module, dict[str, Any]]:
    torch.manual_seed(0)
    model = tiny.build_unet().eval()
    first, second = model.up_blocks[-1].resnets
    first.time_emb_proj = second.time_emb_proj  # one layer at two places
    return model, {"sample": torch.randn(2, 4, 8, 8), "timestep": torch.tensor(500),
                   "encoder_hidden_states": torch.randn(2, 5, tiny.WIDTH), "return_dict": False}  # fmt: skip


def transformer() -> tuple[nn.Module, dict[str, Any]]:
    torch.manual_seed(0)
    model = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=12, caption_projection_dim=16, pooled_projection_dim=12, out_channels=4,
    ).eval()  # fmt: skip
    return model, {"hidden_states": torch.randn(2, 4, 8, 8), "encoder_hidden_states": torch.randn(2, 5, 12),
                   "pooled_projections": torch.randn(2, 12), "timestep": torch.tensor([500, 500])}  # fmt: skip


def toy(kind: type[Net]) -> Callable[[], tuple[nn.Module, dict[str, Any]]]:
    return lambda: (kind(), {"x": torch.randn(3, 6)})


MODELS = [unet, transformer, *map(toy, (Twice, Often, InPlace, Appending, Unknown, Trees, Lucky))]
