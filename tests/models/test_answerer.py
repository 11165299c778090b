"""Test the answerer: padding, two attention modules by hand, and sizes."""

import pytest
import torch
from exact_gradients import gradient
from toys import ATTENTIONS, CELLS, END, PAD, SCORERS

from captioning.data import NOTHING, QuestionBatch
from captioning.errors import ConfigError
from captioning.models import build_answerer
from captioning.objectives import AnswerCrossEntropy

P, D, N = 4, 6, 5
QUESTIONS = [[[4, 5, 6, END], [7, END], [END]], [[8, 9, END], [4, 4, 4, END], None]]


def make(*, attention="soft", cell="lstm", scorer="additive", **sizes):
    numbers = {"feature_size": D, "grid": True, "width": 7, "embedding_size": 3, "readout_width": 8} | sizes
    parts = {"attention": ATTENTIONS[attention], "cell": CELLS[cell], "scorer": SCORERS[scorer]}
    return build_answerer(vocabulary_size=11, answers=N, pad=PAD, **parts, **numbers).double().eval()


def tokens(*, slots=3, length=4):
    questions = torch.full((2, slots, length), PAD)
    for row, group in zip(questions, QUESTIONS, strict=True):
        for slot, words in zip(row, group, strict=False):
            if words:
                slot[: len(words)] = torch.tensor(words)
    return questions


