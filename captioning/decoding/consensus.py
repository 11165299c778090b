"""Select, among many candidate captions, the one that agrees most with all of them (minimum Bayes risk)."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from captioning.decoding.beam import beam_search
from captioning.decoding.constraints import Rules, takes_rules
from captioning.decoding.hypothesis import Hypothesis
from captioning.decoding.sampling import sample
from captioning.decoding.word_groups import of_words, voters
from captioning.errors import ConfigError

_ORDERS = 4  # greatest n of the n-grams, as in BLEU-4 and CIDEr-D
SIGMA = 6.0  # words; standard deviation of the length factor, as in CIDEr-D


@takes_rules
def consensus_search(
    step: Callable,
    state: Any,
    *,
    batch: int,
    start: int,
    end: int,
    forbidden: tuple[int, ...] = (),
    beam_size: int = 15,
    finalists: int = 5,
    samples: int = 40,
    temperature: float = 0.7,
    n_best: int = 1,
    rarity: Sequence[float] | None = None,
    generator: torch.Generator | None = None,
    seed: int | None = None,
    rules: Rules,
) -> list[list[Hypothesis]]:
    """Select the caption that agrees most with all candidates: minimum-Bayes-risk decoding (Kumar and Byrne 2004).

    For captions this is the consensus of Devlin et al. (2015). Beam search finds the most probable caption, which may
    differ from most other captions that the model considers likely. Here the candidates are the best captions of a beam
    and a number of samples. Each candidate votes for each by `agreement`; a caption that was sampled twice votes twice.
    Beams add fluent candidates, samples show where the probability mass is. Unfinished captions vote, but are selected
    only for an image without a finished one. If there are beams, the same holds for samples without a required word:
    samples that are forced to contain it would mostly be poor captions, and could elect one.

    Args:
        step: (token [B, K], state) -> (logits [B, K, V], state, glimpse), see `captioning.decoding`.
        state: State before `<start>`, one row per image.
        batch: B.
        start: Id of `<start>`.
        end: Id of `<end>`.
        forbidden: Ids that are never generated (`<pad>`, `<start>`, `<unk>`), except those in `Rules.allow`.
        beam_size: Size of the beam search.
        finalists: Number of the beam's best captions that are candidates; 0: only samples.
        samples: Number of samples per image; all are candidates. Random numbers are drawn per batch, so an image in
            another batch gets other samples, as with another seed.
        temperature: As in `sample`.
        n_best: Number of different captions per image, best first.
        rarity: For each word id, its contribution to the weight of an n-gram in the agreement; None: all n-grams weigh
            the same. A predictor passes the values of its vocabulary.
        generator: Generator of the uniform numbers, one per word, sampled on its device; None: torch's global
            generator.
        seed: Seed of a new generator for this call, instead of `generator`.
        rules: All arguments of `Rules` are keyword arguments of this function.

    Returns:
        One list of hypotheses per image. A score is the mean agreement with all candidates, between 0 and 1.

    Raises:
        ConfigError: An argument is out of range.
    """
    if beam_size < 1:
        raise ConfigError(
            f"decoding.beam_size ({beam_size}) must be at least 1. For samples alone set decoding.finalists=0"
        )
    if not 0 <= finalists <= beam_size:
        raise ConfigError(f"decoding.finalists ({finalists}) must be between 0 and decoding.beam_size ({beam_size})")
    if samples < 1:
        raise ConfigError(f"decoding.samples ({samples}) must be at least 1. For beams alone set decoding=beam")
    if not 1 <= n_best <= finalists + samples:
        raise ConfigError(
            f"decoding.n_best ({n_best}) must be between 1 and the number of candidates ({finalists + samples})"
        )
    common: dict[str, Any] = {"batch": batch, "start": start, "end": end, "forbidden": forbidden}
    voting = replace(rules, require=(), guides=voters(rules.guides)) if finalists else rules
    drawn = sample(
        step, state, samples=samples, temperature=temperature, generator=generator, seed=seed, **common, **vars(voting)
    )
    if finalists:
        beams = beam_search(step, state, beam_size=beam_size, n_best=finalists, **common, **vars(rules))
        drawn = [[*first, *rest] for first, rest in zip(beams, drawn, strict=True)]
    groups = rules.guides or [()] * batch
    required = [[*of_words(rules.require), *(group for group in each if group.required)] for each in groups]
    return [
        _elect(candidates, n_best, end=end, required=[set(group.words) for group in each], rarity=rarity)
        for candidates, each in zip(drawn, required, strict=True)
    ]


def _elect(
    candidates: list[Hypothesis], n_best: int, *, end: int, required: list[set[int]], rarity: Sequence[float] | None
) -> list[Hypothesis]:
    """Return the `n_best` candidates with the highest mean agreement; finished ones with all required words first.

    `required` is a list of sets of words, of each of which a caption must contain one.
    """
    votes = agreement([[word for word in each.tokens if word != end] for each in candidates], rarity).mean(1)
    elected: dict[tuple[int, ...], Hypothesis] = {}
    for number in np.argsort(-votes, kind="stable"):
        each = candidates[number]
        elected.setdefault(tuple(each.tokens), each._replace(score=float(votes[number])))
    complete = [each for each in elected.values() if all(not words.isdisjoint(each.tokens) for words in required)]
    complete = complete or list(elected.values())
    return ([each for each in complete if each.tokens[-1:] == [end]] or complete)[:n_best]


def agreement(captions: Sequence[Sequence[int]], rarity: Sequence[float] | None = None) -> np.ndarray:
    """Compute how similar captions of word ids are, in pairs.

    The agreement of a and b is Σ_g min(a_g, b_g) w_g² / √(Σ_g a_g w_g² · Σ_g b_g w_g²) with a_g, b_g the counts of the
    n-gram g, averaged over n = 1 … 4, times the length factor of CIDEr-D, exp(-(l_a - l_b)² / 2σ²).

    For captions without a repeated n-gram this is CIDEr-D / 10, with two differences. The weight w_g of an n-gram is
    the sum of the `rarity` of its words, not its own inverse document frequency. An n for which both captions are too
    short is left out. If one caption has a word twice and the other once, they agree once; CIDEr-D is not symmetric
    there.

    Args:
        captions: N lists of word ids.
        rarity: Weight of each word id, [V]; None: 1 for each.

    Returns:
        [N, N], symmetric, between 0 and 1, and 1 on the diagonal.
    """
    lengths = np.array([len(words) for words in captions], dtype=float)
    sums, orders = np.zeros((len(captions), len(captions))), np.zeros((len(captions), len(captions)))
    for n in range(1, _ORDERS + 1):
        vectors = _occurrences(captions, n, rarity)
        norms = np.sqrt((vectors**2).sum(1))
        scale = np.outer(norms, norms)
        sums += np.divide(vectors @ vectors.T, scale, out=np.zeros_like(sums), where=scale > 0)
        orders += np.maximum(norms[:, None], norms) > 0
    alike = np.divide(sums, orders, out=np.ones_like(sums), where=orders > 0)
    return alike * np.exp(-((lengths[:, None] - lengths) ** 2) / (2 * SIGMA**2))


def _occurrences(captions: Sequence[Sequence[int]], n: int, rarity: Sequence[float] | None) -> np.ndarray:
    """Compute [N, M]: columns for the first occurrence of each n-gram, the second, …, with the n-gram's weight."""
    columns: dict[tuple, int] = {}
    entries: list[tuple[int, int]] = []
    weights: list[float] = []
    for row, words in enumerate(captions):
        seen: Counter[tuple[int, ...]] = Counter()
        for gram in zip(*(words[first:] for first in range(n)), strict=False):
            seen[gram] += 1
            entries.append((row, columns.setdefault((gram, seen[gram]), len(columns))))
            weights.append(n if rarity is None else sum(rarity[word] for word in gram))
    vectors = np.zeros((len(captions), len(columns)))
    if entries:
        vectors[tuple(zip(*entries, strict=True))] = weights
    return vectors
