"""The standardized image vector: against NumPy over all that was seen, and in a captioner."""

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


def test_moments_are_those_of_all_that_was_seen():
    each = batches(9)
    part = seen(Standardized(6).double(), each)
    rows = each.flatten(0, 1).numpy()
    np.testing.assert_allclose(part.mean.numpy(), rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(part.variance.numpy(), rows.var(0), rtol=1e-12)
    expected = (rows - rows.mean(0)) / np.sqrt(rows.var(0) + EPSILON)
    np.testing.assert_allclose(part.eval()(each.flatten(0, 1)).numpy(), expected, rtol=1e-12)


def test_then_they_are_of_the_last_batches():
    each = batches(12)
    part = seen(Standardized(6, momentum=0.25).double(), each)
    shares = [0.25 * 0.75 ** (11 - at) for at in range(4, 12)]  # the first four share alike what is left
    shares = [(1 - sum(shares)) / 4] * 4 + shares
    rows, weights = each.flatten(0, 1).numpy(), np.repeat(np.array(shares) / 4, 4)
    mean = weights @ rows
    np.testing.assert_allclose(part.mean.numpy(), mean, rtol=1e-12)
    np.testing.assert_allclose(part.variance.numpy(), weights @ (rows - mean) ** 2, rtol=1e-12)


def test_evaluation_takes_nothing_in_and_knows_no_batch():
    part = seen(Standardized(6).double(), batches(3)).eval()
    before = {name: value.clone() for name, value in part.state_dict().items()}
    new = batches(1)[0]
    together, alone = part(new), torch.cat([part(row[None]) for row in new])
    torch.testing.assert_close(together, alone, rtol=0, atol=0)
    assert all(torch.equal(value, before[name]) for name, value in part.state_dict().items())


def test_a_batch_of_one_is_no_fault():
    part = Standardized(6).train()
    assert part(torch.randn(1, 6)).abs().max() == 0  # all that was seen
    assert part(torch.randn(1, 6)).isfinite().all()


def test_moments_are_no_path_for_gradients():
    part = seen(Standardized(6).double(), batches(3)).train()
    vector = batches(1)[0].requires_grad_()
    part(vector).sum().backward()
    expected = (part.variance + EPSILON).rsqrt().expand_as(vector)
    torch.testing.assert_close(vector.grad, expected)


@pytest.mark.parametrize("conditioning", ["initial_state", "first_step", "every_step"])
def test_it_is_what_conditioning_takes(toy, toy_tokens, conditioning):
    torch.manual_seed(3)
    plain = toy(conditioning=conditioning, attention="none", grid=False)
    torch.manual_seed(3)
    standardized = toy(conditioning=conditioning, attention="none", grid=False, vector=Standardized)
    images = batches(1, 3)[0]
    before = standardized(images, toy_tokens).logits  # of mean 0 and variance 1, but for ε
    torch.testing.assert_close(before, plain(images, toy_tokens).logits, rtol=1e-4, atol=1e-4)
    seen(standardized.vector, images[None]).eval()
    vector = (images - images.mean(0)) / (images.var(0, unbiased=False) + EPSILON).sqrt()
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
