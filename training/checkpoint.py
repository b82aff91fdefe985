"""A resumable training loop for all models: seeds, schedule, averaged weights, checkpoints and a log."""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

MakeLoss = Callable[[torch.nn.Module, torch.Generator], dict[str, torch.Tensor]]


@dataclass(frozen=True)
class Recipe:
    """Settings of a training run.

    Attributes:
        steps: number of steps.
        rate: largest learning rate.
        average: decay of the exponential moving average of the weights.
        warmup: number of warm-up steps.
        decay: weight decay.
        every: steps between checkpoints.
    """

    steps: int
    rate: float
    average: float = 0.999
    warmup: int = 200
    decay: float = 0.01
    every: int = 200


def _rate(recipe: Recipe, step: int) -> float:
    """Returns the learning rate: linear warm-up, then cosine decay to a fiftieth."""
    if step < recipe.warmup:
        return recipe.rate * (step + 1) / recipe.warmup
    progress = (step - recipe.warmup) / max(recipe.steps - recipe.warmup, 1)
    return recipe.rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(progress, 1))))


def _save(path: Path, state: dict) -> None:
    """Replaces the file in one move, so that a killed process never leaves a partial file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def train(model: torch.nn.Module, make_loss: MakeLoss, recipe: Recipe, path: Path, seed: int) -> torch.nn.Module:
    """Trains until `recipe.steps`, resuming from the checkpoint at `path`, and returns the averaged model.

    make_loss: draws a batch from the generator and returns named terms, whose sum is minimised. Step i has the same
    batch in every run of one seed, interrupted or not.
    """
    averaged = copy.deepcopy(model).eval().requires_grad_(False)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=recipe.rate, betas=(0.9, 0.99), weight_decay=recipe.decay, fused=True)
    start = 0
    if path.exists():
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        averaged.load_state_dict(state["averaged"])
        optimiser.load_state_dict(state["optimiser"])
        start = state["step"]
    model.train()
    started, sums = time.monotonic(), {}
    for step in range(start, recipe.steps):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        torch.manual_seed(seed * 1_000_003 + step)  # dropout and the like
        for group in optimiser.param_groups:
            group["lr"] = _rate(recipe, step)
        terms = make_loss(model, generator)
        optimiser.zero_grad(set_to_none=True)
        sum(terms.values()).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        _blend(averaged, model, min(recipe.average, (step + 1) / (step + 10)))
        for name, term in terms.items():
            sums[name] = 0.98 * sums.get(name, term.item()) + 0.02 * term.item()
        if (step + 1) % recipe.every == 0 or step + 1 == recipe.steps:
            state = {"model": model.state_dict(), "averaged": averaged.state_dict(), "step": step + 1}
            _save(path, state | {"optimiser": optimiser.state_dict()})
            pace = (time.monotonic() - started) / (step + 1 - start)
            left = pace * (recipe.steps - step - 1) / 60
            report = "  ".join(f"{name} {value:.4f}" for name, value in sums.items())
            print(f"{path.stem} step {step + 1}/{recipe.steps}  {report}  {left:.0f} min remaining", flush=True)
    return averaged


@torch.no_grad()
def _blend(averaged: torch.nn.Module, model: torch.nn.Module, keep: float) -> None:
    """Updates averaged to keep * averaged + (1 - keep) * model, and copies buffers."""
    for old, new in zip(averaged.parameters(), model.parameters(), strict=True):
        old.lerp_(new, 1 - keep)
    for old, new in zip(averaged.buffers(), model.buffers(), strict=True):
        old.copy_(new)
