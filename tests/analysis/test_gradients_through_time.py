"""How far gradients reach: against chains worked out by hand, and finite differences of the decoder's own steps."""

from functools import partial

import numpy as np
import pytest
import torch
from toys import CELLS, PAD, RECURRENCES, START

from captioning.analysis.gradients import (
    by_distance,
    clipping_study,
    gradient_flow,
    lines,
    plain_captioner,
    state_gradients,
    train_steps,
    untrained_flows,
)
from captioning.data import CaptionBatch
from captioning.errors import ConfigError, DataError
from captioning.models import RecurrentState
from captioning.objectives import CrossEntropy
from captioning.visualise.cells import course_figure, flow_figure


def chain(kind, *, width=3, vocabulary_size=4):
    """A bare cell with an embedding and a linear readout: nothing else stands between two states."""
    cell = CELLS[kind](2, 0, state_size=width).double()
    embedding = torch.randn(vocabulary_size, 2, dtype=torch.float64)
    output = torch.randn(vocabulary_size, width, dtype=torch.float64)
    for parameter in cell.parameters():
        torch.nn.init.normal_(parameter)

    def step(token, state):
        x = embedding[token]
        state = cell.step(cell.project(x), x[..., :0], state)
        return state.top @ output.T, state, None

    return cell, embedding.numpy(), output.numpy(), step


def parameters(cell):
    names = ("weight_ih_l0", "bias_ih_l0", "weight_hh_l0", "bias_hh_l0")
    return (getattr(cell.rnn, name).detach().numpy() for name in names)


def softmax_error(output, h, word):
    """∂(−log softmax(U h)[word]) / ∂h = Uᵀ (p − y)."""
    scores = np.exp(output @ h)
    p = scores / scores.sum()
    p[word] -= 1
    return output.T @ p


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_two_steps_of_an_rnn_by_hand():
    """∂loss_1/∂h_0 = W_hᵀ diag(1 − h_1²) Uᵀ (p − y)."""
    cell, embedding, output, step = chain("rnn")
    w, b, u, d = parameters(cell)
    zeros = torch.zeros(1, 1, 1, 3, dtype=torch.float64)
    flow = state_gradients(step, RecurrentState(zeros, zeros[..., :0]), torch.tensor([[[1, 2, 3]]]), pad=PAD)
    h0 = np.tanh(w @ embedding[1] + b + d)
    h1 = np.tanh(w @ embedding[2] + b + u @ h0 + d)
    own = [softmax_error(output, h0, 2), softmax_error(output, h1, 3)]
    back = u.T @ ((1 - h1**2) * own[1])
    assert flow.cell is None and flow.hidden.shape == (1, 2, 2)
    expected = [[np.linalg.norm(own[0]), np.nan], [np.linalg.norm(back), np.linalg.norm(own[1])]]
    np.testing.assert_allclose(flow.hidden[0], expected, rtol=1e-12)
    np.testing.assert_allclose(by_distance(flow.hidden, flow.hidden)[1], [1, expected[1][0] / expected[1][1]])


def test_two_steps_of_an_lstm_by_hand():
    """To h_0 through all four gates of the next step, to c_0 through its forget gate alone."""
    cell, embedding, output, step = chain("lstm")
    w, b, u, d = parameters(cell)
    zeros = torch.zeros(1, 1, 1, 3, dtype=torch.float64)
    flow = state_gradients(step, RecurrentState(zeros, zeros), torch.tensor([[[1, 2, 3]]]), pad=PAD)

    def gates(x, h):
        i, f, g, o = np.split(w @ x + b + u @ h + d, 4)
        return sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)

    i, f, g, o = gates(embedding[1], np.zeros(3))
    c0 = i * g
    h0 = o * np.tanh(c0)
    i, f, g, o = gates(embedding[2], h0)
    c1 = f * c0 + i * g
    h1 = o * np.tanh(c1)
    dh1 = softmax_error(output, h1, 3)
    dc1 = dh1 * o * (1 - np.tanh(c1) ** 2)
    sums = [dc1 * g * i * (1 - i), dc1 * c0 * f * (1 - f), dc1 * i * (1 - g**2), dh1 * np.tanh(c1) * o * (1 - o)]
    dh0, dc0 = u.T @ np.concatenate(sums), dc1 * f
    norm = np.linalg.norm
    own = norm(softmax_error(output, h0, 2))
    np.testing.assert_allclose(flow.hidden[0], [[own, np.nan], [norm(dh0), norm(dh1)]], rtol=1e-12)
    np.testing.assert_allclose(flow.cell[0], [[0, np.nan], [norm(dc0), 0]], rtol=1e-12)


