"""Grounding: hits and masses by hand in every geometry, exact areas, words and their plurals, intervals, end to end."""

import csv
import json
import re
from fractions import Fraction
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from captioning.config import GroundConfig, check, compose
from captioning.config.schemas import TrainConfig
from captioning.data import Instances, Record, Transform, read_coco, read_instances, read_scenes, read_shapes
from captioning.data.instances import _NOTHING, COCO_WORDS, Annotated, Instance
from captioning.errors import CheckpointError, ConfigError, DataError
from captioning.evaluation import caption_and_ground
from captioning.ground import ground as ground_command
from captioning.inference import as_map, gradient_times_input, load
from captioning.metrics import compile_phrases, ground_caption, summarize
from captioning.metrics.grounding import AnnotatedThing, center_prior, interval, pointing
from captioning.metrics.mentions import find_mentions, plural
from captioning.metrics.regions import area_share, box_region, cell_shares, contains, mask_region
from captioning.train import train
from captioning.visualise import overlay

GRID = (7, 7)
GEOMETRIES = {
    "squash": Transform(224, fit="squash"),
    "crop": Transform(224, fit="crop", resize=256),
    "pad": Transform(224, fit="pad"),
}
SIZES = [(640, 480), (480, 640), (333, 217), (217, 333), (101, 100)]
PHRASES = compile_phrases({"dog": ["dog"], "hot dog": ["hot dog"]})


def one_hot(row: int, column: int) -> np.ndarray:
    weights = np.zeros(49)
    weights[7 * row + column] = 1
    return weights


