"""Batches that are lists of tensors are probed like tensors."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.sensitivity.probes.bench import PROMPTS, STEP, STEPS, WIDTH, Bench, Drawn, images_of, summed


class Lists(nn.Module):
    """A denoiser that takes and gives lists with a tensor for each sample, whose words are not as many."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.time, self.first, self.words = nn.Linear(1, 5), nn.Linear(WIDTH, 5), nn.Linear(2, 5)
        self.mixed, self.last = nn.Linear(5, 5), nn.Linear(5, WIDTH)
        self.double()

    def forward(self, xs: list[Tensor], t: Tensor, words: list[Tensor]) -> tuple[list[Tensor]]:
        read = self.words(torch.cat(words)).split([len(some) for some in words])
        padded = nn.utils.rnn.pad_sequence(list(read), batch_first=True)
        known = torch.stack([self.mixed(rows)[: len(some)].sum(0) for rows, some in zip(padded, words, strict=True)])
        return (list(self.last(self.first(torch.cat(xs)) + self.time(t) + known).unsqueeze(1).unbind()),)


def listing_sampler(lengths: tuple[int, ...], guided: bool) -> Callable[[nn.Module, Tensor], Tensor]:
    """lengths: of words, in turn. The words of a step depend on what came out before, as those of a text encoder do."""

    def sample(denoiser: nn.Module, start: Tensor) -> Tensor:
        x = start
        for i in range(STEPS):
            words = [row[:2].expand(lengths[j % len(lengths)], 2) + i for j, row in enumerate(x)]
            given = torch.cat([x, 2 * x + 1]) if guided else x
            words += [row[1:].expand(1, 2) for row in x] if guided else []
            t = torch.full((len(given), 1), 1.0 + i, dtype=x.dtype)
            out = torch.cat(denoiser(list(given[:, None].unbind()), t, words)[0])
            x = x - STEP * (out[: len(x)] + (0.5 * out[len(x) :] if guided else 0))
        return x

    return sample


@pytest.mark.parametrize("layer", ["time", "first", "words", "last"])
@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("lengths", [(2,), (2, 3), (1, 3)])  # the last ones add up to a multiple of the batch
def test_batches_that_are_lists_are_as_good_as_tensors(lengths: tuple[int, ...], guided: bool, layer: str) -> None:
    sampler = listing_sampler(lengths, guided)
    bench, images, denoised = Bench(sampler, toy=Lists()), Drawn("images"), Drawn("denoised")
    chain, found = bench.respond(images, denoised, layers=(layer,), rows=5)
    assert [step.rows for step in chain.steps] == [PROMPTS * (1 + guided)] * STEPS
    with torch.no_grad():
        change = sampler(bench.changed("tiny", layer), bench.start) - bench.run()
    expected = images_of(images, change)
    mine = summed(found, (layer, "tiny"), images.metric.name)
    torch.testing.assert_close(mine.double(), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().mean()))
    assert found[0][layer, "tiny"][denoised.metric.name].shape == (4, PROMPTS * (1 + guided))


def test_a_layer_of_a_list_whose_rows_have_no_owner_is_left_out() -> None:
    """It is called for one sample after the other: those of a copy do not follow each other in its input."""
    for lengths, rows in (((2,), 2), ((8,), 256), ((2, 3), 2)):
        bench = Bench(listing_sampler(lengths, False), toy=Lists())
        _, found = bench.respond(Drawn("images"), layers=("mixed",), rows=rows)
        assert not any(found.values())
