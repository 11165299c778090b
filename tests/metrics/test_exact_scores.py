"""BLEU, CIDEr-D, ROUGE-L, METEOR's formula and diversity: numbers by hand, and dictionaries on odd captions."""

import itertools
import math
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
import slow_scores

from captioning.errors import CheckpointError, DataError
from captioning.metrics import (
    Reward,
    Scorer,
    ScoreTable,
    bootstrap,
    diversity,
    from_csv,
    java,
    name_ids,
    ngrams,
    to_csv,
)
from captioning.metrics.bleu import bleu, bleu_counts
from captioning.metrics.ciderd import CiderD, DocumentFrequencies
from captioning.metrics.ngrams import References
from captioning.metrics.rouge import rouge_l
from captioning.metrics.scores import fingerprint

# (caption, references): what breaks a scorer that is nearly right
ODD = [
    ("", ["a b c"]),
    ("", [""]),
    ("", ["", "a"]),
    ("a b", [""]),
    ("a", ["a"]),
    ("a", ["b"]),
    ("a", ["a b c d e f g h"]),
    ("a a a a a a a", ["a b a", "a a"]),  # clipped to the reference that has most
    ("the the the the the the the", ["the cat is on the mat", "there is a cat on the mat"]),
    ("a b c d e", ["a b c d e"]),  # equal, and no brevity penalty at all
    ("a b c d e", ["a b c d e", "x y z"]),
    ("a b c d e", ["e d c b a"]),
    ("a b c d", ["a b c", "a b c d e"]),  # both lengths equally close: the shorter
    ("a b c d", ["a b c d e", "a b c"]),
    ("a b c d", ["a b c d e", "a b c d e f"]),  # shorter than all
    ("a b c d e f g h i j", ["a b c", "d e"]),  # longer than all
    ("a b c a b c a b c", ["a b c a b c", "c b a"]),
    ("b a", ["a b", "b c", "c a", "a b c d e f g h i j k l m n o p"]),
    ("x y z", ["a b c"]),  # words that no reference has
    ("x a x x b x", ["a b", "x a"]),
    ("a b x a b x", ["a b y a b"]),
    ("a b c d e f g h i j k l m n o p q r s t", ["a b c d", "q r s t a b"]),  # far apart: the Gaussian's tail
    ("d d d e", ["d d e e", "d e d e", "d d d"]),
]


def random_world(seed: int, images: int = 60) -> list[tuple[str, list[str]]]:
    random = np.random.default_rng(seed)

    def caption() -> str:
        return " ".join(random.choice(list("abcdefg"), random.integers(0, 12), p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05]))

    return [(caption(), [caption() for _ in range(random.integers(1, 6))]) for _ in range(images)]


WORLDS = {
    "odd": ODD,
    "random": random_world(0),
    "one image": ODD[9:10],
    "one of two references": ODD[7:8],
    "alike": [("a b c d", ["a b c d", "a b"])] * 5 + [("b a", ["a b", "a b c d"])],
    "two": [ODD[7], ODD[19]],
}


def split(world):
    references = {f"i{at}": [text.split() for text in texts] for at, (_, texts) in enumerate(world)}
    return references, [text.split() for text, _ in world]


@pytest.mark.parametrize("n", [4, 1, 2, 3, 5])
@pytest.mark.parametrize("base", [None, ngrams.HASH_BASE])
@pytest.mark.parametrize("name", WORLDS)
def test_bleu_of_captions_and_of_corpora(name, base, n):
    references, captions = split(WORLDS[name])
    index = References(references, n=n, base=base)
    counted = bleu_counts(index, index.match(list(references), captions))
    wanted = [
        slow_scores.bleu_counts(words, group, n) for words, group in zip(captions, references.values(), strict=True)
    ]
    assert counted.tolist() == wanted
    np.testing.assert_allclose(bleu(counted), [slow_scores.bleu_of(row) for row in wanted], rtol=1e-12)
    np.testing.assert_allclose(bleu(counted.sum(0)), slow_scores.bleu_of(np.sum(wanted, 0)), rtol=1e-12)
    stacked = bleu(np.stack([counted, counted[::-1]]))
    np.testing.assert_array_equal(stacked[1], bleu(counted)[::-1])


def test_bleu_of_any_counts():
    """Counts of no real caption, as those of a resample may be: each column has its own part."""
    rows = np.random.default_rng(0).integers(1, 30, (50, 10)).astype(float)
    np.testing.assert_allclose(bleu(rows), [slow_scores.bleu_of(row) for row in rows], rtol=1e-12)
    with np.errstate(divide="raise", over="raise", invalid="raise"):  # a caption without words is no error
        assert bleu(np.array([0, 0, 0, 0, 0, 0, 0, 0, 0, 5.0])).tolist() == [0, 0, 0, 0]


def test_bleu_of_long_captions_and_of_none():
    """Lengths beyond 64; the closest of 90, 110 (the shorter) and 70."""
    group = [["a"] * 70, ["b"] * 110, ["a", *["c"] * 89]]
    index = References({1: group, 2: [["a"]]})
    captions = [["a"] * length for length in (100, 101, 99, 75)]
    counted = bleu_counts(index, index.match([1] * 4, captions))
    assert counted[:, 9].tolist() == [90, 110, 90, 70]
    assert counted.tolist() == [slow_scores.bleu_counts(words, group) for words in captions]
    assert bleu_counts(index, index.match([], [])).shape == (0, 10)


