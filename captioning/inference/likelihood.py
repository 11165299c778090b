"""Compute the log-probability and perplexity of given captions under a model."""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from captioning.data import Vocabulary
from captioning.decoding import device_of, score_tokens
from captioning.errors import DataError
from captioning.models import CaptionModel
from captioning.text import tokenize

LARGEST_EXPONENT = 700.0  # e to the 710 is more than a float holds; a perplexity of 1e304 says all there is to say


class ScoredCaption(NamedTuple):
    """How probable a model finds a given caption of a picture.

    tokens: the words as they were scored, with <unk> for each of the `unknown` words that the vocabulary lacks.
    log_prob: natural logarithm of the caption's probability, <end> included. word_log_probs: its parts, a number a
    token and one for <end>. perplexity: exp(-log_prob / their number).
    """

    text: str
    tokens: list[str]
    log_prob: float
    perplexity: float
    word_log_probs: list[float]
    unknown: int


@torch.inference_mode()
def score_texts(
    captioner: CaptionModel,
    images: Tensor | tuple[Tensor, ...],
    texts: Sequence[Sequence[str]],
    *,
    vocabulary: Vocabulary,
) -> list[list[ScoredCaption]]:
    """Given captions of a batch of what `decode` takes, any number an image."""
    words = [[tokenize(text) for text in group] for group in texts]
    ids = [[vocabulary.encode(line, max_length=len(line)) for line in group] for group in words]
    rows = max(1, max(map(len, ids)))
    length = max((len(line) for group in ids for line in group), default=2)
    table = torch.full((len(ids), rows, length), vocabulary.pad)
    for b, group in enumerate(ids):
        for k, line in enumerate(group):
            table[b, k, : len(line)] = torch.tensor(line)
    state, memory = captioner.begin(images)
    step = partial(captioner.step, memory=memory)
    scores = score_tokens(step, state, table.to(device_of(state)), pad=vocabulary.pad)
    if scores.isnan().any():
        wrong = scores.isnan().flatten(1).any(1).nonzero().flatten().tolist()
        raise DataError(f"word scores are not finite for pictures number {wrong} of the batch: take another checkpoint")
    log_probs = scores.tolist()
    return [
        [_scored(text, ids[b][k][1:], log_probs[b][k], vocabulary) for k, text in enumerate(group)]
        for b, group in enumerate(texts)
    ]


def _scored(text: str, ids: Sequence[int], log_probs: Sequence[float], vocabulary: Vocabulary) -> ScoredCaption:
    parts, total = list(log_probs[: len(ids)]), math.fsum(log_probs[: len(ids)])
    unknown = sum(index == vocabulary.unknown for index in ids)
    perplexity = math.exp(min(-total / len(ids), LARGEST_EXPONENT))
    return ScoredCaption(text, vocabulary.decode(ids), total, perplexity, parts, unknown)
