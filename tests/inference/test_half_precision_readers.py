"""Language models and answerers in half precision: what they return is float32, and near what float32 gives."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from language_models import make as make_language_model
from PIL import Image

from captioning.data import Answers
from captioning.errors import ConfigError, DataError
from captioning.inference.language_model import LanguageModel
from captioning.inference.vqa import AnswerPredictor, write_answers
from captioning.models import GRU, Glimpse
from captioning.models.answerer import Answered

TEXTS = ["abca", "", "eeqd"]  # q is unknown
U = {torch.bfloat16: 2**-8, torch.float16: 2**-11}


def reader(cell="lstm", *, seed=0, **sizes):
    torch.manual_seed(seed)
    words = ["<pad>", "<start>", "<end>", "<unk>", *"abcde"]
    metadata = {"vocabulary": words, "config": {"data": {"unit": "characters"}}}
    return LanguageModel(make_language_model(cell, **sizes).float(), metadata)


def by_hand(model, text):
    """log p of each character and the states after it, one step at a time in 64 bits."""
    model = model.model.double()
    (state, memory), token, log_probs, states = model.begin(torch.zeros(1, 0)), 2, [], []
    for character in text:
        logits, state, _ = model.step(torch.tensor([[token]]), state, memory)
        token = "abcde".index(character) + 4 if character in "abcde" else 3
        scores = np.exp(logits[0, 0].detach().numpy())
        log_probs.append(math.log(scores[token] / scores.sum()))
        states.append(model.step(torch.tensor([[token]]), state, memory).state)
    return log_probs, states


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("layers", [1, 2])
def test_texts_are_read_character_by_character(cell, layers):
    readings = reader(cell, layers=layers).read(TEXTS)
    for text, reading in zip(TEXTS, readings, strict=True):
        log_probs, states = by_hand(reader(cell, layers=layers), text)
        assert reading.tokens == text and reading.log_probs.tolist() == pytest.approx(log_probs, abs=1e-5)
        numbers = [""] if layers == 1 else [" 1", " 2"]
        kinds = ["hidden", "cell"] if cell == "lstm" else ["hidden"]
        assert list(reading.states) == [kind + number for kind in kinds for number in numbers]
        for kind in kinds:
            for layer, number in enumerate(numbers):
                wanted = [getattr(state, kind)[layer, 0, 0].tolist() for state in states]
                assert reading.states[kind + number].dtype == np.float32
                found = reading.states[kind + number]
                assert found.shape == (len(text), 5) and np.allclose(found, np.array(wanted).reshape(-1, 5), atol=1e-5)


def test_bits_per_character_by_hand():
    nats = -math.fsum(by_hand(reader(), "abca")[0])
    assert reader().bits_per_character("abca") == pytest.approx(nats / 4 / math.log(2), rel=1e-5)
    with pytest.raises(DataError, match="bits_per_character needs a text of at least one character"):
        reader().bits_per_character("")


def test_a_sample_goes_on_after_its_prime():
    model = reader()
    for prime in ("", "a", "abc"):
        text = model.sample(prime, length=6, top_k=1)
        written = prime
        for _ in range(6):
            double = reader().model.double()
            (state, memory), scores = double.begin(torch.zeros(1, 0)), None
            for token in [2, *("abcde".index(character) + 4 for character in written)]:
                logits, state, _ = double.step(torch.tensor([[token]]), state, memory)
                scores = logits[0, 0].detach().numpy().copy()
            scores[[0, 1, 3]] = -np.inf  # never written
            if scores.argmax() == 2:
                break
            written += "abcde"[scores.argmax() - 4]
        assert prime + text == written, prime
    with pytest.raises(DataError, match="prime contains 'q'"):
        model.sample("aqz")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_a_language_model_reads_and_writes_in_half_precision(cell, dtype, autocast):
    """T steps of two products for each of two layers, and the readout: R = 4 T + 1, and logits of the size S wrong by
    u √R S; a log-softmax by twice that, as in the tests of the searches."""
    full, half = (reader(cell) for _ in "ab")
    wide = full.read(TEXTS)
    if not autocast:
        half.model.to(dtype)
    with torch.autocast("cpu", dtype, enabled=autocast):
        narrow = half.read(TEXTS)
        text = half.sample("ab", length=9, seed=0)
        bits = half.bits_per_character("abca")
    assert set(text) <= set("abcde") and math.isfinite(bits)
    largest = 5 * 0.7 * 3 + 0.7 * 3  # five states of at most 1 and a bias, by weights of 0.7 (and three of these)
    near = 2 * U[dtype] * math.sqrt(4 * 5 + 1) * largest
    for one, other in zip(wide, narrow, strict=True):
        assert other.log_probs.dtype == np.float32 and np.allclose(one.log_probs, other.log_probs, atol=near)
        for states in other.states.values():
            assert states.dtype == np.float32 and np.isfinite(states).all()
    assert next(half.model.parameters()).dtype == (torch.float32 if autocast else dtype)


class Says(torch.nn.Module):
    """An answerer of given logits [1, K, N] and weights."""

    def __init__(self, logits, weights, places=None):
        super().__init__()
        self.logits, self.weights, self.places, self.asked = logits, weights, places, []
        self.anchor = torch.nn.Parameter(torch.zeros(1))

    hard_attention = None

    def forward(self, images, questions, mask=None):
        self.asked.append((images, questions.tolist()))
        glimpse = Glimpse(self.weights[..., :0], self.weights, self.places)
        return Answered(self.logits, glimpse)


ANSWERS = ["yes", "no", "two", "red"]


def asked(logits, weights, places=None):
    metadata = {
        "features": {"size": 1, "grid": True, "shape": [1, 2]},
        "vocabulary": ["<pad>", "<start>", "<end>", "<unk>", "is", "it", "red"],
        "answers": ANSWERS,
        "config": {"data": {"max_length": 3}, "transform": {"_target_": "captioning.data.Transform", "size": 8}},
    }
    predictor = AnswerPredictor(Says(logits, weights, places), metadata, encoder_weights=None, path=Path("x"))
    predictor.__dict__["encoder"] = lambda pictures: pictures.float()
    return predictor


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_answers_by_hand(dtype):
    """e^2 : e^0 : e^1 : e^-1 of their sum, in 32 bits whatever the logits' precision."""
    logits = torch.tensor([[[2.0, 0.0, 1.0, -1.0], [0.0, 3.0, 0.0, 0.0]]], dtype=dtype)
    weights = torch.tensor([[[[0.25, 0.75]], [[0.5, 0.5]]]], dtype=dtype)
    predictor = asked(logits, weights, torch.tensor([[[1], [0]]]))
    picture = Image.new("RGB", (20, 10))
    first, second = predictor.answer(picture, ["Is it red?", "is the dog it is it"], top=3)
    total = math.exp(2) + 1 + math.e + math.exp(-1)
    assert first.text == "yes" and list(first.probabilities) == ["yes", "two", "no"]
    assert list(first.probabilities.values()) == pytest.approx([math.exp(2) / total, math.e / total, 1 / total])
    assert second.text == "no" and len(second.probabilities) == 3
    assert second.probabilities["no"] == pytest.approx(math.exp(3) / (3 + math.exp(3)))
    assert first.attention.dtype == np.float32
    assert first.attention.tolist() == [[0.25, 0.75]] and second.attention.tolist() == [[0.5, 0.5]]
    assert first.places.tolist() == [1] and second.places.tolist() == [0]
    assert first.box == (0, 0, 20, 10) and first.unknown == [] and second.unknown == ["the", "dog"]
    # The second question is cut to three words; both end in <end>.
    assert predictor.answerer.asked[0][1] == [[[4, 5, 6, 2], [4, 3, 3, 2]]]
    (alone,) = predictor.answer(np.zeros((10, 20, 3), np.uint8), "it", top=9)
    assert len(alone.probabilities) == 4 and predictor.answerer.asked[1][1] == [[[5, 2]]]
    predictor.answer(picture, ["it", "is it red"])
    assert predictor.answerer.asked[2][1] == [[[5, 2, 0, 0], [4, 5, 6, 2]]]  # padded to the longest
    (best,) = predictor.answer(picture, "it", top=1)
    assert list(best.probabilities) == ["yes"]
    with pytest.raises(ConfigError, match="top must be at least 1"):
        predictor.answer(picture, "it", top=0)
    assert not predictor.answerer.training and predictor.hard_attention is None
    without = asked(logits, weights[..., :0]).answer(picture, "it")
    assert without[0].attention is None and without[0].places is None