def by_differences(model, images, line, kind, size=1e-5):
    """[T, T] of one caption: each number of each state moved a little either way, and all later steps made again."""
    length = len(line) - 1
    start, memory = model.begin(images)
    words = torch.tensor(line).view(1, 1, -1)
    states, state = [], start

    def losses(state, first):
        found = {}
        for s in range(first, length):
            logits, state, _ = model.step(words[..., s], state, memory)
            found[s] = -logits[0, 0].log_softmax(-1)[line[s + 1]].item()
        return found

    for t in range(length):
        state = model.step(words[..., t], state, memory).state
        states.append(state)
    norms = np.full((length, length), np.nan)
    for t in range(length - 1):
        moved = {s: [] for s in range(t + 1, length)}
        for index in range(states[t][kind].numel()):
            both = []
            for sign in (1, -1):
                parts = [part.clone() for part in states[t]]
                parts[kind].view(-1)[index] += sign * size
                both.append(losses(RecurrentState(*parts), t + 1))
            for s in moved:
                moved[s].append((both[0][s] - both[1][s]) / (2 * size))
        for s, gradient in moved.items():
            norms[s, t] = np.linalg.norm(gradient)
    return norms


@pytest.mark.parametrize("recurrence", RECURRENCES)
@pytest.mark.parametrize("kind", CELLS)
def test_gradients_equal_finite_differences_of_the_steps(toy, kind, recurrence):
    """Through the cell, and through attention's queries, gates and sentinels."""
    model = toy(cell=kind, recurrence=recurrence, width=3, layers=2 if recurrence == "look_first" else 1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    images, line = torch.randn(1, 4, 6, dtype=torch.float64), [START, 5, 9, 5, 7]
    with torch.no_grad():
        slow = [by_differences(model, images, line, part) for part in ((0, 1) if kind == "lstm" else (0,))]
    flow = gradient_flow(model, CaptionBatch(torch.tensor([0]), images, None, torch.tensor([[line]])))
    for found, expected in zip(flow, slow, strict=False):
        below = np.tril(np.ones((4, 4), dtype=bool), -1)
        assert expected[below].min() > 1e-5
        np.testing.assert_allclose(found[0][below], expected[below], rtol=1e-4, atol=1e-9)
        assert np.isnan(found[0][np.triu(np.ones((4, 4), dtype=bool), 1)]).all()


def test_padding_and_other_captions_change_nothing(toy, toy_tokens):
    model = toy()
    images = torch.randn(3, 4, 6, dtype=torch.float64)
    flow = gradient_flow(model, CaptionBatch(torch.arange(3), images, None, toy_tokens))
    assert flow.hidden.shape == flow.cell.shape == (9, 6, 6)
    for row in range(9):
        b, k = divmod(row, 3)
        line = toy_tokens[b, k][toy_tokens[b, k] != PAD]
        length = max(len(line) - 1, 0)
        assert np.isnan(flow.hidden[row, length:]).all()
        if length:
            alone = gradient_flow(model, CaptionBatch(torch.tensor([b]), images[b : b + 1], None, line.view(1, 1, -1)))
            np.testing.assert_allclose(flow.hidden[row, :length, :length], alone.hidden[0], rtol=1e-9)
            np.testing.assert_allclose(flow.cell[row, :length, :length], alone.cell[0], rtol=1e-9, atol=1e-15)
    assert not any(parameter.grad is not None for parameter in model.parameters())


def test_distances_by_a_loop():
    norms = np.random.default_rng(0).random((2, 4, 4))
    norms[:, np.triu_indices(4, 1)[0], np.triu_indices(4, 1)[1]] = np.nan
    norms[1, 2:] = np.nan  # a caption of two words
    found = by_distance(norms, norms)
    assert found.shape == (8, 4)
    for c in range(2):
        for s in range(4):
            for distance in range(4):
                value = found[4 * c + s, distance]
                if distance > s or np.isnan(norms[c, s, s]):
                    assert np.isnan(value)
                else:
                    assert value == norms[c, s, s - distance] / norms[c, s, s]


def test_a_cell_state_s_gradient_is_a_share_of_the_hidden_state_s_own():
    random = np.random.default_rng(0)
    cell, own = random.random((2, 3, 3)), random.random((2, 3, 3)) + 1
    found = by_distance(cell, own).reshape(2, 3, 3)
    for c in range(2):
        for s in range(3):
            for t in range(s + 1):
                assert found[c, s, s - t] == cell[c, s, t] / own[c, s, s]


# Training ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def world(toy_tokens):
    """Three batches of three pictures."""
    return [CaptionBatch(torch.arange(3), torch.randn(3, 4, 6), None, toy_tokens) for _ in range(3)]


def flat(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("clip", [None, 0.5, 1e6])
def test_clipping_shortens_the_step_and_keeps_its_direction(world, clip):
    model = plain_captioner(CELLS["rnn"], world[0], vocabulary_size=11, width=8)
    loss = CrossEntropy(doubly_stochastic=0.0)(model, world[0]).total
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
    before = flat(model)
    course = train_steps(model, world[:1], learning_rate=0.01, clip=clip)
    norm = gradient.norm().item()
    assert norm > 0.5
    assert course.loss[0] == pytest.approx(loss.item()) and course.norm[0] == pytest.approx(norm, rel=1e-5)
    applied = min(norm, clip or torch.inf)
    assert course.applied[0] == pytest.approx(applied, rel=1e-5)
    torch.testing.assert_close(before - flat(model), 0.01 * gradient * applied / norm, rtol=1e-3, atol=1e-6)


def test_clipping_does_not_touch_gradients_between_states(world):
    """One step, clipped or not, goes out from the same flow; only where it ends differs."""
    flows = {}
    for clip in (None, 1e-6):
        torch.manual_seed(0)
        model = plain_captioner(CELLS["rnn"], world[0], vocabulary_size=11, width=8, gain=2.0)
        before = gradient_flow(model, world[0]).hidden
        train_steps(model, world[:1], clip=clip)
        flows[clip] = before, gradient_flow(model, world[0]).hidden
    np.testing.assert_array_equal(flows[None][0], flows[1e-6][0])
    np.testing.assert_allclose(flows[1e-6][1], flows[1e-6][0], rtol=1e-4)  # too short a step to change anything
    assert np.nanmax(np.abs(flows[None][1] - flows[None][0])) > 1e-2


def test_training_ends_where_numbers_do(world):
    course = train_steps(plain_captioner(CELLS["rnn"], world[0], vocabulary_size=11), world * 5, learning_rate=1e38)
    assert 1 < len(course.loss) < 15 and np.isfinite(course.loss[:1]).all()
    assert not np.isfinite([course.loss[-1], course.norm[-1]]).all()
    with pytest.raises(ConfigError, match="clip must be above 0"):
        train_steps(plain_captioner(CELLS["rnn"], world[0], vocabulary_size=11), world, clip=0.0)


def test_gain_decides_between_vanishing_and_exploding(world):
    """An RNN's recurrent matrix is orthogonal times the gain; states of near 0 leave the gradient to it alone."""
    ends = {}
    for gain in (0.5, 1.0, 2.0):
        torch.manual_seed(0)
        model = plain_captioner(CELLS["rnn"], world[0], vocabulary_size=11, width=16, gain=gain)
        weight = model.decoder.recurrence.cell.rnn.weight_hh_l0.double()
        torch.testing.assert_close(weight @ weight.T, gain**2 * torch.eye(16).double(), atol=1e-5, rtol=0)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "weight_ih" in name or name.startswith("conditioning"):
                    parameter.mul_(1e-3)
        ends[gain] = np.nanmedian(by_distance(*[gradient_flow(model, world[0]).hidden] * 2), 0)[4]
    assert ends == pytest.approx({gain: gain**4 for gain in ends}, rel=0.01)


def test_the_study_and_its_figures(world):
    courses, trained = clipping_study(world, vocabulary_size=11, epochs=2, width=8)
    untrained = untrained_flows(world[-1], vocabulary_size=11, width=8, gains=(0.5, 2.0))
    assert set(courses) == {"RNN", "GRU", "LSTM"} and {
        len(c.loss) for each in courses.values() for c in each.values()
    } == {4}
    assert list(trained) == ["trained, unclipped", "trained, clipped to 1"]
    for each in trained.values():
        assert list(each) == ["RNN", "GRU", "LSTM", "LSTM, cell"]
    for each in courses.values():
        assert each["unclipped"].loss[0] == each["clipped to 1"].loss[0]  # from the same weights
        assert (
            each["clipped to 1"].applied.max() <= 1
            and each["unclipped"].applied.tolist() == each["unclipped"].norm.tolist()
        )
    with pytest.raises(DataError, match="at least two"):
        clipping_study(world[:1], vocabulary_size=11)
    own = lines(gradient_flow(plain_captioner(CELLS["lstm"], world[0], vocabulary_size=11), world[0]))
    assert list(own) == ["hidden", "cell"]
    panels = {**untrained, **trained, "own": own}
    figure = flow_figure(panels, least=1)
    for axes, (title, shown) in zip(figure.axes, panels.items(), strict=False):
        assert axes.get_title() == title
        drawn = [line for line in axes.lines if line.get_label() in shown]
        assert [line.get_label() for line in drawn] == list(shown)
        for line in drawn:
            values = shown[line.get_label()][:, line.get_xdata()]
            np.testing.assert_allclose(line.get_ydata(), np.nanmedian(values, 0))
        assert len({line.get_linestyle() for line in drawn}) == len(drawn)  # told apart without colour
    drawn = course_figure(courses).axes
    assert [axes.get_title() for axes in drawn[:3]] == ["RNN", "GRU", "LSTM"]
    assert drawn[4].lines[1].get_ydata().tolist() == courses["GRU"]["clipped to 1"].norm.tolist()


def test_flow_can_be_of_any_step():
    """A language model's, which has no picture: the functions ask for `step` and `state` alone."""
    _, _, _, step = chain("gru")
    zeros = torch.zeros(1, 2, 1, 3, dtype=torch.float64)
    tokens = torch.tensor([[[1, 2, 3]], [[2, 1, PAD]]])
    flow = state_gradients(partial(step), RecurrentState(zeros, zeros[..., :0]), tokens, pad=PAD)
    assert flow.hidden.shape == (2, 2, 2) and np.isnan(flow.hidden[1, 1]).all()
