"""Compare full captioners of every kind with the papers' equations in float64: logits, weights, states, all gradients.

The batches have several images, rows and lengths, with masks, captions of zero, one and two words, and missing
captions. Dropout is replaced by a fixed function of each number and its share, so that its position is part of the
comparison.
"""

import itertools
from functools import partial

import pytest
import torch
from equations import Equations
from toys import ATTENTIONS, CELLS, LOOKS, PAD, RECURRENCES, SCORERS, START

from captioning.models import (
    Coordinates,
    DeepReadout,
    EveryStep,
    FirstStep,
    HardAttention,
    InitialState,
    LinearReadout,
    LookFirst,
    NoConditioning,
    NoPositions,
    ScoreFunction,
    Several,
    SumReadout,
    build_captioner,
    cells,
    gradient_estimators,
)
from captioning.models.ops import fast_dropout

CONDITIONS = {
    ("initial",): partial(InitialState, dropout=0.4),
    ("first",): FirstStep,
    ("every",): EveryStep,
    ("initial", "first"): partial(Several, parts=(partial(InitialState, dropout=0.4), FirstStep)),
    ("every", "initial"): partial(Several, parts=(EveryStep, partial(InitialState, dropout=0.4))),
    ("first", "every"): partial(Several, parts=(FirstStep, EveryStep)),
    ("initial", "every", "first"): partial(Several, parts=(partial(InitialState, dropout=0.4), EveryStep, FirstStep)),
    (): NoConditioning,
}
READOUTS = {"deep": DeepReadout, "linear": LinearReadout, "sum": SumReadout}
SHARES = {"words": 0.3, "layers": 0.3, "readout": 0.2, "adapter": 0.3, "initial": 0.4}
EXPECTED = torch.tensor([True, False, False])  # the images that get the expected context in training
WIDTH, WORDS = 3, 8


def fixed_dropout(numbers, share, training=True):
    """Replace dropout, and record how often it is called, where, and with what share."""
    return numbers * (1 + share) + share**2 if training and share else numbers


