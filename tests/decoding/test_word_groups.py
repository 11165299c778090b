"""Test guides, groups of words for each image, in every search: against enumeration and a slow search over lists."""

import math
import random

import pytest
import torch
from prefixes import END, PrefixModel, draw_world, every_caption, never, obeys, permitted, slow_search, worth
from trees import Tree

from captioning.decoding import WordGroup, beam_search, consensus_search, diverse_beam_search, greedy_search, sample
from captioning.errors import ConfigError


def draw_guides(generator, model, rules):
    """Return groups for each image: overlapping, some required, with bonuses of either sign."""
    words = [word for word in range(model.vocabulary) if word != END]
    guides = []
    for _ in range(model.images):
        groups = []
        for _ in range(generator.randint(0, 3)):
            chosen = tuple(generator.sample(words, generator.randint(1, min(3, len(words)))))
            room = sum(group.required for group in groups) + len(set(rules.get("require", ()))) + 1 < model.length
            left = set(chosen) - never(rules)
            others = [set(group.words) - never(rules) for group in groups if group.required]
            others += [{word} for word in rules.get("require", ())]
            nested = all(left <= other or other <= left or left.isdisjoint(other) for other in others)
            required = bool(room and generator.random() < 0.4 and left and nested)
            groups.append(WordGroup(chosen, required, generator.choice([0.0, 0.7, 2.5, -0.6, -3.0])))
        guides.append(groups)
    return guides


def of_image(rules, groups):
    """Return the rules of one image for the slow searches; of required groups, only those that no other implies."""
    known = [(set(group.words) - never(rules), group.required, group.bonus) for group in groups]
    least = [{word} for word in rules.get("require", ())]
    for words in sorted((words for words, required, _ in known if required), key=len):
        if not any(other <= words for other in least):
            least.append(words)
    return rules | {
        "require": (),
        "groups": [(words, True, 0.0) for words in least] + [(words, False, bonus) for words, _, bonus in known],
    }


def facts(hypotheses):
    return [
        (tuple(h.tokens), pytest.approx(h.log_prob, abs=1e-6), pytest.approx(h.score, abs=1e-6)) for h in hypotheses
    ]


@pytest.mark.parametrize("block", range(3))
def test_a_beam_as_wide_as_the_space_finds_the_best_guided_caption(block):
    changed = 0
    for seed in range(block * 100, block * 100 + 100):
        model, rules, generator = draw_world(seed)
        guides, width = draw_guides(generator, model, rules), model.vocabulary**model.length + 3
        plain = model.search(beam_search, beam_size=width, **rules)
        results = model.search(beam_search, beam_size=width, n_best=2, guides=guides, **rules)
        for image, hypotheses in enumerate(results):
            known = of_image(rules, guides[image])
            finished, unfinished = every_caption(model, image, known, max_length=model.length)
            captions = finished or unfinished
            ranked = [(tokens, p, worth(tokens, p, known)) for tokens, p in captions.items()]
            assert sorted(ranked, key=lambda item: -item[2])[:2] == facts(hypotheses), (seed, rules, guides)
            changed += [h.tokens for h in plain[image]] != [h.tokens for h in hypotheses[:1]]
    assert changed > 20  # guides matter in these worlds


@pytest.mark.parametrize("block", range(3))
def test_narrow_guided_beams_and_groups_equal_a_slow_search_that_never_ends_early(block):
    for seed in range(1000 + block * 100, 1100 + block * 100):
        model, rules, generator = draw_world(seed)
        guides = draw_guides(generator, model, rules)
        groups, width = generator.randint(1, 3), generator.randint(1, 4)
        arguments = {"beam_size": groups * width, "n_best": 1, "guides": guides, **rules}
        diversity = 0.0 if groups == 1 else 0.3
        if groups == 1:
            results = model.search(beam_search, **arguments)
        else:
            results = model.search(diverse_beam_search, groups=groups, diversity=diversity, **arguments)
        for image, hypotheses in enumerate(results):
            options = {"n_best": 1, "rules": of_image(rules, guides[image]), "max_length": model.length}
            wanted = slow_search(model, image, [width] * groups, diversity=diversity, **options)
            assert wanted == facts(hypotheses), (seed, rules, guides)


def test_each_image_of_a_batch_is_searched_as_if_alone():
    for seed in range(40):
        model, rules, generator = draw_world(seed)
        guides = draw_guides(generator, model, rules)
        together = model.search(beam_search, beam_size=4, guides=guides, **rules)
        for image in range(model.images):
            (alone,) = model.search(beam_search, images=[image], beam_size=4, guides=[guides[image]], **rules)
            assert facts(alone) == facts(together[image]), seed


def test_sampled_captions_obey_their_groups_and_keep_the_models_log_probability():
    seen = 0
    for seed in range(60):
        model, rules, generator = draw_world(seed)
        guides = draw_guides(generator, model, rules)
        for search, options in ((sample, {"samples": 4}), (greedy_search, {}), (consensus_search, {"samples": 4})):
            results = model.search(search, guides=guides, **options, **rules)
            for image, hypotheses in enumerate(results):
                known = of_image(rules, guides[image])
                for each in hypotheses:
                    tokens = tuple(each.tokens)
                    assert each.log_prob == pytest.approx(model.log_prob(image, tokens), abs=1e-5)
                    if search is not consensus_search:
                        assert all(
                            permitted(tokens[:t], word, known, max_length=model.length) for t, word in enumerate(tokens)
                        )
                        if tokens:
                            assert each.score == pytest.approx(worth(tokens, each.log_prob, known), abs=1e-5)
                    seen += tokens[-1:] == (END,) and obeys(tokens, known, max_length=model.length)
    assert seen > 300


