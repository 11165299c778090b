"""Record the states and gates of a captioner word by word, for single captions or over a data set."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from captioning.analysis.word_properties import properties
from captioning.data import CaptionBatch, CaptionDataset, collate, open_picture, tokenize_captions
from captioning.errors import DataError
from captioning.features import Source
from captioning.inference import Predictor, generate, get_search, with_generator
from captioning.models import Captioner, trace
from captioning.text import tokenize

Label = Callable[[Sequence[str]], Mapping[str, Sequence[float]]]  # words of a caption -> {property: a number a word}


class Reading(NamedTuple):
    """One caption as it was read.

    words: [T], the first of them <start>. states: {name: [T, H]}, after each of them. labels: {property: [T]}, of each;
    0 of <start>.
    """

    words: list[str]
    states: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]


class ActivationTable(NamedTuple):
    """Every word of many captions, a row each, <start> and <end> left out.

    states: {name: [N, H]}, after the word. labels: {property: [N]}, of the word. sequences, groups: [N], the caption
    and the picture of each row. words: [N].
    """

    states: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    sequences: np.ndarray
    groups: np.ndarray
    words: list[str]


def read_captions(
    predictor: Predictor,
    images: Sequence[Any],
    captions: Sequence[str] | None = None,
    *,
    method: str | Callable = "greedy",
    label: Label = properties,
    **arguments: Any,
) -> list[Reading]:
    """States and gates over a caption of each picture: a given one, or the best that the captioner writes.

    Args:
        images: paths of pictures; together they are one batch.
        label: what gives the properties of the words.
        captions: texts, one a picture; None: decoded by `method` with `arguments`, as in `Predictor.caption`.
    """
    vocabulary = predictor.vocabulary
    with torch.no_grad():
        inputs = predictor.encode([open_picture(image) for image in images])
    if captions is None:
        search = with_generator(get_search(method, **arguments))
        with torch.inference_mode():
            found = generate(predictor.captioner, inputs, search=search, vocabulary=vocabulary)
        texts = [vocabulary.decode(best[0].tokens) for best in found]
    else:
        texts = [tokenize(caption) for caption in captions]
    lines = [vocabulary.encode(words, max_length=len(words)) for words in texts]
    tokens = torch.full((len(lines), 1, max(map(len, lines))), vocabulary.pad)
    for row, line in zip(tokens, lines, strict=True):
        row[0, : len(line)] = torch.tensor(line)
    batch = CaptionBatch(torch.arange(len(lines)), inputs, None, tokens.to(predictor.device))
    seen, readings = _states(predictor.captioner, batch), []
    for row, line in enumerate(lines):
        words = [vocabulary.words[index] for index in line[:-1]]  # <end> is not read
        states = {name: values[row, 0, : len(words)] for name, values in seen.items()}
        labels = {name: np.array([0.0, *values]) for name, values in label(words[1:]).items()}
        readings.append(Reading(words, states, labels))
    return readings


def batches(
    predictor: Predictor,
    source: Source,
    *,
    batch_size: int = 32,
    captions_per_image: int | None = None,
    max_length: int = 20,
) -> list[CaptionBatch]:
    """A source's pictures, encoded once, with their captions in the captioner's own words.

    Args:
        source: from `captioning.features`, of the predictor's encoder and transform; with corners, from
            `splits.sources_of`.
        batch_size: pictures a batch.
        captions_per_image, max_length: as of CaptionDataset.
    """
    data = CaptionDataset(
        source.records,
        tokenize_captions(source.records),
        vocabulary=predictor.vocabulary,
        source=source.read,
        max_length=max_length,
        captions_per_image=captions_per_image,
    )
    made, encoder = [], source.encoder.to(predictor.device).eval()
    for at in range(0, len(data), batch_size):
        batch = collate([data[index, 0] for index in range(at, min(at + batch_size, len(data)))])
        batch = CaptionBatch(*(part if part is None else part.to(predictor.device) for part in batch))
        with torch.no_grad():
            made.append(batch._replace(images=encoder(batch.images).float()))
    return made


def tabulate(
    predictor: Predictor,
    batches: Iterable[CaptionBatch],
    *,
    label: Label = properties,
) -> ActivationTable:
    """All words of all captions with the states after them and their properties.

    Raises:
        DataError: there are no captions.
    """
    states, labels, sequences, groups, words = {}, {}, [], [], []
    number = 0
    for batch in batches:
        seen = _states(predictor.captioner, batch)
        for b, image_id in enumerate(batch.image_ids.tolist()):
            for k, line in enumerate(batch.tokens[b].tolist()):
                caption = [predictor.vocabulary.words[index] for index in line if index != predictor.vocabulary.pad]
                caption = caption[1:-1]
                if not caption:
                    continue
                for name, values in seen.items():
                    states.setdefault(name, []).append(values[b, k, 1 : 1 + len(caption)])
                for name, values in label(caption).items():
                    labels.setdefault(name, []).append(np.asarray(values, dtype=np.float64))
                sequences += [number] * len(caption)
                groups += [image_id] * len(caption)
                words += caption
                number += 1
    if not words:
        raise DataError("there are no captions here whose words could be read: give records with captions")
    joined = ({name: np.concatenate(parts) for name, parts in table.items()} for table in (states, labels))
    return ActivationTable(*joined, np.array(sequences), np.array(groups), words)


def _states(captioner: Captioner, batch: CaptionBatch) -> dict[str, np.ndarray]:
    """{name: [B, K, T, H]} after each token but the last column's."""
    with torch.no_grad():
        state, memory = captioner.begin(batch.images, batch.mask)
    seen = trace(partial(captioner.step, memory=memory), state, batch.tokens[..., :-1], model=captioner)
    return {name: values.cpu().numpy() for name, values in seen.items()}
