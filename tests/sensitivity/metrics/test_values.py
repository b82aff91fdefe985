"""The metrics' numbers against slow or closed-form ones; their shared promises are in tests/contracts."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import BatchEncoding, CLIPConfig, CLIPModel

from bitplan.sensitivity.metrics import METRICS
from bitplan.sensitivity.metrics.image import ssim
from bitplan.sensitivity.metrics.learned import clip_encoder, fit_images
from bitplan.sensitivity.table import MeasurementError

torch.set_num_threads(1)


def slow_ssim(a: torch.Tensor, b: torch.Tensor) -> float:
    """Wang et al. 2004, one window after the other, with plain weighted sums about the mean."""
    kernel = [[math.exp(-((i - 5) ** 2 + (j - 5) ** 2) / (2 * 1.5**2)) for j in range(11)] for i in range(11)]
    total = sum(map(sum, kernel))
    weights = [w / total for row in kernel for w in row]
    values = []
    for channel in range(a.shape[0]):
        for top in range(a.shape[1] - 10):
            for left in range(a.shape[2] - 10):
                x, y = (t[channel, top : top + 11, left : left + 11].flatten().tolist() for t in (a, b))
                mx, my = (sum(w * v for w, v in zip(weights, t, strict=True)) for t in (x, y))
                vx = sum(w * (v - mx) ** 2 for w, v in zip(weights, x, strict=True))
                vy = sum(w * (v - my) ** 2 for w, v in zip(weights, y, strict=True))
                cov = sum(w * (v - mx) * (u - my) for w, v, u in zip(weights, x, y, strict=True))
                c1, c2 = 0.01**2, 0.03**2
                values.append((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    return sum(values) / len(values)


def test_ssim_equals_the_slow_one():
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(2, 3, 14, 13, generator=generator)
    b = (a + 0.2 * torch.randn(a.shape, generator=generator)).clamp(0, 1)
    assert ssim(a, b).tolist() == pytest.approx([slow_ssim(x, y) for x, y in zip(a, b, strict=True)], rel=1e-10)


def test_ssim_of_flat_images_has_a_closed_form():
    a, b = torch.full((1, 3, 16, 16), 0.25, dtype=torch.float64), torch.full((1, 3, 16, 16), 0.75, dtype=torch.float64)
    assert ssim(a, b).item() == pytest.approx((2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4), rel=1e-9)


def test_images_one_brightness_step_apart_do_not_wrap():
    """In uint8, 0 - 1/255 wraps to white; in float it is a tiny change."""
    image = torch.zeros(1, 3, 16, 16)
    assert METRICS["dssim"].function(image, image + 1 / 255).item() < 0.2


def test_ssim_refuses_images_smaller_than_its_window():
    with pytest.raises(MeasurementError, match="11x11 px or more, got 8x16"):
        ssim(torch.rand(1, 3, 8, 16), torch.rand(1, 3, 8, 16))


def test_nsr_closed_form_and_accumulated_in_double():
    full = torch.full((2, 1000, 1000), 3.0)
    assert METRICS["nsr"].function(full, full + torch.tensor([1.0, 2.0]).view(2, 1, 1)).tolist() == [1 / 9, 4 / 9]


def test_nsr_does_not_depend_on_the_unit():
    generator = torch.Generator().manual_seed(0)
    full, noise = torch.randn(2, 4, 9, generator=generator)
    nsr = METRICS["nsr"].function
    assert torch.allclose(nsr(full, full + noise), nsr(full * 1e-20, (full + noise) * 1e-20), rtol=1e-5)


def test_nsr_refuses_a_silent_reference():
    with pytest.raises(MeasurementError, match="1 of 2 full-precision outputs are all zero"):
        METRICS["nsr"].function(torch.tensor([[1.0, 1.0], [0.0, 0.0]]), torch.ones(2, 2))


def test_drops_and_drifts_by_angle():
    angles = torch.tensor([0.0, 1e-5, 1.0, math.pi], dtype=torch.float64)
    turned = torch.stack([angles.cos(), angles.sin()], -1)
    drift = METRICS["embed_drift"].function(torch.tensor([[1.0, 0.0]]).expand(4, 2), turned)
    assert drift.tolist() == pytest.approx([0, 5e-11, 1 - math.cos(1), 2], rel=1e-6)
    drop = METRICS["clip_drop"].function(torch.tensor([0.5, 0.25]), torch.tensor([0.25, 0.5]))
    assert drop.tolist() == [0.25, -0.25]


def test_fit_images_takes_the_centre_of_the_short_edge():
    ramp = torch.linspace(0, 1, 64).expand(1, 3, 32, 64)
    fitted = fit_images(ramp, 32)
    assert torch.equal(fitted, ramp[..., 16:48])
    assert fit_images(ramp, 16).shape == fit_images(ramp.transpose(2, 3), 16).shape == (1, 3, 16, 16)
    assert torch.allclose(fit_images(ramp, 16).mean(), ramp.mean(), atol=1e-3)


def test_fit_images_filters_before_it_shrinks():
    """One white column in four: plain sampling meets the same phase everywhere and shows 0.59 instead of 0.25."""
    stripes = (torch.arange(64) % 4 == 1).float().expand(1, 3, 64, 64)
    assert (fit_images(stripes, 16)[..., 2:-2] - 0.25).abs().max() < 0.1


class Letters:
    """A tokenizer of single letters: 0 begins, 1 ends and pads."""

    def __call__(self, prompts, padding, max_length, truncation, return_tensors):
        assert (padding, truncation, return_tensors) == ("max_length", True, "pt")
        rows = [[0, *(2 + ord(c) % 17 for c in prompt)][: max_length - 1] + [1] for prompt in prompts]
        ids = torch.tensor([row + [1] * (max_length - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (max_length - len(row)) for row in rows])
        return BatchEncoding({"input_ids": ids, "attention_mask": mask})


@pytest.fixture(scope="module")
def clip_model() -> CLIPModel:
    torch.manual_seed(0)
    text = {
        "vocab_size": 20,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    text |= {"max_position_embeddings": 8, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    vision = {"hidden_size": 24, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 16, "patch_size": 4}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)).eval()


def test_clip_encoder_equals_the_model_s_own_score(clip_model):
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]
    encoder = clip_encoder(clip_model, Letters(), mean, std)
    images, prompts = torch.rand(3, 3, 16, 16), ["red", "a green dot that goes on", ""]
    pixels = (images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    with torch.no_grad():
        tokens = Letters()(prompts, "max_length", 8, True, "pt")
        logits = clip_model(pixel_values=pixels, **tokens).logits_per_text / clip_model.logit_scale.exp()
        assert torch.allclose(encoder.text(prompts) @ encoder.image(images).T, logits, atol=1e-6)


def test_clip_encoder_gives_unit_float_vectors_with_gradients(clip_model):
    encoder = clip_encoder(clip_model, Letters(), [0.5] * 3, [0.5] * 3)
    images = torch.rand(2, 3, 40, 24, dtype=torch.float64, requires_grad=True)
    embeds = encoder.image(images)
    assert embeds.shape == (2, 12) and embeds.dtype == torch.float32
    assert torch.allclose(embeds.norm(dim=-1), torch.ones(2))
    embeds[:, 0].sum().backward()
    assert images.grad.abs().sum() > 0