def test_an_answerers_encoder_does_not_train(monkeypatch):
    predictor = asked(torch.zeros(1, 1, 4), torch.zeros(1, 1, 1, 2))
    del predictor.__dict__["encoder"]
    monkeypatch.setattr("captioning.inference.vqa.rebuild_encoder", lambda *arguments: torch.nn.Dropout(0.5))
    assert not predictor.encoder.training


def test_the_likeliest_answers_of_a_batch_by_question():
    logits = torch.tensor([[[0.0, 1.0, 0.0, 0.0], [9.0, 0.0, 0.0, 0.0]], [[0.0, 0.0, 0.0, 2.0], [0.0, 5.0, 6.0, 0.0]]])
    model, empty = Says(logits, torch.zeros(2, 2, 1, 0)), torch.zeros(2, 2, 1)
    batch = SimpleNamespace(
        images=empty, questions=torch.zeros(2, 2, 1), mask=None, question_ids=torch.tensor([[7, -1], [0, 3]])
    )
    assert write_answers(model, batch, Answers(ANSWERS)) == {7: "no", 0: "red", 3: "two"}


def test_a_cell_of_its_own_state_runs_under_autocast():
    """A GRU's state of zeros is float32 there, and its gates are not."""
    cell = GRU(3, 0, state_size=4)
    state = cell.zero_state(2, like=torch.zeros(1))
    with torch.autocast("cpu", torch.bfloat16):
        projected = cell.project(torch.randn(2, 1, 3))
        once = cell.step(projected, projected[..., :0], state)
        again = cell.step(projected, projected[..., :0], once)
    exact = cell.step(cell.project(torch.zeros(2, 1, 3)), projected[..., :0].float(), state)
    assert once.hidden.shape == again.hidden.shape == exact.hidden.shape and again.hidden.isfinite().all()
