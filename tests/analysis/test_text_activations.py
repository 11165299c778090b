"""The table that the cell explorer takes of a language model."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from language_models import (
    V,
    make,
    run,
)

from captioning.analysis.probing import correlate_units
from captioning.analysis.text_activations import tabulate_texts
from captioning.data import Text, Vocabulary
from captioning.errors import ConfigError, DataError
from captioning.inference import LanguageModel

LETTERS = "('#\n "
TEXTS = [Text("a", "(' (')\n# '(\n"), Text("short", "# #\n"), Text("b", "(#(\n    )\n"), Text("c", "'#' '('\n")]


@pytest.fixture
def model():
    vocabulary = Vocabulary(list(LETTERS))
    assert len(vocabulary) == V
    data = {"unit": "characters"}
    return LanguageModel(make().float(), {"vocabulary": vocabulary.state_dict(), "config": {"data": data}})


def test_rows_are_the_characters_of_whole_windows(model):
    table = tabulate_texts(model, TEXTS, most=11, window=5)
    assert "".join(table.words) == "(' (')\n# '" + "(#(\n    )\n" + "'#' '"
    assert table.groups.tolist() == [0] * 10 + [1] * 10 + [2] * 5
    assert table.sequences.tolist() == [n // 5 for n in range(25)]
    assert sorted(table.states) == ["cell 1", "cell 2", "hidden 1", "hidden 2"]
    for at, text, length in ((0, TEXTS[0].text, 10), (10, TEXTS[2].text, 10), (20, TEXTS[3].text, 5)):
        (reading,) = model.read([text])
        for name, values in table.states.items():
            np.testing.assert_allclose(values[at : at + length], reading.states[name][:length], atol=1e-6)
    assert table.labels["in a comment"][:12].tolist() == [0] * 7 + [1, 1, 1] + [0, 1]  # of the whole file
    found = correlate_units(table.states, table.labels, sequences=table.sequences, groups=table.groups, permutations=3)
    assert {"inside a string", "line position"} <= {each.label for each in found}


def test_what_cannot_be_tabulated(model):
    with pytest.raises(DataError, match="none of 4 texts is as long as a window of 50 characters"):
        tabulate_texts(model, TEXTS, window=50)
    with pytest.raises(ConfigError, match="window must be at least 1"):
        tabulate_texts(model, TEXTS, window=0)
    model.unit = "words"
    with pytest.raises(DataError, match=r"data\.unit=words: labels are for characters"):
        tabulate_texts(model, TEXTS)


@pytest.mark.slow
def test_the_notebooks_run_on_any_character_model(tmp_path, pytestconfig, capsys):
    pytest.importorskip("IPython", reason="notebooks are shown by Jupyter: pip install jupyter")
    small = ["data.reader.characters=150000", "data.reader.test_share=0.3", "model.width=24", "trainer.max_epochs=1"]
    run("experiment=char_rnn", *small, "model.embedding_size=16", f"run_dir={tmp_path}")

    def shown(name: str) -> dict:
        notebook = json.loads((pytestconfig.rootpath / "notebooks" / name).read_text())
        _, *cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
        names = {"LANGUAGE_MODEL": tmp_path / "checkpoints" / "best.ckpt", "HELLO": tmp_path / "hello"}
        for cell in cells:
            exec(cell, names)
        return names

    found = {follower.label for follower in shown("08_readable_cells.ipynb")["followers"]}
    assert {"inside a string", "inside brackets", "in a comment", "indentation depth", "line position"} <= found
    assert "def read(self, " in capsys.readouterr().out
    shares = shown("07_lecture.ipynb")["panels"]
    vanishes, explodes = (np.nanmedian(shares[f"vanilla, gain {gain}"]["hidden"][:, 30]) for gain in (0.8, 1.6))
    assert vanishes < 1e-2 and explodes > 1


def test_labels_are_those_of_the_whole_file():
    def read(texts):
        return [SimpleNamespace(states={"hidden": np.zeros((len(text), 1))}, tokens=text) for text in texts]

    table = tabulate_texts(
        SimpleNamespace(unit="characters", read=read), [Text("a", "x" * 9), Text("b", "y" * 5)], most=6, window=2,
        label=lambda text: {"left": np.arange(len(text))[::-1]},
    )  # fmt: skip
    assert table.labels["left"].tolist() == [8, 7, 6, 5, 4, 3, 4, 3, 2, 1]
    assert table.groups.tolist() == [0] * 6 + [1] * 4 and table.sequences.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