def test_bleu_by_hand():
    index = References({1: [["the", "cat", "is", "on", "the", "mat"], ["there", "is", "a", "cat", "on", "the", "mat"]]})
    (counts,) = bleu_counts(index, index.match([1], [["the"] * 7]))
    assert counts.tolist() == [2, 0, 0, 0, 7, 6, 5, 4, 7, 7]  # Papineni et al.'s example: 2 of 7
    assert bleu(counts)[0] == pytest.approx(2 / 7, rel=1e-9)
    short = bleu(np.array([4, 3, 2, 1, 4, 3, 2, 1, 4, 6.0]))
    np.testing.assert_allclose(short, math.exp(1 - 6 / 4), rtol=1e-8)  # all correct, and too short
    assert bleu(np.array([4, 3, 2, 1, 4, 3, 2, 1, 4, 4.0]))[3] == pytest.approx(1, abs=1e-8)
    assert bleu(np.array([4, 3, 2, 1, 4, 3, 2, 1, 4, 3.0]))[3] == pytest.approx(1, abs=1e-8)
    # The official scorer's two numbers: 1e-15 above and 1e-9 below.
    assert bleu(np.array([0, 0, 0, 0, 4, 3, 2, 1, 4, 4.0]))[0] == pytest.approx(1e-15 / 4, rel=1e-8)
    assert bleu(np.array([1, 0, 0, 0, 1, 0, 0, 0, 1, 1.0]))[1] == pytest.approx((1e-15 / 1e-9) ** 0.5, rel=1e-8)
    assert bleu(np.array([1, 1, 1, 1, 2, 2, 2, 2, 2, 2.0]))[0] - 0.5 == pytest.approx(-2.5e-10 - 2.5e-10, rel=1e-3)


@pytest.mark.parametrize("sigma", [6.0, 2.5])
@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("base", [None, ngrams.HASH_BASE])
@pytest.mark.parametrize("name", WORLDS)
def test_cider_of_odd_captions(name, base, plain, sigma):
    for n in (4, 1, 3):
        references, captions = split(WORLDS[name])
        frequencies = slow_scores.document_frequencies(references, n)
        index = References(references, n=n, base=base)
        settings = {"n": n, "sigma": sigma, "plain": plain}
        found = CiderD(index, **settings)(list(references), captions)
        pairs = zip(captions, references.values(), strict=True)
        wanted = [slow_scores.cider(words, group, *frequencies, **settings) for words, group in pairs]
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-14)


def test_cider_by_hand():
    scorer = CiderD({1: [["a", "b"]], 2: [["c", "d"]]})
    found = scorer([1, 1, 1, 1, 2], [["a", "b"], ["a", "b", "a"], ["a"], ["a", "b", "b", "b"], []])
    # Two orders of four match; clipping (min) and a length of one bigram more; one of two words; one bigram less.
    assert found[0] == pytest.approx(10 * 2 / 4, rel=1e-12)
    gauss = math.exp(-1 / 72)
    assert found[1] == pytest.approx(10 / 4 * (2 / math.sqrt(5 * 2) + 1 / math.sqrt(2)) * gauss, rel=1e-12)
    assert found[2] == pytest.approx(10 / 4 * 1 / math.sqrt(2) * gauss, rel=1e-12)
    assert found[3] == pytest.approx(10 / 4 * (2 / math.sqrt(10 * 2) + 1 / math.sqrt(5)) * math.exp(-4 / 72), rel=1e-12)
    assert found[4] == 0.0
    plain = CiderD({1: [["a", "b"]], 2: [["c", "d"]]}, plain=True)([1], [["a", "b", "a"]])
    assert plain[0] == pytest.approx(10 / 4 * (3 / math.sqrt(5 * 2) + 1 / math.sqrt(2)), rel=1e-12)
    # The mean over references, which a reference without a common word lowers.
    two = CiderD({1: [["a", "b"], ["x", "y"]], 2: [["c", "d"]]})([1], [["a", "b"]])
    assert two[0] == pytest.approx(10 * 2 / 4 / 2, rel=1e-12)


def test_weights_of_ngrams_in_all_images_in_some_and_in_none():
    references = {1: [["a", "b"], ["a", "a"]], 2: [["a", "c"]], 3: [["a"], ["b"], ["a", "b"]]}
    frequencies = DocumentFrequencies.build(references)
    index = References(references)
    counts = dict(zip(frequencies.keys.tolist(), frequencies.counts.tolist(), strict=True))
    number, base = frequencies.words, int(frequencies.base)
    keys = {"a": number["a"], "b": number["b"], "c": number["c"], "ab": number["a"] * base + number["b"]}
    assert {name: counts[key] for name, key in keys.items()} == {"a": 3, "b": 2, "c": 1, "ab": 2}
    found = frequencies.weights(np.array([*keys.values(), 10**9], np.uint64))
    np.testing.assert_allclose(found, [0, math.log(3 / 2), math.log(3), math.log(3 / 2), math.log(3)], atol=1e-15)
    assert frequencies.images == 3 and frequencies.n == 4 and len(index.keys) == len(counts)
    nothing = DocumentFrequencies.build({1: [[]], 2: [[]]})
    np.testing.assert_allclose(nothing.weights(np.array([1, 2], np.uint64)), [math.log(2)] * 2)
    assert DocumentFrequencies.build({}).weights(np.array([1], np.uint64)).tolist() == [0.0]