def test_a_bonus_changes_the_distribution_of_samples_as_a_logit():
    model = PrefixModel(1, vocabulary=4, length=1, seed=3)
    guides = [[WordGroup((3,), bonus=1.3)]]
    options = {"samples": 20_000, "seed": 0, "min_length": 0}
    drawn = [h.tokens[0] for h in model.search(sample, guides=guides, **options)[0]]
    weights = (model.logits[0] + torch.tensor([0.0, 0.0, 0.0, 1.3])).softmax(-1)
    assert drawn.count(3) / len(drawn) == pytest.approx(weights[3].item(), abs=0.012)


def test_a_bonus_counts_once():
    """A word that may be repeated must not be written again for another bonus."""
    model = PrefixModel(1, vocabulary=4, length=4, seed=5)
    known = {"groups": [({3}, False, 5.0)]}
    (found,) = model.search(beam_search, beam_size=300, guides=[[WordGroup((3,), bonus=5.0)]])
    finished, _ = every_caption(model, 0, known, max_length=4)
    best = max(finished, key=lambda tokens: worth(tokens, finished[tokens], known))
    assert tuple(found[0].tokens) == best
    assert found[0].score == pytest.approx(found[0].log_prob + 5.0)


def test_a_group_whose_words_are_all_avoided_is_not_required():
    model = PrefixModel(2, vocabulary=5, length=4, seed=0)
    guides = [[WordGroup((3,), True)], [WordGroup((3, 4), True)]]
    first, second = model.search(beam_search, beam_size=4, guides=guides, avoid=(3,))
    (alone,) = model.search(beam_search, images=[0], beam_size=4, avoid=(3,))
    assert facts(first) == facts(alone) and 4 in second[0].tokens and 3 not in second[0].tokens


def test_a_search_goes_on_while_a_bonus_can_still_be_earned():
    """After one step a finished caption is ahead of all live rows, which only a later bonus can change."""
    tree = Tree(lambda image, prefix: {END: 0.6, 3: 0.4} if not prefix else {END: 0.7, 4: 0.3}, vocabulary=5, length=4)
    search = {"beam_size": 2, "max_length": 4}
    assert [h.tokens for h in tree.search(beam_search, **search)[0]] == [[END]]
    (found,) = tree.search(beam_search, guides=[[WordGroup((4,), bonus=4.0)]], **search)
    assert found[0].tokens == [3, 4, END] and found[0].log_prob == pytest.approx(math.log(0.4 * 0.3 * 0.7), abs=1e-6)
    assert found[0].score == pytest.approx(found[0].log_prob + 4.0, abs=1e-6)


def test_consensus_prefers_captions_with_a_word_of_each_required_group():
    generator, complete = random.Random(0), 0
    for seed in range(40):
        model = PrefixModel(2, vocabulary=6, length=4, seed=seed)
        guides = [[WordGroup(tuple(generator.sample([3, 4, 5], 2)), required=True)] for _ in range(2)]
        results = model.search(consensus_search, beam_size=6, finalists=3, samples=5, guides=guides, seed=0)
        for groups, (best, *_) in zip(guides, results, strict=True):
            complete += not set(best.tokens).isdisjoint(groups[0].words)
    assert complete == 80


def test_an_image_without_groups_is_searched_as_without_guides():
    model = PrefixModel(2, vocabulary=5, length=4, seed=9)
    plain = model.search(beam_search, beam_size=3)
    guided = model.search(beam_search, beam_size=3, guides=[[WordGroup((4,), required=True, bonus=2.0)], []])
    assert facts(plain[1]) == facts(guided[1]) and 4 in guided[0][0].tokens


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"guides": [[]]}, r"decoding\.guides has 1 lists for 2 images"),
        ({"guides": 3}, r"decoding\.guides must have a list of WordGroup per image"),
        ({"guides": [3, []]}, r"decoding\.guides must have a list of WordGroup per image"),
        ({"guides": "dog"}, r"decoding\.guides must have a list of WordGroup per image"),
        ({"guides": [[(3,)], []]}, r"decoding\.guides must have a list of WordGroup per image"),
        ({"guides": [[WordGroup((3,), True)] * 4, []]}, r"the 4 required groups of image 0 and <end> must fit"),
    ],
)
def test_bad_guides(arguments, message):
    with pytest.raises(ConfigError, match=message):
        PrefixModel(2, vocabulary=5, length=4, seed=0).search(beam_search, **arguments)


def test_a_bonus_that_makes_the_sum_positive_does_not_end_the_search_too_early():
    """With length normalization, a sum above 0 is worth more if it is divided by a short length."""
    for seed in range(30):
        model = PrefixModel(1, vocabulary=4, length=4, seed=seed)
        rules = {"length_normalization": 1.0}
        guides = [[WordGroup((3,), bonus=9.0), WordGroup((0,), bonus=4.0)]]
        known = of_image(rules, guides[0])
        (found,) = model.search(beam_search, beam_size=300, guides=guides, **rules)
        finished, _ = every_caption(model, 0, known, max_length=4)
        assert found[0].score == pytest.approx(max(worth(t, p, known) for t, p in finished.items()))
        assert math.isfinite(found[0].log_prob)
