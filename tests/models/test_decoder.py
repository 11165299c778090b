"""Compare cells and decoder with torch's kernels and naive loops, and teacher forcing with steps; test padding."""

import itertools

import pytest
import torch
from toys import ATTENTIONS, CELLS, CONDITIONINGS, PAD, RECURRENCES

from captioning.models import GRU, LSTM, RNN, InitialState, RecurrentState, build_captioner

# cell, attention, conditioning, recurrence, layers
EVERY = [
    *itertools.product(CELLS, ("none", "soft"), CONDITIONINGS, ("look_first",), (1, 2)),
    *itertools.product(CELLS, ("soft", "hard"), ("first_every",), RECURRENCES, (1, 2)),
]


@pytest.mark.parametrize("kind", [RNN, GRU, LSTM])
@pytest.mark.parametrize("layers", [1, 3])
def test_steps_equal_torchs_fused_kernel(kind, layers):
    cell = kind(4, 0, state_size=5, layers=layers).double()
    for parameter in cell.parameters():
        torch.nn.init.normal_(parameter)
    inputs = torch.randn(6, 2, 3, 4, dtype=torch.float64)
    start = state = RecurrentState(*(torch.randn_like(part) for part in cell.zero_state(2, like=inputs).repeat(3)))
    outputs, last = cell.sequence(inputs, start)
    for t in range(6):
        state = cell.step(cell.project(inputs[t]), inputs.new_zeros(2, 3, 0), state)
        torch.testing.assert_close(state.top, outputs[t])
    torch.testing.assert_close(state, last)


