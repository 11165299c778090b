"""A predictor of a small model against the searches that it runs, picture by picture."""

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toys import END, PAD, START, UNKNOWN

from captioning.data import Box, Transform, Vocabulary
from captioning.decoding import Hypothesis, beam_search, forced_decoding, sample
from captioning.errors import ConfigError, DataError
from captioning.features import Regions, corner_crops
from captioning.inference import generate, get_search, with_generator
from captioning.inference.attention_map import merge_crops
from captioning.inference.loading import load, score_captions
from captioning.inference.predictor import Predictor

WORDS = ["dog", "cat", "runs", "far", "red"]
VOCABULARY = Vocabulary(WORDS)
IDS = {"start": START, "end": END, "forbidden": (PAD, START, UNKNOWN)}
BEAM = {"beam_size": 4, "length_normalization": 0.6, "max_length": 5}


def features(pictures):
    """[B, 3, S, S] -> [B, 4, 6]: means of the quarters, and their sines."""
    means = torch.nn.functional.adaptive_avg_pool2d(pictures.double(), 2).flatten(2).transpose(1, 2) / 60
    return torch.cat((means - 2, means.sin()), -1)


def pictures(count):
    random = np.random.default_rng(0)
    return [
        Image.fromarray(random.integers(0, 256, (2, 2, 3), np.uint8)).resize((8 + 4 * n, 12), Image.NEAREST)
        for n in range(count)
    ]


@pytest.fixture
def predictor(toy):
    def make(crops=(), **parts):
        torch.manual_seed(3)
        model = toy(vocabulary_size=len(VOCABULARY), **parts)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=1.0)
        metadata = {
            "vocabulary": VOCABULARY.state_dict(),
            "config": {"transform": {"_target_": "captioning.data.Transform", "size": 8}},
            "features": {"size": 6, "grid": True},
        }
        made = Predictor(model.train(), metadata, encoder_weights=None, path=Path("x.ckpt"), crops=crops)
        made.__dict__["encoder"] = features
        return made

    return make


def searched(model, grid, method, **arguments):
    state, memory = model.begin(grid)
    return method(partial(model.step, memory=memory), state, batch=len(grid), **IDS, **arguments)


def test_captions_are_the_searchs_own_picture_by_picture(predictor):
    seen, made = pictures(5), predictor()
    assert not made.captioner.training  # whatever the model was
    found = made.captions(seen, "beam", batch_size=2, n_best=3, beam_size=4, max_length=5)
    assert len(found) == 5 and max(map(len, found)) == 3
    for picture, captions in zip(seen, found, strict=True):
        grid = features(made.transform(picture)[None])
        (wanted,) = searched(made.captioner, grid, beam_search, n_best=3, **BEAM)
        assert len(captions) == len(wanted)
        for caption, own in zip(captions, wanted, strict=True):
            words = [VOCABULARY.words[token] for token in own.tokens if token != END]
            assert caption.tokens == words and caption.text == " ".join(words)
            assert caption.log_prob == pytest.approx(own.log_prob, abs=1e-9)
            assert caption.score == pytest.approx(own.score, abs=1e-9)
            assert caption.attention.dtype == np.float32 and caption.attention.shape == (len(words), 4)
            np.testing.assert_allclose(caption.attention, own.weights[: len(words)], atol=1e-6)
            assert caption.box == Box(0, 0, *picture.size)
            assert caption.places is caption.sentinel is caption.regions is None
    best = [caption.text for caption in made.caption(seen, **BEAM)]
    assert best == [captions[0].text for captions in found] and len(set(best)) > 1
    # One picture, an array, and opened pictures with a search.
    assert made.caption(seen[2], **BEAM)[0].text == made.caption(np.asarray(seen[2]), **BEAM)[0].text == best[2]
    opened = made.caption_pictures(seen[:2], partial(beam_search, **BEAM))
    assert [caption.text for caption in opened] == best[:2]
    each = made.caption_by_each(seen[1], {"a": partial(beam_search, **BEAM), "b": partial(sample, samples=2, seed=0)})
    assert each["a"][0].text == best[1] and len(each["b"]) == 2


