"""Compare Up-Down, adaptive and plain recurrences with loops from the papers' equations; sizes, states, gradients."""

from functools import partial

import pytest
import torch
from toys import ATTENTIONS, CELLS, START

from captioning.errors import ConfigError
from captioning.models import LookAfter, SumReadout, build_captioner


def lstm(cell, x, h, c):
    """Compute one step of a one-layer LSTM cell from the concatenated input."""
    r = cell.rnn
    weight = r.weight_ih_l0 if cell.feedback is None else torch.cat((r.weight_ih_l0, cell.feedback.weight), 1)
    i, f, g, o = (weight @ x + r.bias_ih_l0 + r.weight_hh_l0 @ h + r.bias_hh_l0).chunk(4)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def alpha_of(attention, h, places):
    s = attention.scorer
    return torch.stack(
        [s.score.weight[0] @ torch.tanh(s.key.weight @ a + s.key.bias + s.query.weight @ h) for a in places]
    )


def run(model, images, words):
    """Return logits and weights of the model's own steps for one caption."""
    state, memory = model.begin(images)
    logits, weights = [], []
    for word in words:
        out = model.step(torch.tensor([[word]]), state, memory)
        state = out.state
        logits.append(out.logits[0, 0])
        weights.append(out.glimpse.weights[0, 0])
    return torch.stack(logits), torch.stack(weights)


@pytest.fixture
def images():
    return torch.randn(1, 4, 6, dtype=torch.float64)


def deep(decoder, word, h, context=None):
    r = decoder.readout
    total = word + r.hidden.weight @ h + r.hidden.bias
    if context is not None:
        total = total + r.context.weight @ context
    return r.output.weight @ torch.tanh(total) + r.output.bias


@pytest.mark.parametrize("with_word", [False, True])
def test_show_attend_and_tell_word_by_word(toy, images, with_word):
    model = toy(conditioning="first_step", recurrence="look_with_word" if with_word else "look_first")
    d, grid = model.decoder, images[0]
    v = model.conditioning.image.weight @ grid.mean(0) + model.conditioning.image.bias
    zeros = torch.zeros(7, dtype=torch.float64)
    h, c = lstm(d.recurrence.cell, torch.cat((v, torch.zeros(6, dtype=torch.float64))), zeros, zeros)
    expected = []
    for token in (START, 5, 7):
        word = d.embedding.weight[token]
        query = h + d.recurrence.word.weight @ word if with_word else h
        alpha = alpha_of(d.attention, query, grid).softmax(0)
        beta = torch.sigmoid(d.recurrence.gate.weight[0] @ query + d.recurrence.gate.bias[0])
        z = beta * (alpha @ grid)
        h, c = lstm(d.recurrence.cell, torch.cat((word, z)), h, c)
        expected.append(deep(d, word, h, z))
    torch.testing.assert_close(run(model, images, (START, 5, 7))[0], torch.stack(expected))


def test_up_down_word_by_word(toy, images):
    model = toy(recurrence="up_down", conditioning="every_step")
    d, grid = model.decoder, images[0]
    v = model.conditioning.image.weight @ grid.mean(0) + model.conditioning.image.bias
    h1 = c1 = h2 = c2 = torch.zeros(7, dtype=torch.float64)
    expected, weights = [], []
    for token in (START, 5, 7):
        word = d.embedding.weight[token]
        h1, c1 = lstm(d.recurrence.attention_cell, torch.cat((word, v, h2)), h1, c1)
        alpha = alpha_of(d.attention, h1, grid).softmax(0)
        h2, c2 = lstm(d.recurrence.language_cell, torch.cat((h1, alpha @ grid)), h2, c2)
        expected.append(deep(d, word, h2))
        weights.append(alpha)
    logits, found = run(model, images, (START, 5, 7))
    torch.testing.assert_close(logits, torch.stack(expected))
    torch.testing.assert_close(found, torch.stack(weights))


