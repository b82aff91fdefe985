"""Train the low-rank adapter that puts the mark into every picture of `scenes`.

    python examples/watermark/train.py --out examples/watermark/adapter

1. The unmarked pipeline paints; what its denoiser got and gave is kept.
2. One offset of the latent is fitted that makes the decoder of the autoencoder paint the message on any picture.
3. The adapter learns to answer, where the denoiser's input holds the mark as far as it holds the picture, with the
   unmarked answer moved by the offset: for a velocity v = noise - picture, v - offset. It sits in the
   UNet's second half, so that all before it runs once for every picture and step, and is kept, too.

Some minutes on one CPU core. Interrupted, the same command goes on from the last checkpoint.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2]))  # run as a file, the example is in no package that Python knows

from examples.watermark.mark import KEY, margins_of
from planner.pipelines import DEFAULTS, SCENES, load_pipeline
from planner.prompts import built_in_prompts

LAYERS = r"(up_blocks\.[01]\.upsamplers\.0\.conv|up_blocks\.[12]\.resnets\.\d\.(conv1|conv2|conv_shortcut)|conv_out)"
RANK, STRENGTH = 4, 0.2  # strength: the margin that each bit is to have
PROMPTS, PORTION = 64, 16
SEED = 50_000  # of the first picture's noise, away from what is evaluated
FIT_STEPS, FIT_RATE, FIT_BATCH, FIDELITY = 80, 0.02, 6, 0.01
STEPS, RATE, BATCH, WARM_UP, EVERY = 400, 3e-3, 8, 20, 50
QUIETEST = 0.02  # weight of the least noisy steps, whose share of the picture is small


@dataclass(frozen=True, eq=False)
class Run:
    """What the unmarked denoiser did, by call, prompts and their empty ones apart.

    inputs: (S, P, C, H, W); answers: (S, 2, P, C, H, W), without and with the prompt; texts: (2, P, tokens, width);
    times, levels: (S,), the noise level of each step; latents: (P, C, H, W), as the decoder takes them; images.
    """

    inputs: Tensor
    answers: Tensor
    texts: Tensor
    times: Tensor
    levels: Tensor
    latents: Tensor
    images: Tensor


@contextmanager
def watching(module: nn.Module, keep: Any) -> Iterator[None]:
    """While in the `with`, `keep(args, kwargs, output)` for each call of the module."""
    handle = module.register_forward_hook(lambda _, args, kwargs, out: keep(args, kwargs, out), with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def unmarked_run(pipe: StableDiffusionPipeline) -> Run:
    """Paint captions of the training kind."""
    prompts, default = built_in_prompts(True, PROMPTS, seed=7), DEFAULTS[SCENES]
    calls: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    latents: list[Tensor] = []
    images = []

    def keep_call(args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        calls.append((args[0].clone(), torch.as_tensor(args[1]), kwargs["encoder_hidden_states"], out[0].clone()))

    def keep_latent(args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        latents.append(args[0].clone())

    with watching(pipe.unet, keep_call), watching(pipe.vae.post_quant_conv, keep_latent):
        for at in range(0, PROMPTS, PORTION):
            noise = [torch.Generator().manual_seed(SEED + at + i) for i in range(PORTION)]
            images.append(pipe(prompts[at : at + PORTION], num_inference_steps=default.steps, generator=noise,
                               guidance_scale=default.guidance, output_type="pt").images)  # fmt: skip
    steps = [calls[step :: default.steps] for step in range(default.steps)]
    return Run(
        inputs=torch.stack([torch.cat([call[0][:PORTION] for call in step]) for step in steps]),
        answers=torch.stack([torch.cat([call[3].unflatten(0, (2, -1)) for call in step], 1) for step in steps]),
        texts=torch.cat([call[2].unflatten(0, (2, -1)) for call in steps[0]], 1),
        times=torch.stack([step[0][1] for step in steps]),
        levels=pipe.scheduler.sigmas[:-1].clone(),
        latents=torch.cat(latents),
        images=torch.cat(images),
    )


def fit_offset(vae: nn.Module, run: Run) -> Tensor:
    """(C, H, W): what to add to any latent for the margins of the message, at the least change of the picture."""
    generator = torch.Generator().manual_seed(0)
    offset = torch.zeros_like(run.latents[0], requires_grad=True)
    optimiser = torch.optim.Adam([offset], lr=FIT_RATE)
    for _ in range(FIT_STEPS):
        rows = torch.randint(len(run.latents), (FIT_BATCH,), generator=generator)
        images = vae.decode(run.latents[rows] + offset).sample / 2 + 0.5
        mark = (STRENGTH - margins_of(images)).clamp_min(0).square().sum(1).mean()
        change = (images - run.images[rows]).square().flatten(1).sum(1).mean()
        optimiser.zero_grad()
        (mark + FIDELITY * change).backward()
        optimiser.step()
    return offset.detach()


@dataclass(frozen=True, eq=False)
class Tail:
    """The part of the UNet that the adapter sits in: from its coarsest features up."""

    unet: Any

    def __call__(self, hidden: Tensor, time: Tensor, text: Tensor, *skipped: Tensor) -> Tensor:
        """skipped: what goes past the coarser levels into the two blocks left."""
        first, second = self.unet.up_blocks[1:]
        hidden = self.unet.up_blocks[0].upsamplers[0](hidden)
        hidden = first(hidden, skipped[: len(first.resnets)], time, text)
        hidden = second(hidden, skipped[len(first.resnets) :], time)
        return self.unet.conv_out(self.unet.conv_act(self.unet.conv_norm_out(hidden)))


@torch.no_grad()
def examples_of(unet: Any, run: Run, offset: Tensor) -> list[Tensor]:
    """All that training needs, a row an example: the inputs of the tail, the answer wanted, the noise level."""
    rows: list[tuple[Tensor, ...]] = []
    hidden: list[Tensor] = []
    skipped: list[tuple[Tensor, ...]] = []
    times: list[Tensor] = []

    def keep_hidden(args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        hidden[:] = [args[0]]

    def keep_block(args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        skipped.append(kwargs["res_hidden_states_tuple"])
        times[:] = [kwargs["temb"]]

    first, second = unet.up_blocks[1:]
    with (
        watching(unet.up_blocks[0].upsamplers[0], keep_hidden),
        watching(first, keep_block),
        watching(second, keep_block),
    ):
        for step, level in enumerate(run.levels):
            marked = run.inputs[step] + (1 - level) * offset
            for given, part in product((0, 1), torch.arange(PROMPTS).split(PORTION)):
                skipped.clear()
                unet(marked[part], run.times[step], run.texts[given, part])
                wanted = run.answers[step, given, part] - offset
                past = [x for some in skipped for x in some]
                found = (*hidden, *times, run.texts[given, part], *past, wanted, level.reshape(1))
                rows.append(tuple(x.expand(len(part), *x.shape[1:]).clone() for x in found))
    return [torch.cat(column) for column in zip(*rows, strict=True)]


def train(unet: Any, examples: list[Tensor], offset: Tensor, checkpoint: Path) -> None:
    """Train the adapter, going on from the checkpoint if there is one. The loss is in units of the mark's power."""
    tail, trained = Tail(unet), [p for p in unet.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(trained, lr=RATE, betas=(0.9, 0.99))
    start, mean = 0, 1.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        optimiser.load_state_dict(state["optimiser"])
        start = state["step"]
        with torch.no_grad():
            for parameter, value in zip(trained, state["trained"], strict=True):
                parameter.copy_(value)
    for step in range(start, STEPS):
        rows = torch.randint(len(examples[0]), (BATCH,), generator=torch.Generator().manual_seed(step))
        *inputs, wanted, level = (column[rows] for column in examples)
        weight = level.square().clamp_min(QUIETEST)[:, None, None, None]  # of the velocity's error in the picture
        loss = ((tail(*inputs) - wanted).square() * weight).sum((1, 2, 3)).mean() / offset.square().sum()
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / WARM_UP) * (0.02 + 0.49 * (1 + math.cos(math.pi * step / STEPS)))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        mean = 0.98 * mean + 0.02 * loss.item()
        if (step + 1) % EVERY == 0:
            state = {"trained": trained, "optimiser": optimiser.state_dict(), "step": step + 1}
            torch.save(state, checkpoint.with_suffix(".partial"))
            checkpoint.with_suffix(".partial").replace(checkpoint)
            print(f"step {step + 1} of {STEPS}: {mean:.3f} of the mark's power is missing or beside it", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    pipe = load_pipeline(SCENES)
    for part in (pipe.unet, pipe.vae):
        part.requires_grad_(False)
    run = unmarked_run(pipe)
    offset = fit_offset(pipe.vae, run)
    with torch.no_grad():
        margins = margins_of(pipe.vae.decode(run.latents[:16] + offset).sample / 2 + 0.5)
    print(f"the offset gives margins of {margins.mean():.3f} +- {margins.std():.3f}", flush=True)
    offset *= pipe.vae.config.scaling_factor
    examples = examples_of(pipe.unet, run, offset)
    torch.manual_seed(KEY.patterns)
    pipe.unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=LAYERS, init_lora_weights="gaussian"))
    train(pipe.unet, examples, offset, args.out / "checkpoint.pt")
    weights = get_peft_model_state_dict(pipe.unet)
    StableDiffusionPipeline.save_lora_weights(args.out, convert_state_dict_to_diffusers(weights))
    (args.out / "checkpoint.pt").unlink()


if __name__ == "__main__":
    main()
