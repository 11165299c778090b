"""Compute the log-probability and perplexity of given captions under a model."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch

from captioning.data import Vocabulary
from captioning.decoding import device_of, score_tokens
from captioning.errors import DataError
from captioning.models import CaptionModel

LARGEST_EXPONENT = 700.0  # exp(710) overflows a float, so perplexities are cut at exp(700), about 1e304


class ScoredCaption(NamedTuple):
    """A given caption of an image with its log-probability under a model.

    Attributes:
        text: the caption as it was given.
        tokens: the words (pieces for `bpe`) as they were scored, with <unk> for those that are not in the vocabulary.
        log_prob: natural logarithm of the caption's probability, <end> included.
        perplexity: exp(−log_prob / number of tokens, <end> included).
        word_log_probs: the terms of log_prob: one per token, and one for <end>.
        unknown: the number of tokens that are not in the vocabulary.
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
    images: Any,
    texts: Sequence[Sequence[str]],
    *,
    vocabulary: Vocabulary,
) -> list[list[ScoredCaption]]:
    """Compute the log-probabilities of given captions, any number per image.

    Args:
        captioner: the model, or an `Ensemble`.
        images: a batch of features or images, as for `generate`.
        texts: the captions of each image.
        vocabulary: the model's.

    Raises:
        DataError: word scores are not finite.
    """
    ids = [[vocabulary.encode_text(text) for text in group] for group in texts]
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
        raise DataError(
            f"the word scores of images number {wrong} of the batch are not finite. Set checkpoint=… to an earlier one"
        )
    log_probs = scores.tolist()
    return [
        [_scored(text, ids[b][k][1:], log_probs[b][k], vocabulary) for k, text in enumerate(group)]
        for b, group in enumerate(texts)
    ]


def _scored(text: str, ids: Sequence[int], log_probs: Sequence[float], vocabulary: Vocabulary) -> ScoredCaption:
    parts, total = list(log_probs[: len(ids)]), math.fsum(log_probs[: len(ids)])
    unknown = sum(index == vocabulary.unknown for index in ids)
    perplexity = math.exp(min(-total / len(ids), LARGEST_EXPONENT))
    return ScoredCaption(text, vocabulary.pieces(ids), total, perplexity, parts, unknown)
