"""Test extreme numbers: edge cases have defined results in every model, and errors about infinity name the images."""

import itertools
import json
import math
import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from small_world import run
from toys import ATTENTIONS, CELLS, CONDITIONINGS, END, LOOKS, OBJECTIVES, PAD, SCORERS, START, UNKNOWN

from captioning.checkpoints import read_checkpoint
from captioning.data import CaptionBatch, Vocabulary
from captioning.decoding import beam_search, diverse_beam_search, greedy_search, sample
from captioning.errors import CheckpointError, DataError
from captioning.inference import generate, load
from captioning.inference.likelihood import score_texts
from captioning.objectives import CrossEntropy

SEARCHES = (greedy_search, beam_search, partial(diverse_beam_search, beam_size=4, groups=2), sample)
PLACES = [name for name in ATTENTIONS if name != "none"]


def batch_of(images, captions, mask=None) -> CaptionBatch:
    """Build a batch from captions as lists of word ids per image; None is a slot without a caption."""
    length = max((len(words) + 2 for group in captions for words in group if words is not None), default=2)
    tokens = torch.full((len(images), max(map(len, captions)), length), PAD)
    for row, group in zip(tokens, captions, strict=True):
        for slot, words in zip(row, group, strict=False):
            if words is not None:
                slot[: len(words) + 2] = torch.tensor([START, *words, END])
    return CaptionBatch(torch.arange(len(images)) + 40, images, mask, tokens)


def grid(images: int, places: int) -> torch.Tensor:
    return torch.randn(images, places, 6, dtype=torch.float64)


def all_defined(model, batch, objective) -> float:
    """Train and evaluate on a batch: losses, parts, gradients and the captions of every search are finite."""
    for mode in (True, False):
        model.train(mode).zero_grad()
        loss = objective(model, batch)
        assert loss.total.isfinite() and all(part.isfinite() for part in (loss.parts | loss.stats).values())
    objective.train()
    model.train()
    total = objective(model, batch).total
    if total.requires_grad:
        total.backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is None or parameter.grad.isfinite().all(), name
    model.eval()
    words = [f"w{number}" for number in range(model.decoder.embedding.num_embeddings - 4)]
    for search in SEARCHES:
        with torch.inference_mode():
            found = generate(
                model, batch.images, batch.mask, search=partial(search, max_length=4), vocabulary=Vocabulary(words)
            )
        assert len(found) == len(batch.images)
        for best, *_ in found:
            assert math.isfinite(best.log_prob) and 1 <= len(best.tokens) <= 4
            assert set(best.tokens) <= {END, *range(4, 4 + len(words))}
            if best.weights is not None and best.weights.shape[-1]:
                assert best.weights.isfinite().all() and (best.weights.sum(-1) < 1 + 1e-9).all()
    return float(total.detach())


def no_place(make) -> tuple:
    """Return a batch whose middle image has no real location; its features are arbitrary."""
    images, mask = grid(3, 4), torch.ones(3, 4, dtype=torch.bool)
    mask[1], mask[2, 1:] = False, False
    images[1] = torch.nan  # it must not influence anything
    return make(), batch_of(images, [[[4, 5]], [[6]], [[7, 8, 9]]], mask)


def underflow(make) -> tuple:
    """Return scores so far apart that all α but one are exactly 0."""
    model = make()
    with torch.no_grad():
        scorer = getattr(model.decoder.attention, "scorer", None)
        if scorer is not None:
            getattr(scorer, "score", scorer.query).weight.mul_(1e6)
    return model, batch_of(grid(2, 4), [[[4, 5]], [[6]]])


EDGES = {
    "no place": no_place,
    "underflow": underflow,
    "empty captions": lambda make: (make(), batch_of(grid(2, 4), [[[], []], [[]]])),
    "an image without captions": lambda make: (make(), batch_of(grid(2, 4), [[[4, 5]], [None]])),
    "no caption at all": lambda make: (make(), batch_of(grid(2, 4), [[None], [None]])),
    "one word": lambda make: (make(vocabulary_size=5), batch_of(grid(2, 4), [[[4, 4]], [[4]]])),
    "one image": lambda make: (make(), batch_of(grid(1, 4), [[[4, 5], [6]]])),
    "one step": lambda make: (make(), batch_of(grid(2, 4), [[[]], [[]]])),
    "one place": lambda make: (make(), batch_of(grid(2, 1), [[[4, 5]], [[6]]])),
    "one of all": lambda make: (make(vocabulary_size=5), batch_of(grid(1, 1), [[[]]])),
}


def every_part(attention: str, recurrence: str, turn: int) -> dict[str, str]:
    """Yield further parts of a model in turn, so that each one is combined with every other one somewhere."""
    names = {"scorer": list(SCORERS), "conditioning": list(CONDITIONINGS), "readout": ["deep", "linear"]}
    return {part: listed[turn % len(listed)] for part, listed in names.items()} | {"layers": 1 + turn % 2}


