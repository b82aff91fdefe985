from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from bitplan.sensitivity.calibration.observers import OBSERVERS
from bitplan.sensitivity.calibration.ranges import ActivationRange, CalibrationError, calibrate

torch.set_num_threads(1)


class Toy(nn.Module):
    """A convolution, a linear layer on its tokens, and one on texts (batch, tokens, channels)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.tokens, self.text = nn.Conv2d(3, 4, 3), nn.Linear(4, 4), nn.Linear(5, 4)
        self.unused = nn.Linear(4, 4)

    def forward(self, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        grid = self.conv(image).flatten(2).transpose(1, 2)
        return self.tokens(grid).mean(1) + self.text(text).mean(1)


@pytest.fixture
def toy() -> Toy:
    torch.manual_seed(0)
    return Toy()


def layers(toy: Toy) -> dict[str, nn.Module]:
    return {name: module for name, module in toy.named_modules() if name}


def texts(batch: int, seed: int) -> torch.Tensor:
    """Random tokens behind a first one that is the same for all and 30 times as large."""
    x = torch.randn(batch, 7, 5, generator=torch.Generator().manual_seed(seed))
    x[:, 0] = torch.tensor([40.0, 1, 2, 3, -1])
    return x


def hooks(toy: Toy) -> int:
    return sum(len(module._forward_pre_hooks) for module in toy.modules())


def test_ranges_are_those_of_all_inputs_seen(toy):
    images = [torch.randn(n, 3, 8, 8) for n in (2, 3)]
    captions = [texts(2, 0), texts(3, 1)]
    ranges = calibrate(layers(toy), lambda: [toy(*pair) for pair in zip(images, captions, strict=True)])
    assert list(ranges) == ["conv", "tokens", "text"]  # in the order of the layers; `unused` was never called
    assert ranges["conv"] == ActivationRange(max(x.abs().max().item() for x in images), None, None, False, 2, 5)
    rest = max(x[:, 1:].abs().max().item() for x in captions)
    assert ranges["text"] == ActivationRange(40.0, 40.0, rest, True, 2, 5)
    tokens = ranges["tokens"]
    assert not tokens.first_constant and tokens.absmax == max(tokens.first_absmax, tokens.rest_absmax)


def text_range(*inputs: torch.Tensor) -> ActivationRange:
    layer = nn.Linear(inputs[0].shape[-1], 1).to(inputs[0].dtype)
    return calibrate({"layer": layer}, lambda: [layer(x) for x in inputs])["layer"]


def test_a_first_token_is_constant_over_rows_or_calls():
    assert text_range(texts(3, 0)).first_constant
    assert text_range(texts(1, 0), texts(1, 1), texts(1, 2)).first_constant


def test_one_input_shows_nothing_about_constancy():
    once = texts(1, 0)
    assert not text_range(once).first_constant
    assert not text_range(once, once.clone(), once.expand(4, -1, -1)).first_constant


@pytest.mark.parametrize("late", [0, 1])
def test_a_first_token_that_moves_once_is_not_constant(late):
    inputs = [texts(2, seed) for seed in range(4)]
    inputs[3][late, 0, 2] += 0.3  # in a small channel, beside an outlier of 40
    assert not text_range(*inputs).first_constant
    assert text_range(*inputs[:3]).first_constant


def test_rounding_does_not_hide_a_constant_token():
    inputs = [texts(2, seed) * (1 + 1e-3 * seed) for seed in range(3)]
    assert text_range(*inputs).first_constant
    assert text_range(*(x.half() for x in inputs)).first_constant


def test_a_single_token_or_a_changing_rank_has_no_first():
    assert text_range(texts(2, 0)[:, :1]).first_absmax is None
    mixed = text_range(texts(2, 0), texts(2, 0)[:, 1])
    assert (mixed.first_absmax, mixed.rest_absmax, mixed.first_constant, mixed.calls) == (None, None, False, 2)


def test_bad_inputs_name_the_first_layer_and_leave_no_hooks(toy):
    image = torch.randn(1, 3, 8, 8)
    image[0, 0, 0, 0] = math.nan  # reaches `tokens` too, but `conv` sees it first
    with pytest.raises(CalibrationError, match="1 of 192 inputs of layer conv are not finite"):
        calibrate(layers(toy), lambda: toy(image, texts(1, 0)))
    assert hooks(toy) == 0


def test_hooks_are_there_only_while_it_runs(toy):
    seen = []

    def run() -> None:
        seen.append(hooks(toy))
        raise RuntimeError("cut")

    with pytest.raises(RuntimeError, match="cut"):
        calibrate(layers(toy), run)
    assert seen == [4] and hooks(toy) == 0
    calibrate(layers(toy), lambda: toy(torch.randn(1, 3, 8, 8), texts(1, 0)))
    assert hooks(toy) == 0


def test_no_activation_is_kept_nor_any_output_changed(toy):
    image, caption = torch.randn(2, 3, 8, 8), texts(2, 0)
    with torch.no_grad():
        expected = toy(image, caption)
    outputs = []
    calibrate(layers(toy), lambda: outputs.append(toy(image, caption)))
    assert torch.equal(outputs[0], expected) and not outputs[0].requires_grad


def test_unknown_observer_and_a_call_without_a_tensor(toy):
    with pytest.raises(CalibrationError, match="no observer is called 'median'; choose one of minmax"):
        calibrate(layers(toy), lambda: None, observer="median")
    same = nn.Identity()
    with pytest.raises(CalibrationError, match="layer same was called without a tensor"):
        calibrate({"same": same}, lambda: same(None))


def test_a_layer_may_be_called_by_keyword(toy):
    words = texts(1, 0)
    found = [calibrate({"text": toy.text}, run) for run in (lambda: toy.text(words), lambda: toy.text(input=words))]
    assert found[0] == found[1] and found[0].keys() == {"text"}


@pytest.mark.parametrize("name", OBSERVERS)
class TestObservers:
    """What every observer of the table promises."""

    def seen(self, name: str, *batches: torch.Tensor) -> float:
        observer = OBSERVERS[name]()
        for batch in batches:
            observer.see(batch)
        return observer.absmax()

    def test_says_its_rule(self, name):
        assert OBSERVERS[name].says

    def test_zero_for_nothing_and_for_zeros(self, name):
        assert self.seen(name) == 0 == self.seen(name, torch.zeros(3, 4))

    def test_order_and_batching_change_nothing(self, name):
        x = torch.randn(5000, generator=torch.Generator().manual_seed(0)).abs()
        whole = self.seen(name, x)
        assert whole == self.seen(name, *x.flip(0).split(700)) == self.seen(name, x.view(50, 10, 10))

    def test_between_the_true_percentile_and_the_maximum(self, name):
        x = torch.randn(100_000, generator=torch.Generator().manual_seed(0)).abs()
        assert x.quantile(0.9999) * 0.99 <= self.seen(name, x) <= x.max()

    def test_scales_with_its_input_in_any_dtype(self, name):
        x = torch.rand(1000, generator=torch.Generator().manual_seed(0)) + 0.5
        for scale in (2.0**-12, 2.0**10):
            assert self.seen(name, x * scale) == pytest.approx(self.seen(name, x) * scale, rel=1e-6)
        assert self.seen(name, x.half()) == pytest.approx(self.seen(name, x), rel=0.02)


def test_percentile_clips_a_lone_outlier_that_minmax_keeps():
    x = torch.rand(50_000, generator=torch.Generator().manual_seed(0))
    x[7] = 1000
    layer = nn.Linear(10, 1)
    ranges = {o: calibrate({"a": layer}, lambda: layer(x.view(-1, 10)), o)["a"].absmax for o in OBSERVERS}
    assert ranges["minmax"] == 1000 and ranges["percentile"] == pytest.approx(1, rel=0.02)