def test_document_frequencies_of_few_orders_and_what_is_saved_of_them():
    references = {1: [["a", "b"], ["a", "a", "b"]], 2: [["a", "b", "c"]], 3: [["d", "b"]]}
    frequencies = DocumentFrequencies.build(references, n=3)
    number = frequencies.words
    assert number == {"a": 1, "b": 2, "c": 3, "d": 4} and int(frequencies.base) == 2**21
    keys = {gram: sum(number[word] * 2 ** (21 * at) for at, word in enumerate(gram[::-1])) for gram in GRAMS}
    wanted = {keys[gram]: images for gram, images in GRAMS.items()}
    assert dict(zip(frequencies.keys.tolist(), frequencies.counts.tolist(), strict=True)) == wanted
    state = frequencies.state_dict()
    assert dict(zip(state["keys"].tolist(), state["counts"].tolist(), strict=True)) == {
        key: images for key, images in wanted.items() if images > 1
    }
    assert state["keys"].dtype == np.uint64 and state["counts"].dtype == np.int32
    assert {key: state[key] for key in ("words", "images", "n", "base")} == {
        "words": ["a", "b", "c", "d"], "images": 3, "n": 3, "base": 2**21
    }  # fmt: skip
    again = DocumentFrequencies.from_state_dict(state)
    assert (again.words, again.images, again.n, again.base) == (number, 3, 3, frequencies.base)
    assert again.weights(frequencies.keys).tolist() == frequencies.weights(frequencies.keys).tolist()


def test_saved_frequencies_name_what_is_wrong_with_them():
    state = DocumentFrequencies.build({1: [["a", "b"]], 2: [["a"]], 3: [["b"]]}, n=2).state_dict()

    def wrong(**changes) -> str:
        with pytest.raises(CheckpointError) as caught:
            DocumentFrequencies.from_state_dict(state | changes)
        message = str(caught.value)
        assert message.startswith("the saved document `frequencies` are damaged (")
        return message.partition("(")[2].removesuffix("): use another checkpoint")

    assert state["keys"].tolist() == [1, 2] and state["counts"].tolist() == [2, 2]
    for n in (0, -1):
        assert wrong(n=n, base=int(ngrams.HASH_BASE)) == "n and base"
    for keys in ([3, 5, 4], [3, 3, 5], [5, 4, 3]):
        assert wrong(keys=np.array(keys, np.uint64), counts=np.array([1, 1, 1])) == "keys"
    assert wrong(keys=np.array([1, 2])) == "keys" and wrong(keys=np.array([1.0, 2.0])) == "keys and counts"
    assert wrong(counts=np.array([0, 1])) == wrong(counts=np.array([1, 4])) == wrong(counts=np.array([1])) == "counts"
    square = {"keys": np.array([[1, 2], [3, 4]], np.uint64), "counts": np.ones((2, 2), np.int32)}
    assert wrong(**square) == "keys"
    assert wrong(words=["a", "a"]) == wrong(words=["a", 3]) == "words"
    assert wrong(base=2**32 + 1) == wrong(base=2**16) == "base"
    assert wrong(words=None, n=2.0, images=True, base=np.uint64(2**32)) == "words and images and n and base"
    sound = {"keys": np.array([1, 2, 9], np.uint64), "counts": np.array([1, 2, 3])}
    assert DocumentFrequencies.from_state_dict(state | sound).counts.tolist() == [1, 2, 3]
    assert DocumentFrequencies.from_state_dict(state | {"base": int(ngrams.HASH_BASE)}).base == ngrams.HASH_BASE
    for n in (1, 4):
        built = DocumentFrequencies.build({1: [["a"]], 2: [["a", "b"]]}, n=n)
        assert DocumentFrequencies.from_state_dict(built.state_dict()).n == n


def test_captions_of_ngrams_that_weigh_nothing_score_zero_whatever_memory_holds():
    """Every n-gram is in every image: vectors of length 0, whose cosines are 0 and not what was there before."""
    scorer = CiderD({at: [["a", "b"], ["b", "a", "b"]] for at in range(5)})
    for _ in range(5):
        dirty = [np.full(size, np.nan) for size in range(1, 128) for _ in range(8)]
        del dirty
        assert scorer(range(5), [["a", "b"], ["b"], ["a"], ["b", "a"], []]).tolist() == [0.0] * 5


def test_cider_of_fewer_orders_from_references_themselves():
    references, captions = split(ODD)
    for n in (1, 2):
        frequencies = slow_scores.document_frequencies(references, n)
        pairs = zip(captions, references.values(), strict=True)
        wanted = [slow_scores.cider(words, group, *frequencies, n=n) for words, group in pairs]
        found = CiderD(references, n=n)
        np.testing.assert_allclose(found(list(references), captions), wanted, rtol=1e-12, atol=1e-14)
        shared = CiderD(references, n=n, frequencies=DocumentFrequencies.build(references, n=n))
        np.testing.assert_allclose(shared(list(references), captions), wanted, rtol=1e-12, atol=1e-14)
    assert (CiderD(references).n, CiderD(references).sigma, CiderD(references).plain) == (4, 6.0, False)


GRAMS = {"a": 2, "b": 3, "c": 1, "d": 1, "ab": 2, "aa": 1, "bc": 1, "db": 1, "aab": 1, "abc": 1}  # in images


