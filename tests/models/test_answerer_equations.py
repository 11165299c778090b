"""Compare answerers of every kind with their equations in float64: logits, weights, samples and all gradients."""

import itertools
from functools import partial

import pytest
import torch
from equations import Equations
from toys import ATTENTIONS, CELLS, END, PAD, SCORERS

from captioning.models import (
    Coordinates,
    HardAttention,
    NoPositions,
    ScoreFunction,
    build_answerer,
    gradient_estimators,
)
from captioning.models.ops import fast_dropout

QUESTIONS = [[[4, 5, 6, END], [7, END], [END]], [[5, 4, END], [4, 4, 4, END], [6, END]]]
MASK = torch.tensor([[True, False, True, True], [False, True, False, False]])
EXPECTED = torch.tensor([True, False])
MADE = [
    {"cell": cell, "attention": attention, "glimpses": glimpses, "layers": layers, "training": training}
    for cell, (attention, glimpses), (layers, training) in itertools.product(
        CELLS, [("none", 1), ("soft", 1), ("soft", 3), ("hard", 1), ("hard", 2)], [(1, True), (2, False)]
    )
]


def fixed_dropout(numbers, share, training=True):
    return numbers * (1 + share) + share**2 if training and share else numbers


@pytest.mark.parametrize("made", MADE, ids=lambda made: "-".join(map(str, made.values())))
def test_answerers_are_their_equations(made, monkeypatch):
    monkeypatch.setattr(fast_dropout, "dropout", fixed_dropout)
    monkeypatch.setattr(gradient_estimators, "_gumbel", torch.zeros_like)
    turn, hard, glimpses = MADE.index(made), made["attention"] == "hard", made["glimpses"]
    scorer, adapted, coded = list(SCORERS)[turn % 2], turn % 3 == 0, turn % 4 == 0
    attention = (
        partial(HardAttention, draw=ScoreFunction(expected_share=0.5)) if hard else ATTENTIONS[made["attention"]]
    )
    model = build_answerer(
        feature_size=4, grid=True, vocabulary_size=8, answers=5, pad=PAD, cell=CELLS[made["cell"]], attention=attention,
        scorer=SCORERS[scorer], positions=partial(Coordinates, frequencies=1) if coded else NoPositions,
        glimpses=glimpses, width=3, embedding_size=2, feature_width=6 if adapted else None, readout_width=4,
        layers=made["layers"], dropout=0.3,
    ).double().train(made["training"])  # fmt: skip
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    for look in model.looks if hard else ():
        look.draw.expected = lambda grid: EXPECTED
    mask = torch.ones_like(MASK) if coded else MASK
    features = torch.randn(2, 4, 4, dtype=torch.float64, requires_grad=True)
    questions = torch.full((2, 3, 5), PAD)
    for row, group in zip(questions, QUESTIONS, strict=True):
        for slot, words in zip(row, group, strict=True):
            slot[: len(words)] = torch.tensor(words)
    found = model(features, questions, mask)
    logits, weights, log_probs, entropies, places = [], [], [], [], []
    for b, k in itertools.product(range(2), range(3)):
        equations = Equations(
            dict(model.named_parameters()), cell=made["cell"], layers=made["layers"], scorer=scorer, adapted=adapted,
            attention=made["attention"] != "none", frequencies=int(coded), drop=fixed_dropout,
            shares=dict.fromkeys(("words", "readout", "adapter"), 0.3) if made["training"] else {},
        )  # fmt: skip
        drawn = hard and not (made["training"] and EXPECTED[b])
        if drawn:
            equations.choose = lambda alpha: torch.eye(len(alpha), dtype=alpha.dtype)[alpha.argmax()]
        expected, alphas = equations.answer(features[b, mask[b]], QUESTIONS[b][k], glimpses)
        logits.append(expected)
        real = mask[b].nonzero().squeeze(1)
        for alpha in alphas:
            weights.append(features.new_zeros(4).index_put((real,), alpha))
            entropies.append(-(alpha * alpha.log()).sum())
            log_probs.append(alpha.max().log() if drawn else features.new_zeros(()))
            places.append(int(real[alpha.argmax()]))
    pairs = [(found.logits, torch.stack(logits).view(2, 3, 5))]
    assert found.glimpse.context.shape[-1] == 0 and model.hard_attention == ("most_likely" if hard else None)
    if made["attention"] == "none":
        assert found.glimpse.weights.shape == (2, 3, 1, 0)
    else:
        pairs.append((found.glimpse.weights, torch.stack(weights).view(2, 3, glimpses, 4)))
    if hard:
        assert found.glimpse.places.flatten().tolist() == places
    if hard and made["training"]:
        pairs.append((found.glimpse.log_prob, torch.stack(log_probs).view(2, 3, glimpses)))
        pairs.append((found.glimpse.entropy, torch.stack(entropies).view(2, 3, glimpses)))
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    ours, theirs = (torch.cat([part.flatten() for part in side]) for side in zip(*pairs, strict=True))
    factors, inputs = torch.randn_like(ours), [features, *model.parameters()]
    gradients = [
        torch.autograd.grad((side * factors).sum(), inputs, allow_unused=True, materialize_grads=True)
        for side in (ours, theirs)
    ]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-11)
