"""Test initial weights: orthogonal recurrences, Glorot's bounds, the forget gate's bias, variances of word vectors."""

import pytest
import torch

from captioning.models import GRU, LSTM, RNN, build_answerer
from captioning.models.embeddings import learned, one_hot

GATES = {RNN: 1, GRU: 3, LSTM: 4}


def is_uniform(weight, bound):
    """Check that thousands of numbers are uniform over ±bound, by extremes and variance."""
    assert weight.numel() > 2000
    assert 0.99 * bound < weight.abs().max() <= bound
    assert weight.var().item() == pytest.approx(bound**2 / 3, rel=0.05)
    assert abs(weight.mean().item()) < 0.05 * bound


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("feedback", [0, 90])
def test_cells_begin_with_orthogonal_recurrences_and_glorot_s_bounds(kind, feedback):
    cell, size = kind(70, feedback, state_size=50, layers=2), 50
    for layer in range(2):
        for gate in getattr(cell.rnn, f"weight_hh_l{layer}").split(size):
            torch.testing.assert_close(gate @ gate.T, torch.eye(size), atol=1e-5, rtol=0)
        assert not getattr(cell.rnn, f"bias_hh_l{layer}").any()
        bias = getattr(cell.rnn, f"bias_ih_l{layer}").split(size)
        ones = [torch.full((size,), float(kind is LSTM and gate == 1)) for gate in range(GATES[kind])]  # forget gate
        assert all(map(torch.equal, bias, ones))
    outputs = GATES[kind] * size
    bound = (6 / (70 + feedback + outputs)) ** 0.5  # as for one matrix of word and context together
    is_uniform(cell.rnn.weight_ih_l0, bound)
    if feedback:
        is_uniform(cell.feedback.weight, bound)
    is_uniform(cell.rnn.weight_ih_l1, (6 / (size + outputs)) ** 0.5)


def test_dropout_between_layers_is_the_kernel_s_own():
    assert LSTM(3, 0, state_size=4, layers=2, dropout=0.3).rnn.dropout == 0.3
    assert LSTM(3, 0, state_size=4, layers=1, dropout=0.3).rnn.dropout == 0.0


@pytest.mark.parametrize("made", [lambda: learned(500, 100, pad=3), lambda: answerer().embedding])
def test_learned_words_have_variance_one_over_their_width_and_padding_stays_zero(made):
    embedding = made()
    weight = embedding.weight.detach()
    others = torch.cat((weight[:3], weight[4:]))
    assert others.var().item() == pytest.approx(1 / 100, rel=0.03) and abs(others.mean()) < 0.005
    assert not weight[3].any()
    embedding(torch.tensor([3, 3, 4])).sum().backward()
    assert not embedding.weight.grad[3].any() and embedding.weight.grad[4].all()


def answerer():
    return build_answerer(
        feature_size=4, grid=True, vocabulary_size=500, answers=3, pad=3, embedding_size=100, width=4, readout_width=4
    )


def test_one_hot_words_are_the_identity_and_never_learn():
    embedding = one_hot(7, 7, pad=0)
    assert torch.equal(embedding.weight, torch.eye(7)) and not embedding.weight.requires_grad
    assert embedding.padding_idx == 0