def rectangle(box, row: int, column: int) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of one cell."""
    width, height = (box[2] - box[0]) / 7, (box[3] - box[1]) / 7
    left, top = box[0] + column * width, box[1] + row * height
    return left, top, left + width, top + height


def seen(weights, boxes, *, fit, size, segmentation=()) -> dict[str, float]:
    """Measures of one word "dog" that looks by these weights."""
    things = [AnnotatedThing("dog", box, list(segmentation)) for box in boxes]
    (only,) = ground_caption(
        ["dog"], weights[None], box=GEOMETRIES[fit].box(*size), size=size, things=things, phrases=PHRASES
    )
    return only.measures


# By hand


@pytest.mark.parametrize(
    ("fit", "size", "cell", "box", "hit", "mass"),
    [
        # Squash, 700 × 490: cells of 100 × 70; the middle of cell (1, 2) is (250, 105).
        ("squash", (700, 490), (1, 2), (200, 70, 100, 70), 1, 1.0),
        ("squash", (700, 490), (1, 2), (251, 70, 100, 70), 0, 0.49),
        ("squash", (700, 490), (1, 2), (250, 105, 10, 7), 1, 0.01),
        ("squash", (700, 490), (1, 2), (300, 70, 100, 70), 0, 0.0),
        # Crop, 480 × 640 portrait: the middle 420 × 420 of it, from (30, 110), in cells of 60.
        ("crop", (480, 640), (0, 0), (0, 0, 90, 170), 1, 1.0),
        ("crop", (480, 640), (0, 0), (0, 0, 60, 640), 0, 0.5),
        ("crop", (480, 640), (6, 6), (390, 0, 90, 503), 1, 0.55),
        ("crop", (480, 640), (6, 6), (390, 0, 90, 500), 0, 0.5),  # its middle is the box's lower edge, which is outside
        ("crop", (480, 640), (6, 6), (450, 530, 30, 110), 0, 0.0),  # where the network does not look
        # Pad, 640 × 320 landscape: cells of 640 / 7 from y = -160; row 0 lies above the picture, row 1 is cut at y = 0
        # 64 / 91.4 of the way down, and its middle is above it.
        ("pad", (640, 320), (0, 3), (0, 0, 640, 320), 0, 0.0),
        ("pad", (640, 320), (1, 3), (0, 0, 640, 320), 0, 0.25),
        ("pad", (640, 320), (2, 3), (0, 0, 640, 320), 1, 1.0),
        ("pad", (640, 320), (3, 0), (0, 0, 640 / 14, 320), 0, 0.5),
        ("pad", (640, 320), (3, 0), (0, 0, 46, 320), 1, 46 * 7 / 640),
    ],
)
def test_one_cell_hits_or_misses(fit, size, cell, box, hit, mass):
    measures = seen(one_hot(*cell), [box], fit=fit, size=size)
    assert measures["attention pointing box"] == hit
    assert measures["attention mass box"] == pytest.approx(mass, abs=1e-12)
    assert measures["chance box"] == pytest.approx(box[2] * box[3] / (size[0] * size[1]), abs=1e-12)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fit", GEOMETRIES)
def test_a_cell_is_where_the_network_sees_it_and_where_the_figure_draws_it(fit, size):
    box = GEOMETRIES[fit].box(*size)
    for row, column in ((3, 3), (2, 4), (4, 1)):
        left, top, right, bottom = rectangle(box, row, column)
        if left < 0 or top < 0 or right > size[0] or bottom > size[1]:
            continue
        picture = Image.new("RGB", size, (127, 127, 127))  # as what "pad" fills up with
        ImageDraw.Draw(picture).rectangle([round(left), round(top), round(right) - 1, round(bottom) - 1], fill="white")
        shown = np.abs(GEOMETRIES[fit](picture)[0].double().numpy() - 127)
        patches = shown.reshape(7, 32, 7, 32).sum((1, 3))  # of the encoder's stride: 32 pixels a cell
        assert np.unravel_index(patches.argmax(), (7, 7)) == (row, column)
        assert patches[row, column] > 0.85 * patches.sum()
        drawn = overlay(one_hot(row, column), GRID, box=box, size=size)
        y, x = np.unravel_index(drawn.argmax(), drawn.shape)
        around = box_region([(left, top, right - left, bottom - top)], size)
        assert contains(around, np.array([x + 0.5]), np.array([y + 0.5])).all()
        assert pointing(one_hot(row, column), around, box=box, grid=GRID) == 1


@pytest.mark.parametrize("size", SIZES)
def test_even_attention_over_the_whole_picture_is_chance(size):
    random = np.random.default_rng(0)
    for _ in range(20):
        x, y = random.uniform(0, 0.8, 2) * size
        box = (x, y, random.uniform(1, size[0] - x), random.uniform(1, size[1] - y))
        measures = seen(np.full(49, 1 / 49), [box], fit="squash", size=size)
        assert measures["attention mass box"] == pytest.approx(box[2] * box[3] / (size[0] * size[1]), rel=1e-12)
        assert measures["attention mass box"] == pytest.approx(measures["chance box"], rel=1e-12)
        assert measures["uniform mass box"] == measures["attention mass box"]
        # Even weights point at any cell: the share of the 49 middles that lie inside.
        middles = [((c + 0.5) * size[0] / 7, (r + 0.5) * size[1] / 7) for r in range(7) for c in range(7)]
        inside = sum(box[0] <= px < box[0] + box[2] and box[1] <= py < box[1] + box[3] for px, py in middles)
        assert measures["uniform pointing box"] == measures["attention pointing box"] == pytest.approx(inside / 49)


def exact_union(boxes, cell) -> Fraction:
    """Area of a union of boxes within a rectangle, by inclusion and exclusion."""
    total = Fraction(0)
    for number in range(1, len(boxes) + 1):
        for chosen in combinations(boxes, number):
            sides = [(x, y, x + w, y + h) for x, y, w, h in chosen] + [cell]
            width = min(s[2] for s in sides) - max(s[0] for s in sides)
            height = min(s[3] for s in sides) - max(s[1] for s in sides)
            total += (-1) ** (number + 1) * max(width, Fraction(0)) * max(height, Fraction(0))
    return total


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fit", GEOMETRIES)
def test_mass_in_a_union_of_boxes_is_exact(fit, size):
    random = np.random.default_rng(1)
    box = tuple(Fraction(side) for side in GEOMETRIES[fit].box(*size))
    for _ in range(4):
        boxes = []
        for _ in range(4):
            x, y = (Fraction(int(random.integers(0, 4 * side // 2)), 4) for side in size)
            boxes.append((x, y, *(Fraction(int(random.integers(1, 2 * side)), 4) for side in size)))
        weights = random.dirichlet(np.full(49, 0.3))
        expected = sum(
            weight
            * exact_union(boxes, rectangle(box, place // 7, place % 7))
            / ((box[2] - box[0]) * (box[3] - box[1]) / 49)
            for place, weight in enumerate(weights)
        )
        floats = [tuple(map(float, each)) for each in boxes]
        measures = seen(weights, floats, fit=fit, size=size)
        assert measures["attention mass box"] == pytest.approx(float(expected), rel=1e-9)
        whole = exact_union(boxes, (0, 0, *size))
        assert measures["chance box"] == pytest.approx(float(whole / (size[0] * size[1])), rel=1e-12)


def test_a_box_beyond_the_picture_counts_within_it_only():
    region = box_region([(-10, -10, 30, 30), (90, 90, 50, 50)], (100, 100))
    assert area_share(region, (100, 100)) == pytest.approx(0.04 + 0.01)
    assert cell_shares(region, box=(0, 0, 100, 100), grid=(5, 5))[0] == pytest.approx(1)
    points = np.array([-0.1, 0, 19.9, 20, 95, 100])
    assert contains(region, points, points).tolist() == [False, True, True, False, True, False]


def test_any_of_several_instances_counts_and_others_do_not():
    left, right = (0, 0, 100, 490), (600, 0, 100, 490)
    cat = AnnotatedThing("cat", (300, 0, 100, 490), [])
    things = [AnnotatedThing("dog", left, []), cat, AnnotatedThing("dog", right, [])]
    weights = 0.5 * one_hot(0, 0) + 0.2 * one_hot(3, 6) + 0.3 * one_hot(3, 3)
    (only,) = ground_caption(
        ["dogs"], weights[None], box=(0, 0, 700, 490), size=(700, 490), things=things, phrases=PHRASES
    )
    assert only.measures["attention pointing box"] == 1
    assert only.measures["attention mass box"] == pytest.approx(0.7)
    assert only.measures["chance box"] == pytest.approx(2 / 7)


def test_peaks_that_tie_count_by_their_share_and_the_centre_prior_looks_at_the_middle():
    box, region = (0, 0, 80, 80), box_region([(0, 0, 40, 40)], (80, 80))
    assert pointing(np.array([0.4, 0.1, 0.1, 0.4]), region, box=box, grid=(2, 2)) == 0.5
    even = center_prior(box=box, grid=(4, 4), size=(80, 80))
    assert pointing(even, region, box=box, grid=(4, 4)) == 0.25
    assert even.sum() == pytest.approx(1)
    # Cells against a fine sum of the Gaussian.
    middles = (np.arange(8000) + 0.5) / 100
    slices = np.exp(-0.5 * ((middles - 40) / 20) ** 2).reshape(4, -1).sum(1)
    np.testing.assert_allclose(even.reshape(4, 4), np.outer(slices, slices) / slices.sum() ** 2, rtol=1e-5)
    odd = center_prior(box=Transform(224, fit="pad").box(640, 320), grid=GRID, size=(640, 320))
    assert odd.argmax() == 24


# Masks


def test_masks_of_every_form_agree_with_counting_pixels():
    size = width, height = (61, 47)
    polygons = [[5, 5, 30, 5, 30, 20, 5, 20], [40.0, 30.0, 55.5, 31.0, 50.0, 45.0]]
    compressed = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    pixels = coco_mask.decode(compressed).astype(bool)
    runs, value = [], False
    for bit in pixels.ravel(order="F"):  # run lengths down the columns, the first of zeros
        if bit != value or not runs:
            runs += [0] if bit == value else [0] * (1 + (not runs))
            value = bit
        runs[-1] += 1
    forms = [polygons, {"counts": runs, "size": [height, width]}, compressed]
    forms.append({"counts": compressed["counts"].decode(), "size": compressed["size"]})
    weights = np.random.default_rng(0).dirichlet(np.ones(49))
    for fit, transform in GEOMETRIES.items():
        box = transform.box(*size)
        expected = 0.0
        for place, weight in enumerate(weights):
            left, top, right, bottom = rectangle(box, place // 7, place % 7)
            area = sum(
                max(0, min(right, x + 1) - max(left, x)) * max(0, min(bottom, y + 1) - max(top, y))
                for y, x in zip(*np.nonzero(pixels), strict=True)
            )
            expected += weight * area / ((right - left) * (bottom - top))
        for form in forms:
            thing = AnnotatedThing("dog", (0, 0, 1, 1), form)
            (only,) = ground_caption(["dog"], weights[None], box=box, size=size, things=[thing], phrases=PHRASES)
            assert only.measures["attention mass mask"] == pytest.approx(expected, rel=1e-9), fit
            assert only.measures["chance mask"] == pytest.approx(pixels.mean(), rel=1e-12)


def test_a_crowd_belongs_to_the_union_and_a_line_has_no_area():
    crowd = {"counts": [0, 100], "size": [10, 10]}
    half = [[0, 0, 5, 0, 5, 10, 0, 10]]
    assert area_share(mask_region([half], (10, 10)), (10, 10)) == 0.5
    assert area_share(mask_region([half, crowd], (10, 10)), (10, 10)) == 1
    assert area_share(mask_region([crowd, half], (10, 10)), (10, 10)) == 1
    assert area_share(mask_region([[[0, 0, 5, 5]]], (10, 10)), (10, 10)) == 0
    with pytest.raises(DataError, match="10 × 10 pixels, but its image 20 × 10"):
        mask_region([crowd], (20, 10))


# Words


def test_the_longest_phrase_wins_and_its_plural_too():
    phrases = compile_phrases(
        {"dog": ["dog"], "hot dog": ["hot dog"], "fire hydrant": ["fire hydrant", "hydrant"], "bus": ["bus"],
         "person": ["lady", "men"], "knife": ["knife", "knives"], _NOTHING: ["bus stop"]}
    )  # fmt: skip
    text = "two hot dogs and a dog near fire hydrants and buses at the bus stop with ladies , knives and hydrants"
    tokens = text.split()
    found = [(" ".join(tokens[m.start : m.stop]), m.category) for m in find_mentions(tokens, phrases)]
    assert found == [
        ("hot dogs", "hot dog"),
        ("dog", "dog"),
        ("fire hydrants", "fire hydrant"),
        ("buses", "bus"),
        ("ladies", "person"),
        ("knives", "knife"),
        ("hydrants", "fire hydrant"),
    ]
    assert find_mentions(["hot"], phrases) == [] and find_mentions([], phrases) == []
    with pytest.raises(DataError, match="'dogs' names both 'a' and 'b'"):
        compile_phrases({"a": ["dog"], "b": ["dogs"]})


def test_plurals():
    singulars = ["dog", "bus", "box", "bench", "brush", "lady", "toy", "zebra"]
    plurals = ["dogs", "buses", "boxes", "benches", "brushes", "ladies", "toys", "zebras"]
    assert [plural(noun) for noun in singulars] == plurals


def test_a_phrase_has_the_mean_of_its_words_and_hard_attention_all_in_one_place():
    weights = np.stack([one_hot(0, 0), one_hot(0, 1), one_hot(6, 6)])
    things = [AnnotatedThing("hot dog", (0, 0, 100, 70), [])]
    settings = {"box": (0, 0, 700, 490), "size": (700, 490), "things": things, "phrases": PHRASES}
    (soft,) = ground_caption(["hot", "dog", "here"], weights, **settings)
    assert soft.phrase == "hot dog" and soft.measures["attention mass box"] == 0.5
    (hard,) = ground_caption(["hot", "dog", "here"], np.full((3, 49), 1 / 49), places=[0, 0, 48], **settings)
    assert hard.measures["attention mass box"] == hard.measures["attention pointing box"] == 1
    (absent,) = ground_caption(["here", "dog", "is"], weights, **settings)
    assert absent.measures is None and absent.mention.category == "dog"
    assert ground_caption([], np.empty((0, 49)), **settings) == []
    with pytest.raises(ValueError, match="do not fit"):
        ground_caption(["dog"], weights, **settings)
    with pytest.raises(ValueError, match="do not fit"):
        ground_caption(["dog"], np.ones((1, 50)), **settings)


# Means and intervals


def test_means_are_over_words_and_intervals_over_pictures():
    random = np.random.default_rng(3)
    phrases, size, box = compile_phrases({"dog": ["dog"]}), (70, 70), (0, 0, 70, 70)
    grounded = {}
    for image_id in range(30):
        words = ["dog"] * int(random.integers(0, 4))
        things = [AnnotatedThing("dog", (*random.uniform(0, 40, 2), 25, 25), [])] if image_id % 5 else []
        weights = random.dirichlet(np.full(49, 0.2), len(words)).reshape(-1, 49)
        grounded[image_id] = ground_caption(words, weights, box=box, size=size, things=things, phrases=phrases)
    summary = summarize(grounded, samples=200, seed=5)
    pictures = [[w.measures for w in own if w.measures] for own in grounded.values()]
    pictures = [own for own in pictures if own]
    every = [measures for own in pictures for measures in own]
    absent = sum(w.measures is None for own in grounded.values() for w in own)
    assert (summary["words"], summary["images with scored words"]) == (len(every), len(pictures))
    assert summary["images"] == 30 and summary["hallucinated"] == absent > 0
    generator, resampled, lifts = np.random.default_rng(5), [], []
    for _ in range(200):
        drawn = [m for index in generator.integers(0, len(pictures), len(pictures)) for m in pictures[index]]
        resampled.append(sum(m["attention mass box"] for m in drawn) / len(drawn))
        lifts.append(resampled[-1] - sum(m["chance box"] for m in drawn) / len(drawn))
    mean = summary["means"]["attention"]["mass box"]
    assert mean["mean"] == pytest.approx(np.mean([m["attention mass box"] for m in every]), rel=1e-12)
    assert (mean["low"], mean["high"]) == pytest.approx(tuple(np.percentile(resampled, [2.5, 97.5])), rel=1e-12)
    lift = summary["differences"]["attention - chance"]["mass box"]
    assert (lift["low"], lift["high"]) == pytest.approx(tuple(np.percentile(lifts, [2.5, 97.5])), rel=1e-12)
    chance = summary["means"]["chance"]
    assert chance["pointing box"] == chance["mass box"]
    assert summary["categories"]["dog"]["words"] == len(every)
    assert summarize(grounded, samples=200, seed=5) == summary != summarize(grounded, samples=200, seed=6)
    assert summarize({1: [], 2: []})["means"] is None


def test_the_interval_of_a_mean_is_about_its_standard_error():
    values = np.random.default_rng(0).normal(size=2000)
    low, high = interval(values, np.mean, samples=4000)
    error = values.std() / np.sqrt(2000)
    assert (low, high) == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.1 * error)


# Instances


def test_the_words_of_the_80_categories(shared_dir):
    root = shared_dir / "coco-sample"
    records = read_coco(root, layout=2017)
    pictures, words = read_instances(root, records)
    assert set(pictures) == {record.image_id for record in records}
    content = json.loads((root / "annotations" / "instances_val2017.json").read_text())
    assert {c["name"] for c in content["categories"]} == words.keys() - {_NOTHING}
    phrases = compile_phrases(words)
    for sentence, expected in (
        ("a man and two women ride bikes past a fire hydrant", ["person", "person", "bicycle", "fire hydrant"]),
        ("children eating hot dogs at a picnic table", ["person", "hot dog", "dining table"]),
        ("a baby elephant stands with zebras", ["elephant", "zebra"]),
        ("people wait at a bus stop for buses", ["person", "bus"]),
        ("an orange cat on a laptop computer", ["cat", "laptop"]),
        ("teddy bears and knives and cell phones", ["teddy bear", "knife", "cell phone"]),
    ):
        assert [mention.category for mention in find_mentions(sentence.split(), phrases)] == expected
    crowds = sum(a["iscrowd"] for a in content["annotations"])
    assert crowds and sum(len(pictures[a["id"]].instances) for a in content["images"]) == len(content["annotations"])


def test_every_scene_word_is_found_where_it_was_drawn(tmp_path):
    root = tmp_path / "scenes"
    records = read_scenes(root, train=12, val=2, test=2)
    pictures, words = read_shapes(root, records)
    phrases = compile_phrases(words)
    for record in records:
        annotated = pictures[record.image_id]
        there = {instance.category for instance in annotated.instances}
        for caption in record.captions:
            named = {m.category for m in find_mentions(caption.lower().replace(",", "").strip(".").split(), phrases)}
            assert named and named <= there
        drawn = np.asarray(Image.open(record.path)).astype(int)
        for instance in annotated.instances:
            box, mask = box_region([instance.box], (224, 224)), mask_region([instance.segmentation], (224, 224))
            assert area_share(mask, (224, 224)) <= area_share(box, (224, 224)) * 1.05
            colors = drawn[mask.inside]
            middle = np.median(colors, axis=0)  # one flat colour, but for the smoothed edge
            assert (np.abs(colors - middle).max(1) == 0).mean() > 0.8


def test_faults_of_instances_and_words_are_named(tmp_path):
    (tmp_path / "annotations").mkdir()
    file = tmp_path / "annotations" / "instances_val2017.json"
    records = [Record(7, tmp_path / "val2017" / "7.jpg", "val", ("a dog",))]
    entry = {"image_id": 7, "category_id": 1, "bbox": [0, 0, 5, 5], "segmentation": []}
    content = {"images": [{"id": 7, "width": 9, "height": 9}], "annotations": [entry],
               "categories": [{"id": 1, "name": "dog"}]}  # fmt: skip

    def error(words=None, **changes) -> str:
        file.write_text(json.dumps(content | changes))
        with pytest.raises(DataError) as caught:
            read_instances(tmp_path, records, words={"dog": ["dog"]} if words is None else words)
        return str(caught.value)

    with pytest.raises(DataError, match=r"instances_val2017\.json is missing"):
        read_instances(tmp_path, records)
    assert "lacks 1 images" in error(images=[])
    assert "annotations[0]: 'bbox'" in error(annotations=[entry | {"bbox": [1, 2, 3]}])
    assert "annotations[0]: category 2" in error(annotations=[entry | {"category_id": 2}])
    assert "'segmentation' must be" in error(annotations=[entry | {"segmentation": None}])
    assert "no category 'dgo': did you mean 'dog'?" in error(words={"dgo": ["dog"]})
    own = tmp_path / "own.yaml"
    assert "own.yaml" in error(words=str(own))
    own.write_text("dog: puppy\n")
    assert "must be a list" in error(words=str(own))
    own.write_text("dog: [puppy]\n")
    file.write_text(json.dumps(content))
    assert read_instances(tmp_path, records, words=str(own)).words == {"dog": ("puppy",)}
    assert COCO_WORDS.is_file()


# End to end

TOY = [
    "model.width=32",
    "model.embedding_size=24",
    "model.dropout=0",
    "encoder.image_size=64",
    "loader.batch_size=4",
    "objective.doubly_stochastic=0",
    "trainer.check_val_every_n_epoch=1000",
    "data.min_count=2",
    "optimizer.lr=1e-2",
    "trainer.enable_progress_bar=false",
    "trainer.accelerator=cpu",
]
SIGHTLESS = [override for override in TOY if not override.startswith("encoder")]


def train_toy(run_dir, *overrides, toy=TOY):
    train(check(compose("train", [*toy, f"run_dir={run_dir}", *overrides]), TrainConfig))
    return f"checkpoint={run_dir}/checkpoints/last.ckpt"


def run(*overrides):
    ground_command(check(compose("ground", list(overrides)), GroundConfig))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    return ["data=scenes", f"data.root={root / 'scenes'}", f"features.root={root / 'features'}"] + [
        f"data.reader.{split}={count}" for split, count in (("train", 8), ("val", 8), ("test", 4))
    ]


@pytest.fixture(scope="module")
def toy_run(scenes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    epochs = ["trainer.max_epochs=60", "trainer.check_val_every_n_epoch=60"]
    return train_toy(folder / "run", *scenes, "model.scorer.width=32", *epochs)  # a small last.ckpt after each epoch


@pytest.mark.slow
def test_one_command_grounds_a_split_of_scenes(toy_run, scenes, tmp_path, capsys):
    run(toy_run, *scenes, "split=val", "decoding.beam_size=2", "samples=50", f"output={tmp_path}")
    report = json.loads((tmp_path / "grounding.json").read_text())
    assert (report["data"], report["split"], report["decoding"], report["images"]) == (
        "scenes",
        "val",
        "beam2_length0.6",
        8,
    )
    rows = list(csv.DictReader((tmp_path / "words.csv").open(newline="")))
    assert report["words"] == sum(int(row["in_picture"]) for row in rows) > 0
    assert report["hallucinated"] == len(rows) - report["words"]
    scored = [row for row in rows if int(row["in_picture"])]
    for measure in ("pointing box", "pointing mask", "mass box", "mass mask"):
        column = "attention_" + measure.replace(" ", "_")
        mean = np.mean([float(row[column]) for row in scored])
        assert report["means"]["attention"][measure]["mean"] == pytest.approx(mean, rel=1e-4)
    assert report["means"]["uniform"]["mass box"] == pytest.approx(report["means"]["chance"]["mass box"])  # squash
    printed = capsys.readouterr().out
    assert f"scenes val, beam2_length0.6, map=attention: {report['words']} words" in printed
    assert "of 8 images" in printed
    # The same, word by word, from the predictor.
    predictor = load(toy_run.removeprefix("checkpoint="))
    records = [record for record in read_scenes(scenes[1].removeprefix("data.root="), train=8, val=8, test=4)
               if record.split == "val"]  # fmt: skip
    made = predictor.caption([record.path for record in records], beam_size=2)
    by_image = {record.image_id: caption for record, caption in zip(records, made, strict=True)}
    for row in rows:
        caption = by_image[int(row["image_id"])]
        assert caption.tokens[int(row["position"])] == row["words"]


def test_features_come_from_where_evaluation_takes_them(toy_run, scenes, tmp_path, monkeypatch):
    given = [toy_run, *scenes[:2], *scenes[3:], "samples=50"]
    stored = [f"features.root={tmp_path / 'features'}"]
    rows = []
    for name, features in (("first", stored), ("stored", stored), ("online", ["features=online"])):
        if name == "stored":  # nothing is left to encode
            monkeypatch.setattr("captioning.models.encoder.Encoder.forward", None)
        run(*given, *features, f"output={tmp_path / name}")
        rows.append(list(csv.DictReader((tmp_path / name / "words.csv").open(newline=""))))
        monkeypatch.undo()
    assert list((tmp_path / "features").glob("scenes-*/manifest.json"))
    assert rows[0] == rows[1] and len(rows[0]) == len(rows[2]) > 0
    for one, other in zip(rows[0], rows[2], strict=True):
        assert one["words"] == other["words"]
        if one["attention_mass_box"]:
            assert float(one["attention_mass_box"]) == pytest.approx(float(other["attention_mass_box"]), abs=1e-3)


def test_maps_by_gradients_are_measured_for_the_same_captions(toy_run, scenes, tmp_path, capsys):
    given = [toy_run, *scenes[:2], *scenes[3:], "features=online", "samples=50"]
    rows = {}
    several = "attention,gradient_attention,gradient_input"
    for kind in ("attention", "gradient_input", f"[{several}]"):
        output = tmp_path / kind.strip("[]").replace(",", "_")
        run(*given, f"map={kind}", f"output={output}")
        rows[kind] = list(csv.DictReader((output / "words.csv").open(newline="")))
        found = json.loads((output / "grounding.json").read_text())
        assert found["map"] == (several.split(",") if "[" in kind else kind)
    printed = capsys.readouterr().out
    assert "map=gradient_input" in printed and f"map={several}" in printed
    table = re.findall(r"^  (\w+(?: - \w+)?) +-?\d", printed, re.MULTILINE)[-8:]
    differences = ["gradient_attention - attention", "gradient_input - attention"]
    assert table == [*several.split(","), "uniform", "center", "chance", *differences]
    # One call for several maps gives the rows of one call each.
    words, same, also = ([(row["image_id"], row["words"]) for row in each] for each in rows.values())
    assert words == same == also
    for kind in ("attention", "gradient_input"):
        assert all(row.items() <= joined.items() for row, joined in zip(rows[kind], rows[f"[{several}]"], strict=True))
    masses = [[row[f"{kind}_mass_box"] for row in rows[f"[{several}]"]] for kind in several.split(",")]
    assert masses[0] != masses[1] != masses[2] != masses[0]
    for measure, cell in found["differences"]["gradient_input - attention"].items():
        one, other = (found["means"][kind][measure]["mean"] for kind in ("gradient_input", "attention"))
        assert cell["mean"] == pytest.approx(one - other) and cell["low"] <= cell["mean"] <= cell["high"]
    # One word again by hand: the share of its positive contributions in the cells of the object's boxes.
    predictor = load(toy_run.removeprefix("checkpoint="))
    row = next(row for row in rows["gradient_input"] if int(row["in_picture"]))
    records = read_scenes(scenes[1].removeprefix("data.root="), train=8, val=8, test=4)
    record = next(each for each in records if each.split == "val" and str(each.image_id) == row["image_id"])
    (caption,) = predictor.caption([record.path], "beam", beam_size=3)
    tokens = [*predictor.vocabulary.ids(caption.tokens), predictor.vocabulary.end]
    features = predictor.encode([Image.open(record.path).convert("RGB")])
    (found,) = gradient_times_input(predictor.captioner, features, [tokens], start=predictor.vocabulary.start)
    start = int(row["position"])
    weights = as_map(found)[start : start + len(row["words"].split())].mean(0, keepdim=True).numpy()
    things = read_shapes(scenes[1].removeprefix("data.root="), [record])[0][record.image_id].instances
    (word,) = ground_caption(
        [row["words"]],
        weights,
        box=caption.box,
        size=Image.open(record.path).size,
        things=things,
        phrases=compile_phrases({row["category"]: [row["words"]]}),
    )
    assert word.measures["attention mass box"] == pytest.approx(float(row["gradient_input_mass_box"]), abs=1e-4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "rollout",
            r"map=rollout does not exist for .*ckpt\. Choose from attention, gradient_attention, gradient_input$",
        ),
        ("[attention,attention]", r"map=\[attention,attention\] must list one or several maps, each of them once"),
        ("[]", r"map=\[\] must list one or several maps"),
    ],
)
def test_maps_that_cannot_be_measured_are_one_error(toy_run, scenes, tmp_path, given, message):
    with pytest.raises(ConfigError, match=message):
        run(toy_run, *scenes, f"map={given}", f"output={tmp_path}")


def test_hard_attention_is_measured_where_it_looked(tmp_path):
    """A predictor whose captions name the place of each word: the weights behind it do not count."""

    class Made(NamedTuple):
        tokens: list
        attention: np.ndarray
        box: tuple
        places: list | None
        grid: tuple = (7, 7)

    class Predictor:
        path = "a.ckpt"

        def __init__(self, places):
            self.places = places

        def caption_pictures(self, pictures, search):
            return [Made(["dog"], np.full((1, 49), 1 / 49), (0, 0, *picture.size), self.places) for picture in pictures]

    Image.new("RGB", (70, 49)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"")
    records = [Record(n, tmp_path / f"{name}.png", "val", ("a",)) for n, name in enumerate("ab")]
    annotated = Annotated(70, 49, [Instance("dog", (10, 0, 10, 7), [])])
    instances = Instances({0: annotated, 1: annotated}, {"dog": ("dog",)})
    settings = {"search": None, "batch_size": 2, "skip_unreadable": True}
    for places, hit, mass in (([1], 1, 1), ([2], 0, 0), (None, 1 / 49, 1 / 49)):
        ((image_id, (word,)),) = caption_and_ground(Predictor(places), records, instances, **settings).items()
        assert image_id == 0 and word.measures["attention pointing box"] == pytest.approx(hit)
        assert word.measures["attention mass box"] == pytest.approx(mass)
    with pytest.raises(DataError, match=r"b\.png"):
        caption_and_ground(Predictor(None), records, instances, **settings | {"skip_unreadable": False})


def test_without_instances_or_attention_there_is_one_clear_error(toy_run, scenes, tmp_path):
    output = f"output={tmp_path / 'out'}"
    with pytest.raises(ConfigError, match=r"data=csv has no annotated objects .* data=coco or data=scenes"):
        run(toy_run, "data=csv", f"data.root={tmp_path}", output)
    with pytest.raises(ConfigError, match="samples"):
        run(toy_run, *scenes, "samples=0", output)
    blind = train_toy(
        tmp_path / "blind",
        *scenes,
        "model/attention=none",
        "trainer.max_epochs=1",
    )
    with pytest.raises(CheckpointError, match=r"last\.ckpt has no attention.*map=gradient_input, or a checkpoint"):
        run(blind, *scenes, output)
    folder = detected(tmp_path / "detected")
    regions = train_toy(
        tmp_path / "regions", "data=csv", f"data.root={folder}", "data.min_count=1", "trainer.max_epochs=1",
        "encoder=regions", "encoder.size=4", "features=regions", f"features.root={folder}", toy=SIGHTLESS,
    )  # fmt: skip
    with pytest.raises(
        CheckpointError, match=r"last\.ckpt was trained on a detector's regions, but captioning-ground needs a grid"
    ):
        run(regions, *scenes, output)
    assert not (tmp_path / "out").exists()


def detected(folder):
    """Two pictures with a region each, and a table of captions."""
    folder.mkdir()
    for name in "ab":
        Image.new("RGB", (8, 8)).save(folder / f"{name}.png")
        np.savez(folder / f"{name}.npz", x=np.ones((1, 4), np.float32), bbox=np.array([[0, 0, 8, 8]], np.float32))
    (folder / "captions.csv").write_text("image,caption,split\na.png,a dog,train\nb.png,a dog,val\n")
    return folder


@pytest.mark.slow
def test_coco_as_it_comes(shared_dir, tmp_path, capsys):
    """Such a short training only says "a" and the like: here these name people."""
    coco = ["data=coco", f"data.root={shared_dir / 'coco-sample'}"]
    features = f"features.root={tmp_path / 'features'}"
    checkpoint = train_toy(tmp_path / "run", *coco, features, "trainer.max_epochs=2", "data.min_count=20")
    output = [f"output={tmp_path / 'out'}", "samples=50", features]
    run(checkpoint, *coco, *output, "split=val")
    assert json.loads((tmp_path / "out" / "grounding.json").read_text())["images"] == 79
    (tmp_path / "words.yaml").write_text("person: [a, the, in, of, with, and, is, at, to, man]")
    run(checkpoint, *coco, *output, "split=train", "decoding=greedy", f"data.instances.words={tmp_path / 'words.yaml'}")
    report = json.loads((tmp_path / "out" / "grounding.json").read_text())
    assert report["images"] == 80 and report["words"] > 0 and report["hallucinated"] > 0
    assert f"coco train, greedy, map=attention: {report['words']} words" in capsys.readouterr().out
    content = json.loads((shared_dir / "coco-sample" / "annotations" / "instances_train2017.json").read_text())
    crowded = {entry["image_id"] for entry in content["annotations"] if entry["category_id"] == 1}
    rows = csv.DictReader((tmp_path / "out" / "words.csv").open(newline=""))
    assert all((int(row["image_id"]) in crowded) == (row["in_picture"] == "1") for row in rows)


def test_a_picture_of_another_size_than_its_instances_is_named(toy_run, scenes, tmp_path):
    root = tmp_path / "scenes"
    overrides = [override for override in scenes if not override.startswith("data.root")] + [f"data.root={root}"]
    read_scenes(root, train=8, val=8, test=4)
    path = root / "val" / "000001000001.png"
    Image.open(path).resize((112, 112)).save(path)
    with pytest.raises(DataError, match=r"000001000001\.png has 112 × 112 pixels.*224 × 224"):
        run(toy_run, *overrides, f"output={tmp_path / 'out'}")
