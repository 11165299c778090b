"""The built-in data set: the same seed draws the same bytes, every caption is true, and falsified ones are not."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from captioning.data import draw_scene, read_scenes, scenes, truth
from captioning.data.grammar import Claims, Phrase, Scene, Thing, is_true, parse, relation
from captioning.data.grammars import COLOR_NAMES, ENGLISH
from captioning.data.scenes import load_scenes
from captioning.errors import ConfigError, DataError
from captioning.text import tokenize

SMALL = {"train": 12, "val": 6, "test": 2}
BACKGROUNDS, RELATIONS, SHAPES, SIZES = ENGLISH.backgrounds, ENGLISH.relations, ENGLISH.shapes, ENGLISH.sizes


@pytest.fixture(scope="module")
def drawn():
    """(picture, scene, outlines, captions) of three hundred scenes."""
    return [draw_scene(0, "train", index) for index in range(300)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "scenes"
    read_scenes(folder, **SMALL)
    return folder


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def thing(color, shape, size, *, x, y):
    """A thing of 40 pixels, centred there."""
    return Thing(shape, color, size, (x - 20.0, y - 20.0, 40.0, 40.0))


ROW = Scene(
    (
        thing("red", "circle", "small", x=40, y=100),
        thing("blue", "square", "large", x=110, y=110),
        thing("red", "star", "small", x=190, y=100),
    ),
    "striped",
)


# Drawing


def test_the_same_seed_draws_the_same_bytes_and_another_seed_others(root, tmp_path):
    again, other = tmp_path / "again", tmp_path / "other"
    read_scenes(again, **SMALL)
    read_scenes(other, **SMALL, seed=1)
    assert contents(again) == contents(root)
    pictures = [name for name in contents(root) if name.suffix == ".png"]
    assert len(pictures) == 20
    assert not any(contents(other)[name] == contents(root)[name] for name in pictures)


def test_a_picture_depends_on_seed_split_and_index_alone(root):
    stored = Image.open(root / "val" / "000001000005.png")
    assert stored.tobytes() == draw_scene(0, "val", 4)[0].tobytes()
    assert stored.tobytes() != draw_scene(0, "train", 4)[0].tobytes()


def test_boxes_hold_the_pixels_of_their_colour_and_fit_them(drawn):
    for picture, scene, _, _ in drawn[:100]:
        pixels = np.asarray(picture).astype(int)
        near = {
            color: (np.abs(pixels - scenes.PALETTE[color]) <= scenes.VARIATION).all(-1)
            for color in {thing.color for thing in scene.things}
        }
        for item in scene.things:
            x, y, width, height = item.box
            inside = np.zeros((scenes._SIDE, scenes._SIDE), bool)
            inside[int(y) : int(np.ceil(y + height)) + 1, int(x) : int(np.ceil(x + width)) + 1] = True
            rows, columns = np.nonzero(near[item.color] & inside)
            found = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
            np.testing.assert_allclose(found, (x, y, x + width, y + height), atol=4)  # tips fade out
            near[item.color] &= ~inside
        assert not any(mask.any() for mask in near.values())  # nothing of that colour outside the boxes


def test_sizes_and_counts_are_as_promised(drawn):
    for _, scene, _, _ in drawn:
        for item in scene.things:
            low, high = scenes.PIXELS[item.size]
            assert low - 0.02 <= max(item.box[2:]) <= high + 0.02
        kinds = [(item.shape, item.color) for item in scene.things]
        assert len(set(kinds)) == len(kinds)
    counts = Counter(len(scene.things) for _, scene, _, _ in drawn)
    assert set(counts) == {1, 2, 3} and counts[2] > 150
    assert {scene.background for _, scene, _, _ in drawn} == set(BACKGROUNDS)
    assert {item.size for _, scene, _, _ in drawn for item in scene.things} == set(SIZES)


def test_relations_are_clear_and_boxes_keep_apart(drawn):
    seen = Counter()
    for _, scene, _, _ in drawn:
        for item in scene.things:
            x, y, width, height = item.box
            assert min(x, y) >= scenes.MARGIN - 0.02
            assert max(x + width, y + height) <= scenes._SIDE - scenes.MARGIN + 0.02
        for first, second in permutations(scene.things, 2):
            where = relation(first, second)
            seen[where] += 1
            axis = 0 if where in ("left", "right") else 1
            near, far = (first, second) if where in ("left", "above") else (second, first)
            assert far.box[axis] - near.box[axis] - near.box[axis + 2] >= scenes.GAP[len(scene.things)] - 0.03
            centres = [np.array(item.box[:2]) + np.array(item.box[2:]) / 2 for item in (first, second)]
            along, across = np.abs(centres[0] - centres[1])[[axis, 1 - axis]]
            assert along >= scenes.STRAIGHT * across - 0.1
    assert min(seen[where] for where in ("left", "right", "above", "below")) > 100


def test_no_object_is_hidden_by_its_background(drawn):
    for picture, scene, _, _ in drawn[:100]:
        pixels = np.asarray(picture).astype(int)
        behind = np.ones((scenes._SIDE, scenes._SIDE), bool)
        for item in scene.things:
            x, y, width, height = item.box
            behind[int(y) - 1 : int(y + height) + 3, int(x) - 1 : int(x + width) + 3] = False
        for item in scene.things:
            distance = np.linalg.norm(pixels[behind] - np.array(scenes.PALETTE[item.color]), axis=-1)
            assert distance.min() > scenes.APART - scenes.VARIATION * 3**0.5 - 5  # 5 for tones between the checked ones


# The grammar


def test_captions_are_true_varied_and_like_coco_captions(drawn):
    for _, scene, _, captions in drawn:
        assert len(set(captions)) == 5
        for caption in captions:
            assert is_true(caption, scene), (caption, scene)
            assert 6 <= len(tokenize(caption)) <= 16
            assert caption[0].isupper() and caption[1:] == caption[1:].lower() and caption.endswith(".")


def test_captions_name_colour_and_shape_of_most_objects(drawn):
    for _, scene, _, captions in drawn:
        for caption in captions:
            mentions = parse(caption).mentions
            assert len(mentions) >= min(2, len(scene.things))
            assert all(mention.color and mention.shape for mention in mentions)


def test_parsing_needs_neither_case_nor_punctuation(drawn):
    for _, _, _, captions in drawn:
        for caption in captions:
            assert parse(" ".join(tokenize(caption))) == parse(caption) == parse(caption.upper())


def test_the_vocabulary_is_small_and_every_word_common(drawn):
    words = Counter(word for _, _, _, captions in drawn for caption in captions for word in tokenize(caption))
    assert 40 <= len(words) <= 60
    assert min(words.values()) >= 5  # in a seventh of the usual pictures


def test_parse_reads_every_claim():
    red, blue = Phrase("circle", "red", "small"), Phrase("square", "blue", "large")
    assert parse("a tiny red disc to the left of a big blue square") == Claims((red, blue), ((0, "left", 1),))
    assert parse("A big blue square with a little red circle under it.") == Claims((blue, red), ((1, "below", 0),))
    assert parse("there is a small red circle next to the large blue square on a spotted background") == Claims(
        (red, blue), ((0, "beside", 1),), None, "dotted"
    )
    star = Phrase("star", None, None)
    assert parse("A picture of three shapes, a star, a small red circle and a large blue square.") == Claims(
        (star, red, blue), (), 3
    )
    assert parse("A star is over a small red circle and a large blue square") == Claims(
        (star, red, blue), ((0, "above", 1),)
    )
    assert parse("a green shape") == Claims((Phrase(None, "green", None),))


@pytest.mark.parametrize(
    "caption",
    [
        "",
        ".",
        "a dog on a sofa",
        "a red circle to the left of",
        "a red circle a blue square",
        "a red circle and",
        "and a red circle",
        "above a red circle",
        "a red circle above it",
        "a red circle and a blue square above it",
        "a red a blue square",
        "a red circle on a striped",
        "a red circle on a striped background and a blue square",
        "two shapes",
        "a red circles",
        "a red <unk>",
    ],
)
def test_what_the_grammar_does_not_have_is_false(caption):
    assert parse(caption) is None
    assert not is_true(caption, ROW)


@pytest.mark.parametrize(
    "caption, expected",
    [
        ("a red circle to the left of a blue square", True),
        ("a red circle beside a blue square", True),
        ("a blue square beside a red star", True),
        ("a red circle beside a red star", False),  # the square is between them
        ("a red circle left of a red star", True),
        ("a blue square left of a red circle", False),
        ("a red circle above a blue square", False),  # a little higher, but clearly to the left
        ("a blue square with a red circle to the right of it", False),
        ("a blue square with a red circle to the left of it and a red star", True),
        ("a small red star", True),
        ("a large red star", False),
        ("a red star and a red star", False),  # there is one
        ("a star and a red shape", True),
        ("a star, a shape and a shape", True),
        ("a star, a shape, a shape and a shape", False),
        ("three shapes, a red star, a blue square and a red circle", True),
        ("two shapes, a red star and a blue square", False),
        ("a red shape right of a blue square", True),  # the star, not the circle
        ("a red star on a striped background", True),
        ("a red star on a plain background", False),
    ],
)
def test_truth_of_a_hand_made_scene(caption, expected):
    assert is_true(caption, ROW) is expected


def swap(caption, phrases, replacement):
    """The caption with the first of the phrases that it has replaced; None where it has none."""
    words = f" {' '.join(tokenize(caption))} "
    found = next((phrase for phrase in sorted(phrases, key=len, reverse=True) if f" {phrase} " in words), None)
    return None if found is None else words.replace(f" {found} ", f" {replacement} ", 1)


def falsified(caption, scene):
    """(kind of fault, the caption with that one fault)."""
    colors, shapes = ({getattr(item, kind) for item in scene.things} for kind in ("color", "shape"))
    absent_color = next(color for color in COLOR_NAMES if color not in colors)
    absent_shape = next(shape for shape in SHAPES if shape not in shapes)
    yield "color", swap(caption, colors, absent_color)
    yield "shape", swap(caption, [word for shape in shapes for word in SHAPES[shape]], absent_shape)
    for size, other in (("small", "large"), ("large", "small")):
        yield "size", swap(caption, SIZES[size], other)
    for where, other in (("left", "right"), ("right", "left"), ("above", "below"), ("below", "above")):
        yield "relation", swap(caption, RELATIONS[where], RELATIONS[other][0])
    yield "relation", swap(caption, RELATIONS["beside"], "over")
    wrong = next(kind for kind in BACKGROUNDS if kind != scene.background)
    yield "background", swap(caption, BACKGROUNDS[scene.background], wrong)
    yield "count", swap(caption, ["two"], "three") or swap(caption, ["three"], "two")
    body, ground, rest = caption.rstrip(".").partition(" on a ")
    if "background" in rest:
        yield "extra", f"{body} and a {absent_color} {absent_shape}{ground}{rest}"
    else:
        yield "extra", f"{caption.rstrip('.')} and a {absent_color} {absent_shape}"


def test_falsified_captions_parse_and_are_false(drawn):
    tried = Counter()
    for _, scene, _, captions in drawn:
        for caption in captions:
            for kind, wrong in falsified(caption, scene):
                if wrong is not None:
                    assert parse(wrong) is not None, wrong
                    assert not is_true(wrong, scene), (kind, wrong, scene)
                    tried[kind] += 1
    assert set(tried) == {"color", "shape", "size", "relation", "background", "count", "extra"}
    assert min(tried.values()) > 50


# On disk


def test_records_come_in_order_with_their_captions(root):
    records = read_scenes(root, **SMALL)
    assert Counter(record.split for record in records) == SMALL
    assert [record.image_id for record in records if record.split == "val"] == list(range(1_000_001, 1_000_007))
    assert records[3].captions == draw_scene(0, "train", 3)[3]
    assert records[3].path == root / "train" / "000000000004.png"


def test_the_files_are_coco_files(root, capsys):
    coco = COCO(root / "annotations" / "instances_train.json")
    captions = COCO(root / "annotations" / "captions_train.json")
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(SHAPES)
    for index, image in enumerate(coco.loadImgs(coco.getImgIds())):
        picture, scene, _, texts = draw_scene(0, "train", index)
        assert [entry["caption"] for entry in captions.imgToAnns[image["id"]]] == list(texts)
        assert image["background"] == scene.background
        entries = coco.loadAnns(coco.getAnnIds(imgIds=image["id"], iscrowd=False))
        assert [(entry["color"], entry["size"], tuple(entry["bbox"])) for entry in entries] == [
            (item.color, item.size, item.box) for item in scene.things
        ]
        pixels = np.asarray(picture).astype(int)
        for entry in entries:
            mask = coco.annToMask(entry).astype(bool)
            near = (np.abs(pixels - scenes.PALETTE[entry["color"]]) <= scenes.VARIATION).all(-1)
            assert near[mask].mean() > 0.85  # the rest is the smoothed edge
            assert abs(mask.sum() - entry["area"]) < 0.08 * entry["area"]
    assert sum(map(len, coco.imgToAnns.values())) == len(coco.anns) > 12


def test_scenes_are_read_back_as_they_were_drawn(root):
    loaded = load_scenes(root, "val")
    assert list(loaded.values()) == [draw_scene(0, "val", index)[1] for index in range(6)]


def test_truth_is_the_share_of_true_captions(root):
    first, second, third, *rest = load_scenes(root, "val").items()
    item = second[1].things[0]
    other = next(color for color in COLOR_NAMES if color not in {item.color for item in second[1].things})
    captions = {
        first[0]: draw_scene(0, "val", 0)[3][2],
        second[0]: f"a {other} {item.shape}",
        third[0]: f"a {third[1].things[0].size} {third[1].things[0].color} {third[1].things[0].shape}",
        rest[0][0]: "a dog on a sofa",
    }
    assert truth(captions, root=root, split="val") == {"truth": 0.5}


def test_truth_refuses_what_it_cannot_check(root, tmp_path):
    with pytest.raises(DataError, match=r"split val \(image ids 1\): check data\.root"):
        truth({1: "a red circle"}, root=root, split="val")  # of the training split
    with pytest.raises(DataError, match="no captions"):
        truth({}, root=root, split="val")
    with pytest.raises(DataError, match=r"instances_val\.json"):
        truth({1: "a red circle"}, root=tmp_path, split="val")


@pytest.mark.parametrize("other", [{"train": 13}, {"val": 7}, {"seed": 1}])
def test_other_numbers_or_another_seed_are_refused(root, other):
    before = contents(root)
    with pytest.raises(DataError, match=r"delete it, or choose another data\.root") as caught:
        read_scenes(root, **(SMALL | other))
    assert str(root) in str(caught.value)
    assert contents(root) == before


def test_another_version_is_refused(root, monkeypatch):
    monkeypatch.setattr(scenes, "VERSION", scenes.VERSION + 1)
    with pytest.raises(DataError, match="delete it"):
        read_scenes(root, **SMALL)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "photographs.txt").write_text("mine")
    with pytest.raises(DataError, match="other files"):
        read_scenes(tmp_path, **SMALL)
    assert contents(tmp_path) == {(tmp_path / "photographs.txt").relative_to(tmp_path): b"mine"}


def test_a_split_without_pictures_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.reader\.val must be at least 1"):
        read_scenes(tmp_path / "scenes", train=1, val=0)
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_is_filled_and_a_link_followed(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "scenes").symlink_to(tmp_path / "disk")
    assert len(read_scenes(tmp_path / "scenes", train=1, val=1, test=1)) == 3
    assert (tmp_path / "scenes").is_symlink() and (tmp_path / "disk" / "annotations").is_dir()


def test_a_root_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"cannot draw the scenes into .*file/scenes.*another data\.root"):
        read_scenes(tmp_path / "file" / "scenes", **SMALL)


def test_an_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(seed, split, index, language):
        if index == 3:
            raise KeyboardInterrupt
        return draw_scene(seed, split, index, language)

    monkeypatch.setattr(scenes, "draw_scene", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read_scenes(tmp_path / "scenes", **SMALL)
    assert not list(tmp_path.iterdir())


KILLED = f"""
import os, sys
from captioning.data import scenes
draw = scenes.draw_scene
def draw_or_die(seed, split, index, language):
    return os.kill(os.getpid(), {int(signal.SIGKILL)}) if index == 3 else draw(seed, split, index, language)
