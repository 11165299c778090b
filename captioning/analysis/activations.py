"""Record the states and gates of a captioner word by word, for single captions or for a data set."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from captioning.analysis.word_properties import properties
from captioning.data import CaptionBatch, CaptionDataset, collate, encode_captions, open_picture, tokenize_captions
from captioning.errors import DataError
from captioning.features import Source
from captioning.inference import Predictor, generate, get_search, with_generator
from captioning.models import CaptionModel, RecurrentState, trace

Label = Callable[[Sequence[str]], Mapping[str, Sequence[float]]]  # words of a caption -> {property: a value per word}


class Reading(NamedTuple):
    """The states and gates of a model while it read one caption.

    Attributes:
        words: T words, the first of them <start>.
        states: {name: [T, H]}, after each word.
        labels: {property: [T]}, the properties of each word; 0 for <start>.
    """

    words: list[str]
    states: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]


class ActivationTable(NamedTuple):
    """The states of a model for N words of many captions, one row per word, without <start> and <end>.

    Attributes:
        states: {name: [N, H]}, after each word.
        labels: {property: [N]}, the properties of each word.
        sequences: [N], the caption that each word belongs to.
        groups: [N], the image (or file) that each word belongs to.
        words: the N words.
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
    """Record states and gates while the captioner reads one caption per image.

    Args:
        predictor: the captioner.
        images: paths of images, which form one batch.
        captions: one text per image; None: the captioner's own captions, decoded by `method` with `arguments` as in
            `Predictor.caption`.
        method: the decoding method.
        label: the function that computes the properties of a caption's words.
        **arguments: keyword arguments of the method.
    """
    vocabulary = predictor.vocabulary
    with torch.no_grad():
        inputs = cast(Tensor, predictor.encode([open_picture(image) for image in images]))
    if captions is None:
        search = with_generator(get_search(method, **arguments))
        with torch.inference_mode():
            found = generate(
                predictor.captioner, inputs, search=search, vocabulary=vocabulary, max_length=predictor.max_length
            )
        texts = [vocabulary.decode(best[0].tokens) for best in found]
    else:
        texts = [vocabulary.tokenizer(caption) for caption in captions]
    lines = [vocabulary.encode(words) for words in texts]
    tokens = torch.full((len(lines), 1, max(map(len, lines))), vocabulary.pad)
    for row, line in zip(tokens, lines, strict=True):
        row[0, : len(line)] = torch.tensor(line)
    batch = CaptionBatch(torch.arange(len(lines)), inputs, None, tokens.to(predictor.device))
    seen, readings = _states(predictor.captioner, batch), []
    for row, line in enumerate(lines):
        words = [vocabulary.words[index] for index in line[:-1]]  # no state follows <end>
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
    """Encode all images of a source once, with their captions as ids of the captioner's vocabulary.

    Args:
        predictor: the captioner.
        source: from `captioning.features`, for the predictor's encoder and transform; with corner crops, from
            `captioning.evaluation.sources_of`.
        batch_size: images per batch.
        captions_per_image: as for `CaptionDataset`.
        max_length: as for `encode_captions`.
    """
    words = tokenize_captions(source.records, predictor.vocabulary.tokenizer)
    data = CaptionDataset(
        source.records,
        encode_captions(words, predictor.vocabulary, max_length=max_length),
        source=source.read,
        captions_per_image=captions_per_image,
    )
    encoded, encoder = [], source.encoder.to(predictor.device).eval()
    for at in range(0, len(data), batch_size):
        batch = collate([data[index, 0] for index in range(at, min(at + batch_size, len(data)))])
        batch = CaptionBatch._make(part if part is None else part.to(predictor.device) for part in batch)
        with torch.no_grad():
            encoded.append(batch._replace(images=encoder(batch.images).float()))
    return encoded


def tabulate(
    predictor: Predictor,
    batches: Iterable[CaptionBatch],
    *,
    label: Label = properties,
) -> ActivationTable:
    """Record the states after every word of all captions, with the words' properties.

    Args:
        predictor: the captioner.
        batches: encoded images with captions; see `batches`.
        label: the function that computes the properties of a caption's words.

    Raises:
        DataError: there are no captions.
    """
    states: dict[str, list[np.ndarray]] = {}
    labels: dict[str, list[np.ndarray]] = {}
    sequences: list[int] = []
    groups: list[int] = []
    words: list[str] = []
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
                for name, numbers in label(caption).items():
                    labels.setdefault(name, []).append(np.asarray(numbers, dtype=np.float64))
                sequences += [number] * len(caption)
                groups += [image_id] * len(caption)
                words += caption
                number += 1
    if not words:
        raise DataError("'batches' has no captions with words. Give records with captions")
    all_states, all_labels = (
        {name: np.concatenate(parts) for name, parts in table.items()} for table in (states, labels)
    )
    return ActivationTable(all_states, all_labels, np.array(sequences), np.array(groups), words)


def _states(captioner: CaptionModel, batch: CaptionBatch) -> dict[str, np.ndarray]:
    """Return {name: [B, K, T, H]}, the states and gates after each token except the last column."""
    with torch.no_grad():
        state, memory = captioner.begin(batch.images, batch.mask)
    step = partial(captioner.step, memory=memory)
    seen = trace(step, cast(RecurrentState, state), batch.tokens[..., :-1], model=captioner)
    return {name: values.cpu().numpy() for name, values in seen.items()}
