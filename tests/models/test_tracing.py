"""Compare recorded states and gates with the decoder's own and with the equations; check that heat maps show them."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from toys import CELLS, END, RECURRENCES, START

from captioning.analysis import batches, read_captions, tabulate
from captioning.analysis.word_properties import in_prepositional_phrase, is_plural, properties
from captioning.data import Record, Vocabulary
from captioning.decoding import greedy_search
from captioning.errors import DataError
from captioning.features import Source
from captioning.models import trace
from captioning.models.tracing import watched
from captioning.visualise.cells import states_figure

WORDS = "a red dog runs on the green grass"


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def by_the_equations(kind, cell, x, state):
    """Compute {name: [H]} of every layer by a separate NumPy loop over the parameters."""
    h, c = (part[:, 0, 0].detach().numpy() for part in state)
    told = []
    for layer in range(len(h)):
        w, b = (
            [getattr(cell.rnn, f"{what}_{side}_l{layer}").detach().numpy() for side in ("ih", "hh")]
            for what in ("weight", "bias")
        )
        a, r = w[0] @ x + b[0], w[1] @ h[layer] + b[1]
        if kind == "rnn":
            seen = {"hidden": np.tanh(a + r)}
        elif kind == "gru":
            (ar, az, an), (rr, rz, rn) = np.split(a, 3), np.split(r, 3)
            seen = {"reset": sigmoid(ar + rr), "update": sigmoid(az + rz)}
            seen["candidate"] = np.tanh(an + seen["reset"] * rn)
            seen["hidden"] = (1 - seen["update"]) * seen["candidate"] + seen["update"] * h[layer]
        else:
            i, f, g, o = np.split(a + r, 4)
            seen = {"input": sigmoid(i), "forget": sigmoid(f), "candidate": np.tanh(g), "output": sigmoid(o)}
            seen["cell"] = seen["forget"] * c[layer] + seen["input"] * seen["candidate"]
            seen["hidden"] = seen["output"] * np.tanh(seen["cell"])
        told.append(seen)
        x = seen["hidden"]
    return told


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", CELLS)
def test_gates_equal_the_equations(kind, layers):
    cell = CELLS[kind](4, 0, state_size=5, layers=layers).double()
    for parameter in cell.parameters():
        torch.nn.init.normal_(parameter)
    state = cell.zero_state(1, like=torch.zeros(1, dtype=torch.float64))
    state = type(state)(*(torch.randn_like(part) for part in state))
    inputs = torch.randn(3, 1, 1, 4, dtype=torch.float64)  # [T, B, K, I]: as tokens, their numbers

    def step(token, state):
        x = inputs[token.flatten()].view(1, 1, 4)
        return SimpleNamespace(state=cell.step(cell.project(x), x[..., :0], state))

    seen = trace(step, state, torch.arange(3).view(1, 1, 3), model=cell)
    for t in range(3):
        for layer, expected in enumerate(by_the_equations(kind, cell, inputs[t, 0, 0].numpy(), state)):
            suffix = f" {layer + 1}" if layers > 1 else ""
            for name, values in expected.items():
                np.testing.assert_allclose(seen[name + suffix][0, 0, t], values, atol=1e-12)
        assert len(seen) == layers * len(expected)
        state = step(torch.tensor([t]), state).state


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("recurrence", RECURRENCES)
@pytest.mark.parametrize("kind", CELLS)
def test_a_trace_equals_the_decoders_own_states(toy, toy_tokens, kind, recurrence, layers):
    """For every recurrence and layer, bit for bit; the gates of a layer must lead to its states."""
    model = toy(cell=kind, recurrence=recurrence, layers=layers)
    state, memory = model.begin(torch.randn(3, 4, 6, dtype=torch.float64))
    first, step = state, partial(model.step, memory=memory)
    seen = trace(step, state, toy_tokens[..., :-1], model=model)
    count, state = len(state.hidden), state.repeat(3)
    assert count == layers + (recurrence == "up_down")
    for t in range(toy_tokens.shape[-1] - 1):
        with torch.no_grad():
            state = step(toy_tokens[..., t], state).state
        for layer in range(count):
            suffix = f" {layer + 1}" if count > 1 else ""
            assert torch.equal(seen[f"hidden{suffix}"][:, :, t], state.hidden[layer])
            if kind == "lstm":
                assert torch.equal(seen[f"cell{suffix}"][:, :, t], state.cell[layer])
    for layer in range(count):
        part = {name: seen[name + (f" {layer + 1}" if count > 1 else "")] for name in ("hidden", *CELLS[kind].gates)}
        before = torch.cat((first.hidden[layer].expand(3, 3, -1)[:, :, None], part["hidden"][:, :, :-1]), 2)
        if kind == "gru":
            made = (1 - part["update"]) * part["candidate"] + part["update"] * before
            torch.testing.assert_close(part["hidden"], made)
        if kind == "lstm":
            memory_ = seen["cell" + (f" {layer + 1}" if count > 1 else "")]
            before = torch.cat((first.cell[layer].expand(3, 3, -1)[:, :, None], memory_[:, :, :-1]), 2)
            torch.testing.assert_close(memory_, part["forget"] * before + part["input"] * part["candidate"])
            torch.testing.assert_close(part["hidden"], part["output"] * memory_.tanh())


def test_nothing_is_left_behind(toy):
    model = toy()
    with pytest.raises(ZeroDivisionError), watched(model):
        raise ZeroDivisionError
    assert not any(module._forward_hooks for module in model.modules())


# A captioner with words, without a checkpoint ------------------------------------------------------------------------


@pytest.fixture
def predictor(toy):
    """Build a predictor that "encodes" images as four locations of numbers that depend on their first pixel."""

    def encode(pictures):
        levels = torch.tensor([float(np.asarray(picture)[0, 0, 0]) for picture in pictures], dtype=torch.float64)
        return torch.sin(levels[:, None, None] * torch.arange(1, 25, dtype=torch.float64).view(4, 6) / 40)

    vocabulary = Vocabulary(WORDS.split())
    torch.manual_seed(23)  # chosen, like the spread, so that the images' captions have 4, 7 and 7 words
    captioner = toy(vocabulary_size=len(vocabulary))
    for parameter in captioner.parameters():
        torch.nn.init.normal_(parameter, std=0.8)
    return SimpleNamespace(
        captioner=captioner, vocabulary=vocabulary, encode=encode, device=torch.device("cpu"), max_length=20
    )


@pytest.fixture
def pictures(tmp_path):
    paths = [tmp_path / f"{level}.png" for level in (10, 90, 200)]
    for path in paths:
        Image.new("RGB", (8, 8), (int(path.stem),) * 3).save(path)
    return paths


def own_states(predictor, path, *, length):
    """Return the words of greedy search and the states [1 + T, H] that the search itself had after each."""
    model, vocabulary = predictor.captioner, predictor.vocabulary
    state, memory = model.begin(predictor.encode([Image.open(path)]))
    seen = []

    def step(token, state):
        made = model.step(token, state, memory)
        seen.append((made.state.hidden[0, 0, 0].detach().numpy(), made.state.cell[0, 0, 0].detach().numpy()))
        return made

    special = (vocabulary.pad, vocabulary.start, vocabulary.unknown)
    ids = {"batch": 1, "start": START, "end": END, "forbidden": special}
    with torch.no_grad():
        found = greedy_search(step, state, max_length=length, **ids)[0][0]
    words = vocabulary.decode(found.tokens)
    hidden, cell = (np.stack(parts)[: len(words) + 1] for parts in zip(*seen, strict=True))
    return words, hidden, cell


def test_a_heat_map_shows_the_decoders_own_states(predictor, pictures):
    readings = read_captions(predictor, pictures, max_length=7)
    lengths = set()
    for path, reading in zip(pictures, readings, strict=True):
        words, hidden, cell = own_states(predictor, path, length=7)
        assert reading.words == ["<start>", *words]
        lengths.add(len(words))
        # At 7 words the search stops before it reads the last.
        np.testing.assert_allclose(reading.states["hidden"][: len(hidden)], hidden, atol=1e-12)
        figure = states_figure(reading.words, reading.states, units=[4, 0, 6])
        shown = {axes.get_title(): axes.images[0].get_array() for axes in figure.axes if axes.get_title()}
        assert len(shown) == 6
        np.testing.assert_allclose(shown["hidden"][:, : len(hidden)], hidden[:, [4, 0, 6]].T, atol=1e-12)
        np.testing.assert_allclose(shown["cell"][:, : len(cell)], cell[:, [4, 0, 6]].T, atol=1e-12)
        np.testing.assert_array_equal(shown["forget gate"], reading.states["forget"][:, [4, 0, 6]].T)
        labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
        assert labels == reading.words
    assert lengths == {4, 7}  # so that one of them was padded


def test_given_captions_are_read_as_they_are(predictor, pictures):
    texts = ["A red dog.", "a dog runs on the green grass", "Zebra"]
    together = read_captions(predictor, pictures, texts)
    assert [reading.words[1:] for reading in together] == [["a", "red", "dog"], texts[1].split(), ["<unk>"]]
    assert together[0].labels["color word"].tolist() == [0, 0, 1, 0]
    for path, text, reading in zip(pictures, texts, together, strict=True):
        (alone,) = read_captions(predictor, [path], [text])
        for name, values in alone.states.items():
            assert values.shape == (len(alone.words), 7)
            np.testing.assert_allclose(values, reading.states[name], atol=1e-12)


def test_a_table_has_every_word_once_with_the_state_after_it(predictor, pictures):
    texts = [("a dog runs", "the red dog runs on grass", "!"), ("green grass",), ("a red dog",)]
    records = [Record(10 + n, path, "val", text) for n, (path, text) in enumerate(zip(pictures, texts, strict=True))]
    source = Source(lambda record: predictor.encode([Image.open(record.path)])[0], torch.nn.Identity(), records, [], 0)
    predictor.captioner.float()
    table = tabulate(predictor, batches(predictor, source, batch_size=2))
    assert len(table.words) == 14 == len(table.sequences) == len(table.groups)
    assert table.groups.tolist() == [10] * 9 + [11] * 2 + [12] * 3
    captions = {n: [w for w, s in zip(table.words, table.sequences, strict=True) if s == n] for n in range(4)}
    assert sorted(map(" ".join, captions.values())) == sorted(
        ["a dog runs", "the red dog runs on grass", "green grass", "a red dog"]
    )
    for number, words in captions.items():
        rows = table.sequences == number
        path = pictures[table.groups[rows][0] - 10]
        (reading,) = read_captions(
            SimpleNamespace(**{**vars(predictor), "encode": lambda p: predictor.encode(p).float()}),
            [path],
            [" ".join(words)],
        )
        for name, values in table.states.items():
            np.testing.assert_allclose(values[rows], reading.states[name][1:], atol=1e-5)
        for name, values in properties(words).items():
            assert table.labels[name][rows].tolist() == values
    with pytest.raises(DataError, match="no captions"):
        tabulate(predictor, [])


# Labels --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "marked",
    [
        # words inside a prepositional phrase in capitals
        "a red circle ABOVE A BLUE STAR and a white heart",
        "a man IN A RED SHIRT standing NEXT TO A TABLE",
        "two dogs run THROUGH THE TALL GRASS while a boy watches",
        "a cat sits ON TOP OF A CAR IN THE STREET",
        "a picture OF A BLUE STAR ON A PLAIN BACKGROUND",
        "there is a big disc TO THE LEFT OF A SMALL SQUARE",
        "people try to eat FROM A PLATE",
        "a building WITH A RAILING is tall",
        "a dog WITH A BALL is running",
        "",
    ],
)
def test_prepositional_phrases(marked):
    words = marked.split()
    found = in_prepositional_phrase([word.lower() for word in words])
    assert found == [float(word.isupper()) for word in words]


def test_plurals_and_counts():
    text = "dogs glass is runs children this grass shirts tennis bus across its"
    assert [word for word in text.split() if is_plural(word)] == ["dogs", "children", "shirts"]
    told = properties(["two", "red", "dogs"])
    assert told["position"] == [1, 2, 3] and told["words left"] == [2, 1, 0]
    assert told["color word"] == [0, 1, 0] and told["color word next"] == [1, 0, 0]
    assert {len(values) for values in properties([]).values()} == {0}
