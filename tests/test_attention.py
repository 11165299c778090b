"""Soft attention against a loop written from the paper's equations."""

import pytest
import torch

from captioning.errors import ConfigError
from captioning.models.attention import NoAttention, SoftAttention


def make(**arguments):
    attention = SoftAttention(6, 7, width=5, **arguments).double()
    return attention, torch.randn(2, 3, 7, dtype=torch.float64), torch.randn(2, 4, 6, dtype=torch.float64)


def test_equals_the_equations_place_by_place():
    attention, query, grid = make()
    context, weights = attention(query, grid, attention.project(grid))
    for b in range(2):
        for k in range(3):
            h = query[b, k]
            e = torch.stack(
                [
                    attention.score.weight[0]
                    @ torch.tanh(attention.key.weight @ a + attention.key.bias + attention.query.weight @ h)
                    for a in grid[b]
                ]
            )
            alpha = e.exp() / e.exp().sum()
            beta = 1 / (1 + torch.exp(-(attention.gate.weight[0] @ h + attention.gate.bias[0])))
            expected = beta * sum(alpha[i] * grid[b, i] for i in range(4))
            torch.testing.assert_close(weights[b, k], alpha)
            torch.testing.assert_close(context[b, k], expected)


def test_gradients_by_finite_differences():
    attention, query, grid = make()
    mask = torch.tensor([[True, True, False, True], [True, True, True, True]])
    inputs = (query.requires_grad_(), grid.requires_grad_())
    assert torch.autograd.gradcheck(lambda q, g: attention(q, g, attention.project(g), mask), inputs)


def test_equal_scores_give_the_mean_of_the_places():
    attention, query, grid = make(gate=False)
    torch.nn.init.zeros_(attention.score.weight)
    context, _ = attention(query, grid, attention.project(grid))
    torch.testing.assert_close(context, grid.mean(1, keepdim=True).expand_as(context))


def test_masked_places_get_exactly_nothing_and_do_not_matter():
    attention, query, grid = make()
    mask = torch.tensor([[True, False, True, False], [False, False, False, True]])
    context, weights = attention(query, grid, attention.project(grid), mask)
    assert (weights[~mask[:, None].expand_as(weights)] == 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, dtype=torch.float64))
    assert (weights[1, :, 3] == 1).all()  # one place left: no 0 / 0
    grid[~mask] = 1e6
    torch.testing.assert_close(attention(query, grid, attention.project(grid), mask).context, context)


def test_a_shift_of_all_scores_changes_nothing():
    attention, query, grid = make()
    keys = attention.project(grid)
    hidden = torch.tanh(keys[:, None] + attention.query(query)[:, :, None])
    shifted = (attention.score(hidden).squeeze(-1) + 500).softmax(-1)
    torch.testing.assert_close(attention(query, grid, keys).weights, shifted)


def test_attention_over_one_vector_is_refused():
    with pytest.raises(ConfigError, match=r"encoder\.output=grid or model/attention=none"):
        SoftAttention(6, 7, grid=False)


def test_no_attention_sees_nothing():
    attention = NoAttention(6, 7)
    grid = torch.randn(2, 4, 6)
    context, weights = attention(torch.randn(2, 3, 7), grid, attention.project(grid))
    assert context.shape == (2, 3, 0) and weights.shape == (2, 3, 0)
