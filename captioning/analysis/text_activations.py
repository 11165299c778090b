"""Record the states of a language model over files, with labels of each character beside them."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from captioning.analysis.activations import ActivationTable
from captioning.analysis.python_labels import source_labels
from captioning.data import Text, read_texts
from captioning.errors import DataError, must_be
from captioning.inference import LanguageModel

TextLabel = Callable[[str], Mapping[str, np.ndarray]]  # a file's text -> {label: a number a character}


def held_out(model: LanguageModel, split: str = "test") -> list[Text]:
    """The files of a split as the model's training dealt them: it learnt from none of "test", and was chosen by none.

    Where they are the standard library's, another version of Python has others.

    Raises:
        DataError: the model was exported, which leaves out where its files lay.
    """
    reader = model.metadata["config"]["data"].get("reader")
    if reader is None:
        raise DataError("an exported model does not tell the files that it learnt from: give the run's own checkpoint")
    return read_texts(**{name: value for name, value in reader.items() if name != "_target_"})[split]


def tabulate_texts(
    model: LanguageModel,
    texts: Sequence[Text],
    *,
    most: int = 3000,
    window: int = 100,
    label: TextLabel = source_labels,
) -> ActivationTable:
    """States after each character and its labels: `activations.Table`, one sequence per window and one group per file.

    Args:
        texts: files that the model was not trained on. Each is read from its beginning.
        most: characters of a file that are read; its labels are those of the whole file.
        window: characters of a sequence. What is left of a file after its last whole window is left out.

    Raises:
        DataError: no text is as long as a window, or the model reads words.
    """
    must_be("window", window, least=1)
    if model.unit != "characters":
        raise DataError(f"labels are of characters, and this model reads {model.unit}")
    kept = [text for text in texts if min(len(text.text), most) >= window]
    if not kept:
        raise DataError(f"none of {len(texts)} texts has a window of {window} characters (of the first {most})")
    lengths = [min(len(text.text), most) // window * window for text in kept]
    readings = model.read([text.text[:length] for text, length in zip(kept, lengths, strict=True)])
    labels = [label(text.text) for text in kept]
    counts = np.array(lengths)
    return ActivationTable(
        {name: np.concatenate([reading.states[name] for reading in readings]) for name in readings[0].states},
        {
            name: np.concatenate([each[name][:length] for each, length in zip(labels, lengths, strict=True)])
            for name in labels[0]
        },
        np.repeat(np.arange(counts.sum() // window), window),
        np.repeat(np.arange(len(kept)), counts),
        [character for reading in readings for character in reading.tokens],
    )
