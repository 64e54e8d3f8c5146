"""The losses beside open_clip's and beside slow ones pair by pair; the same gradients whole and in parts."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from open_clip.loss import ClipLoss, SigLipLoss

from caploom.training.losses import clip_loss, multi_positive_loss, siglip_loss

torch.set_num_threads(1)


def features(images: int, texts: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """float64, normalized, with gradients."""
    generator = torch.Generator().manual_seed(seed)
    made = (torch.randn(count, 6, generator=generator, dtype=torch.float64) for count in (images, texts))
    first, second = (torch.nn.functional.normalize(each, dim=-1).requires_grad_() for each in made)
    return first, second


def number(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


def gradients(loss: torch.Tensor, *of: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, of))


def assert_same(loss: torch.Tensor, expected: torch.Tensor, *of: torch.Tensor) -> None:
    """Loss and gradients, to the digits of single precision, which the texts' shares have."""
    assert loss.item() == pytest.approx(expected.item(), rel=2e-7)
    for one, other in zip(gradients(loss, *of), gradients(expected, *of), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("count", [1, 2, 9])
def test_one_text_an_image_is_the_loss_of_open_clip(count: int) -> None:
    images, texts = features(count, count)
    scale, bias, owners = number(14.0), number(-10.0), torch.arange(count)
    expected = ClipLoss()(images, texts, scale)
    assert_same(clip_loss(images, texts, scale), expected, images, texts, scale)
    assert_same(multi_positive_loss(images, texts, scale, owners), ClipLoss()(images, texts, scale), images, texts)
    assert_same(
        siglip_loss(images, texts, scale, bias, owners),
        SigLipLoss()(images, texts, scale, bias),
        images, texts, scale, bias,
    )  # fmt: skip


OWNERS = st.lists(st.integers(1, 4), min_size=1, max_size=5).map(
    lambda counts: torch.repeat_interleave(torch.tensor(counts))
)


@hypothesis_settings(max_examples=40, deadline=None)
@given(OWNERS, st.integers(0, 1000))
def test_several_texts_an_image_pair_by_pair(owners: torch.Tensor, seed: int) -> None:
    count = int(owners.max()) + 1
    images, texts = features(count, len(owners), seed)
    scale = number(7.0)
    similarity = [[scale * (image @ text) for text in texts] for image in images]
    expected = torch.zeros((), dtype=torch.float64)
    for text, image in enumerate(owners.tolist()):
        share = 1 / (owners.tolist().count(image) * count)
        own = similarity[image][text]
        # Its sibling texts are neither positives nor negatives of this pair.
        against_texts = [similarity[image][t] for t, owner in enumerate(owners.tolist()) if t == text or owner != image]
        against_images = [similarity[i][text] for i in range(count)]
        for against in (against_texts, against_images):
            expected = expected - share / 2 * (own - torch.logsumexp(torch.stack(against), dim=0))
    assert_same(multi_positive_loss(images, texts, scale, owners), expected, images, texts, scale)


@hypothesis_settings(max_examples=40, deadline=None)
@given(OWNERS, st.integers(0, 1000))
def test_siglip_of_several_texts_pair_by_pair(owners: torch.Tensor, seed: int) -> None:
    count = int(owners.max()) + 1
    images, texts = features(count, len(owners), seed)
    scale, bias = number(7.0), number(-3.0)
    expected = torch.zeros((), dtype=torch.float64)
    for text, owner in enumerate(owners.tolist()):
        share = 1 / (owners.tolist().count(owner) * count)
        for image in range(count):
            logit = scale * (images[image] @ texts[text]) + bias
            probability = torch.sigmoid(logit if image == owner else -logit)
            expected = expected - share * torch.log(probability)
    assert_same(siglip_loss(images, texts, scale, bias, owners), expected, images, texts, scale, bias)


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_losses_and_gradients_stay_numbers_where_pairs_are_certain(scale: float) -> None:
    """The largest scale there is, and pairs that are all the same or all opposite, in single precision."""
    one = torch.nn.functional.normalize(torch.ones(1, 8), dim=-1)
    owners = torch.tensor([0, 0, 1, 2])
    for sign in (1, -1):
        images = one.repeat(3, 1).requires_grad_()
        texts = (sign * one).repeat(4, 1).requires_grad_()
        factor = torch.tensor(scale)
        bias = torch.tensor(-10.0)
        for loss in (
            multi_positive_loss(images, texts, factor, owners),
            siglip_loss(images, texts, factor, bias, owners),
            clip_loss(images, texts[:3], factor),
        ):
            assert loss.isfinite()
            assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss, (images, texts)))


def test_an_undecided_batch_costs_the_logarithm_of_its_size() -> None:
    same = torch.ones(6, 4) / 2
    owners: Any = torch.arange(6)
    assert clip_loss(same, same, torch.tensor(9.0)).item() == pytest.approx(math.log(6))
    assert multi_positive_loss(same, same, torch.tensor(9.0), owners).item() == pytest.approx(math.log(6))