def turns():
    """Combine every attention with every recurrence, cell and number of layers; take the other parts in turn."""
    named = itertools.product(LOOKS, CELLS, (1, 3))
    for turn, ((attention, recurrence), cell, layers) in enumerate(named):
        if attention == "hard_gumbel":
            continue
        readouts = [n for n in READOUTS if n != "sum" or (attention != "none" and recurrence != "up_down")]
        readout = readouts[(turn + turn // 7) % len(readouts)]
        yield {
            "cell": cell,
            "layers": layers,
            "recurrence": recurrence,
            "attention": attention,
            "scorer": list(SCORERS)[(turn // 2) % 2],
            "conditioning": list(CONDITIONS)[turn % len(CONDITIONS)],
            "readout": readout,
            "adapted": readout == "sum" or recurrence == "adaptive" or turn % 3 == 0,
            "frequencies": (0, 2, 0, 1)[(turn // 3) % 4],
            "gate": recurrence == "look_with_word" or turn % 5 != 0,
            "training": (turn // 3) % 2 == 1,
        }


TURNS = list(turns())


def build(made):
    recurrence = RECURRENCES[made["recurrence"]]
    if made["recurrence"] == "look_first":
        recurrence = partial(LookFirst, gate=made["gate"])
    attention = ATTENTIONS[made["attention"]]
    if made["attention"] == "hard":
        attention = partial(HardAttention, draw=ScoreFunction(expected_share=0.5))
    frequencies = made["frequencies"]
    model = build_captioner(
        feature_size=4,
        grid=True,
        vocabulary_size=WORDS,
        cell=CELLS[made["cell"]],
        layers=made["layers"],
        recurrence=recurrence,
        attention=attention,
        scorer=SCORERS[made["scorer"]],
        conditioning=CONDITIONS[made["conditioning"]],
        readout=partial(READOUTS[made["readout"]], dropout=0.2),
        positions=partial(Coordinates, frequencies=frequencies) if frequencies else NoPositions,
        feature_width=WIDTH if made["adapted"] else None,
        width=WIDTH,
        embedding_size=2,
        dropout=0.3,
    )
    model = model.double().train(made["training"])
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    if made["attention"] == "hard":
        model.decoder.attention.draw.expected = lambda grid: EXPECTED[: len(grid)]
    return model


def hardest(alpha):
    return torch.eye(len(alpha), dtype=alpha.dtype)[alpha.argmax()]


def equations_of(model, made, image):
    hard = made["attention"] == "hard" and not (made["training"] and EXPECTED[image])
    return Equations(
        dict(model.named_parameters()),
        **{name: value for name, value in made.items() if name not in ("attention", "training")},
        attention=made["attention"] != "none",
        choose=hardest if hard else lambda alpha: alpha,
        **({"drop": fixed_dropout, "shares": SHARES} if made["training"] else {}),
    )


def batch():
    """Return images with four locations, of which all, two and one are real, and rows of all lengths."""
    features = torch.randn(3, 4, 4, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True] * 4, [True, False, False, True], [False, False, True, False]])
    captions = [[[6, 5, 4], [], None], [[7], [4, 4], [5, 6]], [None, [], [3]]]
    tokens = torch.full((3, 3, 5), PAD)
    for row, group in zip(tokens, captions, strict=True):
        for slot, words in zip(row, group, strict=True):
            if words is not None:
                slot[: len(words) + 2] = torch.tensor([START, *words, 2])
    return features, mask, tokens


def without_noise(monkeypatch):
    """Make dropout a fixed function, and let hard attention select the most likely location."""
    monkeypatch.setattr(fast_dropout, "dropout", fixed_dropout)
    monkeypatch.setattr(cells, "dropout", fixed_dropout)
    monkeypatch.setattr(gradient_estimators, "_gumbel", torch.zeros_like)


def differences(found, expected, inputs):
    """Compute the gradients of a random sum of both by the inputs."""
    weights = torch.randn_like(expected)
    for values in (found, expected):
        yield torch.autograd.grad((values * weights).sum(), inputs, allow_unused=True)


def name_of(made):
    parts = (made[name] for name in ("cell", "layers", "recurrence", "attention", "readout"))
    return "-".join(map(str, (*parts, *made["conditioning"])))


@pytest.mark.parametrize("made", TURNS, ids=name_of)
def test_captioners_are_their_equations(made, monkeypatch):
    without_noise(monkeypatch)
    model, (features, mask, tokens) = build(made), batch()
    if made["frequencies"]:  # a position code needs all locations
        mask = torch.ones_like(mask)
    decoded = model(features.masked_fill(~mask[..., None], torch.nan), tokens, mask)
    length, sentinel = tokens.shape[2] - 1, made["recurrence"] == "adaptive"
    expected, weights, log_probs, entropies = {}, [], [], []
    for b, k in itertools.product(range(3), range(3)):
        words = int((tokens[b, k, 1:] != PAD).sum())
        logits, alphas, _, _ = equations_of(model, made, b).caption(features[b, mask[b]], tokens[b, k, :words].tolist())
        for t in range(length):
            row = features.new_zeros(decoded.glimpse.weights.shape[-1])
            log_prob = entropy = features.new_zeros(())
            if t < words:
                expected[(b * 3 + k) * length + t] = logits[t]
                if made["attention"] != "none":
                    alpha = alphas[t]
                    row = row.index_put((mask[b].nonzero().squeeze(1),), alpha[: len(alpha) - sentinel])
                    entropy = -(alpha * alpha.log()).sum()
                    log_prob = features.new_zeros(()) if EXPECTED[b] else alpha.max().log()
            weights.append(row)
            log_probs.append(log_prob)
            entropies.append(entropy)
    assert sorted(decoded.index.tolist()) == sorted(expected)
    pairs = [
        (decoded.logits, torch.stack([expected[place] for place in decoded.index.tolist()])),
        (decoded.glimpse.weights, torch.stack(weights).view(decoded.glimpse.weights.shape)),
    ]
    if made["attention"] == "hard" and made["training"]:
        found = decoded.glimpse
        pairs += [(found.log_prob, torch.stack(log_probs).view(3, 3, length))]
        pairs += [(found.entropy, torch.stack(entropies).view(3, 3, length))]
    inputs = [features, *(each for each in model.parameters() if each.requires_grad)]
    for found, wanted in pairs:
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
    joined = [torch.cat([values.flatten() for values in side]) for side in zip(*pairs, strict=True)]
    ours, theirs = differences(*joined, inputs)
    assert all(gradient is not None for gradient in ours[1:])  # every parameter has a gradient
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("made", TURNS, ids=name_of)
def test_steps_of_several_rows_are_the_equations(made, monkeypatch):
    """Step as a search does: all rows of all images at once; compare the state after every step."""
    without_noise(monkeypatch)
    model, (features, mask, tokens) = build(made), batch()
    if made["frequencies"]:
        mask = torch.ones_like(mask)
    sentinel = made["recurrence"] == "adaptive"
    assert (model.pad, model.has_sentinel, model.attends) == (PAD, sentinel, made["attention"] != "none")
    assert model.hard_attention == ("most_likely" if made["attention"] == "hard" else None)
    with torch.no_grad():
        state, memory = model.begin(features, mask)
        state = state.repeat(3)
        steps = []
        for token in tokens[..., :-1].unbind(-1):
            steps.append(model.step(token, state, memory))
            state = steps[-1].state
        for b, k in itertools.product(range(3), range(3)):
            equations, read = equations_of(model, made, b), tokens[b, k].tolist()
            for t in range(1, len(read)):
                logits, alphas, hidden, cell = equations.caption(features[b, mask[b]], read[:t])
                step = steps[t - 1]
                torch.testing.assert_close(step.logits[b, k], logits[-1], rtol=1e-10, atol=1e-12)
                torch.testing.assert_close(step.state.hidden[:, b, k], torch.stack(hidden), rtol=1e-10, atol=1e-12)
                if made["cell"] == "lstm":
                    torch.testing.assert_close(step.state.cell[:, b, k], torch.stack(cell), rtol=1e-10, atol=1e-12)
                else:
                    assert step.state.cell.shape == (*step.state.hidden.shape[:3], 0)
                if made["attention"] != "none":
                    alpha, seen = alphas[-1], step.glimpse.weights[b, k]
                    torch.testing.assert_close(seen[mask[b]], alpha[: len(alpha) - sentinel], rtol=1e-10, atol=1e-12)
                    assert not seen[~mask[b]].any()
                    if made["attention"] == "hard":
                        place = int(alpha.argmax())
                        last = len(alpha) - 1 if sentinel else len(alpha)
                        real = mask[b].nonzero().squeeze(1).tolist()
                        assert step.glimpse.places[b, k] == (4 if place == last else real[place])


FUSED = [made for made in TURNS if made["recurrence"] == "look_after" or made["attention"] == "none"]
FUSED = [made | {"training": False} for made in FUSED if made["recurrence"] in ("look_after", "look_first")]


@pytest.mark.parametrize("made", FUSED, ids=name_of)
def test_the_fused_sequence_is_the_equations_and_carries_the_last_state(made, monkeypatch):
    without_noise(monkeypatch)
    model, (features, mask, tokens) = build(made), batch()
    if made["frequencies"]:
        mask = torch.ones_like(mask)
    state, memory = model.begin(features, mask)
    decoded = model.teacher_force(tokens, state, memory, carry=True)
    length, found = tokens.shape[2] - 1, iter(decoded.logits)
    real = tokens[..., 1:] != PAD
    assert decoded.index.tolist() == real.flatten().nonzero().squeeze(1).tolist()
    for b, k in itertools.product(range(3), range(3)):
        read = tokens[b, k, :-1].tolist()
        logits, alphas, hidden, cell = equations_of(model, made, b).caption(features[b, mask[b]], read)
        for t in range(length):
            if real[b, k, t]:
                torch.testing.assert_close(next(found), logits[t], rtol=1e-10, atol=1e-12)
                if made["attention"] != "none":
                    seen = decoded.glimpse.weights[b, k, t]
                    torch.testing.assert_close(seen[mask[b]], alphas[t], rtol=1e-10, atol=1e-12)
                    assert not seen[~mask[b]].any()
            else:
                assert not decoded.glimpse.weights[b, k, t].any()
        torch.testing.assert_close(decoded.state.hidden[:, b, k], torch.stack(hidden), rtol=1e-10, atol=1e-12)
        if made["cell"] == "lstm":
            torch.testing.assert_close(decoded.state.cell[:, b, k], torch.stack(cell), rtol=1e-10, atol=1e-12)
    if made["attention"] == "hard":
        places = decoded.glimpse.weights.argmax(-1) * real
        assert torch.equal(decoded.glimpse.places, places)


@pytest.mark.parametrize("recurrence", [name for name in RECURRENCES if name != "look_after"])
def test_what_loops_is_never_run_by_the_fused_sequence(toy, toy_tokens, recurrence):
    model = toy(recurrence=recurrence)
    state, memory = model.begin(torch.randn(3, 4, 6, dtype=torch.float64))
    asked, plain = (model.teacher_force(toy_tokens, state, memory, carry=carry) for carry in (True, False))
    assert asked.state is None and torch.equal(asked.index, plain.index)
    torch.testing.assert_close(asked.logits, plain.logits, rtol=0, atol=0)
