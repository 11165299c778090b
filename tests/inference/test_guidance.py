"""Test captions that are guided by tags: required words, bonus and malus, and log-probabilities."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import captioning
from captioning.data import Vocabulary
from captioning.errors import ConfigError, DataError
from captioning.inference import TagGuide
from captioning.tags import Tag

WORDS = ["a", "dog", "dogs", "puppy", "horse", "horses", "truck", "van", "man", "people", "mountain", "couch"]


@pytest.fixture
def photos(tmp_path):
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 255, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((320, 240)).save(tmp_path / f"{number}.png")
    return [tmp_path / "0.png", tmp_path / "1.png"]


def file_of(tmp_path, **tags):
    listed = {f"{name}.png": [{"noun": n, "confidence": c} for n, c in each] for name, each in tags.items()}
    path = tmp_path / "tags.json"
    path.write_text(json.dumps(listed))
    return path


def guide_of(tmp_path, **options):
    return TagGuide(file_of(tmp_path, one=[("zebra", 0.9)]), **{"bonus": 1.0, **options})


def named(groups, words):
    """Return {the words of a group, in alphabetical order: (required, bonus)}."""
    return {
        tuple(sorted(words.words.words[index] for index in group.words)): (group.required, pytest.approx(group.bonus))
        for group in groups
    }


@pytest.fixture
def words(tmp_path):
    return guide_of(tmp_path).extend(Vocabulary(WORDS))


def test_what_a_file_of_tags_could_not_do_is_told(tmp_path, words):
    guide = TagGuide(file_of(tmp_path, one=[("quokka", 0.9), ("dog", 0.8)], two=[("axolotl", 0.9)]))
    assert guide.notes() == []
    guide.groups_of(guide.tags_of(None, "one.png"), words)
    (note,) = guide.notes()  # not the noun of an image that was not captioned
    assert "tags.json: 1 noun that the captioner does not know (quokka) did not guide it" in note
    assert "guidance.stand_ins={quokka: WORD}" in note
    known = TagGuide(file_of(tmp_path, one=[("dog", 0.8), ("zebra", 0.9)]))  # horse stands in for zebra
    known.groups_of(known.tags_of(None, "one.png"), words)
    assert known.notes() == []


def test_a_list_of_detections_of_other_images_is_told(tmp_path, words):
    path = tmp_path / "tags.json"
    path.write_text(json.dumps([{"image_id": 7, "category_id": 18, "bbox": [0, 0, 9, 9], "score": 0.9}]))
    guide = TagGuide(path)
    assert guide.tags_of(None, "photo8.png") == []
    assert guide.notes() == [
        f"{path} lists none of these images, so no tag guided a caption: its image_id must be the number in the "
        "file's name, or the id in the data set"
    ]
    assert guide.tags_of(None, "photo7.png")[0].noun == "dog"
    assert guide.notes() == []


def test_certain_tags_are_required_likely_ones_get_a_bonus_and_unsupported_categories_a_malus(tmp_path, words):
    guide = guide_of(tmp_path, confidence=0.5, support=0.3, bonus=2.0, malus=4.0)
    groups = named(guide.groups_of([Tag("dog", 0.8), Tag("mountain", 0.9), Tag("couch", 0.4)], words), words)
    assert groups[("dog", "dogs", "puppy")] == (True, 1.6)
    assert groups[("mountain",)] == (False, 1.8)  # no category of objects: never required
    assert groups[("couch",)] == (False, 0.8)
    assert groups[("horse", "horses")] == (False, -4.0)
    assert groups[("man", "people")] == (False, -4.0)
    assert len(groups) == 7  # and truck, and van for car


def test_of_two_tags_for_one_thing_only_the_more_certain_one_counts(tmp_path, words):
    guide = guide_of(tmp_path, malus=0.0, most=3)
    groups = guide.groups_of([Tag("van", 0.6), Tag("car", 0.7), Tag("truck", 0.8)], words)
    assert named(groups, words) == {("truck",): (True, 0.8), ("van",): (True, 0.7)}  # "van" names a car
    groups = guide.groups_of([Tag("zebra", 0.9), Tag("horse", 0.8), Tag("animal", 0.7)], words)
    assert named(groups, words) == {("zebra", "zebras"): (True, 0.9), ("horse", "horses"): (True, 0.8)}


def test_most_limits_the_required_tags_and_people_are_never_required(tmp_path, words):
    tags = [Tag("person", 0.99), Tag("dog", 0.9), Tag("horse", 0.8), Tag("couch", 0.7)]
    groups = named(guide_of(tmp_path, malus=0.0, most=2).groups_of(tags, words), words)
    assert [each[0] for each in groups.values()] == [False, True, True, False]


def test_a_noun_that_the_captioner_does_not_know_is_borrowed(tmp_path, words):
    groups = named(guide_of(tmp_path, malus=0.0).groups_of([Tag("zebra", 0.9)], words), words)
    assert groups == {("zebra", "zebras"): (True, 0.9)}
    assert guide_of(tmp_path, borrow=False, malus=0.0).groups_of([Tag("zebra", 0.9)], words) == []


def test_own_stand_ins(tmp_path):
    guide = TagGuide(file_of(tmp_path, one=[("gizmo", 0.9)]), stand_ins={"gizmo": "truck"})
    assert guide.extend(Vocabulary(WORDS)).borrowed == {"gizmo": "truck"}


def test_plurals_capitals_and_narrower_nouns_count_as_their_noun_or_category(tmp_path, words):
    guide = guide_of(tmp_path, malus=0.0)
    for noun, wanted in (
        ("Zebras", ("zebra", "zebras")),
        ("puppies", ("puppy",)),
        ("pony", ("horse", "horses")),
    ):
        assert list(named(guide.groups_of([Tag(noun, 0.9)], words), words)) == [wanted]


def test_own_stand_ins_are_required_and_must_be_words_of_the_captioner(tmp_path):
    file = file_of(tmp_path, one=[("okapis", 0.9)])
    guide = TagGuide(file, stand_ins={"Okapi": "horse"}, malus=0.0)
    words = guide.extend(Vocabulary(WORDS))
    assert named(guide.groups_of(guide.listed["one.png"], words), words) == {("okapi", "okapis"): (True, 0.0)}
    for word in ("unicorn", "<end>"):
        with pytest.raises(ConfigError, match=rf"'{word}', the stand-in of 'okapi', is not a word of the captioner"):
            TagGuide(file, stand_ins={"okapi": word}).extend(Vocabulary(WORDS))


def test_a_tag_that_is_certain_enough_counts_also_below_support(tmp_path, words):
    guide = guide_of(tmp_path, confidence=0.1, people=0.1, malus=5.0)
    groups = named(guide.groups_of([Tag("dog", 0.2), Tag("person", 0.15)], words), words)
    assert groups[("dog", "dogs", "puppy")][0] and groups[("man", "people")] == (False, 0.15)


def test_entries_are_found_by_path_name_number_or_id(tmp_path):
    tags = tmp_path / "tags.json"
    entry = [{"noun": "dog", "confidence": 0.9}]
    tags.write_text(json.dumps({"b/1.jpg": entry, "1.jpg": [], "790": entry, "42": entry}))
    guide = TagGuide(tags)
    assert guide.tags_of(None, "photos/b/1.jpg") and not guide.tags_of(None, "photos/a/1.jpg")
    assert guide.tags_of(None, "COCO_val2014_000000000790.jpg") and guide.tags_of(None, "x.jpg", image_id=42)
    with pytest.raises(DataError, match="has no tags for"):
        guide.tags_of(None, "x.jpg", image_id=43)
    tags.write_text(json.dumps([{"image_id": 790, "category_id": 18, "score": 0.9, "bbox": [0, 0, 5, 5]}]))
    guide = TagGuide(tags)
    assert guide.tags_of(None, "000000000790.jpg") and guide.tags_of(None, "000000000791.jpg") == []


def test_the_label_names_the_file_and_its_content(tmp_path):
    first = TagGuide(file_of(tmp_path, one=[("dog", 0.9)]), most=1).describe()
    second = TagGuide(file_of(tmp_path, one=[("cat", 0.9)])).describe()
    assert first.startswith("tags.json (") and first.endswith(") most=1")
    assert second.startswith("tags.json (") and second.split()[1] != first.split()[1]


def test_captions_name_what_the_tags_name(tmp_path, photos):
    tags = file_of(tmp_path, **{"0": [("zebra", 0.97)], "1": [("dog", 0.9)]})
    predictor = captioning.load("flickr8k-small", device="cpu")
    plain = predictor.caption(photos)
    guided = predictor.guide_by(TagGuide(tags)).caption(photos)
    assert {"zebra", "zebras"} & set(guided[0].tokens) and {"dog", "dogs", "puppy"} & set(guided[1].tokens)
    assert guided[0].tags == (Tag("zebra", 0.97),) and guided[1].stand_in_log_prob is None
    # Without the borrowed word, and without renormalizing, the caption is that of the stand-in.
    stand_in = [{"zebra": "horse", "zebras": "horses"}.get(word, word) for word in guided[0].tokens]
    (scored,) = predictor.score_captions(photos[0], " ".join(stand_in))
    assert guided[0].stand_in_log_prob == pytest.approx(scored.log_prob, abs=1e-4)
    assert guided[0].log_prob < guided[0].stand_in_log_prob  # a borrowed word takes a share of the probability
    again = predictor.guide_by(None).caption(photos)
    assert [each.text for each in again] == [each.text for each in plain]


@pytest.mark.parametrize("method", ["greedy", "diverse_beam", "sample", "consensus"])
def test_every_search_is_guided(tmp_path, photos, method):
    tags = file_of(tmp_path, **{"0": [("elephant", 0.97)], "1": []})
    predictor = captioning.load("flickr8k-small", device="cpu").guide_by(TagGuide(tags, malus=0.0))
    guided = predictor.caption(photos, method)
    assert {"elephant", "elephants"} & set(guided[0].tokens)
    if method in ("greedy", "diverse_beam"):
        assert guided[1].text == captioning.load("flickr8k-small", device="cpu").caption(photos[1], method)[0].text


def test_faults(tmp_path, photos):
    tags = file_of(tmp_path, **{"0": [("zebra", 0.97)]})
    predictor = captioning.load("flickr8k-small", device="cpu").guide_by(TagGuide(tags))
    with pytest.raises(DataError, match=r"tags\.json has no tags for .*1\.png\. Add an entry for '1\.png'"):
        predictor.caption(photos)
    with pytest.raises(ConfigError, match=r"guidance\.support"):
        TagGuide(tags, support=1.5)
    for key, value in (("bonus", float("nan")), ("bonus", float("inf")), ("confidence", 60), ("no_repeat_ngram", -1)):
        with pytest.raises(ConfigError, match=rf"guidance\.{key}"):
            TagGuide(tags, **{key: value})
    with pytest.raises(ConfigError, match=r"tags=classifer is not a file\. Choose tags=classifier"):
        TagGuide("classifer")

    def own(step, state, *, batch, start, end, forbidden=()):
        raise AssertionError

    with pytest.raises(ConfigError, match="own takes no groups of words"):
        predictor.caption(photos[:1], own)
    pieces = SimpleNamespace(tokenizer=SimpleNamespace(learned_pieces=lambda: ["do", "g"], name="bpe"))
    with pytest.raises(ConfigError, match="this one writes words in pieces"):
        TagGuide(tags).extend(pieces)


def test_an_image_without_a_path_has_no_entry_by_its_place_in_the_list(tmp_path):
    tags = tmp_path / "tags.json"
    tags.write_text(json.dumps({"0": [{"noun": "dog", "confidence": 0.9}]}))
    predictor = captioning.load("flickr8k-small", device="cpu").guide_by(TagGuide(tags))
    with pytest.raises(DataError, match="has no tags for number 0 of the list"):
        predictor.caption(np.zeros((60, 80, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"tags": 5}, r"tags=5 is not text\. Choose tags=classifier"),
        ({"confidence": "high"}, r"guidance\.confidence must be a number, not 'high'"),
        ({"support": None}, r"guidance\.support must be a number, not null"),
        ({"malus": True}, r"guidance\.malus must be a number, not True"),
        ({"most": 1.5}, r"guidance\.most must be a whole number, not 1\.5"),
        ({"no_repeat_ngram": [3]}, r"guidance\.no_repeat_ngram must be a whole number, not \[3\]"),
        ({"borrow": "no"}, r"guidance\.borrow must be true or false, not 'no'"),
        ({"stand_ins": ["okapi"]}, r"guidance\.stand_ins must be words such as \{okapi: horse\}, not \['okapi'\]"),
        ({"stand_ins": {"okapi": 5}}, r"guidance\.stand_ins must be words such as"),
    ],
)
def test_values_of_another_type_are_one_clear_error(tmp_path, options, told):
    with pytest.raises(ConfigError, match=told):
        TagGuide(**{"tags": file_of(tmp_path, one=[("dog", 0.9)])} | options)


def test_numpy_numbers_are_numbers(tmp_path):
    guide = guide_of(tmp_path, confidence=np.float32(0.5), most=np.int64(1))
    assert (guide.confidence, guide.most) == (0.5, 1)


def malus_of(tmp_path, tags, vocabulary, **options):
    """Return the words that get the malus."""
    guide = guide_of(tmp_path, malus=4.0, **options)
    extended = guide.extend(Vocabulary(vocabulary))
    groups = named(guide.groups_of(tags, extended), extended)
    return {word for words, (_, bonus) in groups.items() if bonus == -4.0 for word in words}


def test_the_malus_for_people_has_more_words_than_the_category(tmp_path):
    people = ["man", "adults", "couple", "families", "crowd", "hikers", "firefighter", "team"]
    assert malus_of(tmp_path, [Tag("dog", 0.9)], ["a", "dog", *people]) == set(people)
    assert not malus_of(tmp_path, [Tag("dog", 0.9), Tag("person", 0.9)], ["a", "dog", *people])


def test_words_that_often_mean_something_else_have_no_malus_with_a_file(tmp_path):
    words = ["orange", "oranges", "skateboards", "skateboard", "glove", "plants", "football", "ball", "bus"]
    assert malus_of(tmp_path, [], words) == {"oranges", "skateboard", "ball", "bus"}


def test_the_least_certain_tags_are_not_required_where_they_leave_too_few_words(tmp_path, photos):
    nouns = ["zebra", "elephant", "giraffe", "dog", "truck", "couch", "bench", "cat"]
    tags = file_of(tmp_path, **{"0": [(noun, 0.99 - place / 50) for place, noun in enumerate(nouns)]})
    predictor = captioning.load("flickr8k-small", device="cpu").guide_by(TagGuide(tags, most=9, malus=0.0))
    for options, count in (({"max_length": 7}, 3), ({"max_length": 7, "require": ["red"]}, 2), ({"max_length": 2}, 0)):
        (caption,) = predictor.caption(photos[0], "beam", beam_size=6, **options)
        for noun in nouns[:count]:
            assert {noun, f"{noun}s", "puppy"} & set(caption.tokens), (caption.text, noun)
    words = predictor._extended
    groups = predictor.guide.groups_of(predictor.guide.listed["0.png"], words, most=3)
    required = [words.words.words[group.words[0]] for group in groups if group.required]
    assert required == nouns[:3]