def test_kinds_of_attention(predictor):
    assert predictor().attention_kind == "soft" and predictor().hard_attention is None
    assert not predictor().has_sentinel
    without = predictor(attention="none", grid=False)
    assert without.attention_kind == "no" and not without.attends
    assert predictor().device == torch.device("cpu") and len(predictor().members) == 1


def test_the_encoder_is_rebuilt_once_and_does_not_train(predictor, monkeypatch):
    made, given = predictor(), []

    def rebuild(*arguments):
        given.append(arguments)
        return torch.nn.Dropout(0.5)

    monkeypatch.setattr("captioning.inference.predictor.rebuild_encoder", rebuild)
    del made.__dict__["encoder"]
    assert made.encoder is made.encoder and not made.encoder.training
    assert given == [(made.metadata, None, Path("x.ckpt"))]


def test_what_load_makes_of_a_checkpoint(predictor, monkeypatch, tmp_path):
    made, given, module = predictor(attention="hard"), [], "captioning.inference.loading."

    def rebuild(checkpoint, path, *, hard_attention):
        given.append((checkpoint["captioning"], path, hard_attention))
        return made.captioner.train(), {"weight": 1}

    monkeypatch.setattr(module + "read_checkpoint", lambda path: {"captioning": made.metadata})
    monkeypatch.setattr(module + "rebuild_model", rebuild)
    for regions in (False, True):
        monkeypatch.setattr(module + "looks_at_regions", lambda metadata, regions=regions: regions)
        loaded = load("x.ckpt", device="cpu", hard_attention="expectation", crops=None if regions else 0.75)
        assert given[-1] == (made.metadata, Path("x.ckpt"), "expectation")
        assert loaded.path == Path("x.ckpt") and loaded._encoder_weights == {"weight": 1}
        assert len(loaded.views) == (1 if regions else 5) and not loaded.captioner.training
    with pytest.raises(ConfigError, match=r"x\.ckpt looks at a detector's regions"):
        load("x.ckpt", device="cpu", crops=0.75)
    # The shortcut: the same of a file, in batches of the size that is asked for.
    monkeypatch.setattr("captioning.inference.predictor.rebuild_encoder", lambda *arguments: torch.nn.Identity())
    sizes = []
    monkeypatch.setattr(Predictor, "encode", lambda self, opened: sizes.append(len(opened)) or features(
        torch.stack([self.transform(picture) for picture in opened])
    ))  # fmt: skip
    file = tmp_path / "a.png"
    pictures(1)[0].save(file)
    found = score_captions("x.ckpt", [file, file, file], ["dog", "cat", "red"], device="cpu", batch_size=2)
    assert sizes == [2, 1] and [scored.text for scored in found] == ["dog", "cat", "red"]
    assert len(score_captions("x.ckpt", file, "dog", device="cpu")) == 1
    assert len(made.caption(file, "greedy", max_length=3)) == len(made.caption(str(file), "greedy", max_length=3)) == 1


def test_a_seed_lasts_for_all_batches(predictor):
    """A batch draws on where the one before it stopped: the numbers are those of one generator."""
    made, seen = predictor(), pictures(4)
    generator = torch.Generator().manual_seed(7)
    wanted = []
    for first in (0, 2):
        grid = features(torch.stack([made.transform(picture) for picture in seen[first : first + 2]]))
        wanted += searched(made.captioner, grid, sample, samples=3, generator=generator, max_length=4)
    found = made.captions(seen, "sample", samples=3, seed=7, batch_size=2, max_length=4)
    assert [[c.tokens for c in group] for group in found] == [
        [VOCABULARY.decode(h.tokens) for h in group] for group in wanted
    ]


