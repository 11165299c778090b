"""Compare consensus decoding with CIDEr-D, a slow agreement and the true minimum Bayes risk over all captions."""

import math
import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from prefixes import END, PrefixModel, draw_world, obeys
from trees import by_hand

from captioning.data import Vocabulary
from captioning.decoding import beam_search, consensus_search, sample
from captioning.decoding.consensus import agreement
from captioning.errors import ConfigError
from captioning.metrics.ciderd import CiderD, DocumentFrequencies
from captioning.metrics.ngrams import References


def grams(words, n):
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def slow_agreement(a, b, rarity):
    """Compute the agreement as its docstring defines it."""
    cosines = []
    for n in range(1, 5):
        ours, theirs = grams(a, n), grams(b, n)

        def weight(gram):
            return sum(rarity[word] for word in gram)

        norms = [math.sqrt(sum(count * weight(gram) ** 2 for gram, count in each.items())) for each in (ours, theirs)]
        if max(norms) > 0:
            shared = sum(min(ours[gram], theirs[gram]) * weight(gram) ** 2 for gram in ours)
            cosines.append(shared / math.prod(norms) if min(norms) > 0 else 0.0)
    mean = sum(cosines) / len(cosines) if cosines else 1.0
    return mean * math.exp(-((len(a) - len(b)) ** 2) / 72)


def test_agreement_equals_a_slow_one():
    generator = random.Random(0)
    for _ in range(60):
        captions = [[generator.randrange(5) for _ in range(generator.randrange(9))] for _ in range(7)]
        rarity = [generator.choice([0.0, 0.3, 2.0]) for _ in range(5)]
        for weights in (None, rarity):
            wanted = [
                [slow_agreement(a, b, rarity if weights is not None else [1] * 5) for b in captions] for a in captions
            ]
            np.testing.assert_allclose(agreement(captions, weights), wanted, atol=1e-12)


def test_agreement_is_cider_d_where_all_n_grams_are_as_rare():
    generator = random.Random(1)
    captions = [generator.sample(range(12), generator.randint(4, 9)) for _ in range(8)]  # no repeated word
    texts = [[str(word) for word in words] for words in captions]
    references = References({number: [words] for number, words in enumerate(texts)}, n=4)
    frequencies = DocumentFrequencies.of(references)
    frequencies.counts = np.ones_like(frequencies.counts)
    scorer, everyone = CiderD(references, frequencies=frequencies), range(len(texts))
    wanted = [scorer(everyone, [words] * len(everyone)) / 10 for words in texts]
    np.testing.assert_allclose(agreement(captions), wanted, atol=1e-12)


def test_the_elected_agree_most_with_the_beams_and_samples_of_the_two_searches():
    for seed in range(5000, 5040):
        model, rules, generator = draw_world(seed)
        rarity = [generator.random() for _ in range(model.vocabulary)]
        width, samples, n_best = generator.randint(1, 5), generator.randint(1, 6), generator.randint(1, 3)
        finalists = generator.randint(0, width)
        n_best = min(n_best, finalists + samples)
        common = {"samples": samples, "temperature": 0.7, "seed": seed, **rules}
        results = model.search(
            consensus_search, beam_size=width, finalists=finalists, n_best=n_best, rarity=rarity, **common
        )
        drawn = model.search(sample, **common | ({"require": ()} if finalists else {}))
        beams = model.search(beam_search, beam_size=width, n_best=max(1, finalists), **rules)
        for image, (found, first, rest) in enumerate(zip(results, beams, drawn, strict=True)):
            candidates = [tuple(each.tokens) for each in (*first[:finalists], *rest)]
            bare = [[word for word in each if word != END] for each in candidates]
            votes = {
                each: np.mean([slow_agreement(words, other, rarity) for other in bare])
                for each, words in zip(candidates, bare, strict=True)
            }
            required = set(rules.get("require", ()))
            whole = {each: vote for each, vote in votes.items() if required <= set(each)} or votes
            finished = {each: vote for each, vote in whole.items() if each[-1:] == (END,)} or whole
            best = sorted(finished.values(), reverse=True)[:n_best]
            assert [each.score for each in found] == pytest.approx(best, abs=1e-12)
            for each in found:
                assert each.score == pytest.approx(finished[tuple(each.tokens)])
                assert each.log_prob == pytest.approx(model.log_prob(image, each.tokens), abs=1e-9)
                if each.tokens[-1:] == [END]:
                    assert obeys(tuple(each.tokens), rules, max_length=model.length)


