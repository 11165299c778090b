"""Compute a teacher's soft targets for the training captions, write them to a file, and read them for a student."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from captioning.data import CaptionDataset, ImageSampler, Record, Vocabulary, collate
from captioning.errors import CheckpointError
from captioning.features import Source
from captioning.inference.predictor import Predictor
from captioning.io import write_whole
from captioning.objectives import Teacher, number_captions

_PARTS = ("keys", "starts", "ids", "probs", "vocabulary")


@torch.inference_mode()
def soft_targets_of(
    predictor: Predictor,
    sources: Sequence[Source],
    records: Sequence[Record],
    tokens: Sequence[Sequence[Sequence[str]]],
    *,
    max_length: int,
    words: int,
    batch_size: int,
) -> dict[str, np.ndarray]:
    """What the predictor, or the mean of an ensemble, thinks of every word of the records' captions.

    Args:
        sources: of each member's features.
        tokens: each record's captions.
        max_length: words that captions are cut to, as in training.
        words: the likeliest that are kept of each distribution, scaled to sum to one.
    """
    loaders = [
        DataLoader(
            CaptionDataset(records, tokens, vocabulary=predictor.vocabulary, source=source.read, max_length=max_length),
            batch_size=batch_size,
            sampler=ImageSampler(len(records), shuffle=False),
            collate_fn=collate,
        )
        for source in sources
    ]
    device, found = predictor.device, {"keys": [], "lengths": [], "ids": [], "probs": []}
    for batches in tqdm(
        zip(*loaders, strict=True), total=len(loaders[0]), desc="soft targets", unit="batch", disable=None
    ):
        mean = 0.0
        for member, source, batch in zip(predictor.members, sources, batches, strict=True):
            features = source.encoder.to(device)(batch.images.to(device))
            mask = None if batch.mask is None else batch.mask.to(device)
            decoded = member.captioner(features, batch.tokens.to(device), mask)
            probs = decoded.logits.float().softmax(-1)[decoded.index.argsort()]  # by image, caption and word
            mean = mean + probs / len(sources)
        likeliest = mean.topk(min(words, mean.shape[-1]))
        real = batch.tokens[..., 1:] != predictor.vocabulary.pad
        captions = real.any(-1)
        found["keys"].append(number_captions(batch.image_ids, batch.tokens)[captions].numpy())
        found["lengths"].append(real.sum(-1)[captions].numpy())
        found["ids"].append(likeliest.indices.to(torch.int32).cpu().numpy())
        scaled = likeliest.values / likeliest.values.sum(-1, keepdim=True)
        found["probs"].append(scaled.half().cpu().numpy())
    return _sorted({name: np.concatenate(parts) for name, parts in found.items()})


def _sorted(found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """By their keys; a caption that an image has twice is kept once."""
    begins = np.concatenate(([0], found["lengths"].cumsum()))
    keys, first = np.unique(found["keys"], return_index=True)
    rows = np.concatenate([np.arange(begins[place], begins[place + 1]) for place in first])
    starts = np.concatenate(([0], found["lengths"][first].cumsum()))
    return {"keys": keys, "starts": starts, "ids": found["ids"][rows], "probs": found["probs"][rows]}


def write_soft_targets(path: Path, soft_targets: Mapping[str, np.ndarray], vocabulary: Vocabulary) -> int:
    """As a file of NumPy arrays; its size in bytes."""
    return write_whole(path, lambda file: np.savez_compressed(file, vocabulary=_digest(vocabulary), **soft_targets))


def read_teacher(file: str | Path, *, vocabulary: Vocabulary) -> Teacher:
    """The teacher of a file that `captioning-distill` wrote.

    Raises:
        CheckpointError: there is no such file, it is no such file, or its words are others than the run's.
    """
    if not Path(file).is_file():
        raise CheckpointError(
            f"teacher.file: {file} is not there: captioning-distill checkpoint=… output={file} makes it"
        )
    try:
        with np.load(file, allow_pickle=False) as parts:
            soft_targets = {name: parts[name] for name in _PARTS}
        same = str(soft_targets.pop("vocabulary")) == str(_digest(vocabulary))
        _check(soft_targets, words=len(vocabulary) if same else None)
    except Exception as error:  # whatever the bytes lead NumPy to
        raise CheckpointError(f"teacher.file: {file} is no file that captioning-distill wrote") from error
    if not same:
        raise CheckpointError(
            f"teacher.file: {file} is of a teacher with another vocabulary: train both on the same captions with the "
            "same data.min_count"
        )
    return Teacher(**{name: torch.from_numpy(values) for name, values in soft_targets.items()})


def _check(soft_targets: Mapping[str, np.ndarray], *, words: int | None) -> None:
    """A ValueError where a lookup would go astray."""
    keys, starts, ids, probs = (soft_targets[name] for name in _PARTS[:4])
    sizes = starts.shape == (len(keys) + 1,) and ids.ndim == 2 and ids.shape == probs.shape
    if not (
        sizes and len(keys) and (keys[1:] > keys[:-1]).all() and (starts[1:] > starts[:-1]).all() and starts[0] == 0
    ):
        raise ValueError("captions in no order")
    if starts[-1] > len(ids) or ids.min() < 0 or (words and ids.max() >= words) or not np.isfinite(probs).all():
        raise ValueError("words that are none")


def _digest(vocabulary: Vocabulary) -> np.ndarray:
    return np.array(hashlib.blake2b("\n".join(vocabulary.words).encode(), digest_size=16).hexdigest())
