"""Runs of a transformer through the commands: from training and resuming to the report and the demo."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import save_checkpoint
from small_world import run, short, weights

import captioning
from captioning.analysis import gradient_flow, read_captions
from captioning.config import DistillConfig, ExportConfig, ReportConfig, check, compose
from captioning.data import CaptionBatch
from captioning.distill import distill
from captioning.errors import ConfigError, DataError
from captioning.export import export
from captioning.inference import as_map, figures, gradient_weighted_attention, load, load_all
from captioning.report import report
from captioning.training import CaptioningTask
from captioning.web.demo import with_encoder
from captioning.web.demo.work import caption_picture, read_request

PARTS = ["model=transformer", "model.layers=2", "model.heads=4"]
SETTINGS = [*PARTS, "trainer.max_epochs=3", "loader.batch_size=2", "weight_averaging=ema"]


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """The folder of a run of three epochs of four steps."""
    run_dir = tmp_path_factory.mktemp("whole")
    run("train", *short(data, run_dir, *SETTINGS))
    return run_dir


@pytest.fixture(scope="module")
def recurrent_run(data, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("recurrent")
    run("train", *short(data, run_dir, "trainer.max_steps=2"))
    return run_dir


def best_of(run_dir):
    return run_dir / "checkpoints" / "last.ckpt"


def test_a_run_that_ends_inside_an_epoch_resumes_exactly(whole, data, tmp_path, monkeypatch):
    original, calls = CaptioningTask.training_step, []

    def step(self, *given):
        calls.append(1)
        if len(calls) == 7:
            raise RuntimeError("killed")
        return original(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(CaptioningTask, "training_step", step)
        with pytest.raises(RuntimeError, match="killed"):
            run("train", *short(data, tmp_path, *SETTINGS, "trainer.save_every_minutes=1e-9"))
    assert weights(tmp_path)["position"]["batches"] == 2
    run("train", *short(data, tmp_path, *SETTINGS, "resume=auto"))
    found, wanted = weights(tmp_path), weights(whole)
    assert found["global_step"] == wanted["global_step"] == 12
    for name, value in wanted["state_dict"].items():
        assert torch.equal(found["state_dict"][name], value), name


@pytest.mark.parametrize(
    "overrides",
    [
        ["objective=scheduled_sampling", "objective.inputs.every=1", "objective.inputs.increase=0.5"],
        ["objective.label_smoothing=0.1", "model.maps=rollout", "model.encoder_layers=1", "model.tied=false"],
        ["encoder.output=fc", "model.heads=2", "model/word_positions=learned", "decoding=beam"],
        ["decoding=consensus", "decoding.samples=4", "model.maps=all_layers", "model.embedding_size=null"],
    ],
)
def test_every_other_way_to_train(data, tmp_path, overrides):
    run("train", *short(data, tmp_path, *PARTS, "trainer.max_steps=2", *overrides))
    assert load(best_of(tmp_path), device="cpu").attends == ("encoder.output=fc" not in overrides)


def test_self_critical_training_starts_from_it(whole, data, tmp_path):
    given = [*PARTS, "objective=self_critical", "objective.kl=0.1", "trainer.max_steps=2"]
    run("train", *short(data, tmp_path, *given, f"start_from={best_of(whole)}"))
    before, after = weights(whole)["state_dict"], weights(tmp_path)["state_dict"]
    assert all(not torch.equal(after[name], before[name]) for name in before if name.endswith("output.weight"))


@pytest.mark.parametrize("options", [[], ["crops=[0.85]"], ["decoding=diverse_beam"], ["decoding=sample"]])
def test_stored_and_read_images_give_the_same_captions(whole, data, world, tmp_path, options):
    checkpoint = [f"checkpoint={best_of(whole)}", "split=val", f"output={tmp_path}"]
    seed = ["decoding.seed=1"] if "decoding=sample" in options else []
    options = [*options, "decoding.max_length=6"]  # figures of eight images: a panel or frame per word
    run("evaluate", *checkpoint, *data, *options, *seed)
    found = {each["file_name"]: each["caption"] for each in json.loads((tmp_path / "captions.json").read_text())}
    images = ",".join(str(world / f"val{n}.png") for n in range(8))
    given = [f"images=[{images}]", "figures=[grid,strip,gaze]", f"output={tmp_path / 'figures'}"]
    run("caption", checkpoint[0], *given, *options, *seed)
    results = json.loads((tmp_path / "figures" / "captions.json").read_text())
    if not seed:  # other batches draw other words
        assert [each["caption"] for each in results] == [found[f"val{n}.png"] for n in range(8)]
    assert len(list((tmp_path / "figures").glob("*_strip.png"))) == len(list((tmp_path / "figures").glob("*.gif"))) == 8


def test_an_export_captions_alike(whole, world, tmp_path):
    given = ["dtype=float32", f"checkpoint={best_of(whole)}", f"output={tmp_path / 'both'}"]
    export(check(compose("export", given), ExportConfig))
    first, second = (
        load(file).caption(world / "val3.png")[0] for file in (best_of(whole), tmp_path / "both.safetensors")
    )
    assert first.text == second.text and first.attention.shape[1] == 4
    np.testing.assert_array_equal(first.attention, second.attention)


def test_an_ensemble_with_a_recurrent_run_and_a_student_of_both(whole, recurrent_run, data, world, tmp_path):
    both = load_all(best_of(whole), [best_of(recurrent_run)])
    assert both.attends and both.caption(world / "val0.png", beam_size=3)[0].attention.shape[1] == 4
    output = tmp_path / "soft_targets.npz"
    given = [f"checkpoint=[{best_of(whole)},{best_of(recurrent_run)}]", *data, f"output={output}", "words=3"]
    distill(check(compose("distill", given), DistillConfig))
    student = ["objective=distilled", f"teacher.file={output}", "trainer.max_steps=1"]
    run("train", *short(data, tmp_path / "student", *PARTS, *student))


def test_a_report(data, tmp_path):
    run("train", *short(data, tmp_path, *PARTS, "trainer.max_epochs=2"))
    report(check(compose("report", [f"run_dir={tmp_path}", "metrics.bootstrap=20", "examples=1"]), ReportConfig))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "data:image/" in page and "build_transformer" in page


def test_the_demo_shows_a_map_per_word(whole):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8))
    predictor = with_encoder(load(best_of(whole), device="cpu"))
    (found,) = caption_picture({"transformer": predictor}, picture, read_request({}))["models"]
    assert found["attention"] == "soft"
    for captions in found["searches"].values():
        for caption in captions:
            assert caption["grid"] == [2, 2]
            np.testing.assert_allclose(np.sum(caption["weights"], 1), np.ones(len(caption["words"])), atol=0.01)


def test_a_caption_with_each_of_its_maps(whole, world):
    predictor, photo = load(best_of(whole), device="cpu"), world / "val3.png"
    heads = [f"layer{layer}_head{head}" for layer in (1, 2) for head in (1, 2, 3, 4)]
    summaries = ["last_layer", "all_layers", "rollout"]
    names = ["attention", *summaries, "gradient_attention", "gradient_input", "layer1", "layer2", *heads]
    assert list(predictor.map_names) == names
    found = predictor.caption_maps(photo, names, beam_size=2, min_length=4)
    (caption,) = predictor.caption(photo, beam_size=2, min_length=4)
    assert len(caption.tokens) >= 3
    for name in names:
        assert found[name].tokens == caption.tokens
        np.testing.assert_allclose(found[name].attention.sum(1), 1, rtol=1e-5)
    maps = {name: each.attention for name, each in found.items()}
    np.testing.assert_allclose(maps["attention"], caption.attention, atol=1e-5)
    np.testing.assert_allclose(maps["attention"], maps["layer2"], atol=1e-5)  # model.maps=last_layer
    np.testing.assert_allclose(maps["layer1"], np.mean([maps[name] for name in heads[:4]], 0), atol=1e-6)
    for name in summaries:
        predictor.captioner.maps = name
        np.testing.assert_allclose(
            predictor.caption(photo, beam_size=2, min_length=4)[0].attention, maps[name], atol=1e-5
        )
    features = predictor.encode([Image.open(photo).convert("RGB")])
    tokens = [[*predictor.vocabulary.ids(caption.tokens), predictor.vocabulary.end]]
    (relevance,) = gradient_weighted_attention(predictor.captioner, features, tokens, start=predictor.vocabulary.start)
    relevance = as_map(relevance)[: len(caption.tokens)].numpy()
    np.testing.assert_allclose(maps["gradient_attention"], relevance, atol=1e-4)


def test_maps_are_named_by_a_text_or_a_list_of_texts(whole, world):
    predictor, photo = load(best_of(whole), device="cpu"), world / "val3.png"
    for name in ("attention", "layer1"):
        one = predictor.caption_maps(photo, name, "greedy", min_length=4)
        listed = predictor.caption_maps(photo, [name], "greedy", min_length=4)
        assert list(one) == [name]
        np.testing.assert_array_equal(one[name].attention, listed[name].attention)
    for names in (None, 3, [None], ["attention", 3]):
        with pytest.raises(
            ConfigError, match=r"^maps are chosen by their names: give one or several, for example \['attention'\]$"
        ):
            predictor.caption_maps(photo, names)
    for images in ([], [photo, photo]):
        several = f"image= takes one image, but got a list of {len(images)}: call"
        for names in (["attention"], ["layer1"]):
            with pytest.raises(DataError, match=f"{several} caption_maps"):
                predictor.caption_maps(images, names)
        with pytest.raises(DataError, match=f"{several} figure"):
            predictor.figure(images)


def test_figures_of_one_map_and_of_all_heads(whole, recurrent_run, world, tmp_path, monkeypatch):
    predictor, photo = load(best_of(whole), device="cpu"), world / "val3.png"
    found = predictor.caption_maps(photo, predictor.map_names, "greedy", min_length=4)
    drawn = []
    strip, heads = figures.strip_figure, figures.heads_figure
    monkeypatch.setattr(figures, "strip_figure", lambda *given, **rest: drawn.append(given[2]) or strip(*given, **rest))
    for name in ("layer2_head3", "gradient_attention"):
        predictor.figure(photo, "strip", "greedy", min_length=4, map=name, path=tmp_path / f"{name}.png")
        np.testing.assert_allclose(drawn[-1], found[name].attention, atol=1e-6)
    assert (tmp_path / "layer2_head3.png").read_bytes() != (tmp_path / "gradient_attention.png").read_bytes()
    monkeypatch.setattr(figures, "heads_figure", lambda *given, **rest: drawn.append(given[1]) or heads(*given, **rest))
    tokens = found["attention"].tokens
    figure = predictor.figure(photo, "heads", "greedy", min_length=4, word=len(tokens) - 1, path=tmp_path / "heads.png")
    assert drawn[-1].shape == (2, 5, 4) and len(figure.axes) == 10 and (tmp_path / "heads.png").stat().st_size > 1000
    for layer in (1, 2):
        for column, name in enumerate([f"layer{layer}", *(f"layer{layer}_head{head}" for head in (1, 2, 3, 4))]):
            np.testing.assert_allclose(drawn[-1][layer - 1, column], found[name].attention[-1], atol=1e-6)
    texts = [text.get_text() for text in figure.texts]
    assert {"mean", "head 1", "head 4", "layer 1", "layer 2"} <= set(texts) and f"[{tokens[-1]}]" in texts[0]
    same = predictor.figure(photo, "heads", "greedy", min_length=4, word=tokens[0])
    np.testing.assert_allclose(drawn[-1][1, 2], found["layer2_head2"].attention[0], atol=1e-6)
    assert same is not None
    recurrent = load(best_of(recurrent_run), device="cpu")
    assert recurrent.map_names == ("attention", "gradient_attention", "gradient_input")
    recurrent.figure(photo, "strip", "greedy", map="gradient_attention")
    for model, given, message in [
        (predictor, {"kind": "foo"}, "kind='foo' does not exist. Choose from grid, cells, strip, gaze, film, heads$"),
        (predictor, {"kind": "heads", "word": True}, "word=True must be a word or its position"),
        (predictor, {"kind": "heads", "word": 1.0}, "word=1.0 must be a word or its position"),
        (predictor, {"kind": "heads"}, 'kind="heads" draws one word: name it'),
        (predictor, {"kind": "heads", "word": "zebra"}, "word='zebra' is not in the caption: choose one of"),
        (predictor, {"kind": "heads", "word": 99}, "word=99 is not in the caption"),
        (predictor, {"kind": "heads", "word": 0, "map": "rollout"}, "draws every head: remove map='rollout'"),
        (predictor, {"kind": "strip", "word": 0}, 'word=0 is for kind="heads"'),
        (predictor, {"kind": "strip", "map": "layer3"}, r"map=layer3 does not exist .*layer2, or one head such as"),
        (recurrent, {"kind": "heads", "word": 0}, "needs a model with several heads, but .* has one. Use"),
        (recurrent, {"kind": "strip", "map": "rollout"}, "map=rollout does not exist for"),
        (
            load_all(best_of(whole), [best_of(recurrent_run)]),
            {"kind": "strip", "map": "rollout"},
            "map=rollout does not",
        ),
    ]:
        with pytest.raises(ConfigError, match=message):
            model.figure(photo, method="greedy", min_length=4, **given)


def test_regions_of_a_detector(tmp_path):
    """Images have different numbers of regions: the missing ones get no weight."""
    path = tmp_path / "run" / "checkpoints" / "best.ckpt"
    size = ["encoder=regions", "features=regions", "features.root=somewhere", "model=transformer", "model.heads=2"]
    save_checkpoint(path, *size)
    captioner = load(path, device="cpu").captioner
    features, mask = torch.randn(2, 5, 2048), torch.tensor([[True] * 5, [True, True, False, False, False]])
    state, memory = captioner.begin(features, mask)
    step = captioner.step(torch.full((2, 3), 1), state.repeat(3), memory)
    alone = captioner.step(torch.full((1, 1), 1), *captioner.begin(features[1:, :2])).logits
    torch.testing.assert_close(step.logits[1:], alone.expand(-1, 3, -1), rtol=0, atol=1e-5)
    assert not step.glimpse.weights[1, :, 2:].any()


def test_what_studies_recurrent_states_refuses_it(whole, world):
    captioner = load(best_of(whole), device="cpu")
    message = "this captioner has no recurrent state but a KeyValueCache: .* load a run with model=default"
    with pytest.raises(ConfigError, match=message):
        read_captions(captioner, [world / "val0.png"], ["a red dog"])
    batch = CaptionBatch(torch.arange(1), torch.randn(1, 4, 1280), None, torch.tensor([[[1, 4, 2]]]))
    with pytest.raises(ConfigError, match=message):
        gradient_flow(captioner.captioner, batch)


def test_a_language_model_is_refused(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat. " * 40)
    given = ["task=language_model", "model=transformer", f"data.files={text}", f"run_dir={tmp_path / 'run'}"]
    with pytest.raises(
        ConfigError, match="model=transformer needs an image: for task=language_model, set model=language"
    ):
        run("train", *given)


def test_hard_attention_is_refused(whole):
    with pytest.raises(ConfigError, match="hard_attention=sample: this checkpoint has no hard attention"):
        captioning.load(best_of(whole), hard_attention="sample")