def test_given_captions_are_followed_to_their_end(predictor):
    made, seen = predictor(attention="hard"), pictures(3)
    texts = ["A dog runs.", "", "red far cat runs dog dog"]
    ids = [[UNKNOWN, 4, 6, END], [END], [8, 7, 5, 6, 4, 4, END]]
    found = made.forced_captions(seen, texts, batch_size=2)
    for caption, picture, tokens in zip(found, seen, ids, strict=True):
        grid = features(made.transform(picture)[None])
        ((own,),) = searched(made.captioner, grid, forced_decoding, tokens=[tokens])
        assert caption.tokens == VOCABULARY.decode(tokens)
        assert caption.log_prob == caption.score == pytest.approx(own.log_prob, abs=1e-9)
        assert caption.places.tolist() == own.places[: len(tokens) - 1].tolist()
        assert caption.attention.shape == (len(tokens) - 1, 4)
    assert made.attention_kind == "hard" and made.hard_attention == "most_likely" and made.attends
    with pytest.raises(DataError, match=r"2 images, but 1 captions\. Give one caption per image"):
        made.forced_captions(seen[:2], "dog")


def test_given_captions_are_scored_picture_by_picture(predictor):
    made, seen = predictor(), pictures(3)
    texts = ["dog runs", ["cat", "zebra red"], []]
    one, two, three = made.score_captions(seen, texts, batch_size=2)
    assert three == [] and two[1].unknown == 1 and two[1].tokens == ["<unk>", "red"]
    for scored, picture, tokens in (
        (one, seen[0], [4, 6, END]),
        (two[0], seen[1], [5, END]),
        (two[1], seen[1], [UNKNOWN, 8, END]),
    ):
        grid = features(made.transform(picture)[None])
        ((own,),) = searched(made.captioner, grid, forced_decoding, tokens=[tokens])
        assert scored.log_prob == pytest.approx(own.log_prob, abs=1e-9)
        assert scored.perplexity == pytest.approx(math.exp(-own.log_prob / len(tokens)))
    (alone,) = made.score_captions(seen[1], "cat")
    assert alone.log_prob == pytest.approx(two[0].log_prob, abs=1e-9)
    (alone,) = made.score_captions(np.asarray(seen[1]), "cat")
    assert alone.log_prob == pytest.approx(two[0].log_prob, abs=1e-9)
    (both,) = made.score_captions(seen[1], ["cat", "zebra red"])
    assert [scored.text for scored in both] == ["cat", "zebra red"]
    with pytest.raises(DataError, match=r"3 images, but 2 captions\. Give a list with one entry per image"):
        made.score_captions(seen, ["dog", "cat"])
    with pytest.raises(DataError, match=r"1 images, but one text\. Give a list with one entry per image"):
        made.score_captions(seen[:1], "dog")


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_what_a_row_of_weights_lacks_is_the_sentinels(predictor, dtype):
    made = predictor(recurrence="adaptive")
    assert made.has_sentinel
    weights = torch.tensor([[0.5, 0.25, 0.0, 0.125], [0.25, 0.25, 0.25, 0.25], [1.0, 0.0078125, 0, 0]], dtype=dtype)
    hypothesis = Hypothesis([4, 6, END], -3.0, -1.5, weights, torch.tensor([4, 0, 1]))
    caption = made.as_caption(hypothesis, (30, 20))
    assert caption.tokens == ["dog", "runs"] and caption.log_prob == -3.0 and caption.score == -1.5
    assert caption.attention.dtype == np.float32 and caption.attention.tolist() == weights[:2].tolist()
    assert caption.sentinel.tolist() == [0.125, 0.0] and caption.places.tolist() == [4, 0]
    cut = made.as_caption(hypothesis._replace(tokens=[4, 6, 5]), None)
    assert cut.tokens == ["dog", "runs", "cat"] and cut.box is None
    assert cut.sentinel.tolist() == [0.125, 0.0, 0.0]  # rounding may leave more than 1
    assert made.as_caption(hypothesis._replace(weights=None, places=None), (3, 2)).sentinel is None
    assert predictor().as_caption(hypothesis, (30, 20)).sentinel is None


def test_crops_are_looked_at_side_by_side_and_shown_on_one_map(predictor):
    made, (picture,) = predictor(crops=(0.75,)), pictures(1)
    assert len(made.views) == 5
    grid = torch.cat([features(view(picture)[None]) for view in made.views], 1)
    ((own,),) = searched(made.captioner.model, grid, beam_search, **BEAM)
    (caption,) = made.caption(picture, **BEAM)
    assert caption.log_prob == pytest.approx(own.log_prob, abs=1e-9) and own.weights.shape[1] == 20
    assert caption.attention.shape == (len(caption.tokens), 4)
    np.testing.assert_allclose(caption.attention.sum(1), 1, atol=1e-6)
    assert caption.box == Box(0, 0, *picture.size)