scenes.draw_scene = draw_or_die
scenes.read_scenes(sys.argv[1], train=12, val=6, test=2)
"""


def test_a_killed_drawing_is_drawn_anew(root, tmp_path):
    folder = tmp_path / "scenes"
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder)], capture_output=True, env=dict(os.environ))
    assert done.returncode == -signal.SIGKILL
    assert not folder.exists()
    read_scenes(folder, **SMALL)
    assert contents(folder) == contents(root)


def test_two_processes_may_draw_at_once(root, tmp_path, monkeypatch):
    """Another process finishes while this one draws: its scenes are taken, and nothing is left behind."""
    folder = tmp_path / "scenes"

    def overtaken(seed, split, index, language):
        if split == "test" and not folder.exists():
            monkeypatch.setattr(scenes, "draw_scene", draw_scene)
            read_scenes(folder, **SMALL)
        return draw_scene(seed, split, index, language)

    monkeypatch.setattr(scenes, "draw_scene", overtaken)
    assert len(read_scenes(folder, **SMALL)) == 20
    assert list(tmp_path.iterdir()) == [folder]
    assert json.loads((folder / "annotations" / "captions_val.json").read_text())["info"]["pictures"] == SMALL


def test_neither_of_two_things_is_between_them():
    """Boxes whose centre, rounded, lies beside itself."""
    left = Thing("circle", "green", "large", (13.1, 4.0, 99.93, 99.93))
    right = Thing("circle", "yellow", "small", (158.17, 20.73, 48.53, 48.53))
    scene = Scene((left, right), "dotted")
    assert is_true("a yellow circle beside a large green circle", scene)
    assert is_true("a green circle beside a yellow circle", scene)
