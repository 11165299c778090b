"""Captions for the pictures of a split, from the sources of their features; and where the model looked for them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from captioning.data.annotations import Record
from captioning.data.datasets import ImageDataset, collate_images
from captioning.predictor import Predictor, write
from captioning.sources import Source


def write_captions(
    predictor: Predictor, sources: Sequence[Source], records: Sequence[Record], *, search: Callable, batch_size: int
) -> dict[int, str]:
    """{image id: caption} for every record, in order; each member of an ensemble reads its own source."""
    loaders = [
        DataLoader(
            ImageDataset(records, source.read),
            batch_size=batch_size,
            num_workers=source.workers,
            collate_fn=collate_images,
        )
        for source in sources
    ]
    encoders = [source.encoder.to(predictor.device) for source in sources]
    captions: dict[int, str] = {}
    with torch.inference_mode():
        for parts in tqdm(
            zip(*loaders, strict=True), desc="captions", unit="batch", total=len(loaders[0]), disable=None
        ):
            image_ids, images, masks = zip(*parts, strict=True)
            features = tuple(e(i.to(predictor.device)) for e, i in zip(encoders, images, strict=True))
            masks = tuple(None if mask is None else mask.to(predictor.device) for mask in masks)
            if len(sources) == 1:
                features, masks = features[0], masks[0]
            texts = write(predictor.captioner, features, masks, search=search, vocabulary=predictor.vocabulary)
            captions |= zip(image_ids[0].tolist(), texts, strict=True)
    return captions


class Look(NamedTuple):
    """Where a model looked for each word of a caption. weights: [T, P]; places: [T] of hard attention, else None."""

    weights: np.ndarray
    places: np.ndarray | None


@torch.inference_mode()
def look_again(predictor: Predictor, source: Source, record: Record, words: Sequence[str]) -> Look | None:
    """Where the model looks as it writes given words of its vocabulary; None without attention, or without words.

    By teacher forcing, which gives the numbers of decoding word by word: so a caption that an earlier evaluation wrote
    has its attention without being searched for again.
    """
    vocabulary = predictor.vocabulary
    tokens = torch.tensor(vocabulary.encode(words, max_length=len(words)), device=predictor.device)[None, None]
    features = source.encoder.to(predictor.device)(source.read(record)[None].to(predictor.device))
    glimpse = predictor.captioner(features, tokens).glimpse
    if not words or not glimpse.weights.shape[-1]:
        return None
    weights, places = (None if part is None else part[0, 0, : len(words)].cpu() for part in glimpse[1:3])
    return Look(weights.float().numpy(), None if places is None else places.numpy())
