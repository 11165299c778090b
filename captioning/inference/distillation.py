"""Compute a teacher's soft targets for the training captions, write them to a file, and read them for a student."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from captioning.data import CaptionDataset, ImageSampler, Record, Vocabulary, collate, encode_captions
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
    """Compute the soft targets of the records' captions: the teacher's distribution at every word.

    The teacher is the predictor, or the mean of an ensemble's probabilities.

    Args:
        predictor: the teacher.
        sources: one source of features per member of the predictor.
        records: the images.
        tokens: the captions of each record, as words.
        max_length: the number of words that captions are cut to, as in training.
        words: how many of the likeliest words to keep per distribution; their probabilities are scaled to sum to 1.
        batch_size: images per batch.

    Returns:
        Arrays for C distinct captions with N words in all: `keys` [C] identify the captions, in ascending order;
        `starts` [C + 1] are the positions of each caption's first word; `ids` [N, words] and `probs` [N, words] are the
        kept words and their probabilities (float16).
    """
    captions = encode_captions(tokens, predictor.vocabulary, max_length=max_length)
    loaders = [
        DataLoader(
            CaptionDataset(records, captions, source=source.read),
            batch_size=batch_size,
            sampler=ImageSampler(len(records), shuffle=False),
            collate_fn=collate,
        )
        for source in sources
    ]
    device = predictor.device
    found: dict[str, list[np.ndarray]] = {"keys": [], "lengths": [], "ids": [], "probs": []}
    for batches in tqdm(
        zip(*loaders, strict=True), total=len(loaders[0]), desc="soft targets", unit="batch", disable=None
    ):
        mean = torch.zeros((), device=device)
        for member, source, batch in zip(predictor.members, sources, batches, strict=True):
            features = source.encoder.to(device)(batch.images.to(device))
            mask = None if batch.mask is None else batch.mask.to(device)
            decoded = member.captioner(features, batch.tokens.to(device), mask)
            # [N, V], ordered by image, caption and word
            probs = decoded.logits.float().softmax(-1)[decoded.index.argsort()]
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
    """Sort captions by key, and drop repeats of a caption for the same image."""
    begins = np.concatenate(([0], found["lengths"].cumsum()))
    keys, first = np.unique(found["keys"], return_index=True)
    rows = np.concatenate([np.arange(begins[caption], begins[caption + 1]) for caption in first])
    starts = np.concatenate(([0], found["lengths"][first].cumsum()))
    return {"keys": keys, "starts": starts, "ids": found["ids"][rows], "probs": found["probs"][rows]}


def write_soft_targets(path: Path, soft_targets: Mapping[str, np.ndarray], vocabulary: Vocabulary) -> int:
    """Write soft targets to a compressed NumPy file (.npz), atomically, and return its size in bytes."""
    arrays: dict[str, Any] = {"vocabulary": _digest(vocabulary), **soft_targets}
    return write_whole(path, lambda file: np.savez_compressed(file, **arrays))


def read_teacher(file: str | Path, *, vocabulary: Vocabulary) -> Teacher:
    """Read the soft targets that `captioning-distill` wrote to a file.

    Args:
        file: the .npz file.
        vocabulary: the student's; the teacher's must have the same words.

    Raises:
        CheckpointError: the file is missing or was not written by `captioning-distill`, or the teacher's vocabulary
            differs from the student's.
    """
    if not Path(file).is_file():
        raise CheckpointError(
            f"teacher.file={file} does not exist. Run: captioning-distill checkpoint=TEACHER.ckpt output={file}"
        )
    try:
        with np.load(file, allow_pickle=False) as parts:
            soft_targets = {name: parts[name] for name in _PARTS}
        same = str(soft_targets.pop("vocabulary")) == str(_digest(vocabulary))
        _check(soft_targets, words=len(vocabulary) if same else None)
    except Exception as error:  # on damaged bytes, NumPy may raise anything
        raise CheckpointError(
            f"teacher.file={file} is not a file of soft targets, or is damaged. Write it again with captioning-distill"
        ) from error
    if not same:
        raise CheckpointError(
            f"teacher.file={file} is from a teacher with another vocabulary. Train teacher and student on the same "
            "captions with the same data.tokenizer and data.min_count"
        )
    return Teacher(**{name: torch.from_numpy(values) for name, values in soft_targets.items()})


def _check(soft_targets: Mapping[str, np.ndarray], *, words: int | None) -> None:
    """Raise a ValueError if a lookup in these soft targets would fail or return wrong words."""
    keys, starts, ids, probs = (soft_targets[name] for name in _PARTS[:4])
    sizes = starts.shape == (len(keys) + 1,) and ids.ndim == 2 and ids.shape == probs.shape
    if not (
        sizes and len(keys) and (keys[1:] > keys[:-1]).all() and (starts[1:] > starts[:-1]).all() and starts[0] == 0
    ):
        raise ValueError("the arrays have wrong shapes, or their captions are not sorted")
    if starts[-1] > len(ids) or ids.min() < 0 or (words and ids.max() >= words) or not np.isfinite(probs).all():
        raise ValueError("the ids or the probabilities are out of range")


def _digest(vocabulary: Vocabulary) -> np.ndarray:
    return np.array(hashlib.blake2b("\n".join(vocabulary.words).encode(), digest_size=16).hexdigest())
