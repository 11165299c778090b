"""Compare truncated backpropagation with torch's cells in a slow loop whose graph is cut by hand."""

import pytest
import torch
from language_models import TOKENS, V, make
from torch.nn import functional as F
from toys import CELLS

from captioning.data import Windows, only
from captioning.data.corpus import Encoded
from captioning.models import one_hot
from captioning.objectives import TruncatedBackpropagation

ONE_STEP = {"rnn": torch.rnn_tanh_cell, "gru": torch.gru_cell, "lstm": torch.lstm_cell}


def make_objective(model, streams):
    zeros, _ = model.begin(torch.zeros(streams, 0))
    return TruncatedBackpropagation(zeros=zeros)


def text(seed=0):
    ids = torch.randint(3, V, (TOKENS,), generator=torch.Generator().manual_seed(seed)).int()
    return Encoded(ids, torch.ones(TOKENS, dtype=torch.int16))


def windows(encoded, *, streams, window):
    data = Windows(encoded, streams=streams, window=window)
    return [only([data[index, 0]]) for index in range(len(data))]


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def trained(model, objective, batches):
    """Compute the losses of all windows in order, and the sum of their gradients."""
    model.zero_grad()
    losses = []
    for batch in batches:
        loss = objective(model.train(), batch)
        loss.total.backward()
        losses.append(loss.total.item())
    return losses, gradients(model)