def test_lstm_step_equals_the_equations_with_feedback():
    cell = LSTM(4, 3, state_size=5).double()
    for parameter in cell.parameters():
        torch.nn.init.normal_(parameter)
    x, z = torch.randn(4, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    h, c = torch.randn(5, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    r = cell.rnn
    gates = r.weight_ih_l0 @ x + cell.feedback.weight @ z + r.bias_ih_l0 + r.weight_hh_l0 @ h + r.bias_hh_l0
    i, f, g, o = gates[:5], gates[5:10], gates[10:15], gates[15:]
    new_c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    new_h = torch.sigmoid(o) * torch.tanh(new_c)
    state = RecurrentState(h.view(1, 1, 1, 5), c.view(1, 1, 1, 5))
    state = cell.step(cell.project(x.view(1, 1, 4)), z.view(1, 1, 3), state)
    torch.testing.assert_close(state, RecurrentState(new_h.view(1, 1, 1, 5), new_c.view(1, 1, 1, 5)))


def test_state_select_reorders_rows_of_each_image():
    hidden = torch.arange(12.0).view(1, 2, 3, 2)
    chosen = RecurrentState(hidden, hidden[..., :0]).select(torch.tensor([[2, 2], [1, 0]]))
    assert chosen.hidden[0].tolist() == [[[4, 5], [4, 5]], [[8, 9], [6, 7]]]
    assert chosen.cell.shape == (1, 2, 2, 0)
    chosen = RecurrentState(hidden, hidden + 100).select(torch.tensor([[1], [2]]))
    assert (chosen.cell - chosen.hidden).unique().tolist() == [100] and chosen.hidden[0, :, 0, 0].tolist() == [2, 10]


def test_states_are_cut_joined_repeated_and_detached_layer_by_layer():
    hidden, cell = (torch.randn(3, 2, 1, 4, requires_grad=True) for _ in range(2))
    state = RecurrentState(hidden, cell)
    assert state.top.equal(hidden[2])
    for part, low, high, joined in zip(
        state, state.layers(0, 1), state.layers(1), state.layers(0, 1).below(state.layers(1)), strict=True
    ):
        assert low.equal(part[:1]) and high.equal(part[1:]) and joined.equal(part)
    many = state.repeat(5)
    for part, repeated, first, cut in zip(state, many, many.first(2), many.detach(), strict=True):
        assert repeated.shape == (3, 2, 5, 4) and all(row.equal(part[:, :, 0]) for row in repeated.unbind(2))
        assert first.equal(repeated[:, :, :2]) and cut.equal(repeated)
        assert repeated.requires_grad and not cut.requires_grad


def unroll(model, images, tokens):
    """Compute the logits of all real words and all weights by a loop over `step`, one caption at a time."""
    logits, weights = {}, {}
    for b, k in itertools.product(*map(range, tokens.shape[:2])):
        state, memory = model.begin(images[b : b + 1])
        for t in range(tokens.shape[2] - 1):
            if tokens[b, k, t + 1] == PAD:
                break
            out = model.step(tokens[b, k, t].view(1, 1), state, memory)
            state = out.state
            logits[b, k, t], weights[b, k, t] = out.logits[0, 0], out.glimpse.weights[0, 0]
    return logits, weights


@pytest.mark.parametrize(("cell", "attention", "conditioning", "recurrence", "layers"), EVERY)
def test_teacher_forcing_equals_unrolled_steps(toy, toy_tokens, cell, attention, conditioning, recurrence, layers):
    model = toy(cell=cell, attention=attention, conditioning=conditioning, recurrence=recurrence, layers=layers)
    images = torch.randn(3, 4, 6, dtype=torch.float64)
    decoded = model(images, toy_tokens)
    logits, weights = unroll(model, images, toy_tokens)
    length = toy_tokens.shape[2] - 1
    places = [(i // length // 3, i // length % 3, i % length) for i in decoded.index.tolist()]
    assert sorted(places) == sorted(logits)
    for row, place in zip(decoded.logits, places, strict=True):
        torch.testing.assert_close(row, logits[place])
    expected = torch.zeros_like(decoded.glimpse.weights)
    for place, row in weights.items():
        expected[place] = row
    torch.testing.assert_close(decoded.glimpse.weights, expected)


@pytest.mark.parametrize("recurrence", RECURRENCES)
@pytest.mark.parametrize("attention", ["none", "soft", "hard"])
def test_padding_order_and_company_change_nothing(toy, toy_tokens, attention, recurrence):
    if attention == "none" and recurrence in ("look_after", "adaptive"):
        pytest.skip("these need attention")
    model = toy(attention=attention, recurrence=recurrence)
    images = torch.randn(3, 4, 6, dtype=torch.float64)

    def per_caption(images, tokens):
        decoded = model(images, tokens)
        targets = tokens[..., 1:].flatten()[decoded.index]
        log_probs = decoded.logits.log_softmax(-1).gather(1, targets[:, None]).squeeze(1)
        sums = log_probs.new_zeros(tokens.shape[0] * tokens.shape[1])
        return sums.index_add(0, decoded.index // (tokens.shape[2] - 1), log_probs).view(tokens.shape[:2])

    whole = per_caption(images, toy_tokens)
    padded = torch.nn.functional.pad(toy_tokens, (0, 4, 0, 2), value=PAD)
    torch.testing.assert_close(per_caption(images, padded)[:, :3], whole)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(per_caption(images[order], toy_tokens[order]), whole[order])
    torch.testing.assert_close(per_caption(images, toy_tokens[:, [1, 2, 0]]), whole[:, [1, 2, 0]])
    for k in range(3):
        torch.testing.assert_close(per_caption(images, toy_tokens[:, k : k + 1]), whole[:, k : k + 1])
    torch.testing.assert_close(per_caption(images[1:2], toy_tokens[1:2]), whole[1:2])


def test_stored_fp16_features_and_masks(toy, toy_tokens):
    model = toy()
    images = torch.randn(3, 4, 6).half()
    torch.testing.assert_close(model(images, toy_tokens).logits, model(images.double(), toy_tokens).logits)
    mask = torch.tensor([[True, True, False, False]] * 3)
    state, memory = model.begin(images, mask)
    short, short_memory = model.begin(images[:, :2])
    torch.testing.assert_close(state, short)
    token = torch.ones(3, 1, dtype=torch.int64)
    torch.testing.assert_close(model.step(token, state, memory).logits, model.step(token, short, short_memory).logits)


def test_initial_state_equals_its_formula():
    part = InitialState(6, 4, zeros=RecurrentState(*[torch.zeros(2, 1, 1, 7)] * 2), dropout=0.0).double()
    vector = torch.randn(1, 6, dtype=torch.float64)
    zeros = RecurrentState(*(torch.zeros(2, 1, 1, 7, dtype=torch.float64) for _ in range(2)))
    state = part.initial_state(vector, zeros)
    shared = torch.relu(part.shared[0].weight @ vector[0] + part.shared[0].bias)
    for layer in range(2):
        rows = slice(7 * layer, 7 * layer + 7)
        torch.testing.assert_close(
            state.hidden[layer, 0, 0], torch.tanh(part.hidden.weight[rows] @ shared + part.hidden.bias[rows])
        )
        torch.testing.assert_close(
            state.cell[layer, 0, 0], torch.tanh(part.cell.weight[rows] @ shared + part.cell.bias[rows])
        )


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
@pytest.mark.parametrize("cell", CELLS)
def test_the_image_enters(toy, toy_tokens, cell, conditioning):
    model = toy(cell=cell, attention="none", conditioning=conditioning)
    images = torch.randn(3, 4, 6, dtype=torch.float64)
    assert not torch.allclose(model(images + 1, toy_tokens).logits, model(images, toy_tokens).logits)


def test_fc_vectors_and_grids_of_one_place_agree(toy_tokens):
    torch.manual_seed(1)
    numbers = {"feature_size": 6, "vocabulary_size": 11, "width": 7, "embedding_size": 4}
    model = build_captioner(attention=ATTENTIONS["none"], grid=False, **numbers).double().eval()
    vectors = torch.randn(3, 6, dtype=torch.float64)
    torch.testing.assert_close(model(vectors, toy_tokens).logits, model(vectors[:, None], toy_tokens).logits)


def test_word_dropout_leaves_words_out_whole_and_only_in_training(toy):
    model = toy(word_dropout=0.5, dropout=0.0, embedding_size=8, vocabulary_size=11)
    tokens = torch.full((2, 3, 400), 5)
    whole = model.decoder.embedding.weight[5]
    assert torch.equal(model.decoder._embed(tokens), whole.expand(2, 3, 400, 8))
    entered = model.decoder.train()._embed(tokens).flatten(0, 2)
    out = (entered == 0).all(-1)
    assert torch.allclose(entered[~out], 2 * whole)  # so that the mean stays
    assert abs(out.double().mean() - 0.5) < 4 * (0.25 / len(out)) ** 0.5
    assert model.decoder._embed(tokens[..., 0]).shape == (2, 3, 8)  # of one step
