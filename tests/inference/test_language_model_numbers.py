"""A language model that is a table: log-probabilities, states, bits and samples by looking them up."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from captioning.errors import ConfigError, DataError
from captioning.inference import LanguageModel, language_model
from captioning.models import CaptionModel, Glimpse, RecurrentState, Step

SPECIALS = ["<pad>", "<start>", "<end>", "<unk>"]
TABLE = np.random.default_rng(0).dirichlet(np.ones(6) / 2, size=(6, 6))  # p(next | token, the one before)
END, UNKNOWN, A, B = 2, 3, 4, 5


class Table(CaptionModel):
    """Next to two tokens their line of TABLE; its state remembers the last two, of each layer in its own way."""

    pad, attends, hard_attention, has_sentinel = 0, False, None, False

    def __init__(self, *, layers=1, cell=0):
        super().__init__()
        self.layers, self.cells = layers, cell
        self.scores = torch.nn.Parameter(torch.tensor(TABLE).log() + 1.5)

    def begin(self, images, mask=None):
        rows = len(images)
        return RecurrentState(torch.zeros(self.layers, rows, 1, 2), torch.zeros(self.layers, rows, 1, self.cells)), None

    def step(self, token, state, memory):
        last = state.hidden[0, ..., 0].long()
        hidden = torch.stack([torch.stack((token, last), -1) * 10**layer for layer in range(self.layers)]).float()
        cell = torch.stack([-hidden[layer, ..., : self.cells] for layer in range(self.layers)])
        return Step(self.scores[token, last], RecurrentState(hidden, cell), Glimpse(None, torch.zeros(*token.shape, 0)))


def model(**options):
    config = {"data": {"unit": "characters"}}
    return LanguageModel(Table(**options).train(), {"vocabulary": [*SPECIALS, "a", "b"], "config": config})


def log_prob(ids) -> list[float]:
    line = [0, END, *ids]
    return [math.log(TABLE[line[t - 1], line[t - 2], line[t]]) for t in range(2, len(line))]


def test_texts_are_read_token_by_token():
    texts, ids = ["ab", "", "bbxa", "a"], [[A, B], [], [B, B, UNKNOWN, A], [A]]
    found = model().read(texts)
    for reading, text, line in zip(found, texts, ids, strict=True):
        assert list(reading.tokens) == list(text)
        assert reading.log_probs == pytest.approx(log_prob(line), rel=1e-12)
        before = [END, *line]
        assert reading.states["hidden"].tolist() == [[token, last] for token, last in zip(line, before, strict=False)]
        assert list(reading.states) == ["hidden"]


def test_states_of_layers_and_cells_have_names():
    (found,) = model(layers=2, cell=1).read(["ab"])
    assert {name: part.tolist() for name, part in found.states.items()} == {
        "hidden 1": [[A, END], [B, A]],
        "hidden 2": [[10 * A, 10 * END], [10 * B, 10 * A]],
        "cell 1": [[-A], [-B]],
        "cell 2": [[-10 * A], [-10 * B]],
    }


def test_bits_per_character():
    expected = -sum(log_prob([A, B, B])) / math.log(2) / 3
    assert model().bits_per_character("abb") == pytest.approx(expected, rel=1e-12)
    words = model()
    words.unit = "words"
    words.vocabulary = type(words.vocabulary)(["abb", " "])
    assert words.bits_per_character("abb abb") == pytest.approx(-sum(log_prob([A, B, A])) / math.log(2) / 7, rel=1e-12)
    with pytest.raises(DataError, match="bits_per_character needs a text of at least one character"):
        model().bits_per_character("")


def test_writing_goes_on_after_the_prime():
    """The likeliest token each time (top_k 1), among those that may be written."""
    for prime, ids in (("", []), ("a", [A]), ("abb", [A, B, B])):
        line, written = [0, END, *ids], []
        while len(written) < 12:
            scores = TABLE[line[-1], line[-2]].copy()
            scores[[0, 1, UNKNOWN]] = 0
            line.append(int(scores.argmax()))
            if line[-1] == END:
                break
            written.append("ab"[line[-1] - A])
        assert model().sample(prime, length=12, top_k=1, seed=1) == "".join(written)
    assert len(model().sample("a", length=1, top_k=1, seed=0)) <= 1
    with pytest.raises(ConfigError, match="length must be at least 1, not 0"):
        model().sample(length=0)
    with pytest.raises(DataError, match="prime contains 'x', which is not in the model's vocabulary"):
        model().sample("axa")


def test_a_single_token_has_a_state():
    (found,) = model().read(["b"])
    assert found.states["hidden"].tolist() == [[B, END]] and found.log_probs == pytest.approx(log_prob([B]))


def test_settings_reach_the_search(monkeypatch):
    asked = []

    def search(step, state, **options):
        asked.append(options)
        return [[SimpleNamespace(tokens=[A, B, END])]]

    monkeypatch.setattr(language_model, "sample", search)
    assert model().sample("b", length=7, temperature=0.5, top_k=3, top_p=0.9, seed=11) == "ab"
    common = {"batch": 1, "end": END, "forbidden": (0, 1, UNKNOWN)}
    given = {"max_length": 7, "temperature": 0.5, "top_k": 3, "top_p": 0.9, "seed": 11}
    assert asked.pop() == {"start": B, **common, **given}
    model().sample()
    default = {"max_length": 500, "temperature": 1.0, "top_k": None, "top_p": None, "seed": None}
    assert asked.pop() == {"start": END, **common, **default}


def test_a_language_model_sees_no_image():
    built = language_model.build_model("node", model().vocabulary, make=lambda node, **options: (node, options))
    assert built == ("node", {"feature_size": 0, "grid": False, "vocabulary_size": 6, "pad": 0})


def test_a_model_reads_in_eval_mode():
    assert not model().model.training