@pytest.mark.parametrize(("attention", "recurrence"), LOOKS)
def test_edges_are_defined_in_every_model(toy, attention, recurrence):
    for turn, (name, edge) in enumerate(EDGES.items()):
        turn += LOOKS.index((attention, recurrence))
        cell, objective = list(CELLS)[turn % 3], list(OBJECTIVES)[turn % len(OBJECTIVES)]
        parts = every_part(attention, recurrence, turn)
        model, batch = edge(partial(toy, cell=cell, attention=attention, recurrence=recurrence, dropout=0.1, **parts))
        try:
            all_defined(model, batch, OBJECTIVES[objective]())
        except Exception as error:
            raise AssertionError(f"{name}: {cell}, {parts}, {objective}") from error


@pytest.mark.slow
@pytest.mark.parametrize(("attention", "recurrence"), LOOKS)
@pytest.mark.parametrize("cell", CELLS)
def test_edges_are_defined_with_every_cell_and_conditioning(toy, cell, attention, recurrence):
    for turn, ((name, edge), conditioning) in enumerate(itertools.product(EDGES.items(), CONDITIONINGS)):
        parts = every_part(attention, recurrence, turn // 3) | {"conditioning": conditioning, "layers": 1 + turn % 2}
        objective = list(OBJECTIVES)[(turn + turn // 6) % len(OBJECTIVES)]
        model, batch = edge(partial(toy, cell=cell, attention=attention, recurrence=recurrence, dropout=0.1, **parts))
        try:
            all_defined(model, batch, OBJECTIVES[objective]())
        except Exception as error:
            raise AssertionError(f"{name}: {parts}, {objective}") from error


# Results of edge cases


@pytest.mark.parametrize(("attention", "recurrence"), LOOKS)
def test_an_image_without_a_place_is_shown_one_of_zeros(toy, attention, recurrence):
    model, batch = no_place(partial(toy, attention=attention, recurrence=recurrence))
    with torch.no_grad():
        found = model(batch.images, batch.tokens, batch.mask)
        first = model(batch.images[:1], batch.tokens[:1])
        zeros = model(torch.zeros(1, 1, 6, dtype=torch.float64), batch.tokens[1:2])
        few = model(batch.images[2:, :1], batch.tokens[2:])
    expected = torch.cat([in_order(part) for part in (first, zeros, few)])
    torch.testing.assert_close(in_order(found), expected, rtol=1e-9, atol=1e-12)


def in_order(decoded) -> torch.Tensor:
    """Return logits by image and word."""
    return decoded.logits[decoded.index.argsort()]


@pytest.mark.parametrize("attention", PLACES)
@pytest.mark.parametrize("recurrence", [name for kind, name in LOOKS if kind == "soft"])
def test_underflown_weights_are_exactly_one_and_zero(toy, attention, recurrence):
    model, batch = underflow(partial(toy, attention=attention, recurrence=recurrence))
    weights = model(batch.images, batch.tokens).glimpse.weights.detach()
    assert set(weights.flatten().tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize("attention", PLACES)
def test_one_place_gets_all_attention(toy, attention):
    model, batch = toy(attention=attention), batch_of(grid(2, 1), [[[4, 5]], [[6]]])
    weights = model(batch.images, batch.tokens).glimpse.weights
    real = batch.tokens[..., 1:] != PAD
    assert torch.equal(weights[..., 0], real.double())


def test_the_loss_of_an_empty_caption_by_hand(toy):
    model, batch = toy(), batch_of(grid(1, 4), [[[]]])
    state, memory = model.begin(batch.images)
    out = model.step(torch.tensor([[START]]), state, memory)
    expected = -out.logits.log_softmax(-1)[0, 0, END] + ((1 - out.glimpse.weights[0, 0]) ** 2).sum()
    torch.testing.assert_close(CrossEntropy()(model, batch).total, expected)
    nothing = CrossEntropy()(model, batch_of(grid(2, 4), [[None], [None]])).total
    assert nothing == 0


def test_a_caption_beyond_all_probability_has_a_perplexity(toy):
    model, vocabulary = toy(vocabulary_size=6), Vocabulary(["dog", "cat"])
    with torch.no_grad():
        for parameter in model.decoder.readout.parameters():
            parameter.mul_(1e6)
    ((scored,),) = score_texts(model, grid(1, 4), [["dog cat dog"]], vocabulary=vocabulary)
    assert scored.log_prob < -4000 and math.isfinite(scored.perplexity)


# Numbers that are not finite


@pytest.mark.parametrize("search", SEARCHES, ids=["greedy", "beam", "diverse", "sample"])
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_features_that_are_not_finite_are_told_with_their_pictures(toy, attention, search):
    model, vocabulary = toy(attention=attention), Vocabulary([f"w{number}" for number in range(7)])
    whole = generate(model, grid(3, 4), search=search, vocabulary=vocabulary)
    assert len(whole) == 3
    for value in (torch.nan, torch.inf, -torch.inf):
        images = grid(3, 4)
        images[1, 2] = value
        with pytest.raises(DataError, match=r" 1 of \d+ images are not finite: b\.jpg\."):
            generate(model, images, search=search, vocabulary=vocabulary, names=["a.jpg", "b.jpg", "c.jpg"])
        with pytest.raises(DataError, match=r" 1 of \d+ images are not finite: number 1 of the batch"):
            generate(model, images, search=search, vocabulary=vocabulary)


def test_attention_that_overflows_is_told(toy):
    model, vocabulary = toy(), Vocabulary([f"w{number}" for number in range(7)])
    with torch.no_grad():
        model.decoder.attention.scorer.score.weight.fill_(torch.inf)
    with pytest.raises(DataError, match=r" 2 of \d+ images are not finite"):
        generate(model, grid(2, 4), search=greedy_search, vocabulary=vocabulary)
    with pytest.raises(DataError, match="not finite"):
        score_texts(model, grid(1, 4), [["w1"]], vocabulary=vocabulary)


def test_watching_changes_no_caption(toy):
    """The results equal those of a search over the bare step."""
    model, images = toy(), grid(3, 4)
    vocabulary = Vocabulary([f"w{number}" for number in range(7)])
    watched = generate(model, images, search=beam_search, vocabulary=vocabulary)
    state, memory = model.begin(images)
    ids = {"batch": 3, "start": START, "end": END, "forbidden": (PAD, START, UNKNOWN)}
    bare = beam_search(partial(model.step, memory=memory), state, **ids)
    assert [[each.tokens for each in group] for group in watched] == [[each.tokens for each in group] for group in bare]
    assert [group[0].log_prob for group in watched] == [group[0].log_prob for group in bare]


def test_a_checkpoint_of_weights_that_are_not_finite_is_refused(trained, tmp_path):
    path = trained
    checkpoint = read_checkpoint(path)
    name = "captioner.decoder.embedding.weight"
    checkpoint["state_dict"][name][3, 3] = torch.inf
    torch.save(checkpoint, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match=rf"x\.ckpt: weights are not finite: {name}"):
        load(tmp_path / "x.ckpt")


def test_evaluation_names_the_images(trained, data, tmp_path, monkeypatch):
    from captioning.features.store import FeatureStore

    original = FeatureStore.__getitem__

    def spoilt(self, image_id):
        features = original(self, image_id)
        return features * np.float16(np.nan) if image_id == 3 else features

    monkeypatch.setattr(FeatureStore, "__getitem__", spoilt)
    checkpoint = f"checkpoint={trained}"
    with pytest.raises(DataError, match=r" 1 of \d+ images are not finite: image 3\."):
        run("evaluate", checkpoint, *data, f"output={tmp_path}", "split=val")


# Rotated images, in captions and figures


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_turned_photograph_is_seen_and_drawn_upright(trained, world, tmp_path, monkeypatch, orientation):
    """Caption, attention and box equal those of the upright image, for every way of reading it; so does the figure."""
    from captioning.data import open_picture
    from captioning.data.pictures import UPRIGHT
    from captioning.inference import figures

    upright = Image.open(world / "val4.png").convert("RGB")
    undo = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}[orientation]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / "turned.png"
    upright.transpose(undo).save(path, exif=exif)
    assert Image.open(path).transpose(UPRIGHT[orientation]).size == upright.size
    predictor = load(trained)
    (expected,) = predictor.caption([upright])
    for made in predictor.caption([path, Image.open(path), open_picture(path)]):
        assert made.text == expected.text and made.box == expected.box == (0, 0, *upright.size)
        np.testing.assert_allclose(made.attention, expected.attention, atol=1e-5)
    drawn = []
    original = figures.attention_figure
    monkeypatch.setattr(
        figures,
        "attention_figure",
        lambda picture, *a, **k: drawn.append((picture, k["box"])) or original(picture, *a, **k),
    )
    run("caption", f"checkpoint={trained}", f"images=[{path}]", f"output={tmp_path}/out")
    ((picture, box),) = drawn
    assert np.array_equal(picture, upright) and box == (0, 0, *upright.size)


def test_a_file_name_that_is_no_text(trained, world, tmp_path, capsys):
    """File names in another encoding are printed with escapes; in JSON they are the name that opens the file."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    odd = os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png")
    shutil.copy(world / "val0.png", odd)
    shutil.copy(world / "val1.png", folder / "a.png")
    (folder / "bad.png").write_bytes(b"no picture")
    arguments = [f"checkpoint={trained}", f"images=[{folder}]", f"output={tmp_path}/out", "figures=[]"]
    run("caption", *arguments, "skip_unreadable=true")
    told = capsys.readouterr()
    assert "caf\\udce9.png: " in told.out and told.err.count("left out: ") == 1 and "bad.png: not an image" in told.err
    results = json.loads((tmp_path / "out" / "captions.json").read_text())
    assert [Path(result["file_name"]).name for result in results] == ["a.png", Path(odd).name]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["captions.json"]  # no figures were requested