@pytest.mark.parametrize("method", ["greedy", "beam", "diverse_beam", "sample", "consensus"])
def test_every_search_can_use_crops(predictor, method):
    """As if the five views were one larger grid: the same captions with the same numbers drawn."""
    made, seen = predictor(crops=(0.75,)), pictures(2)
    grid = torch.cat([features(torch.stack([view(picture) for picture in seen])) for view in made.views], 1)
    arguments = {"max_length": 5} | ({"seed": 3, "samples": 4} if method == "sample" else {})
    search = with_generator(get_search(method, **arguments))
    wanted = generate(made.captioner.model, grid, search=search, vocabulary=VOCABULARY)
    found = made.captions(seen, method, **arguments)
    for group, hypotheses in zip(found, wanted, strict=True):
        assert [caption.tokens for caption in group] == [VOCABULARY.decode(each.tokens) for each in hypotheses]
        assert [caption.log_prob for caption in group] == pytest.approx([each.log_prob for each in hypotheses])


def test_even_attention_over_five_views_is_three_times_as_strong_in_the_middle_as_in_a_corner():
    """The whole picture covers both; all four crops cover the middle, and one each corner. A crop's share of the
    weight lies on 0.75² of the area."""
    views = [Transform(8), *corner_crops(Transform(8), (0.75,))]
    even = np.full((1, 5 * 49), 1 / (5 * 49))
    weights, _, _ = merge_crops(even, None, boxes=[view.box(2240, 2240) for view in views], grid=(7, 7))
    middle, corner = weights[0, 24], weights[0, [0, 6, 42, 48]]
    assert middle / corner == pytest.approx([(1 + 4 / 0.75**2) / (1 + 1 / 0.75**2)] * 4)
    assert 2.9 < middle / corner[0] < 3
    assert [weights.min(), weights.max()] == pytest.approx([corner[0], middle])


def test_regions_are_padded_and_padding_is_not_looked_at(predictor):
    made = predictor()
    random = np.random.default_rng(1)
    regions = [
        Regions(random.standard_normal((n, 6)).astype(np.float16), random.random((n, 4), np.float32)) for n in (2, 5, 3)
    ]
    found = made.caption_regions(regions, partial(beam_search, n_best=2, **BEAM))
    for group, own in zip(found, regions, strict=True):
        grid = torch.from_numpy(own.features).double()[None]
        (wanted,) = searched(made.captioner, grid, beam_search, n_best=2, **BEAM)
        for caption, hypothesis in zip(group, wanted, strict=True):
            assert caption.tokens == VOCABULARY.decode(hypothesis.tokens)
            assert caption.log_prob == pytest.approx(hypothesis.log_prob, abs=1e-9)
            assert caption.regions is own.boxes and caption.box is None
            np.testing.assert_allclose(caption.attention, hypothesis.weights[: len(caption.tokens)], atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True])
def test_pictures_are_captioned_in_half_precision(predictor, dtype, autocast):
    made, seen = predictor(), pictures(3)
    made.captioner.float() if autocast else made.captioner.to(dtype)
    with torch.autocast("cpu", dtype, enabled=autocast):
        for method in ("greedy", "beam", "diverse_beam", "sample", "consensus"):
            for group in made.captions(seen, method, max_length=5):
                for caption in group:
                    assert math.isfinite(caption.log_prob) and math.isfinite(caption.score)
                    assert caption.attention.dtype == np.float32 and np.isfinite(caption.attention).all()
                    assert set(caption.tokens) <= set(WORDS)
        regions = [Regions(np.ones((2, 6), np.float16), np.zeros((2, 4), np.float32))]
        assert made.caption_regions(regions, beam_search)[0][0].attention.dtype == np.float32
        (scored,) = made.score_captions(seen[0], "dog runs")
        (followed,) = made.forced_captions(seen[0], "dog runs")
    assert scored.log_prob == pytest.approx(followed.log_prob, abs=2e-5)