def test_what_is_most_probable_is_not_what_agrees_most(monkeypatch):
    """Four captions: one of 0.34 that shares no word with the others, three of 0.22 that share two words of three.

    Two of the three agree on 2/3 of the words, 1/2 of the pairs and none of the triples: 7/18. Each of the three has
    0.22 + 0.44 · 7/18 = 0.391 of the votes, the most probable caption 0.34. Samples are drawn in proportion.
    """
    a, b, c, d = 3, 4, 5, 6
    nodes = {(): {a: 0.34, b: 0.22, c: 0.22, d: 0.22}, (a,): {7: 1.0}, (a, 7): {8: 1.0}, (a, 7, 8): {END: 1.0}}
    for first in (b, c, d):
        nodes |= {(first,): {9: 1.0}, (first, 9): {10: 1.0}, (first, 9, 10): {END: 1.0}}
    world = by_hand(nodes, vocabulary=11, length=4)
    uniforms = torch.full((4, 100), 0.5, dtype=torch.float64)
    uniforms[0] = (torch.arange(100) + 0.5) / 100

    def searched(**arguments):
        left = iter(uniforms)
        with monkeypatch.context() as patch:
            patch.setattr(torch, "rand", lambda *shape, **options: next(left).view(shape))
            (found,) = world.search(consensus_search, samples=100, temperature=1.0, **arguments)
        return [(each.tokens, each.score) for each in found]

    ((likely,),) = world.search(beam_search, beam_size=4)
    assert likely.tokens == [a, 7, 8, END]
    vote = 0.22 + 0.44 * 7 / 18
    found = searched(finalists=0, n_best=4)
    assert {tokens[0] for tokens, _ in found[:3]} == {b, c, d} and found[3][0] == [a, 7, 8, END]
    assert [value for _, value in found] == pytest.approx([vote, vote, vote, 0.34], abs=1e-12)
    # A finalist of the beam votes too; here it votes for itself.
    found = searched(finalists=1, n_best=2)
    assert [value for _, value in found] == pytest.approx([100 * vote / 101] * 2, abs=1e-12)
    # The weight of an n-gram is the square of the sum of its words' rarities; b and c share one word, one pair.
    rarity = [1.0] * 9 + [3.0, 1.0]
    words, pairs = (9 + 1) / (1 + 9 + 1), 16 / (16 + 16)
    found = searched(finalists=0, rarity=rarity)
    assert found[0][1] == pytest.approx(0.22 + 0.44 * (words + pairs + 0) / 3, abs=1e-12)


def test_captions_of_other_lengths_agree_less():
    """3 4 and 3 4 5 6 7 share two words of 2 and 5, one pair of 1 and 4, no triple; their lengths differ by three."""
    factor = math.exp(-9 / (2 * 36))
    words, pairs, triples, quadruples = 2 / math.sqrt(2 * 5), 1 / math.sqrt(1 * 4), 0, 0
    wanted = factor * (words + pairs + triples + quadruples) / 4
    assert agreement([[3, 4], [3, 4, 5, 6, 7]])[0, 1] == pytest.approx(wanted, abs=1e-15)
    # A word that occurs twice and once agrees once; the norms are √2² and √1.
    assert agreement([[3, 3], [3]])[0, 1] == pytest.approx(math.exp(-1 / 72) * (1 / math.sqrt(2) + 0) / 2, abs=1e-15)
    assert agreement([[], []]).tolist() == [[1, 1], [1, 1]]
    assert agreement([[], [3]])[0, 1] == 0


def test_different_captions_in_order_and_the_same_ones_from_the_same_seed():
    model = PrefixModel(3, vocabulary=5, length=4, seed=2)
    once, again = (model.search(consensus_search, n_best=9, seed=4) for _ in range(2))
    other = model.search(consensus_search, n_best=9, seed=5)
    for found in once:
        assert len({tuple(each.tokens) for each in found}) == len(found) > 1
        assert all(first.score >= second.score for first, second in pairwise(found))
    assert [[each.tokens for each in found] for found in once] == [[each.tokens for each in found] for found in again]
    assert once != other


def test_one_caption_that_is_alone_agrees_with_itself():
    model = PrefixModel(2, vocabulary=4, length=1, seed=0, end_bias=50.0)
    for (found,) in model.search(consensus_search, samples=3):
        assert found.tokens == [END] and found.score == 1.0


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"finalists": 16}, "finalists"),
        ({"finalists": -1}, "finalists"),
        ({"finalists": 2, "samples": 3, "n_best": 6}, "n_best"),
        ({"n_best": 0}, "n_best"),
        ({"samples": 0, "finalists": 0}, "samples"),
        ({"beam_size": 0, "finalists": 0}, "beam_size"),
    ],
)
def test_bad_arguments(bad, named):
    with pytest.raises(ConfigError, match=f"decoding.{named}"):
        PrefixModel(1, vocabulary=4, length=2, seed=0).search(consensus_search, **bad)


def test_rarity_is_the_logarithm_of_a_words_rank():
    rarity = Vocabulary(["a", "dog", "zebra"]).rarity()
    assert rarity == pytest.approx([0, 0, 0, math.log(5), math.log(2), math.log(3), math.log(4)])


def test_a_required_word_is_demanded_of_the_elected_and_not_of_those_who_vote():
    model = PrefixModel(8, vocabulary=6, length=5, seed=7)
    rules = {"require": (4,), "beam_size": 8, "samples": 30, "seed": 1, "temperature": 1.0}
    results = model.search(consensus_search, n_best=35, **rules)
    drawn = model.search(sample, samples=30, seed=1, temperature=1.0)
    for found, free in zip(results, drawn, strict=True):
        assert all(4 in each.tokens for each in found)
        # Unrestricted samples that happen to contain the word may be selected too.
        standing = {tuple(each.tokens) for each in free if 4 in each.tokens and each.tokens[-1] == END}
        assert standing <= {tuple(each.tokens) for each in found}