def test_an_end_that_counts_is_a_word_of_every_order():
    """Sampled captions: without the end they lose its n-grams of every order, and are one bigram shorter."""
    references = {1: ["a b c", "b c"], 2: ["a d"], 3: ["c"]}
    tokens = {key: [[*text.split(), "END"] for text in texts] for key, texts in references.items()}
    frequencies = slow_scores.document_frequencies(tokens)
    asked = [1, 1, 2, 2, 3, 3, 1]
    captions = [list("abc"), list("abc"), list("ad"), [], [], list("c"), list("bcb")]
    ended = [True, False, True, True, False, True, False]
    spelled = [[*words, "END"] if done else words for words, done in zip(captions, ended, strict=True)]
    cider = [slow_scores.cider(w, tokens[k], *frequencies) for k, w in zip(asked, spelled, strict=True)]
    blue = [slow_scores.bleu_4(w, tokens[k]) for k, w in zip(asked, spelled, strict=True)]
    for weights in ((1.0, 0.0), (0.0, 1.0), (0.3, 2.0), (-1.0, 0.5)):
        reward = Reward(references, cider_d=weights[0], bleu_4=weights[1])
        wanted = weights[0] * np.array(cider) + weights[1] * np.array(blue)
        np.testing.assert_allclose(reward(asked, captions, ended), wanted, rtol=1e-11, atol=1e-14)
    default = Reward(references)(asked, captions, ended)
    np.testing.assert_allclose(default, cider, rtol=1e-12, atol=1e-14)
    assert default[0] > default[1] and default[4] == 0.0


def test_references_are_told_apart_to_the_last_letter():
    """Captions and images do not run into one another in the digest of the references."""
    forms = [{1: ["a"], 2: ["bc"]}, {1: ["ab"], 2: ["c"]}, {1: ["a", "bc"]}, {1: ["a bc"]}, {1: ["a"], 2: ["b", "c"]}]
    states = [Reward(form, count_end=False).state_dict() for form in forms]
    assert len({state["references"] for state in states}) == len(forms)
    assert {len(state["references"]) for state in states} == {32}
    for form in forms:
        taken = [Reward(form, count_end=False, saved=state).taken_over for state in states]
        assert sum(taken) == 1 and taken[forms.index(form)]


# ROUGE-L


def test_rouge_by_hand():
    police = ["police", "killed", "the", "gunman"]
    assert rouge_l(["police", "kill", "the", "gunman"], [police]) == pytest.approx(3 / 4, rel=1e-12)  # Lin's examples
    assert rouge_l(["the", "gunman", "kill", "police"], [police]) == pytest.approx(2 / 4, rel=1e-12)
    # Precision 1, recall 1/2: (1 + 1.44) · 1/2 / (1/2 + 1.44)
    assert rouge_l(["a"], [["a", "b"]]) == pytest.approx(2.44 * 0.5 / (0.5 + 1.44), rel=1e-12)
    assert rouge_l(["a", "b"], [["a"]]) == pytest.approx(2.44 * 0.5 / (1 + 1.44 * 0.5), rel=1e-12)
    # The best precision is of one reference, the best recall of another.
    both = rouge_l(["a", "b", "c"], [["a", "x", "b", "c", "y", "z"], ["a"]])
    assert both == pytest.approx(1.0, rel=1e-12)
    assert rouge_l(["a"], [["b"], ["c"]]) == 0.0
    assert rouge_l([], [[]]) == rouge_l([], [["a"], []]) == 1.0 and rouge_l([], [["a"]]) == rouge_l(["a"], [[]]) == 0.0


