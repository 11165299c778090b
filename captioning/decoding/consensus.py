"""Choose, among many candidate captions, the one that agrees most with all of them (minimum Bayes risk)."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from captioning.decoding.beam import beam_search
from captioning.decoding.constraints import Rules, takes_rules
from captioning.decoding.hypothesis import Hypothesis
from captioning.decoding.sampling import sample
from captioning.errors import ConfigError

_ORDERS = 4  # of n-grams, as BLEU-4 and CIDEr-D have them
SIGMA = 6.0  # words that two captions may differ in length, as in CIDEr-D


@takes_rules
def consensus_search(
    step: Callable,
    state,
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
    """Minimum Bayes risk decoding (Kumar and Byrne 2004); for captions, the consensus of Devlin et al. (2015).

    A beam finds the most probable caption, which may stand alone among those that the model thinks possible. Here the
    best captions of a beam and a number of samples are candidates, and each votes for each by `agreement`, a caption
    that was drawn twice twice. Beams bring fluent candidates, samples show where the probability is. Captions that
    did not finish vote, and are elected only for an image where nothing finished. So do samples that lack a required
    word, where there are beams: forced to hold it, most would be rambles, and elect one.

    Args:
        step, state, batch, start, end, forbidden, rules: as in `beam_search`.
        beam_size: of the beam search. finalists: its best captions, which are candidates; 0: samples alone.
        samples, temperature, generator, seed: as in `sample`; all samples are candidates. Numbers are drawn for a
            batch: an image in another batch gets other samples, as it does by another seed.
        n_best: different captions returned an image, best first.
        rarity: for each word id what it adds to the weight of an n-gram in the agreement; None weighs all alike. A
            predictor gives its vocabulary's.

    Returns:
        For each image its hypotheses; a score is the mean agreement with all candidates, between 0 and 1.
    """
    if beam_size < 1:
        raise ConfigError(f"decoding.beam_size ({beam_size}) must be at least 1; finalists=0 takes samples alone")
    if not 0 <= finalists <= beam_size:
        raise ConfigError(f"decoding.finalists ({finalists}) must be between 0 and decoding.beam_size ({beam_size})")
    if samples < 1:
        raise ConfigError(f"decoding.samples ({samples}) must be at least 1: decoding=beam has beams alone")
    if not 1 <= n_best <= finalists + samples:
        raise ConfigError(
            f"decoding.n_best ({n_best}) must be between 1 and the number of candidates ({finalists + samples})"
        )
    common = {"batch": batch, "start": start, "end": end, "forbidden": forbidden}
    voting = replace(rules, require=()) if finalists else rules
    drawn = sample(
        step, state, samples=samples, temperature=temperature, generator=generator, seed=seed, **common, **vars(voting)
    )
    if finalists:
        beams = beam_search(step, state, beam_size=beam_size, n_best=finalists, **common, **vars(rules))
        drawn = [[*first, *rest] for first, rest in zip(beams, drawn, strict=True)]
    arguments = {"end": end, "require": set(rules.require), "rarity": rarity}
    return [_elect(candidates, n_best, **arguments) for candidates in drawn]


def _elect(
    candidates: list[Hypothesis], n_best: int, *, end: int, require: set[int], rarity: Sequence[float] | None
) -> list[Hypothesis]:
    votes = agreement([[word for word in each.tokens if word != end] for each in candidates], rarity).mean(1)
    elected = {}
    for number in np.argsort(-votes, kind="stable"):
        each = candidates[number]
        elected.setdefault(tuple(each.tokens), each._replace(score=float(votes[number])))
    whole = [each for each in elected.values() if require.issubset(each.tokens)] or list(elected.values())
    return ([each for each in whole if each.tokens[-1:] == [end]] or whole)[:n_best]


def agreement(captions: Sequence[Sequence[int]], rarity: Sequence[float] | None = None) -> np.ndarray:
    """How alike captions of word ids are, two by two: [N, N], symmetric, from 0 to 1, which each has with itself.

    Σ_g min(a_g, b_g) w_g² / √(Σ_g a_g w_g² · Σ_g b_g w_g²) with a_g, b_g the counts of the n-gram g, averaged over
    n = 1 … 4, times the factor of CIDEr-D for lengths that differ, exp(-(l_a - l_b)² / 2σ²). For captions that repeat
    no n-gram this is CIDEr-D / 10 but for two things: an n-gram's weight w_g is the sum of its words' `rarity` [V] (1
    each where that is None), not its own inverse document frequency; and an n for which both captions are too short
    is left out. Where one has a word twice and the other once, they agree once; CIDEr-D is not symmetric there.
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
    """[N, M]: an n-gram's weight in a column for the first time that a caption has it, in another for the second, …"""
    columns, places, weights = {}, [], []
    for row, words in enumerate(captions):
        seen = Counter()
        for gram in zip(*(words[first:] for first in range(n)), strict=False):
            seen[gram] += 1
            places.append((row, columns.setdefault((gram, seen[gram]), len(columns))))
            weights.append(n if rarity is None else sum(rarity[word] for word in gram))
    vectors = np.zeros((len(captions), len(columns)))
    if places:
        vectors[tuple(zip(*places, strict=True))] = weights
    return vectors
