"""A denoiser that writes into its input: what the sampler reads there afterwards is a result of the call, too."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bitplan.sensitivity.table import MeasurementError
from tests.sensitivity.probes.bench import STEP, STEPS, WIDTH, Bench, Drawn, images_of, summed, time_at


class Writer(nn.Module):
    """Writes a function of its input into it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(WIDTH, WIDTH).double(), nn.Linear(WIDTH, WIDTH).double()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        x.mul_(0.7).add_(torch.sin(self.first(x)))
        return torch.tanh(self.last(x)) * (1 + t.square().sum())


def sampler(denoiser: nn.Module, start: Tensor) -> Tensor:
    x = start.clone()
    for i in range(STEPS):
        out = denoiser(x, time_at(i))
        x = x - STEP * out
    return x


@pytest.mark.parametrize("layer", ["first", "last"])
def test_responses_are_those_of_brute_force(layer: str) -> None:
    bench, drawn = Bench(sampler, toy=Writer()), Drawn("images")
    _, found = bench.respond(drawn, layers=(layer,))
    with torch.no_grad():
        change = sampler(bench.changed("tiny", layer), bench.start) - bench.run()
    expected = images_of(drawn, change)
    mine = summed(found, (layer, "tiny"), drawn.metric.name)
    torch.testing.assert_close(mine.double(), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().mean()))


@pytest.mark.parametrize("how", ["data", "numpy"])
def test_writes_that_torch_does_not_see_are_refused(how: str) -> None:
    class Hidden(Writer):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            if how == "data":
                x.data.mul_(0.7)
            else:
                x.detach().numpy()[:] *= 0.7
            return torch.tanh(self.last(x))

    with pytest.raises(MeasurementError, match="writes into its arguments where torch does not see it"):
        Bench(sampler, toy=Hidden()).respond(Drawn("images"), layers=("last",))