def test_rouge_of_every_short_caption():
    """All captions of up to four of three words, against all references of up to four."""
    every = [list(words) for length in range(1, 5) for words in itertools.product("abc", repeat=length)]
    for caption in every[:: len(every) // 40]:
        for reference in every:
            assert rouge_l(caption, [reference]) == pytest.approx(slow_scores.rouge_l(caption, [reference]), rel=1e-12)
    for caption, texts in [*ODD, *random_world(3)]:
        group = [text.split() or [""] for text in texts]
        wanted = slow_scores.rouge_l(caption.split() or [""], group)
        assert rouge_l(caption.split(), [text.split() for text in texts]) == pytest.approx(wanted, rel=1e-12)
    long = [list("abcdefgh" * 20), list("hgfedcba" * 15)]  # more words than bits of a machine's number
    assert rouge_l(long[0], [long[1]]) == pytest.approx(slow_scores.rouge_l(long[0], [long[1]]), rel=1e-12)


@pytest.mark.parametrize("name", ["odd", "random", "one image", "alike"])
def test_the_official_programs_score_each_image_alike(name):
    """pycocoevalcap 1.2 on the same tokens; docs/evaluate.md says to 1e-9."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    truths = {at: texts for at, (_, texts) in enumerate(WORLDS[name])}
    captions = {at: text for at, (text, _) in enumerate(WORLDS[name])}
    results = {at: [text] for at, text in captions.items()}
    report = Scorer(bootstrap=0)(truths, captions)
    totals, each = Bleu(4).compute_score(truths, results, verbose=0)
    official = dict(zip(NAMES, zip(totals, each, strict=True), strict=False))
    official |= {"ROUGE-L": Rouge().compute_score(truths, results), "CIDEr": Cider().compute_score(truths, results)}
    for score in NAMES:
        assert report.scores[score] == pytest.approx(official[score][0], abs=1e-9)
        np.testing.assert_allclose(report.table.values[score], official[score][1], rtol=0, atol=1e-9)


# METEOR's formula, without Java


def meteor_rows() -> np.ndarray:
    random = np.random.default_rng(0)
    rows = random.integers(0, 6, (40, 23)).astype(float)
    rows[:, 0:2] += rows[:, 2:4] + 5
    rows[:, 20] += 1
    rows[:, 21:23] += 1
    rows[0, 4:20] = 0  # nothing matches
    rows[1, 4:20:2] = 0  # no word of the caption matches
    rows[2, [0, 2]] = 0  # an empty caption
    rows[3, 20:23] = 0  # no chunk
    return rows


def test_meteor_of_its_statistics():
    rows = meteor_rows()
    np.testing.assert_allclose(java.meteor(rows), [slow_scores.meteor(row) for row in rows], rtol=1e-12)
    assert java.meteor(rows).min() == 0.0 and java.meteor(rows)[3] > 0
    assert java.meteor(rows.sum(0)) == pytest.approx(slow_scores.meteor(rows.sum(0)), rel=1e-12)
    # By hand: four of five words of the caption match four of six exactly, one of them a function word, in two chunks.
    row = np.zeros(23)
    row[[0, 1, 2, 3]], row[[4, 5, 6, 7]], row[[20, 21, 22]] = [5, 6, 1, 2], [3, 3, 1, 1], [2, 4, 4]
    p, r = (0.75 * 3 + 0.25) / (0.75 * 4 + 0.25), (0.75 * 3 + 0.25) / (0.75 * 4 + 0.25 * 2)
    wanted = p * r / (0.85 * p + 0.15 * r) * (1 - 0.6 * (2 / 4) ** 0.2)
    assert java.meteor(row) == pytest.approx(wanted, rel=1e-12)


def test_statistics_that_meteor_prints(monkeypatch):
    """One line per image; a single chunk of both whole sides counts as none."""
    rows = meteor_rows().astype(int)
    rows[4, [0, 1, 20, 21, 22]] = [7, 6, 1, 7, 6]  # whole
    rows[5, [0, 1, 20, 21, 22]] = [7, 6, 2, 7, 6]  # two chunks
    rows[6, [0, 1, 20, 21, 22]] = [7, 6, 1, 7, 5]  # not the whole reference
    rows[7, [0, 1, 20, 21, 22]] = [7, 6, 1, 6, 6]  # not the whole caption
    asked = []

    def run(command, *, input, **_):
        asked.append(input)
        printed = "".join(" ".join(map(str, row)) + "\n" for row in rows)
        return SimpleNamespace(stdout=printed, stderr="", returncode=0)

    monkeypatch.setattr(java, "command", lambda *arguments, **names: ["java"])
    monkeypatch.setattr(subprocess, "run", run)
    found = java.meteor_counts([["a  b", "c|||d"], *[["x"]] * 39], ["e \n f", *["y"] * 39])
    wanted = rows.astype(float)
    wanted[4, 20] = 0
    assert found.tolist() == wanted.tolist()
    assert asked[0].splitlines() == ["SCORE ||| a b ||| cd ||| e f", *["SCORE ||| x ||| y"] * 39]


# Diversity

GROUPS = {
    1: ["a b c d", "a b c e", "", "a b c d"],
    2: ["x y", "b a b"],
    3: ["c d"],
    4: ["a a a a a", "a b a b", "d"],
}
TRUTHS = {1: ["a b c d e", "b c"], 2: ["a b a", "y x"], 3: ["c d e f"], 4: ["a a b", "d d"]}


def test_samples_of_several_images_from_the_definitions():
    samples = {key: [text.split() for text in texts] for key, texts in GROUPS.items()}
    references = {key: [text.split() for text in texts] for key, texts in TRUTHS.items()}
    found = diversity.describe_samples(samples, references, References(references))
    assert found["an image"] == 10 / 4
    assert found["div-1"] == pytest.approx(np.mean([5 / 12, 4 / 5, 2 / 2, 3 / 10]), rel=1e-12)
    assert found["div-2"] == pytest.approx(np.mean([4 / 12, 3 / 5, 1 / 2, 3 / 10]), rel=1e-12)
    others = [
        (words, [*group[:at], *group[at + 1 :]])
        for group in samples.values()
        if len(group) > 1
        for at, words in enumerate(group)
    ]
    assert found["mBLEU-4"] == pytest.approx(slow_scores.corpus_bleu(others)[3], rel=1e-12)
    frequencies = slow_scores.document_frequencies(references)
    each = []
    for group in samples.values():
        matrix = [[slow_scores.cider(a, [b], *frequencies, plain=True) / 10 for b in group] for a in group]
        roots = np.sqrt(np.clip(np.linalg.eigvalsh(matrix), 0, None))
        each.append(-np.log(roots.max() / roots.sum()) / np.log(len(group)) if len(group) > 1 else 0.0)
    assert found["self-CIDEr"] == pytest.approx(np.mean(each), rel=1e-6) and len(set(each)) == 4
    for order in range(4):
        best = []
        for key, group in samples.items():
            scores = [slow_scores.corpus_bleu([(words, references[key])])[order] for words in group]
            best.append((group[scores.index(max(scores))], references[key]))
        assert found[f"oracle BLEU-{order + 1}"] == pytest.approx(slow_scores.corpus_bleu(best)[order], rel=1e-12)
    spelled = {key: [words or [""] for words in group] for key, group in samples.items()}
    rouge = [max(slow_scores.rouge_l(words, references[key]) for words in group) for key, group in spelled.items()]
    assert found["oracle ROUGE-L"] == pytest.approx(np.mean(rouge), rel=1e-12)
    cider = [max(slow_scores.cider(w, references[k], *frequencies) for w in group) for k, group in samples.items()]
    assert found["oracle CIDEr"] == pytest.approx(np.mean(cider), rel=1e-12)
    assert list(found) == ["an image", "div-1", "div-2", "mBLEU-4", "self-CIDEr", *(f"oracle {n}" for n in NAMES)]


NAMES = ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr"]


def test_shares_of_distinct_ngrams():
    assert diversity.distinct_share([["a", "a", "b"], ["a", "a"]], 1) == 2 / 5
    assert diversity.distinct_share([["a", "a", "b"], ["a", "a"]], 2) == 2 / 5
    assert diversity.distinct_share([["a"], []], 2) == 0.0
    assert diversity.distinct_share([[], []], 1) == 0.0
    assert diversity.distinct_share([["a"], []], 1) == 1.0


def test_captions_of_few_words_are_described():
    lengths = [[["a"], ["a", "b", "c"]], [["a", "b"]], [[]]]
    for captions, unknown, empty in (
        ([["<unk>"]], 1.0, 0.0),
        ([[]], 0.0, 1.0),
        ([["<unk>", "a"], ["<unk>"]], 2 / 3, 0),
    ):
        found = diversity.describe_diversity(captions, lengths)
        assert found["unknown words"] == unknown and found["empty"] == empty
        assert found["length of references"] == 6 / 4 and found["with unknown words"] == 1 - empty
    found = diversity.describe_diversity([["x"], ["x", "y"]], lengths, unknown="x", training={("x", "y"), ("y",)})
    assert (found["unknown words"], found["novel"], found["shortest"], found["longest"]) == (2 / 3, 0.5, 1, 2)


# n-grams as numbers


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("base", [np.uint64(2**12), ngrams.HASH_BASE])
def test_every_ngram_has_its_own_number(base, n):
    captions = [[1, 2, 3, 1, 2], [], [7], [2, 1], [3, 3, 3, 3, 3, 3, 3]]
    lengths = np.array([len(words) for words in captions])
    flat = np.array([word for words in captions for word in words], np.uint64)
    found = ngrams._grams(flat, lengths, n, base)
    wanted = [
        (row, sum(int(word) * int(base) ** (order - at) for at, word in enumerate(words[start : start + order + 1])))
        for order in range(n)
        for row, words in enumerate(captions)
        for start in range(len(words) - order)
    ]
    assert found.rows.tolist() == [row for row, _ in wanted]
    assert found.keys.tolist() == [key % 2**64 for _, key in wanted]
    sizes = [sum(max(len(words) - order, 0) for words in captions) for order in range(n)]
    assert found.orders.tolist() == [order for order, size in enumerate(sizes) for _ in range(size)]


def test_the_base_packs_as_long_as_half_of_its_numbers_do():
    assert [ngrams.choose_base(words, 4) for words in (0, 32_767)] == [2**16, 2**16]
    assert ngrams.choose_base(32_768, 4) == ngrams.HASH_BASE == ngrams.choose_base(5, 1)
    assert [ngrams.choose_base(9, n) for n in (2, 3, 5)] == [2**32, 2**21, 2**12]
    assert ngrams.choose_base(2047, 5) == 2**12 and ngrams.choose_base(2048, 5) == ngrams.HASH_BASE
    golden = (math.isqrt(5 * 4**64) - 2**64) // 2  # 2**64 over the golden ratio
    assert int(ngrams.HASH_BASE) % 2 == 1 and abs(int(ngrams.HASH_BASE) - golden) <= 1


def test_words_beside_document_frequencies_up_to_three_quarters_of_the_numbers():
    """n = 5: numbers of 12 bits, of which 4 095 are words'; 3 071 fit beside the strange words of a caption."""
    frequencies = DocumentFrequencies.build({1: [["a", "b"]]}, n=5)
    words = [f"w{at}" for at in range(3069)]
    index = References({1: [["a", "b", *words]]}, n=5, words=frequencies.words, base=frequencies.base)
    assert len(index.words) == 3071
    with pytest.raises(DataError, match="3072 different words, too many for document frequencies of 2 words"):
        References({1: [["a", "b", *words, "one"]]}, n=5, words=frequencies.words, base=frequencies.base)


def test_strange_words_are_told_apart_as_long_as_numbers_last():
    """A caption's own strange words get numbers past the references'; where none is left they count as one."""
    index = References({1: [["a", "b"]]}, n=5)
    assert index._known([["x", "a", "y", "x"], ["y", "b"], ["a"]]).tolist() == [3, 1, 4, 3, 3, 2, 1]
    assert index._known([[f"s{at}" for at in range(4100)]]).tolist() == [*range(3, 4096), *[4095] * 7]
    hashed = References({1: [["a", "b"]]}, n=5, base=ngrams.HASH_BASE)
    assert hashed._known([[f"s{at}" for at in range(4100)]]).tolist() == list(range(3, 4103))


def test_tables_and_ranges():
    table = np.array([2, 5, 9], np.uint64)
    assert ngrams.find(table, np.array([9, 1, 2, 5, 6, 10], np.uint64)).tolist() == [2, -1, 0, 1, -1, -1]
    assert ngrams.find(table[:0], table).tolist() == [-1, -1, -1]
    assert ngrams.ranges(np.array([3, 0, 7]), np.array([5, 0, 8])).tolist() == [3, 4, 7]
    assert ngrams.ranges(np.array([], int), np.array([], int)).tolist() == []


# Totals


def test_totals_are_means_of_images_and_ratios_of_counts():
    counts = np.array(
        [[4, 3, 2, 1, 5, 4, 3, 2, 5, 6], [9, 5, 3, 1, 9, 8, 7, 6, 9, 9], [0, 0, 0, 0, 2, 1, 0, 0, 2, 4.0]]
    )
    meteors = meteor_rows()[:3]
    values = {f"BLEU-{n}": np.array([0.1, 0.2, 0.3]) for n in (1, 2, 3, 4)}
    values |= {"METEOR": np.array([0.1, 0.2, 0.3]), "CIDEr": np.array([1.0, 2.0, 6.0]), "ROUGE-L": np.array([1, 0, 0])}
    table = ScoreTable([5, 6, 7], ["", "", ""], values, {"BLEU": counts, "METEOR": meteors})
    weights = np.array([[1, 1, 1.0], [2, 0, 1], [0, 0, 3], [1, 0, 3]])  # the last: of more images than there are
    for found, drawn in ((table.totals(weights), weights), (table.totals(), weights[:1])):
        assert found["CIDEr"].tolist() == pytest.approx([3.0, 8 / 3, 6.0, 19 / 4][: len(drawn)], rel=1e-12)
        assert found["ROUGE-L"].tolist() == pytest.approx([1 / 3, 2 / 3, 0, 1 / 4][: len(drawn)], rel=1e-12)
        for row, each in enumerate(drawn):
            wanted = slow_scores.bleu_of(each @ counts)
            assert [found[f"BLEU-{n}"][row] for n in (1, 2, 3, 4)] == pytest.approx(wanted, rel=1e-12)
            assert found["METEOR"][row] == pytest.approx(slow_scores.meteor(each @ meteors), rel=1e-12)
    taken = table.take(np.array([2, 0]))
    assert taken.image_ids == [7, 5] and taken.values["CIDEr"].tolist() == [6.0, 1.0]
    assert taken.counts["BLEU"].tolist() == counts[[2, 0]].tolist() and taken.names is None
    assert table._replace(names=["a", "b", "c"]).take(np.array([2, 0])).names == ["c", "a"]


def test_scores_need_no_settings(monkeypatch):
    """1000 resamples of seed 0, this tokenizer, and no Java program."""
    monkeypatch.setattr(java.shutil, "which", lambda name: None)
    references = {at: texts for at, (_, texts) in enumerate(WORLDS["random"])}
    captions = {at: text for at, (text, _) in enumerate(WORLDS["random"])}
    report, wanted = Scorer()(references, captions), Scorer(tokenizer="ptb", bootstrap=1000, seed=0)
    assert report._replace(table=None) == wanted(references, captions)._replace(table=None)
    assert report.intervals == bootstrap.intervals(report.table, resamples=1000, seed=0)
    again = Scorer(seed=1, bootstrap=20)(references, captions)
    assert again.intervals == bootstrap.intervals(again.table, resamples=20, seed=1) != report.intervals
    assert (report.resamples, report.tokenizer, report.unavailable, report.samples) == (1000, "ptb", {}, {})
    assert list(report.intervals) == NAMES and Scorer(bootstrap=0)(references, captions).intervals == {}


def test_novel_captions_and_captions_that_cannot_be_split():
    references, captions = {1: ["a b c"], 2: ["b c"], 3: ["d"]}, {1: "a b", 2: "c", 3: "d"}
    scorer = Scorer(bootstrap=0)
    assert "novel" not in scorer(references, captions).captions and not scorer(references, captions).unavailable
    empty = scorer(references, captions, training=[])
    assert empty.unavailable == {"novel": "the data set has no training captions"} and "novel" not in empty.captions
    known = scorer(references, captions, training={"C.", "a  B"})
    assert known.captions["novel"] == 1 / 3 and known.unavailable == {} and known.notes == {}
    long = {key: ["一只黑色的猫在草地上奔跑"] for key in (1, 2, 3)}
    assert list(scorer(long, captions | {1: "a"}).notes) == ["CIDEr", "WARNING"]
    assert scorer(references, captions, unknown="d").captions["unknown words"] == 1 / 4


def test_scores_of_programs_stand_beside_the_others(monkeypatch):
    """METEOR of a split is that of its added statistics, SPICE the mean; each image has its own of both."""
    references, captions = {1: ["a b c", "b"], 2: ["b c"], 3: ["d"]}, {3: "d d", 1: "A b.", 2: "c"}
    rows = meteor_rows()[4:7]

    def meteor_counts(groups, texts):
        assert (groups, texts) == ([["a b c", "b"], ["b c"], ["d"]], ["a b", "c", "d d"])
        return rows

    def spice(groups, texts):
        assert (groups, texts) == ({1: ["a b c", "b"], 2: ["b c"], 3: ["d"]}, {1: "a b", 2: "c", 3: "d d"})
        return np.array([0.1, 0.2, 0.6])

    monkeypatch.setattr(java, "meteor_counts", meteor_counts)
    monkeypatch.setattr(java, "spice", spice)
    report = Scorer(meteor=True, spice=True, bootstrap=5)(references, captions)
    plain = Scorer(bootstrap=5)(references, captions)
    assert list(report.scores) == list(report.table.values) == list(report.intervals) == [*NAMES, "METEOR", "SPICE"]
    assert {name: report.scores[name] for name in NAMES} == plain.scores
    assert report.scores["METEOR"] == pytest.approx(slow_scores.meteor(rows.sum(0)), rel=1e-12)
    assert report.table.values["METEOR"].tolist() == pytest.approx([slow_scores.meteor(row) for row in rows], rel=1e-12)
    assert report.scores["SPICE"] == pytest.approx(0.3) and report.table.values["SPICE"].tolist() == [0.1, 0.2, 0.6]
    assert list(report.table.counts) == ["BLEU", "METEOR"] and report.table.counts["METEOR"].tolist() == rows.tolist()
    assert report.table.counts["BLEU"].tolist() == plain.table.counts["BLEU"].tolist()


def test_errors_name_the_first_five_ids_and_every_caption_that_is_no_text():
    assert name_ids([3, 1, 2]) == "1, 2, 3" and name_ids(range(5)) == "0, 1, 2, 3, 4"
    assert name_ids(range(6)) == "0, 1, 2, 3, 4 …" and name_ids(["b", 10, "a", 9]) == "9, 10, a, b"
    with pytest.raises(DataError, match=r"1 image with a reference that is not text: image ids 2\. Give "):
        Scorer()({1: ["a"], 2: ["a", None, "b"]}, {1: "a", 2: "b"})


def test_the_fingerprint_of_references_stays_what_older_runs_wrote():
    """Whatever the order and the ids; every word counts, and so does whose it is. Empty references do not."""
    mark = fingerprint({1: [["a", "dog"], ["c"]], 2: [["d"]]})
    assert mark == "50959440313bb87c"
    assert mark == fingerprint({"x": [["d"], []], 1: [["c"], [], ["a", "dog"]]})
    others = ([["a", "dog"]], [["c"], ["d"]]), ([["a", "dogs"], ["c"]], [["d"]]), ([["a"], ["dog"], ["c"]], [["d"]])
    others += ([["a", "dog"], ["c"], ["c"]], [["d"]]), ([["a", "dog"], ["c"]],), ([["a", "dog"], ["c"], ["d"]], [["d"]])
    assert len({mark, *(fingerprint(dict(enumerate(groups))) for groups in others)}) == 7
    assert len(fingerprint({1: [["\ud83d"]]})) == 16


def test_a_table_of_ids_of_every_kind_and_with_counts_of_meteor(tmp_path):
    values = {"METEOR": np.array([0.25, 0.5, 0.75, 1.0]), "CIDEr": np.array([1 / 3, 2, 3, 4])}
    ids = [7, "\u0663", "a7", "7a"]
    table = ScoreTable(ids, ["a\r\nb", "c,d", '"', ""], values, {"METEOR": np.arange(92.0).reshape(4, 23)})
    text = to_csv(table)
    assert text.startswith("image_id,caption,METEOR,CIDEr,METEOR:0,") and ",1,4,69,70," in text.splitlines()[-1]
    assert text.count("\r") == 1
    (tmp_path / "t.csv").write_bytes(text.encode())
    again = from_csv(tmp_path / "t.csv")
    assert (again.image_ids, again.captions, again.names) == (ids, table.captions, None)
    assert again.counts["METEOR"].tolist() == table.counts["METEOR"].tolist()
    assert again.values["CIDEr"].tolist() == [0.3333333333, 2, 3, 4] and list(again.values) == ["METEOR", "CIDEr"]
    (tmp_path / "t.csv").write_text("image_id,caption,file_name,CIDEr\n1,a,x.jpg,0.5\n2,b,,1\n")
    named = from_csv(tmp_path / "t.csv")
    assert named.names == ["x.jpg", ""] and named.values["CIDEr"].tolist() == [0.5, 1] and named.counts == {}
    (tmp_path / "t.csv").write_text("image_id,caption,CIDEr\n ,a,0.5\n")
    with pytest.raises(DataError, match="an image id is empty"):
        from_csv(tmp_path / "t.csv")


def test_cider_is_zero_only_where_all_images_have_the_same_ngrams_of_every_order():
    """Two images with the same words, pairs and triples, but other quadruples, have a CIDEr."""
    for one, other in (("a b a b", "b a b a"), ("a b", "b a"), ("a b c a b", "a b c"), ("x y z", "x y w")):
        report = Scorer(bootstrap=5)({1: [one], 2: [other]}, {1: one, 2: one})
        assert not report.notes and "CIDEr" in report.intervals and report.scores["CIDEr"] > 0
    assert not Scorer(bootstrap=0)({1: ["a b"], 2: ["a b"], 3: ["a c"]}, {1: "a", 2: "a", 3: "a"}).notes
    assert "one image alone" in Scorer(bootstrap=0)({1: ["a b"]}, {1: "a"}).notes["CIDEr"]
    for one, other in ((["a b", "b"], ["b", "a b"]), (["a b a b a"], ["a b a b a", "b a b a", "a b a b"])):
        report = Scorer(bootstrap=5)({1: one, 2: other}, {1: one[0], 2: one[0]})
        assert "all 2 images have the same references" in report.notes["CIDEr"]
        assert report.scores["CIDEr"] == 0 and "CIDEr" not in report.intervals and "BLEU-1" in report.intervals


def test_scores_of_a_split_from_the_definitions():
    """From raw text to each image's scores and the split's: corpus BLEU, means of ROUGE-L and CIDEr-D."""
    references = {at: texts for at, (_, texts) in enumerate(WORLDS["random"])}
    captions = {at: text for at, (text, _) in enumerate(WORLDS["random"])}
    report = Scorer(bootstrap=0)(references, captions)
    tokens = {key: [text.split() for text in texts] for key, texts in references.items()}
    frequencies = slow_scores.document_frequencies(tokens)
    pairs = [(captions[key].split(), tokens[key]) for key in references]
    cider = [slow_scores.cider(words, group, *frequencies) for words, group in pairs]
    rouge = [slow_scores.rouge_l(words or [""], [other or [""] for other in group]) for words, group in pairs]
    wanted = dict(zip(NAMES, [*slow_scores.corpus_bleu(pairs), np.mean(rouge), np.mean(cider)], strict=True))
    assert report.scores == pytest.approx(wanted, rel=1e-12) and list(report.scores) == NAMES
    for order in range(4):
        each = [slow_scores.corpus_bleu([pair])[order] for pair in pairs]
        np.testing.assert_allclose(report.table.values[f"BLEU-{order + 1}"], each, rtol=1e-12)
    np.testing.assert_allclose(report.table.values["CIDEr"], cider, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(report.table.values["ROUGE-L"], rouge, rtol=1e-12)