def batch(**padding):
    questions = tokens(**padding)
    answers = torch.zeros(*questions.shape[:2], 2, dtype=torch.int64)
    shares = torch.zeros(*questions.shape[:2], 2)
    answers[0, :3] = torch.tensor([[1, 2], [0, 0], [4, 0]])
    shares[0, :3] = torch.tensor([[0.75, 0.25], [1, 0], [1, 0]])
    shares[1, 0] = torch.tensor([1.0, 0])  # the other question of the second image has no known answer
    ids = torch.where(
        questions[..., 0] == PAD, NOTHING, torch.arange(questions[..., 0].numel()).view_as(answers[..., 0])
    )
    images = torch.randn(2, P, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return QuestionBatch(torch.tensor([1, 2]), images, None, questions, ids, answers, shares)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("attention", ["soft", "hard", "none"])
def test_padding_changes_nothing(cell, attention):
    model = make(cell=cell, attention=attention, layers=2, glimpses=1 if attention == "none" else 2)
    objective, short, long = AnswerCrossEntropy(), batch(), batch(slots=5, length=9)
    found, padded = (model(b.images, b.questions) for b in (short, long))
    torch.testing.assert_close(padded.logits[:, :3][:, :2], found.logits[:, :2], rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(padded.glimpse.weights[0, :3], found.glimpse.weights[0], rtol=1e-13, atol=1e-13)
    one, other = (objective(model, b) for b in (short, long))
    torch.testing.assert_close(one.total, other.total, rtol=1e-13, atol=1e-13)
    assert one.words == other.words == 4 + 2 + 1 + 3 + 4
    torch.testing.assert_close(gradient(one.total, model), gradient(other.total, model), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("cell", CELLS)
def test_a_question_is_read_word_by_word_to_its_last_state(cell):
    model = make(cell=cell, layers=2)
    states = model.read(tokens())
    for image, group in enumerate(QUESTIONS):
        for row, words in enumerate(group):
            state = model.cell.zero_state(1, like=states)
            for word in words or []:
                vector = model.embedding(torch.tensor([[word]]))
                state = model.cell.step(model.cell.project(vector), vector[..., :0], state)
            if words:
                torch.testing.assert_close(states[image, row], state.top[0, 0], rtol=1e-12, atol=1e-13)


def test_each_look_asks_with_what_the_one_before_saw():
    """Two soft attention modules with additive scores equal loops over locations, computed from the weights alone."""
    model, given = make(glimpses=2), batch()
    found = model(given.images, given.questions)
    query = model.read(given.questions)[0, 1]
    for index, look in enumerate(model.looks):
        part = look.scorer
        scores = torch.stack(
            [part.score.weight[0] @ torch.tanh(part.key(place) + part.query(query)) for place in given.images[0]]
        )
        weights = scores.exp() / scores.exp().sum()
        torch.testing.assert_close(found.glimpse.weights[0, 1, index], weights, rtol=1e-11, atol=1e-13)
        context = sum(weight * place for weight, place in zip(weights, given.images[0], strict=True))
        if index == 0:
            query = query + model.again[0].weight @ context
    read = model.readout
    product = torch.tanh(read.query(query)) * torch.tanh(read.seen(context))
    torch.testing.assert_close(found.logits[0, 1], read.output.weight @ product + read.output.bias)


def test_without_attention_the_picture_is_its_vector():
    model, given = make(attention="none"), batch()
    found = model(given.images, given.questions)
    assert found.glimpse.weights.shape == (2, 3, 1, 0)
    fc = model(given.images.mean(1), given.questions)  # an fc vector is one location
    torch.testing.assert_close(fc.logits, found.logits, rtol=1e-12, atol=1e-13)
    mask = torch.tensor([[True, True, False, False], [True] * 4])
    masked = model(given.images, given.questions, mask)
    torch.testing.assert_close(masked.logits[0], model(given.images[:1, :2], given.questions[:1]).logits[0])
    torch.testing.assert_close(masked.logits[1], found.logits[1])
    with pytest.raises(ConfigError, match=r"model\.glimpses=2 .* model/attention=none"):
        make(attention="none", glimpses=2)
    with pytest.raises(ConfigError, match=r"model/attention=none"):
        make(attention="soft", grid=False)


@pytest.mark.parametrize("attention", ["soft", "hard", "hard_gumbel"])
@pytest.mark.parametrize("scorer", SCORERS)
def test_masked_places_are_not_there(attention, scorer):
    model, given = make(attention=attention, scorer=scorer, glimpses=2), batch()
    mask = torch.tensor([[True, True, True, False]] * 2)
    found = model(given.images, given.questions, mask)
    fewer = model(given.images[:, :3], given.questions)
    torch.testing.assert_close(found.logits, fewer.logits, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("attention", ["soft", "hard", "none"])
def test_an_image_without_a_place_is_shown_one_of_zeros(attention):
    model, given = make(attention=attention), batch()
    images, mask = given.images.clone(), torch.ones(2, P, dtype=torch.bool)
    images[1], mask[1] = torch.nan, False
    found = model(images, given.questions, mask).logits
    torch.testing.assert_close(found[:1], model(given.images[:1], given.questions[:1]).logits)
    zeros = model(torch.zeros(1, 1, D, dtype=torch.float64), given.questions[1:]).logits
    torch.testing.assert_close(found[1:], zeros)


def test_the_loss_by_hand():
    model, given = make(), batch()
    log_p = model(given.images, given.questions).logits.log_softmax(-1)
    wanted = [
        -(0.75 * log_p[0, 0, 1] + 0.25 * log_p[0, 0, 2]),
        -log_p[0, 1, 0],
        -log_p[0, 2, 4],
        -log_p[1, 0, 0],
    ]
    loss = AnswerCrossEntropy()(model, given)
    torch.testing.assert_close(loss.total, sum(wanted) / 4)
    nothing = AnswerCrossEntropy()(model, given._replace(shares=torch.zeros_like(given.shares)))
    assert nothing.total == 0 and nothing.total.requires_grad


def test_hard_attention_looks_at_one_place_a_glimpse():
    model, given = make(attention="hard", glimpses=2).train(), batch()
    loss = AnswerCrossEntropy()(model, given)
    assert {"cross_entropy", "location", "location_entropy"} == loss.parts.keys()
    torch.testing.assert_close(sum(loss.parts.values()), loss.total.detach())
    found = model.eval()(given.images, given.questions).glimpse
    assert found.places.shape == (2, 3, 2) and (found.places == found.weights.argmax(-1)).all()
    assert AnswerCrossEntropy()(model, given).parts.keys() == {"cross_entropy"}
