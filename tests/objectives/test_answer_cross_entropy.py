"""Compare the loss of answers with its equations, and its REINFORCE gradient with exact expectations over all paths."""

import itertools
import math

import pytest
import torch
from exact_gradients import assert_same_gradient, forced_paths, gradient
from toys import ATTENTIONS, END, PAD

from captioning.data import QuestionBatch
from captioning.models import ScoreFunction, build_answerer
from captioning.objectives import AnswerCrossEntropy, LeaveOneOut, MovingAverage, Reinforce

P, D, H, N = 3, 4, 3, 5  # locations, their features, the state's width, answers
AVERAGE = -1.75
BASELINES = {"none": lambda: MovingAverage(decay=1.0), "moving_average": MovingAverage, "leave_one_out": LeaveOneOut}


def make_model(attention="hard", glimpses=1):
    torch.manual_seed(3)
    model = build_answerer(
        feature_size=D, grid=True, vocabulary_size=7, answers=N, pad=PAD, attention=ATTENTIONS[attention],
        glimpses=glimpses, width=H, embedding_size=2, readout_width=4, dropout=0.0,
    ).double().train()  # fmt: skip
    for look in model.looks:
        look.draw = ScoreFunction(expected_share=0.0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.8)
    return model


def make_batch(locations, questions):
    """Build images with some of L locations; for each image, (words, {answer: share}) of its questions, or None."""
    images = torch.randn(len(locations), P, D, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    mask = torch.tensor([[place in real for place in range(P)] for real in locations])
    images[~mask] = 100.0  # masked locations have no features
    slots = max(map(len, questions))
    words = torch.full((len(images), slots, 5), PAD)
    answers = torch.zeros(len(images), slots, 2, dtype=torch.int64)
    shares = torch.zeros(len(images), slots, 2)
    for image, slot, text, right in real_questions(questions):
        words[image, slot, : len(text)] = torch.tensor(text)
        for m, (answer, share) in enumerate(right.items()):
            answers[image, slot, m], shares[image, slot, m] = answer, share
    ids = torch.arange(slots * len(images)).view(len(images), slots)
    mask = None if mask.all() else mask
    return QuestionBatch(torch.arange(len(images)), images, mask, words, ids, answers, shares)


def real_questions(questions):
    return [
        (image, slot, *question)
        for image, group in enumerate(questions)
        for slot, question in enumerate(group)
        if question is not None
    ]


def answer(model, features, words, paths):
    """Compute log p(a | path, question, image) [S, N], and log α of each glimpse's location and H[α], [S, G].

    The state after a question's last word is the query of the first glimpse; each further query adds W z of the glimpse
    before (Yang et al. 2016). The answer is that of tanh(W_q q) ∘ tanh(W_v v) (Antol et al. 2015).
    """
    w = dict(model.named_parameters())
    hidden = cell = torch.zeros(H, dtype=torch.float64)
    for word in words:
        sums = w["cell.rnn.weight_ih_l0"] @ w["embedding.weight"][word] + w["cell.rnn.bias_ih_l0"]
        sums = sums + w["cell.rnn.weight_hh_l0"] @ hidden + w["cell.rnn.bias_hh_l0"]
        i, f, g, o = (sums[part * H : (part + 1) * H] for part in range(4))
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        hidden = o.sigmoid() * cell.tanh()
    query, seen, log_locations, entropies = hidden.expand(len(paths), H), None, [], []
    for look in range(paths.shape[1]):
        if look:
            query = query + seen @ w[f"again.{look - 1}.weight"].T
        key = f"looks.{look}.scorer."
        scores = [
            torch.tanh(w[key + "key.weight"] @ location + w[key + "key.bias"] + query @ w[key + "query.weight"].T)
            @ w[key + "score.weight"][0]
            for location in features
        ]
        alpha = torch.stack(scores, 1).exp()
        alpha = alpha / alpha.sum(1, keepdim=True)
        seen = features[paths[:, look]]
        log_locations.append(alpha[torch.arange(len(paths)), paths[:, look]].log())
        entropies.append(-(alpha * alpha.log()).sum(1))
    product = torch.tanh(query @ w["readout.query.weight"].T + w["readout.query.bias"])
    product = product * torch.tanh(seen @ w["readout.seen.weight"].T + w["readout.seen.bias"])
    logits = product @ w["readout.output.weight"].T + w["readout.output.bias"]
    log_probs = logits - logits.exp().sum(1, keepdim=True).log()
    return log_probs, torch.stack(log_locations, 1), torch.stack(entropies, 1)


def along(model, batch, locations, question, paths):
    image, _, words, right = question
    log_probs, log_locations, entropy = answer(model, batch.images[image][list(locations[image])], words, paths)
    return sum(share * log_probs[:, a] for a, share in right.items()), log_locations, entropy


def make_objective(baseline, **settings):
    objective = AnswerCrossEntropy(location_loss=Reinforce(baseline=BASELINES[baseline](), **settings))
    return objective, objective.location_loss.baseline


def loss_of(objective, model, batch, paths):
    baseline = objective.location_loss.baseline
    if isinstance(baseline, MovingAverage):
        baseline.value.fill_(AVERAGE if baseline.decay < 1 else 0.0)
    with forced_paths(paths, P):
        return objective(model, batch)


UNKNOWN = ([4, 5, END], {})  # without a known answer
ONE_DRAW = [(0, 1, 2), (0, 2)], [[([4, 5, 6, END], {1: 0.75, 3: 0.25}), UNKNOWN], [([END], {4: 1.0}), None]]
TWO_DRAWS = [(0, 2), (1,)], [[([4, 5, 6, END], {1: 0.75, 3: 0.25}), None], [([6, END], {4: 1.0}), UNKNOWN]]


@pytest.mark.parametrize("reward_to_go", [False, True])
@pytest.mark.parametrize("glimpses", [1, 2])
@pytest.mark.parametrize("baseline", BASELINES)
def test_the_expected_gradient_is_that_of_the_lower_bound(baseline, glimpses, reward_to_go):
    """∇ Σ_s p(s) Σ_a t_a log p(a | s), the mean over the questions with a known answer."""
    locations, questions = TWO_DRAWS if baseline == "leave_one_out" else ONE_DRAW
    model, batch = make_model(glimpses=glimpses), make_batch(locations, questions)
    objective, b = make_objective(baseline, scale=1.0, entropy=0.0, reward_to_go=reward_to_go)
    known = [question for question in real_questions(questions) if question[-1]]
    exact, outcomes = 0.0, []
    for question in known:
        image, slot = question[:2]
        paths = torch.tensor(list(itertools.product(range(len(locations[image])), repeat=glimpses)))
        likelihood, log_locations, _ = along(model, batch, locations, question, paths)
        prior = log_locations.sum(1).exp()
        exact = exact - (prior * likelihood).sum() / len(known)
        places = torch.tensor(locations[image])[paths]
        for row in range(slot * b.samples, (slot + 1) * b.samples):
            outcomes.append([(image, row, place, p) for place, p in zip(places, prior.tolist(), strict=True)])
    total, size = 0.0, (len(locations), batch.questions.shape[1] * b.samples, glimpses)
    for joint in itertools.product(*outcomes):
        drawn = torch.zeros(size, dtype=torch.int64)
        for image, row, places, _ in joint:
            drawn[image, row] = places
        total = total + math.prod(p for *_, p in joint) * loss_of(objective, model, batch, drawn).total
    assert_same_gradient(gradient(total, model), gradient(exact, model))


MIXED_LOCATIONS = [(0, 1, 2), (0, 2), (1,)]
MIXED = [
    [([4, 5, 6, 4, END], {1: 0.75, 3: 0.25}), ([5, END], {0: 1.0}), UNKNOWN],
    [UNKNOWN, ([END], {4: 1.0}), None],
    [([6, 6, END], {2: 0.5, 1: 0.5}), None, None],
]


@pytest.mark.parametrize("reward_to_go", [False, True])
@pytest.mark.parametrize("glimpses", [1, 2])
@pytest.mark.parametrize("baseline", BASELINES)
def test_each_estimate_is_that_of_the_equations(baseline, glimpses, reward_to_go):
    model, batch = make_model(glimpses=glimpses), make_batch(MIXED_LOCATIONS, MIXED)
    objective, b = make_objective(baseline, scale=0.3, entropy=0.2, reward_to_go=reward_to_go)
    n = b.samples
    draws = torch.randint(6, (3, 3 * n, glimpses))
    paths = torch.stack([torch.tensor(own)[each % len(own)] for own, each in zip(MIXED_LOCATIONS, draws, strict=True)])
    found = loss_of(objective, model, batch, paths)
    sums, mean = dict.fromkeys(("cross_entropy", "location", "location_entropy"), 0.0), 0.0
    for question in real_questions(MIXED):
        image, slot, _, right = question
        if not right:
            continue
        own = list(MIXED_LOCATIONS[image])
        drawn = [[own.index(place) for place in path] for path in paths[image, slot * n : slot * n + n].tolist()]
        likelihood, log_locations, entropy = along(model, batch, MIXED_LOCATIONS, question, torch.tensor(drawn))
        returns = likelihood.detach()
        for row, t in itertools.product(range(n), range(glimpses)):
            value = 0.0 if baseline == "none" else AVERAGE
            against = value * ((glimpses - t) / glimpses if reward_to_go else 1.0)
            if n > 1:
                against = sum(returns[other].item() for other in range(n) if other != row) / (n - 1)
            sums["location"] = sums["location"] - 0.3 * (returns[row] - against) * log_locations[row, t]
        sums["cross_entropy"] = sums["cross_entropy"] - likelihood.sum()
        sums["location_entropy"] = sums["location_entropy"] - 0.2 * entropy.sum()
        mean += returns.sum().item() / (4 * n)
    assert {name: part.item() for name, part in found.parts.items()} == pytest.approx(
        {name: part.item() / (4 * n) for name, part in sums.items()}, rel=1e-12
    )
    assert_same_gradient(gradient(found.total, model), gradient(sum(sums.values()) / (4 * n), model))
    assert found.stats["location_return"].item() == pytest.approx(mean, rel=1e-12)
    assert not any(part.requires_grad for part in [*found.parts.values(), *found.stats.values()])
    assert found.count == 4 * n and found.words == n * (5 + 2 + 3 + 3 + 1 + 3)


def test_in_evaluation_there_is_one_row_for_each_question_and_nothing_to_reinforce():
    model, batch = make_model(glimpses=2).eval(), make_batch(MIXED_LOCATIONS, MIXED)
    found = make_objective("leave_one_out")[0](model, batch)
    total = 0.0
    for question in real_questions(MIXED):
        image, _, _, right = question
        best, own = [], len(MIXED_LOCATIONS[image])
        for _ in range(2):  # the most likely location of one glimpse, followed by that of the next
            paths = torch.tensor([[*best, place] for place in range(own)])
            _, log_locations, _ = along(model, batch, MIXED_LOCATIONS, question, paths)
            best.append(int(log_locations[:, -1].argmax()))
        likelihood, *_ = along(model, batch, MIXED_LOCATIONS, question, torch.tensor([best]))
        total = total - (likelihood.sum().item() / 4 if right else 0)
    assert found.total.item() == pytest.approx(total, rel=1e-12) and found.parts.keys() == {"cross_entropy"}
    assert found.count == 4 and found.words == 17 and not found.stats


def test_without_a_known_answer_the_loss_is_zero():
    model, batch = make_model(), make_batch([(0, 1)], [[UNKNOWN]])
    loss = AnswerCrossEntropy()(model, batch)
    assert loss.total == 0 and loss.count == 0 and (gradient(loss.total, model) == 0).all()


def test_scores_in_half_precision_are_summed_in_float32():
    model, batch = make_model("soft").eval(), make_batch(MIXED_LOCATIONS, MIXED)
    logits, glimpse = model(batch.images, batch.questions, batch.mask)
    rounded = (50 * logits).to(torch.bfloat16)
    model.forward = lambda *_: (rounded, glimpse)
    found = AnswerCrossEntropy()(model, batch).total
    model.forward = lambda *_: (rounded.double(), glimpse)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(AnswerCrossEntropy()(model, batch).total.item(), rel=1e-6)