def by_hand(model, kind, encoded, *, streams, window):
    """Compute the same as `trained`, one stream and one token at a time, with detach() at every window's first step."""
    decoder, rnn = model.decoder, model.decoder.recurrence.cell.rnn
    ids, length = encoded.ids.long(), -(-(TOKENS - 1) // streams)
    losses = torch.zeros(-(-length // window), dtype=torch.float64)
    for b in range(streams):
        zeros = torch.zeros(1, rnn.hidden_size, dtype=torch.float64)
        states = [(zeros, zeros) if kind == "lstm" else zeros for _ in range(rnn.num_layers)]
        for t in range(min(length, TOKENS - 1 - b * length)):
            if t % window == 0:
                states = [tuple(p.detach() for p in s) if kind == "lstm" else s.detach() for s in states]
            x = decoder.embedding.weight[ids[b * length + t]][None]
            for layer in range(rnn.num_layers):
                own = [getattr(rnn, f"{name}_l{layer}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
                states[layer] = ONE_STEP[kind](x, states[layer], *own)
                x = states[layer][0] if kind == "lstm" else states[layer]
            logits = F.linear(x, decoder.readout.output.weight, decoder.readout.output.bias)
            losses[t // window] += F.cross_entropy(logits, ids[b * length + t + 1][None]) / streams
    model.zero_grad()
    losses.sum().backward()
    return losses.tolist(), gradients(model)


def same(found, expected):
    (losses, grads), (true_losses, true_grads) = found, expected
    assert losses == pytest.approx(true_losses, rel=1e-12)
    assert grads.keys() == true_grads.keys() and len(grads) > 5
    for name, grad in grads.items():
        torch.testing.assert_close(grad, true_grads[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(("streams", "window"), [(1, 7), (3, 5), (3, 1), (2, 20)])
def test_losses_are_exact_and_gradients_are_those_of_a_graph_cut_by_hand(cell, layers, streams, window):
    model = make(cell, layers=layers)
    batches = windows(text(), streams=streams, window=window)
    found = trained(model, make_objective(model, streams), batches)
    same(found, by_hand(model, cell, text(), streams=streams, window=window))


@pytest.mark.parametrize("cell", CELLS)
def test_a_window_as_long_as_the_text_is_full_backpropagation(cell):
    model = make(cell)
    whole = by_hand(model, cell, text(), streams=1, window=TOKENS)
    for window in (TOKENS - 1, 10 * TOKENS):
        (batch,) = windows(text(), streams=1, window=window)
        same(trained(model, make_objective(model, 1), [batch]), whole)
    # A shorter window has the same total loss, and other gradients.
    losses, cut = trained(model, make_objective(model, 1), windows(text(), streams=1, window=4))
    assert len(losses) == 10 and sum(losses) == pytest.approx(whole[0][0], rel=1e-12)
    name = "decoder.recurrence.cell.rnn.weight_hh_l0"
    assert (cut[name] - whole[1][name]).abs().max() > 1e-3


def test_one_hot_words_never_learn_and_are_the_columns_of_the_input_matrix():
    model = make(embedding=one_hot)
    batches = windows(text(), streams=3, window=5)
    found = trained(model, make_objective(model, 3), batches)
    same(found, by_hand(model, "lstm", text(), streams=3, window=5))
    assert "decoder.embedding.weight" not in found[1] and torch.equal(
        model.decoder.embedding.weight, torch.eye(V).double()
    )


def test_streams_never_leak_into_one_another():
    model, one, other = make(), text(), text()
    other.ids[:14] = text(seed=1).ids[
        :14
    ]  # the inputs of the first stream, except for those that it shares with the second
    states = []
    for encoded in (one, other):
        objective = make_objective(model, 3)
        trained(model, objective, windows(encoded, streams=3, window=5))
        states.append(objective.state_dict())
    for name in ("hidden", "cell"):
        first, second = (state[name] for state in states)
        assert torch.equal(first[:, 1:], second[:, 1:]) and (first[:, 0] - second[:, 0]).abs().min() > 0


def test_a_text_that_begins_anew_forgets_the_one_before():
    model = make()
    objective, batches = make_objective(model, 3), windows(text(), streams=3, window=5)
    first, _ = trained(model, objective, batches)
    assert trained(model, objective, batches)[0] == first
    stale, _ = trained(
        model, objective, batches[1:]
    )  # without a fresh window, the state is that of the end of the text before
    assert stale[0] != pytest.approx(first[1], rel=1e-6)


def test_looking_between_two_windows_changes_nothing():
    model, batches = make(), windows(text(), streams=3, window=5)
    looks = windows(text(seed=2), streams=2, window=7)
    objective, quiet = make_objective(model, 3), make_objective(model, 3)
    seen = []
    for batch in batches:
        loss = objective(model.train(), batch).total
        assert loss.item() == quiet(model.train(), batch).total.item()
        with torch.no_grad():
            seen.append([objective(model.eval(), look).total.item() for look in looks])
    assert all(each == seen[0] for each in seen)
    expected, _ = by_hand(model, "lstm", text(seed=2), streams=2, window=7)
    assert seen[0] == pytest.approx(expected, rel=1e-12)


def test_a_state_saved_inside_an_epoch_goes_on_exactly():
    model, batches = make(), windows(text(), streams=3, window=5)
    whole, _ = trained(model, make_objective(model, 3), batches)
    before, after = make_objective(model, 3), make_objective(model, 3)
    trained(model, before, batches[:2])
    after.load_state_dict(before.state_dict())
    losses, _ = trained(model, after, batches[2:])
    assert losses == whole[2:]


def test_before_a_text_the_state_is_zero():
    state = make_objective(make(), 3).state_dict()
    assert list(state) == ["hidden", "cell"] and not any(part.any() for part in state.values())


def test_what_a_loss_tells():
    model = make()
    encoded = text()
    wide = Encoded(encoded.ids, torch.full((TOKENS,), 3, dtype=torch.int16))
    (batch,) = windows(wide, streams=1, window=TOKENS)
    loss = make_objective(model, 1)(model, batch)
    assert not any(part.requires_grad for part in [*loss.parts.values(), *loss.stats.values()])
    nats = loss.total.item() / (TOKENS - 1)
    assert loss.words == TOKENS - 1 and batch.characters == 3 * (TOKENS - 1)
    assert float(loss.stats["nats"]) == pytest.approx(nats)
    assert float(loss.stats["bits_per_character"]) == pytest.approx(nats / 3 / 0.6931471805599453)
    assert float(loss.stats["perplexity"]) == pytest.approx(2.718281828459045**nats)