def test_adaptive_attention_word_by_word(images):
    model = build_captioner(
        feature_size=6, grid=True, vocabulary_size=11, width=7, embedding_size=4, feature_width=7,
        recurrence=lambda size, **kw: LookAfter(size, sentinel=True, **kw), readout=SumReadout,
        conditioning=lambda *sizes, zeros: EVERY(*sizes, zeros=zeros),
    ).double().eval()  # fmt: skip
    d, r = model.decoder, model.decoder.recurrence
    grid = torch.relu(images[0] @ model.adapter[1].weight.T + model.adapter[1].bias)
    v = model.conditioning.image.weight @ grid.mean(0) + model.conditioning.image.bias
    h = m = torch.zeros(7, dtype=torch.float64)
    expected, weights = [], []
    for token in (START, 5, 7):
        x = torch.cat((d.embedding.weight[token], v))
        gate = torch.sigmoid(r.sentinel_input.weight @ x + r.sentinel_input.bias + r.sentinel_state.weight @ h)
        h, m = lstm(r.cell, x, h, m)
        s = gate * torch.tanh(m)
        score = d.attention.scorer.score.weight[0] @ torch.tanh(
            r.sentinel_key.weight @ s + d.attention.scorer.query.weight @ h
        )
        alpha = torch.cat((alpha_of(d.attention, h, grid), score[None])).softmax(0)
        context = alpha[:4] @ grid + alpha[4] * s
        expected.append(d.readout.output.weight @ (context + h) + d.readout.output.bias)
        weights.append(alpha[:4])
    logits, found = run(model, images, (START, 5, 7))
    torch.testing.assert_close(logits, torch.stack(expected))
    torch.testing.assert_close(found, torch.stack(weights))
    assert (found.sum(-1) < 1).all()  # the rest is the sentinel's share


def EVERY(*sizes, zeros):
    from captioning.models import EveryStep

    return EveryStep(*sizes, zeros=zeros)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("recurrence", ["look_first", "look_with_word", "look_after", "adaptive", "up_down"])
def test_gradients_of_a_step_by_finite_differences(toy, images, cell, recurrence):
    model = toy(cell=cell, recurrence=recurrence, layers=2, width=3)
    state, memory = model.begin(images)
    inputs = [torch.randn(1, 1, model.decoder.recurrence.project(torch.zeros(1, 1, 4).double()).shape[-1]).double()]
    inputs += [torch.randn_like(part) for part in state]

    def step(projected, hidden, cells):
        new, glimpse = model.decoder.recurrence.step(projected, type(state)(hidden, cells), model.decoder._look(memory))
        return new.hidden, new.cell.sum(), glimpse.weights, glimpse.context.sum()

    assert torch.autograd.gradcheck(step, [part.requires_grad_() for part in inputs])


@pytest.mark.parametrize(
    "arguments",
    [{"recurrence": "look_after"}, {"attention": "none"}, {"attention": "none", "cell": "gru", "layers": 2}],
)
def test_where_nothing_feeds_back_the_fused_kernel_and_the_loop_agree(toy, toy_tokens, arguments, monkeypatch):
    """The kernel runs if the state after all steps is needed, and on a GPU."""
    model = toy(**arguments)
    state, memory = model.begin(torch.randn(3, 4, 6, dtype=torch.float64))
    made = []
    for other, carry in (("_sequence", False), ("_loop", True)):
        with monkeypatch.context() as patch:
            patch.setattr(type(model.decoder), other, None)
            decoded = model.decoder(toy_tokens, state, memory, carry=carry)
        order = decoded.index.argsort()
        logits, total = decoded.logits[order], decoded.logits.square().sum()
        weights = [weight for weight in model.decoder.parameters() if weight.requires_grad]
        gradients = torch.autograd.grad(total, weights, retain_graph=True, allow_unused=True)
        made.append((logits, decoded.index[order], decoded.glimpse.weights, gradients))
        assert (decoded.state is not None) == carry
    torch.testing.assert_close(*made)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"recurrence": "look_after", "attention": "none"}, "need attention"),
        ({"recurrence": "adaptive", "feature_width": None}, r"Set model\.feature_width=7"),
    ],
)
def test_parts_that_cannot_go_together_say_so(arguments, words):
    sizes = {"feature_size": 6, "grid": True, "vocabulary_size": 11, "width": 7, "embedding_size": 4}
    recurrence = partial(LookAfter, sentinel=arguments["recurrence"] == "adaptive")
    with pytest.raises(ConfigError, match=words):
        build_captioner(recurrence=recurrence, attention=ATTENTIONS[arguments.get("attention", "soft")], **sizes)


def test_adding_context_and_state_needs_one_width():
    with pytest.raises(ConfigError, match=r"model/readout=sum .* widths must agree"):
        SumReadout(4, 7, context_size=6, vocabulary_size=9)
