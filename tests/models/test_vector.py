"""Compare the standardized image vector with NumPy over all images so far, alone and in a captioner."""

import copy

import numpy as np
import pytest
import torch

from captioning.models import MultiCrop, Raw, Standardized
from captioning.models.vector import EPSILON


def batches(count: int, size: int = 4, width: int = 6) -> torch.Tensor:
    return 3.0 * torch.randn(count, size, width, dtype=torch.float64) + torch.arange(width)


def seen(part: Standardized, each: torch.Tensor) -> Standardized:
    for batch in each:
        part.train()(batch)
    return part


def slow_moments(each: np.ndarray, momentum: float) -> tuple[np.ndarray, np.ndarray]:
    """Compute mean and variance of the weighted rows of `each` [steps, images, D] and of one imaginary N(0, 1) image.

    All rows count equally until the share of a step would fall below `momentum`.
    """
    weights, rows = np.ones(1), np.zeros((1, each.shape[-1]))
    for t, step in enumerate(each):
        share = max(len(step) / (1 + (t + 1) * len(step)), momentum)
        weights = np.concatenate((weights / weights.sum() * (1 - share), np.full(len(step), share / len(step))))
        rows = np.concatenate((rows, step))
    mean = weights @ rows
    return mean, weights[0] * 1.0 + weights @ (rows - mean) ** 2  # the imaginary image has a variance of its own


@pytest.mark.parametrize("momentum", [0.01, 0.25])
@pytest.mark.parametrize("size", [1, 4])
def test_moments_are_those_of_all_that_was_seen_and_of_one_imaginary_image(size, momentum):
    each = batches(9, size)
    part = seen(Standardized(6, momentum=momentum).double(), each)
    mean, variance = slow_moments(each.numpy(), momentum)
    np.testing.assert_allclose(part.mean.numpy(), mean, rtol=1e-12)
    np.testing.assert_allclose(part.variance.numpy(), variance, rtol=1e-12)
    assert part.batches == 9
    expected = (each.numpy() - mean) / np.sqrt(variance + EPSILON)
    np.testing.assert_allclose(part.eval()(each).numpy(), expected, rtol=1e-12)


def test_after_many_steps_the_imaginary_image_is_nothing():
    each = batches(2000, 2)
    part = seen(Standardized(6, momentum=0.05).double(), each)
    mean, variance = slow_moments(each[-400:].numpy(), 0.05)  # earlier steps have the share 0.95⁴⁰⁰
    np.testing.assert_allclose(part.mean.numpy(), mean, rtol=1e-7)
    np.testing.assert_allclose(part.variance.numpy(), variance, rtol=1e-7)


def test_training_takes_the_moments_of_the_steps_before():
    each = batches(3)
    part = Standardized(6).double().train()
    for at, batch in enumerate(each):
        mean, variance = slow_moments(each[:at].numpy(), 0.01) if at else (np.zeros(6), np.ones(6))
        expected = (batch.numpy() - mean) / np.sqrt(variance + EPSILON)
        np.testing.assert_allclose(part(batch).numpy(), expected, rtol=1e-12)


def test_an_image_is_standardized_alike_whatever_else_is_in_its_batch():
    part = seen(Standardized(6).double(), batches(3))
    batch = batches(1)[0]
    alone = torch.stack([copy.deepcopy(part).train()(row[None])[0] for row in batch])
    assert torch.equal(part.train()(batch), alone)


def test_a_batch_without_images_changes_nothing():
    part = seen(Standardized(6).double(), batches(3)).train()
    before = copy.deepcopy(part.state_dict())
    assert part(torch.zeros(0, 6, dtype=torch.float64)).shape == (0, 6)
    assert all(torch.equal(value, before[name]) for name, value in part.state_dict().items())


def test_evaluation_takes_nothing_in_and_knows_no_batch():
    part = seen(Standardized(6).double(), batches(3)).eval()
    before = {name: value.clone() for name, value in part.state_dict().items()}
    new = batches(1)[0]
    together, alone = part(new), torch.cat([part(row[None]) for row in new])
    torch.testing.assert_close(together, alone, rtol=0, atol=0)
    assert all(torch.equal(value, before[name]) for name, value in part.state_dict().items())


def test_batches_of_one_image_are_never_blown_up():
    """The variance of one image is 0; the imaginary image keeps the scale finite."""
    part = Standardized(6).train()
    for _ in range(5):
        assert part(torch.randn(1, 6)).abs().max() < 10


def test_moments_are_no_path_for_gradients():
    part = seen(Standardized(6).double(), batches(3)).train()
    vector, variance = batches(1)[0].requires_grad_(), part.variance.clone()
    part(vector).sum().backward()
    expected = variance.add(EPSILON).rsqrt().expand_as(vector)
    torch.testing.assert_close(vector.grad, expected)


@pytest.mark.parametrize("conditioning", ["initial_state", "first_step", "every_step"])
def test_it_is_what_conditioning_takes(toy, toy_tokens, conditioning):
    torch.manual_seed(3)
    plain = toy(conditioning=conditioning, attention="none", grid=False)
    torch.manual_seed(3)
    standardized = toy(conditioning=conditioning, attention="none", grid=False, vector=Standardized)
    images = batches(1, 3)[0]
    before = standardized(images, toy_tokens).logits  # mean 0 and variance 1, except for ε
    torch.testing.assert_close(before, plain(images, toy_tokens).logits, rtol=1e-4, atol=1e-4)
    seen(standardized.vector, images[None]).eval()
    mean, variance = map(torch.from_numpy, slow_moments(images[None].numpy(), 0.01))
    vector = (images - mean) / (variance + EPSILON).sqrt()
    torch.testing.assert_close(standardized(images, toy_tokens).logits, plain(vector, toy_tokens).logits)


def test_attention_sees_features_as_they_are(toy):
    model, images = toy(vector=Standardized), torch.randn(3, 4, 6, dtype=torch.float64)
    _, before = model.begin(images)
    seen(model.vector, batches(2)).eval()
    _, after = model.begin(images)
    assert torch.equal(before.grid, after.grid)


def test_views_are_standardized_too(toy):
    model, images = toy(vector=Standardized), torch.randn(3, 4, 6, dtype=torch.float64)
    seen(model.vector, batches(2)).eval()
    alone, _ = model.begin(images)
    twice, _ = MultiCrop(model, 2).eval().begin(images[:, None].expand(-1, 2, -1, -1))
    torch.testing.assert_close(twice.hidden, alone.hidden)


def test_raw_is_the_vector_itself():
    vector = torch.randn(3, 6)
    assert Raw(6).train()(vector) is vector and not Raw(6).state_dict()


def test_constants():
    assert EPSILON == 1e-5 and Standardized(6).momentum == 0.01


def test_all_that_is_remembered_travels_in_checkpoints():
    assert set(Standardized(6).state_dict()) == {"mean", "variance", "batches"}
