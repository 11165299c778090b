"""CIDEr-D, plain CIDEr and the reward against the official scorer and against dictionaries."""

import io
import json

import numpy as np
import pytest
import slow_scores
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captioning.errors import CheckpointError, ConfigError, DataError
from captioning.metrics import Reward, ngrams
from captioning.metrics.bleu import bleu, bleu_counts
from captioning.metrics.ciderd import CiderD, DocumentFrequencies
from captioning.metrics.ngrams import References
from captioning.metrics.rouge import rouge_l

captions = st.lists(st.sampled_from("abcdeé"), max_size=9)
worlds = st.lists(st.tuples(captions, st.lists(captions, min_size=1, max_size=4)), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def fakecap(request):
    shared = request.getfixturevalue("shared_dir")
    content = json.loads((shared / "metrics" / "coco_val2014_fakecap334.json").read_text())
    return content | {"image_ids": [str(image_id) for image_id in content["per_image_order"]]}


def of_fakecap(fakecap):
    references = {key: [text.split() for text in texts] for key, texts in fakecap["tokenized_refs"].items()}
    first = fakecap["tokenized_hyps"]
    texts = [first[key][0] if isinstance(first[key], list) else first[key] for key in fakecap["image_ids"]]
    return references, [text.split() for text in texts]


def test_recorded_scores_of_each_image(fakecap):
    references, hypotheses = of_fakecap(fakecap)
    scorer = CiderD(references)
    cider = scorer(fakecap["image_ids"], hypotheses)
    np.testing.assert_allclose(cider, fakecap["per_image"]["CIDEr"], atol=1e-6)
    assert cider.mean() == pytest.approx(fakecap["scores"]["CIDEr"], abs=1e-6)
    counted = bleu_counts(scorer.references, scorer.references.match(fakecap["image_ids"], hypotheses))
    for order in range(4):
        np.testing.assert_allclose(bleu(counted)[:, order], fakecap["per_image"][f"Bleu_{order + 1}"], atol=1e-6)
        assert bleu(counted.sum(0))[order] == pytest.approx(fakecap["scores"][f"Bleu_{order + 1}"], abs=1e-6)
    rouge = [rouge_l(words, references[key]) for key, words in zip(fakecap["image_ids"], hypotheses, strict=True)]
    np.testing.assert_allclose(rouge, fakecap["per_image"]["ROUGE_L"], atol=1e-6)
    assert np.mean(rouge) == pytest.approx(fakecap["scores"]["ROUGE_L"], abs=1e-6)


def test_the_official_scorer_says_the_same_to_nine_digits(fakecap):
    from pycocoevalcap.cider.cider import Cider

    references, hypotheses = of_fakecap(fakecap)
    truths = {key: [" ".join(words) for words in references[key]] for key in fakecap["image_ids"]}
    results = {key: [" ".join(words)] for key, words in zip(fakecap["image_ids"], hypotheses, strict=True)}
    _, official = Cider().compute_score(truths, results)
    np.testing.assert_allclose(CiderD(references)(fakecap["image_ids"], hypotheses), official, rtol=0, atol=1e-9)


@pytest.mark.parametrize("base", [None, ngrams.HASH_BASE])
@given(worlds, st.booleans())
@settings(max_examples=80, deadline=None)
def test_any_captions_score_as_with_dictionaries(base, world, plain):
    references = {image_id: group for image_id, (_, group) in enumerate(world)}
    hypotheses = [[*words, "new", "new"] if words[:1] == ["a"] else words for words, _ in world]
    frequencies = slow_scores.document_frequencies(references)
    index = References(references, base=base)
    scorer = CiderD(index, frequencies=DocumentFrequencies.of(index), plain=plain)
    wanted = [
        slow_scores.cider(words, references[image_id], *frequencies, plain=plain)
        for image_id, words in enumerate(hypotheses)
    ]
    np.testing.assert_allclose(scorer(range(len(world)), hypotheses), wanted, atol=1e-12)
    counted = bleu_counts(index, index.match(range(len(world)), hypotheses))
    wanted = [slow_scores.bleu_4(words, references[image_id]) for image_id, words in enumerate(hypotheses)]
    np.testing.assert_allclose(bleu(counted)[:, 3], wanted, atol=1e-12)


@given(worlds)
@settings(max_examples=80, deadline=None)
def test_rouge_as_with_a_table(world):
    for words, group in world:
        spelled = [other or [""] for other in group]
        assert rouge_l(words, group) == pytest.approx(slow_scores.rouge_l(words or [""], spelled), abs=1e-15)


def test_repeated_and_reordered_images():
    references = {7: [["a", "b", "c"]], 5: [["a", "d"], ["d", "d"]], 6: [["b"]]}
    scorer, asked = CiderD(references), [5, 7, 5, 6]
    hypotheses = [["d", "d"], ["a", "b"], ["a"], ["b"]]
    single = [float(scorer([key], [words])[0]) for key, words in zip(asked, hypotheses, strict=True)]
    assert scorer(asked, hypotheses).tolist() == single and single[0] != single[2]
    assert len(scorer([], [])) == 0
    with pytest.raises(DataError, match="image ids 8"):
        scorer([8], [["a"]])


@pytest.mark.parametrize("base", [None, ngrams.HASH_BASE])
def test_document_frequencies_of_another_split(tmp_path, base):
    training = {1: [["a", "b"], ["a", "c"]], 2: [["a", "d"]], 3: [["b", "x", "y"]], 4: [["z"]]}
    references = {10: [["a", "b", "q"], ["q", "b"]], 11: [["x", "y", "a"]]}
    state = DocumentFrequencies.of(References(training, base=base)).state_dict()
    assert base is not None or all(
        (state[key] == value).all() if isinstance(value, np.ndarray) else state[key] == value
        for key, value in DocumentFrequencies.build(training).state_dict().items()
    )
    np.savez(tmp_path / "frequencies.npz", **state)
    with np.load(tmp_path / "frequencies.npz") as stored:
        state = {
            key: stored[key].tolist() if stored[key].dtype.kind == "U" or not stored[key].ndim else stored[key]
            for key in stored
        }
    frequencies = DocumentFrequencies.from_state_dict(state)
    assert (frequencies.images, frequencies.n) == (4, 4)
    hypotheses = [["a", "b", "d", "d"], ["b", "x", "y", "new"]]  # n-grams known only to the one, the other, neither
    slow = slow_scores.document_frequencies(training)
    wanted = [slow_scores.cider(words, references[key], *slow) for key, words in zip((10, 11), hypotheses, strict=True)]
    np.testing.assert_allclose(CiderD(references, frequencies=frequencies)([10, 11], hypotheses), wanted, atol=1e-12)
    assert "q" not in frequencies.words  # what is scored leaves the shared counts as they are
    with pytest.raises(ValueError, match="n = 4 cannot score n = 2"):
        CiderD(references, frequencies=frequencies, n=2)


def test_more_words_than_16_bits_hold():
    references = {key: [[f"w{key}", "and", f"w{key + 1}", f"v{key}"]] for key in range(40_000)}
    scorer = CiderD(references)
    assert scorer.references.base == ngrams.HASH_BASE
    frequencies = slow_scores.document_frequencies(references)
    hypotheses = [["w3", "and", "w4"], ["w39999", "and", "new"]]
    wanted = [slow_scores.cider(w, references[k], *frequencies) for k, w in zip((3, 39_999), hypotheses, strict=True)]
    np.testing.assert_allclose(scorer([3, 39_999], hypotheses), wanted, atol=1e-12)
    small = DocumentFrequencies.build({1: [["a", "b"]]})
    with pytest.raises(DataError, match="build the document frequencies from these references, too"):
        CiderD(references, frequencies=small)


RAW = {1: ["A dog runs.", "The dog is running fast!"], 2: ["Two cats sleep on a bed"], 3: ["a man on a horse", "a man"]}


@pytest.mark.parametrize("count_end", [True, False])
def test_reward_is_the_weighted_sum(count_end):
    reward = Reward(RAW, cider_d=0.7, bleu_4=2.0, count_end=count_end)
    asked, ended = [2, 1, 1, 3], [True, False, True, True]
    written = [["two", "cats", "on", "a"], ["a", "dog", "runs"], ["a", "dog", "runs"], []]
    tail = ["<END>"] if count_end else []
    tokens = {1: ["a dog runs", "the dog is running fast"], 2: RAW[2], 3: RAW[3]}
    references = {key: [text.lower().split() + tail for text in texts] for key, texts in tokens.items()}
    frequencies = slow_scores.document_frequencies(references)
    wanted = []
    for key, words, done in zip(asked, written, ended, strict=True):
        words = words + tail * done
        cider = slow_scores.cider(words, references[key], *frequencies)
        wanted.append(0.7 * cider + 2.0 * slow_scores.bleu_4(words, references[key]))
    rewards = reward(asked, written, ended)
    np.testing.assert_allclose(rewards, wanted, atol=1e-12)
    assert (rewards[1] < rewards[2]) if count_end else (rewards[1] == rewards[2])


def test_a_word_spelled_like_the_end_is_another_word():
    reward = Reward({1: ["a dog"], 2: ["a cat"]})
    spelled, ended = reward([1, 1], [["a", "dog", "<end>"], ["a", "dog"]], [False, True])
    assert spelled < ended


def test_a_reward_of_nothing():
    with pytest.raises(ConfigError, match="both 0"):
        Reward(RAW, cider_d=0.0)


# Saved document frequencies


def travelled(state):
    """The state as it comes out of a checkpoint: what make_metadata makes of it, written and read."""
    file = io.BytesIO()
    torch.save({key: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for key, v in state.items()}, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@given(worlds, st.booleans())
@settings(max_examples=80, deadline=None)
def test_rewards_by_saved_frequencies_are_those_by_counted_ones(world, count_end):
    references = {image_id: [" ".join(words) for words in group] for image_id, (_, group) in enumerate(world)}
    first = Reward(references, bleu_4=0.5, count_end=count_end)
    again = Reward(references, bleu_4=0.5, count_end=count_end, saved=travelled(first.state_dict()))
    assert again.taken_over and not first.taken_over
    asked = [range(len(world)), [[*words, "new"] for words, _ in world], [len(words) % 2 == 0 for words, _ in world]]
    assert first(*asked).tolist() == again(*asked).tolist()
    assert str(travelled(first.state_dict())) == str(travelled(again.state_dict()))  # what a third run gets


@given(worlds, worlds)
@settings(max_examples=80, deadline=None)
def test_ngrams_of_one_image_need_not_be_saved(training, world):
    """log max(1, df) is one weight for none and for one: of no n-gram does it change by leaving those out."""
    counted = DocumentFrequencies.build({key: group for key, (_, group) in enumerate(training)})
    saved = DocumentFrequencies.from_state_dict(travelled(counted.state_dict()))
    assert len(saved.keys) == (counted.counts > 1).sum() and len(saved.words) == len(counted.words)
    assert saved.weights(counted.keys).tolist() == counted.weights(counted.keys).tolist()
    references, captions = {k: group for k, (_, group) in enumerate(world)}, [words for words, _ in world]
    scores = [CiderD(references, frequencies=each)(range(len(world)), captions).tolist() for each in (counted, saved)]
    assert scores[0] == scores[1]


def test_large_vocabularies_are_saved_too():
    references = {key: [f"w{key} and w{key + 1} v{key}"] for key in range(20_000)}
    first = Reward(references)
    assert first.frequencies.base == ngrams.HASH_BASE and first.frequencies.keys.max() > 2**63
    again = Reward(references, saved=travelled(first.state_dict()))
    asked = ([3, 19_999], [["w3", "and", "w4"], ["w19999", "and", "new"]], [True, False])
    assert again.taken_over and first(*asked).tolist() == again(*asked).tolist() and min(first(*asked)) > 0


OTHERS = {
    "a word more": RAW | {3: ["a man on a horse", "a man runs"]},
    "a caption less": RAW | {3: ["a man on a horse"]},
    "an image more": RAW | {4: ["a man"]},
    "a caption of another image": RAW | {2: [*RAW[2], "a man on a horse"], 3: ["a man"]},
    "words of another caption": RAW | {3: ["a man on a horse a", "man"]},
}


@pytest.mark.parametrize("what", OTHERS)
def test_frequencies_of_other_references_are_counted_anew(what):
    other = Reward(OTHERS[what], saved=travelled(Reward(RAW).state_dict()))
    asked = ([1, 3], [["a", "dog"], ["a", "man"]], [True, True])
    assert not other.taken_over and other(*asked).tolist() == Reward(OTHERS[what])(*asked).tolist()


def test_frequencies_without_the_ends_are_others():
    assert not Reward(RAW, count_end=False, saved=Reward(RAW).state_dict()).taken_over
    assert Reward({key + 7: texts for key, texts in RAW.items()}, saved=Reward(RAW).state_dict()).taken_over


STRANGE = {
    "none": {"keys": None},
    "text": {"keys": "abc"},
    "signed keys": {"keys": np.arange(3)},
    "descending keys": {"keys": np.array([5, 3, 2], np.uint64)},
    "repeated keys": {"keys": np.array([2, 2, 3], np.uint64)},
    "square keys": {"keys": np.ones((2, 2), np.uint64)},
    "fewer counts": {"counts": np.array([2], np.int32)},
    "fractions": {"counts": np.array([2.5, 2, 2])},
    "more than the images": {"counts": np.array([2, 2, 9], np.int32)},
    "no counts of images": {"images": True},
    "a list of numbers": {"words": [1, 2]},
    "unhashable words": {"words": [[], []]},
    "words twice": {"words": ["a", "a"]},
    "too few words": {"words": ["a"]},
    "too many words": {"words": [f"w{number}" for number in range(70_000)]},
    "a base": {"base": 10},
    "orders": {"n": 0},
    "other orders": {"n": 3, "base": 2**21},
    "no digest": {"references": None},
}


@pytest.mark.parametrize("what", STRANGE)
def test_strange_frequencies_are_refused(what):
    good = Reward(RAW).state_dict()
    keys = {"keys": np.array([1, 2, 3], np.uint64), "counts": np.array([2, 2, 3], np.int32)}
    assert Reward(RAW, saved=good | keys).taken_over
    with pytest.raises(CheckpointError, match=r"^the saved document `frequencies` are damaged \("):
        Reward(RAW, saved=good | keys | STRANGE[what])
    for state in ([], "abc", 3, {}, {"references": good["references"]}):
        with pytest.raises(CheckpointError, match=r"^the saved document `frequencies` are damaged \("):
            Reward(RAW, saved=state)
