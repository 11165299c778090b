"""Test the fast dropout: share, scale, independence, and no effect when it is off."""

import pytest
import torch

from captioning.models.ops import Dropout, dropout
from captioning.models.ops.fast_dropout import SHARES


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9])
def test_shares_and_scale(share):
    taken = round(share * SHARES) / SHARES
    made = dropout(torch.ones(300, 1001, dtype=torch.float64), share, True)
    assert made.unique().tolist() == pytest.approx([0, 1 / (1 - taken)])
    error = (share * (1 - share)) ** 0.5
    assert (made == 0).double().mean().item() == pytest.approx(share, abs=5 * error / made.numel() ** 0.5)
    # All rows, columns and positions in a group of four have the same share, and neighbors are independent.
    left_out = (made == 0).double() - share
    for along, count in ((0, 300), (1, 1001)):
        assert left_out.mean(along).abs().max() < 5 * error / count**0.5
    flat = left_out.flatten()
    for place in range(4):
        assert flat[place::4].mean().abs() < 5 * error / (len(flat) / 4) ** 0.5
    for lag in (1, 2, 3, 4, 8):
        assert (flat[lag:] * flat[:-lag]).mean().abs() < 5 * error**2 / len(flat) ** 0.5


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9])
def test_of_all_random_bits_the_share_is_left_out_and_the_mean_stays(share, monkeypatch):
    """Apply dropout with every 16-bit number once: the number of zeros is the rounded share, and the mean is exact."""
    given = []

    def random_(self, low, high):
        given.append((self.dtype, low, high))
        return self.copy_(torch.arange(-(2**15), 2**15, dtype=torch.int16).view(torch.int64))

    monkeypatch.setattr(torch.Tensor, "random_", random_)
    made = dropout(torch.full((2**16,), 3.0, dtype=torch.float64), share, True)
    assert given == [(torch.int64, -(2**63), None)]  # all bits of each
    assert (made == 0).sum().item() == round(share * 2**16)
    assert made.mean().item() == pytest.approx(3, rel=1e-14)


def test_as_few_random_numbers_as_bits_are_needed(monkeypatch):
    counts, random_ = [], torch.Tensor.random_
    monkeypatch.setattr(torch.Tensor, "random_", lambda self, *given: counts.append(len(self)) or random_(self, *given))
    for count in (1, 4, 5, 8, 9):
        dropout(torch.ones(count), 0.5, True)
    assert counts == [1, 1, 2, 2, 3]


@pytest.mark.parametrize("share", [1e-9, 1 - 1e-9])
def test_shares_at_the_ends_stay_finite(share):
    assert dropout(torch.ones(1000), share, True).isfinite().all()


def test_draws_are_those_of_the_seed():
    made = [(torch.manual_seed(seed), dropout(torch.ones(7, 3), 0.5, True))[1] for seed in (1, 1, 2)]
    assert made[0].equal(made[1]) and not made[0].equal(made[2])


def test_the_gradient_goes_where_the_numbers_went():
    inputs = torch.randn(5, 7, 2, dtype=torch.float64).transpose(0, 1).requires_grad_()
    made = dropout(inputs, 0.5, True)
    (gradient,) = torch.autograd.grad(made.sum(), inputs)
    torch.testing.assert_close(made, inputs * gradient)
    assert set(gradient.unique().tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("shape", [(0,), (0, 3), (), (1,), (5,)])
def test_any_shape(shape):
    assert dropout(torch.ones(shape), 0.5, True).shape == shape


def test_nothing_is_left_out_in_eval_mode_or_at_0():
    inputs = torch.randn(4, 5)
    assert Dropout(0.5).eval()(inputs).equal(inputs) and Dropout(0.0).train()(inputs).equal(inputs)


def test_on_another_device_it_is_torch_s(monkeypatch):
    monkeypatch.setattr(torch.nn.functional, "dropout", lambda inputs, share, training: (inputs.shape, share, training))
    assert Dropout(0.4)(torch.ones(3, device="meta")) == ((3,), 0.4, True)
    assert Dropout(0.4).eval()(torch.ones(3)) == ((3,), 0.4, False)
