"""Record the states of a language model while it reads files, with labels of each character."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from captioning.analysis.activations import ActivationTable
from captioning.analysis.python_labels import source_labels
from captioning.data import Text, read_texts
from captioning.errors import DataError, must_be
from captioning.inference import LanguageModel

TextLabel = Callable[[str], Mapping[str, np.ndarray]]  # a file's text -> {label: one value per character}


def held_out(model: LanguageModel, split: str = "test") -> list[Text]:
    """Read the files of a split as in the model's training.

    The files of "test" were used neither for training nor for choosing the checkpoint. If the model was trained on
    Python's standard library, another version of Python has different files.

    Args:
        model: the language model.
        split: "train", "val" or "test".

    Raises:
        DataError: the model was exported; exported models do not record where their files are.
    """
    reader = model.metadata["config"]["data"].get("reader")
    if reader is None:
        raise DataError("an exported model does not record its files (data.reader). Use the checkpoint of the run")
    return read_texts(**{name: value for name, value in reader.items() if name != "_target_"})[split]


def tabulate_texts(
    model: LanguageModel,
    texts: Sequence[Text],
    *,
    most: int = 3000,
    window: int = 100,
    label: TextLabel = source_labels,
) -> ActivationTable:
    """Record the states after each character of some files, with the characters' labels.

    Args:
        model: a language model of characters.
        texts: files that the model was not trained on. Each is read from its beginning.
        most: the number of characters to read per file. The labels are computed from the complete file.
        window: the number of characters per sequence. The characters after a file's last full window are left out.
        label: the function that labels the characters of a file.

    Returns:
        One row per character, one sequence per window, one group per file.

    Raises:
        ConfigError: `window` is below 1.
        DataError: no text is as long as a window, or the model reads words.
    """
    must_be("window", window, least=1)
    if model.unit != "characters":
        raise DataError(f"data.unit={model.unit}: labels are for characters. Use a model with data.unit=characters")
    kept = [text for text in texts if min(len(text.text), most) >= window]
    if not kept:
        raise DataError(
            f"none of {len(texts)} texts is as long as a window of {window} characters (among its first {most}). Set a "
            "smaller window=…"
        )
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
