"""Tags as locations of a trained captioner: its captions and maps, its export, ensembles, figures, and refusals."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from small_world import SMALL, run, weights
from toys import START

import captioning
from captioning.config import ExportConfig, check, compose
from captioning.data import Box
from captioning.errors import ConfigError
from captioning.export import export
from captioning.inference import Caption, TagWeights, draw_figure, load_all, tag_notes
from captioning.inference.attention_map import split_tags
from captioning.inference.ensemble import Ensemble
from captioning.metrics import compile_phrases, ground_caption
from captioning.models import torchvision_encoder
from captioning.tags import all_nouns, classes_of, imagenet_nouns, linear_head_of, load_tagger, summed_nouns
from captioning.visualise import Maps
from captioning.visualise.animation import gaze_frames
from captioning.web.demo.work import DemoRequest, caption_picture
from captioning.web.report.examples import draw_words, maps_of

TAGS = ["encoder=efficientnet_lite0", "model/tags=places", "data.min_count=1", "schedule=constant", *SMALL]
GREEDY = {"method": "greedy", "max_length": 5}


@pytest.fixture(scope="module")
def tagged(data, tmp_path_factory):
    """The folder of a run of two epochs of two steps, with 2 × 2 locations and eight tags."""
    run_dir = tmp_path_factory.mktemp("tagged")
    run("train", *data, *TAGS, "trainer.max_steps=4", f"run_dir={run_dir}")
    return run_dir


@pytest.fixture(scope="module")
def images(world):
    return [world / f"val{number}.png" for number in range(8)]


def test_the_classes_of_nouns():
    nouns = all_nouns()
    assert len(set(nouns)) == len(nouns) > 500 and load_tagger(weights=None).nouns[: len(nouns)] == nouns
    matrix = classes_of(["bird", "owl"])
    for row in imagenet_nouns():
        assert matrix[row.number].tolist() == [noun in summed_nouns(row) for noun in ("bird", "owl")]
    assert matrix[24].all()  # the great grey owl
    with pytest.raises(
        ConfigError, match=r"model\.tags\.nouns: no class of ImageNet is 'brid' \(nearest: .*bird.*Remove it"
    ):
        classes_of(["owl", "brid"])


def test_captions_have_maps_of_the_grid_and_the_nouns_of_the_classifier(tagged, images):
    predictor, classifier = captioning.load(tagged / "checkpoints/last.ckpt"), load_tagger(crops=(), probes=())
    assert weights(tagged)["captioning"]["config"]["model"]["tags"]["nouns"] == all_nouns()
    for image, caption in zip(images, predictor.caption(images, **GREEDY), strict=True):
        assert caption.grid == (2, 2) and caption.attention.shape == (5, 4)
        assert caption.tag_places.weights.shape == (5, 8) and caption.tag_places.chosen is None
        sums = caption.attention.sum(1) + caption.tag_places.weights.sum(1)
        np.testing.assert_allclose(sums, 1, rtol=1e-5)
        with torch.inference_mode(), Image.open(image) as photo:
            features = predictor.encoder(predictor.transform(photo)[None])
            probabilities = classifier.head(features.mean(1)).softmax(-1)[0] @ classifier.classes
        best = probabilities.topk(8).indices.tolist()
        assert caption.tag_places.nouns == [classifier.nouns[index] for index in best]


def test_stores_photos_exports_and_crops(tagged, data, images, tmp_path):
    path, found = tagged / "checkpoints/last.ckpt", {}
    for name, features in {"store": data, "online": [*data[:2], "features=online"]}.items():
        run("evaluate", f"checkpoint={path}", *features, f"output={tmp_path / name}", "split=val")
        found[name] = json.loads((tmp_path / name / "captions.json").read_text())
    assert found["store"] == found["online"] and len(found["store"]) == 8
    by_name = {each["file_name"]: each["caption"] for each in found["store"]}
    for dtype, tolerance in (("float32", 1e-6), ("float16", 2e-3)):
        export(
            check(
                compose("export", [f"checkpoint={path}", f"output={tmp_path / dtype}", f"dtype={dtype}"]), ExportConfig
            )
        )
        own, again = captioning.load(path), captioning.load(tmp_path / dtype)
        for name in ("weight", "bias", "noun_classes"):  # also in float16: they were rounded before training
            assert torch.equal(getattr(own.captioner.tags, name), getattr(again.captioner.tags, name))
        for image, one, other in zip(images, own.caption(images), again.caption(images), strict=True):
            assert one.text == other.text == by_name[image.name]
            assert one.tag_places.nouns == other.tag_places.nouns
            np.testing.assert_allclose(other.tag_places.weights, one.tag_places.weights, atol=tolerance)
    cropped = captioning.load(path, crops=0.75)
    captions = cropped.caption(images, **GREEDY)
    for caption in captions:
        assert caption.attention.shape == (5, 4) and caption.tag_places.nouns == list(
            dict.fromkeys(caption.tag_places.nouns)
        )
        np.testing.assert_allclose(caption.attention.sum(1) + caption.tag_places.weights.sum(1), 1, rtol=1e-5)
    assert max(len(caption.tag_places.nouns) for caption in captions) > 8  # crops have their own


def test_a_resumed_run_has_the_same_weights(tagged, data, tmp_path):
    run("train", *data, *TAGS, "trainer.max_steps=2", f"run_dir={tmp_path / 'cut'}")
    last = tmp_path / "cut/checkpoints/last.ckpt"
    run("train", *data, *TAGS, "trainer.max_steps=4", f"run_dir={tmp_path / 'cut'}", f"resume={last}")
    whole, parts = weights(tagged)["state_dict"], weights(tmp_path / "cut")["state_dict"]
    assert whole.keys() == parts.keys() and all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_a_run_that_starts_from_another_takes_its_nouns(data, tmp_path):
    first, few = tmp_path / "first", ["model.tags.nouns=[dog,owl,boat]", "model.tags.most=2", "trainer.max_steps=1"]
    run("train", *data, *TAGS, *few, f"run_dir={first}")
    begin = f"start_from={first / 'checkpoints/last.ckpt'}"
    run("train", *data, *TAGS, *few[1:], begin, f"run_dir={tmp_path / 'second'}")
    model = weights(tmp_path / "second")["captioning"]["config"]["model"]
    assert model["tags"]["nouns"] == ["dog", "owl", "boat"]
    with pytest.raises(ConfigError, match="the checkpoint of start_from has other nouns"):
        run("train", *data, *TAGS, *few[1:], begin, "model.tags.nouns=[dog,boat,owl]", f"run_dir={tmp_path / 'third'}")


REFUSED = {
    "encoder.layer=blocks.10": r"encoder\.layer=blocks\.10: model/tags=places needs .*Set encoder\.layer=head",
    "encoder.unfreeze_from=head": r"encoder\.unfreeze_from=head: model/tags=places needs a frozen encoder",
    "encoder.output=fc model/attention=none": r"model/tags=places needs an encoder with a grid, .* has no grid",
    "model/attention=none": r"model/tags=places needs attention",
    "model.tags.most=600": r"model\.tags\.most must be at least 1 and at most 565",
    "model.tags.nouns=[unicorn]": r"no class of ImageNet is 'unicorn'",
}


@pytest.mark.parametrize("settings", REFUSED)
def test_settings_that_do_not_fit_are_refused(data, tmp_path, settings):
    own = ["model.tags.most=1"] if "nouns" in settings else []
    with pytest.raises(ConfigError, match=REFUSED[settings]):
        run("train", *data, *TAGS, *own, *settings.split(), "trainer.max_steps=1", f"run_dir={tmp_path}")


def test_encoders_without_a_linear_classifier_are_refused(data, tmp_path):
    lite = "{encoder: efficientnet_lite0, image_size: 64}"
    side = ["encoder=side_by_side", f"encoder.parts=[{lite},{lite}]", *TAGS[1:4], *SMALL[1:]]
    with pytest.raises(
        ConfigError,
        match=r"needs one network with a classifier, but the encoder is SideBySide\. Choose another encoder",
    ):
        run("train", *data, *side, "trainer.max_steps=1", f"run_dir={tmp_path}")
    target = "captioning.models.torchvision_encoder"
    norm = {"_target_": target, "name": "convnext_tiny", "weights": None, "image_size": 64, "layer": "features"}
    encoder = torchvision_encoder("convnext_tiny", weights=None, output="grid", image_size=64, layer="features")
    with pytest.raises(ConfigError, match="the classifier of convnext_tiny is not one linear layer"):
        linear_head_of(norm, encoder)
    plain = {**norm, "name": "resnet18", "layer": "layer4"}
    encoder = torchvision_encoder("resnet18", weights=None, output="grid", image_size=64, layer="layer4")
    weight, bias = linear_head_of(plain, encoder)
    assert weight.shape == (1000, 512) and bias.shape == (1000,)
    with torch.no_grad():
        next(encoder.parameters()).add_(1)
    with pytest.raises(ConfigError, match="but this encoder was fine-tuned"):
        linear_head_of(plain, encoder)
    with pytest.raises(ConfigError, match=r"model/tags=places: .*vgg11.*, or set model/tags=none"):
        linear_head_of({**norm, "name": "vgg11"}, encoder)


def test_weights_are_split_by_hand():
    rows = np.array([[0.1, 0.2, 0.05, 0.25, 0.4], [0.3, 0.1, 0.1, 0.3, 0.2]])
    grid, places, tags = split_tags(rows, None, ["dog", "cat", "dog"])
    assert places is None and grid.tolist() == rows[:, :2].tolist() and tags.nouns == ["dog", "cat"]
    np.testing.assert_allclose(tags.weights, [[0.45, 0.25], [0.3, 0.3]])
    six = np.repeat(rows[:1], 6, 0)
    _, places, tags = split_tags(six, np.array([0, 1, 2, 3, 4, 5]), ["dog", "cat", "dog"])
    assert places.tolist() == [0, 1, 2, 2, 2, 2]  # a tag, or the sentinel
    assert tags.chosen.tolist() == [-1, -1, 0, 1, 0, -1]


def made(weights, tags, *, chosen=None, places=None, sentinel=None):
    words = [f"word{index}" for index in range(len(weights))]
    looked = TagWeights(["dog", "cat"], np.array(tags), chosen)
    box = Box(0, 0, 60, 40)
    facts = {"places": places, "sentinel": sentinel, "grid": (1, 2), "tag_places": looked}
    return Caption(" ".join(words), words, -1.0, np.array(weights), box, -1.0, **facts)


def test_a_note_names_the_tag_with_more_weight_than_every_location():
    caption = made([[0.3, 0.2], [0.1, 0.05], [0.3, 0.3]], [[0.4, 0.1], [0.25, 0.6], [0.3, 0.1]])
    assert tag_notes(caption) == ["← tag dog 0.40", "← tag cat 0.60", ""]
    assert tag_notes(caption._replace(tag_places=None)) == ["", "", ""]
    hard = made([[0.3, 0.2]] * 3, [[0.4, 0.1]] * 3, chosen=np.array([-1, 1, 0]), places=np.array([0, 2, 2]))
    assert tag_notes(hard) == ["", "← tag cat 0.10", "← tag dog 0.40"]


def texts_of(figure):
    found = [text.get_text() for text in figure.texts]
    return [text for text in found if "← tag" in text], " ".join(found).replace("\n", " ")


def test_figures_name_the_tags():
    picture = Image.new("RGB", (60, 40), (90, 120, 30))
    looked = [[0.4, 0.1], [0.05, 0.05], [0.2, 0.6]]
    caption = made([[0.3, 0.2], [0.5, 0.4], [0.1, 0.1]], looked)
    plain = caption._replace(tag_places=caption.tag_places._replace(weights=np.zeros((3, 2))))
    for kind in ("grid", "cells", "strip"):
        notes, rest = texts_of(draw_figure(picture, caption, kind))
        assert notes == ["← tag dog 0.40", "← tag cat 0.60"]
        if kind != "strip":
            assert "←: the tag of the image that has more weight than every location." in rest
        tall, low = (draw_figure(picture, each, kind).get_size_inches()[1] for each in (caption, plain))
        assert tall > low and "←" not in texts_of(draw_figure(picture, plain, kind))[1]
    where = {"box": caption.box, "grid": (1, 2)}
    frames, same = (
        gaze_frames(picture, caption.tokens, caption.attention, **where, tags=tags)
        for tags in (tag_notes(caption), ["← tag owl 0.10", "", "← tag owl 0.10"])
    )
    changed = [bool((np.asarray(one) != np.asarray(other)).any()) for one, other in zip(frames, same, strict=True)]
    assert changed == [False, True, False, True, False]
    with pytest.raises(ValueError, match="3 words, but 2 tags"):
        Maps(caption.tokens, caption.attention, **where, tags=["", "x"])


def test_report_and_demo_name_the_tags(tagged, images):
    predictor = captioning.load(tagged / "checkpoints/last.ckpt")
    with torch.no_grad():
        predictor.captioner.tags.embedding.weight.normal_(std=20)  # so that words look at tags
    with Image.open(images[0]) as picture:
        picture = picture.convert("RGB")
    (caption,) = predictor.forced_captions(picture, "a red dog runs")
    notes = tag_notes(caption)
    assert sum(map(bool, notes)) >= 1
    descriptions = [word.told for word in draw_words(picture, maps_of(caption))]
    assert [note in description for note, description in zip(notes, descriptions, strict=True)] == [True] * 4
    (model,) = caption_picture({"one": predictor}, picture, DemoRequest())["models"]
    every = [line for found in model["searches"].values() for line in found]
    assert all(len(line["tags"]) == len(line["words"]) for line in every) and any(any(line["tags"]) for line in every)
    assert all(len(row) == 4 for line in every for row in line["weights"])


def test_an_ensemble_averages_grids_and_keeps_the_tags_of_each_member(tagged, data, images, tmp_path):
    run("train", *data, *TAGS, "model/tags=none", "trainer.max_steps=1", f"run_dir={tmp_path / 'plain'}")
    paths = [folder / "checkpoints/last.ckpt" for folder in (tagged, tmp_path / "plain")]
    both, (one, other) = load_all(paths[0], [paths[1]]), [captioning.load(path) for path in paths]
    features = one.encode([Image.open(images[0]).convert("RGB")])
    ensemble = Ensemble([one.captioner, other.captioner], one_grid=True).eval()
    state, memory = ensemble.begin((features, features))
    token = torch.tensor([[START]])
    with torch.inference_mode():
        found = ensemble.step(token, state, memory).glimpse.weights
        parts = [each.captioner.begin(features) for each in (one, other)]
        steps = [
            each.captioner.step(token, own, its).glimpse.weights
            for each, (own, its) in zip((one, other), parts, strict=True)
        ]
    expected = torch.cat(((steps[0][..., :4] + steps[1]) / 2, steps[0][..., 4:] / 2), -1)
    torch.testing.assert_close(found, expected)
    (caption,) = both.caption(images[0], **GREEDY)
    assert caption.attention.shape == (5, 4) and caption.tag_places.nouns == one.captioner.name_tags(features)[0]
    np.testing.assert_allclose(caption.attention.sum(1) + caption.tag_places.weights.sum(1), 1, rtol=1e-5)
    assert load_all(paths[1], [paths[1]]).caption(images[0], **GREEDY)[0].tag_places is None


def test_hard_attention_and_a_sentinel(data, images, tmp_path):
    parts = ["model/attention=hard", "model/recurrence=adaptive", "model.feature_width=32", "trainer.max_steps=1"]
    run("train", *data, *TAGS, *parts, f"run_dir={tmp_path}")
    predictor = captioning.load(tmp_path / "checkpoints/last.ckpt", hard_attention="sample")
    torch.manual_seed(0)
    captions = predictor.caption(images, **GREEDY)
    places = np.concatenate([caption.places for caption in captions])
    chosen = np.concatenate([caption.tag_places.chosen for caption in captions])
    assert {1, 4} < set(places.tolist()) <= set(range(5)) and ((chosen >= 0) <= (places == 4)).all()
    assert (chosen >= 0).any() and ((places == 4) & (chosen < 0)).any()  # tags, and the sentinel
    for caption in captions:
        sums = caption.attention.sum(1) + caption.tag_places.weights.sum(1) + caption.sentinel
        np.testing.assert_allclose(sums, 1, rtol=1e-5)
        draw_figure(Image.new("RGB", (96, 64)), caption)


def test_a_word_that_looked_at_a_tag_has_no_weight_on_objects():
    class Thing:
        category, box, segmentation = "dog", (0, 0, 30, 40), [[0, 0, 30, 0, 30, 40, 0, 40]]

    measure = partial(
        ground_caption, ["dog"], np.array([[0.6, 0.1]]), box=(0, 0, 60, 40), grid=(1, 2), size=(60, 40),
        things=[Thing()], phrases=compile_phrases({"dog": ["dog"]}),
    )  # fmt: skip
    (soft,), (hit,), (tag,) = measure(), measure(places=[0]), measure(places=[2])
    names = ("attention mass box", "attention pointing box")
    assert [soft.measures[name] for name in names] == pytest.approx([0.6, 1])
    assert [hit.measures[name] for name in names] == [1, 1] and [tag.measures[name] for name in names] == [0, 0]
