"""Exported checkpoints: the same captioner out of two plain files, by whatever name it is asked for."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from small_runs import draw_pictures, leave_evaluation, save_checkpoint, small_model

import captioning
from captioning import pretrained
from captioning.analysis.text_activations import held_out
from captioning.caption import caption
from captioning.checkpoints import find_checkpoint, read_checkpoint
from captioning.config import CaptionConfig, EvaluateConfig, ExportConfig, check, compose
from captioning.config.schemas import TrainConfig
from captioning.data import draw_scene
from captioning.errors import CheckpointError, ConfigError, DataError
from captioning.evaluate import evaluate
from captioning.export import export
from captioning.inference import language_model as language
from captioning.inference import load, load_all
from captioning.inference import vqa as answering
from captioning.io import write_json
from captioning.train import train

COMMANDS = {
    "train": (train, TrainConfig),
    "evaluate": (evaluate, EvaluateConfig),
    "caption": (caption, CaptionConfig),
    "export": (export, ExportConfig),
}
SMALL = ["encoder.image_size=64", "model.width=32", "model.embedding_size=24", "data.min_count=1", "model.dropout=0.0"]
SMALL += ["trainer.enable_progress_bar=false", "trainer.accelerator=cpu", "loader.batch_size=4"]
LEARN = ["optimizer.lr=1e-2", "trainer.max_epochs=30", "trainer.check_val_every_n_epoch=30"]


def run(command: str, *overrides: str) -> None:
    job, schema = COMMANDS[command]
    job(check(compose(command, list(overrides)), schema))


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("world")
    draw_pictures(root)
    return root


@pytest.fixture(scope="module")
def data(world) -> list[str]:
    return ["data=csv", f"data.root={world}", f"features.root={world / 'features'}"]


@pytest.fixture(scope="module")
def checkpoint(data, tmp_path_factory) -> Path:
    """Of a run that tells the toy pictures apart."""
    folder = tmp_path_factory.mktemp("runs") / "toys"
    run("train", *data, *SMALL, *LEARN, f"run_dir={folder}")
    return folder / "checkpoints" / "best.ckpt"


@pytest.fixture(scope="module")
def pictures(world) -> list[Path]:
    return sorted(world.glob("val*.png"))


def exported(checkpoint: Path, stem: Path, *overrides: str) -> Path:
    run("export", f"checkpoint={checkpoint}", f"output={stem}", *overrides)
    return stem.with_name(stem.name + ".safetensors")


@pytest.fixture(scope="module")
def half(checkpoint, tmp_path_factory) -> Path:
    return exported(checkpoint, tmp_path_factory.mktemp("half") / "toys")


def changed(checkpoint: Path, path: Path, change) -> Path:
    """A copy of a checkpoint whose document `change` alters."""
    document = torch.load(checkpoint, weights_only=True)
    change(document)
    torch.save(document, path)
    return path


def numbers(predictor) -> dict[str, torch.Tensor]:
    return predictor.captioner.state_dict()


def test_in_float32_it_is_the_same_captioner(checkpoint, pictures, tmp_path):
    own, again = load(checkpoint), load(exported(checkpoint, tmp_path / "whole", "dtype=float32"))
    assert numbers(own).keys() == numbers(again).keys()
    assert all(torch.equal(value, numbers(again)[name]) for name, value in numbers(own).items())
    for method, options in (("greedy", {}), ("beam", {"beam_size": 4, "n_best": 3}), ("sample", {"seed": 1})):
        for before, after in zip(
            own.captions(pictures, method, **options), again.captions(pictures, method, **options), strict=True
        ):
            assert [made.text for made in before] == [made.text for made in after]
            assert [made.log_prob for made in before] == [made.log_prob for made in after]
            assert np.array_equal(before[0].attention, after[0].attention)
    assert len({made.text for made in own.caption(pictures)}) >= 3  # else it would be the same anyway


def test_in_float16_it_is_rounded_once_and_captions_alike(checkpoint, half, pictures):
    own, again = load(checkpoint), load(half)
    for name, value in numbers(own).items():
        found = numbers(again)[name]
        assert found.dtype == torch.float32 and torch.equal(found, value.half().float()), name
    before, after = own.caption(pictures, beam_size=3), again.caption(pictures, beam_size=3)
    assert [made.text for made in before] == [made.text for made in after]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_allclose(other.log_prob, one.log_prob, atol=0.02)
        np.testing.assert_allclose(other.attention, one.attention, atol=0.01)


def test_what_the_files_hold(checkpoint, half, world):
    """What captioning needs, in plain JSON, and nothing of the machine that trained."""
    weights = safetensors.torch.load_file(half)
    metadata = torch.load(checkpoint, weights_only=True)["captioning"]
    document = json.loads(half.with_suffix(".json").read_text())
    kept = ("format", "task", "vocabulary", "fingerprint", "features", "images")
    assert {key: document[key] for key in kept} == {key: metadata[key] for key in kept}
    for key in ("transform", "model", "decoding", "seed"):
        assert document["config"][key] == metadata["config"][key]
    assert not {"frequencies", "settings", "optimizer_states"} & document.keys()
    assert str(world) not in half.with_suffix(".json").read_text()
    assert weights.keys() == {f"captioner.{name}" for name in numbers(load(checkpoint))}
    assert document["weights"]["numbers"] == sum(value.numel() for value in weights.values())
    assert document["weights"]["bytes"] == half.stat().st_size < 0.2 * checkpoint.stat().st_size


def test_it_is_found_by_either_file_and_by_its_folder(half, pictures):
    texts = [made.text for made in load(half).caption(pictures)]
    for path in (half.with_suffix(".json"), half.parent, str(half)):
        assert find_checkpoint(path) == half
        assert [made.text for made in captioning.load(path).caption(pictures)] == texts


def test_a_folder_of_several_or_none_is_not_guessed_about(half, tmp_path):
    with pytest.raises(CheckpointError, match=r"contains no exported checkpoint \(NAME\.safetensors\): give the path"):
        load(tmp_path)
    for name in ("a", "b"):
        (tmp_path / f"{name}.safetensors").write_bytes(half.read_bytes())
    with pytest.raises(CheckpointError, match="contains 2 exported checkpoints: give the path"):
        load(tmp_path)


def test_tied_weights_and_such_in_another_order_are_stored_whole(checkpoint, tmp_path):
    def tie(document):
        weights = document["state_dict"]
        biases = [name for name in weights if "recurrence.cell" in name and weights[name].dim() == 1]
        assert len(biases) == 2
        weights[biases[1]] = weights[biases[0]]
        name = "captioner.decoder.embedding.weight"
        weights[name] = weights[name].t().contiguous().t()

    tied = changed(checkpoint, tmp_path / "tied.ckpt", tie)
    own, again = load(tied), load(exported(tied, tmp_path / "tied", "dtype=float32"))
    assert all(torch.equal(value, numbers(again)[name]) for name, value in numbers(own).items())


def test_numbers_beyond_float16_are_kept(checkpoint, tmp_path):
    name = "captioner.decoder.embedding.weight"
    large = changed(checkpoint, tmp_path / "x.ckpt", lambda document: document["state_dict"][name].fill_(70_000))
    path = exported(large, tmp_path / "large")
    assert safetensors.torch.load_file(path)[name].dtype == torch.float32
    assert (numbers(load(path))["decoder.embedding.weight"] == 70_000).all()


@pytest.mark.parametrize("place", ["model", "metadata"])
def test_an_encoder_of_its_own_goes_along(checkpoint, pictures, tmp_path, place):
    """A fine-tuned one lies among the model's weights, one of the user's file in the metadata."""
    encoder = {name: value.clone() for name, value in load(checkpoint).encoder.state_dict().items()}
    moved = next(name for name in encoder if name.endswith("conv.weight"))
    encoder[moved] *= 0.9

    def change(document):
        if place == "model":
            document["state_dict"] |= {f"captioner.encoder.{name}": value for name, value in encoder.items()}
        else:
            document["captioning"]["encoder"] = encoder
            document["captioning"]["config"]["encoder"]["weights"] = "/home/somebody/mine.pth"

    own = changed(checkpoint, tmp_path / "own.ckpt", change)
    whole, rounded = exported(own, tmp_path / "whole", "dtype=float32"), exported(own, tmp_path / "rounded")
    found = load(whole).encoder.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in encoder.items())
    assert torch.equal(load(rounded).encoder.state_dict()[moved], encoder[moved].half().float())
    assert load(rounded).caption(pictures)[0].text == load(own).caption(pictures)[0].text
    assert "somebody" not in whole.with_suffix(".json").read_text()
    assert "| Encoder weights | in this model's file;" in whole.with_suffix(".md").read_text()
    assert rounded.stat().st_size > 4 * exported(checkpoint, tmp_path / "without").stat().st_size


def test_the_moments_of_the_image_vector_go_along(pictures, tmp_path):
    path = tmp_path / "run" / "checkpoints" / "best.ckpt"
    save_checkpoint(path, "model/vector=standardized")

    def learnt(document):
        weights = document["state_dict"]
        weights["captioner.vector.mean"].uniform_(-1, 1)
        weights["captioner.vector.variance"].uniform_(0.01, 2)
        weights["captioner.vector.batches"].fill_(70_001)

    own = load(changed(path, path, learnt))
    again = load(exported(path, tmp_path / "vector"))
    found = again.captioner.vector
    assert found.batches.dtype == torch.int64 and found.batches == 70_001
    torch.testing.assert_close(found.mean, own.captioner.vector.mean, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found.variance, own.captioner.vector.variance, rtol=1e-3, atol=1e-4)
    assert [made.text for made in again.caption(pictures)] == [made.text for made in own.caption(pictures)]


def test_an_exported_one_can_be_exported_again(half, tmp_path):
    again = exported(half, tmp_path / "again", "dtype=float32")
    assert all(torch.equal(value, numbers(load(half))[name]) for name, value in numbers(load(again)).items())


# ---- the command


def test_files_are_named_by_output(checkpoint, half, tmp_path):
    for output, stem in (
        (f"{tmp_path}/folder/", "folder/toys"),  # the run's name
        (f"{tmp_path}/folder", None),  # is a folder now: there already
        (f"{tmp_path}/v0.5", "v0.5"),
        (f"{tmp_path}/deep/er/a.safetensors", "deep/er/a"),
    ):
        if stem is None:
            with pytest.raises(ConfigError, match=r"toys\.safetensors already exists: .* overwrite=true"):
                run("export", f"checkpoint={checkpoint}", f"output={output}")
        else:
            run("export", f"checkpoint={checkpoint}", f"output={output}")
            assert all((tmp_path / f"{stem}{suffix}").is_file() for suffix in (".safetensors", ".json", ".md"))
    run("export", f"checkpoint={half}", f"output={tmp_path}/folder/", "overwrite=true")
    assert load(tmp_path / "v0.5.json").path


def test_what_it_refuses(checkpoint, tmp_path):
    for overrides, error, message in (
        (["dtype=int8"], ConfigError, "dtype=int8 must be one of float16, float32"),
        (["scores=nowhere"], DataError, "nowhere"),
        (["card=nowhere.md"], DataError, r"card=nowhere\.md"),
        ([f"checkpoint={tmp_path}/none.ckpt"], CheckpointError, "there is no checkpoint at"),
    ):
        with pytest.raises(error, match=message):
            run("export", f"checkpoint={checkpoint}", f"output={tmp_path}/x", *overrides)
    name = "captioner.decoder.embedding.weight"
    broken = changed(checkpoint, tmp_path / "b.ckpt", lambda document: document["state_dict"].pop(name))
    with pytest.raises(CheckpointError, match=r"b\.ckpt: weights do not fit the model"):
        run("export", f"checkpoint={broken}", f"output={tmp_path}/x")
    assert {path.name for path in tmp_path.iterdir()} == {"b.ckpt"}


def test_scores_and_prose_are_on_the_card(checkpoint, tmp_path):
    leave_evaluation(tmp_path / "val", {1: "a dog", 2: "a cat"})
    statistics = json.loads((tmp_path / "val" / "statistics.json").read_text())
    write_json(tmp_path / "val" / "statistics.json", statistics | {"intervals": {"BLEU-4": [0.1, 0.35]}})
    write_json(tmp_path / "val" / "scores.json", {"BLEU-4": 0.21875, "truth": 1})
    (tmp_path / "about.md").write_text("## Data\n\nDrawn.\n", encoding="utf-8")
    path = exported(checkpoint, tmp_path / "x", f"scores={tmp_path}/val", f"card={tmp_path}/about.md")
    card, document = path.with_suffix(".md").read_text(), json.loads(path.with_suffix(".json").read_text())
    assert card.startswith("# x\n") and card.endswith("## Data\n\nDrawn.\n")
    assert "| BLEU-4 | 0.219 | [0.100, 0.350] |" in card and "| truth | 1.000 |  |" in card
    assert "csv val, decoding beam7, Penn-Treebank tokens, 2 images." in card
    assert "attention `SoftAttention`" in card and "cell `LSTM`" in card and "| Encoder | efficientnet-lite0 |" in card
    assert "| Encoder weights | `encoder.weights=package`; their hash is " in card
    assert document["scores"]["values"] == {"BLEU-4": 0.21875, "truth": 1} and document["card"] == "## Data\n\nDrawn.\n"
    assert load(path).path == path


def test_a_language_model(tmp_path):
    small_model("language_model", tmp_path / "x.ckpt", "data=text", "model=language", "objective=truncated")
    path = exported(tmp_path / "x.ckpt", tmp_path / "x", "dtype=float32")
    own, again = language.load_language_model(tmp_path / "x.ckpt"), language.load_language_model(path)
    assert np.array_equal(own.read(["abcab"])[0].log_probs, again.read(["abcab"])[0].log_probs)
    assert own.sample("a", length=9, seed=1) == again.sample("a", length=9, seed=1)
    assert "captioning-sample checkpoint=x" in path.with_suffix(".md").read_text()
    with pytest.raises(DataError, match="an exported model does not record its files"):
        held_out(again)
    with pytest.raises(
        CheckpointError, match=r"x\.json is a checkpoint of task=language_model, but task=image_captioning"
    ):
        load(path)


def test_an_answerer(tmp_path, pictures):
    small_model("vqa", tmp_path / "x.ckpt", "data=easy_vqa", "model=answerer", "objective=answers",
                "encoder.image_size=64")  # fmt: skip
    path = exported(tmp_path / "x.ckpt", tmp_path / "x", "dtype=float32")
    own, again = answering.load_answerer(tmp_path / "x.ckpt"), answering.load_answerer(path)
    found = [model.answer(pictures[0], "a b?")[0].probabilities for model in (own, again)]
    assert found[0] == found[1] and found[0].keys() == {"yes", "no"}
    assert "captioning-answer checkpoint=x" in path.with_suffix(".md").read_text()


# ---- wherever a checkpoint is taken


def test_it_is_evaluated_and_captions_in_an_ensemble(checkpoint, half, data, pictures, tmp_path):
    texts = []
    for name, path in (("own", checkpoint), ("exported", half.parent)):
        run("evaluate", f"checkpoint={path}", *data, "split=val", "metrics.bootstrap=10", f"output={tmp_path / name}")
        captions = json.loads((tmp_path / name / "captions.json").read_text())
        texts.append({entry["image_id"]: entry["caption"] for entry in captions})
    assert texts[0] == texts[1] and len(texts[0]) == 4
    own, both = load(checkpoint).caption(pictures), load_all(half, [checkpoint]).caption(pictures)
    assert [made.text for made in own] == [made.text for made in both]
    picture = f"images=[{pictures[0]}]"
    run("caption", f"checkpoint={half}", picture, f"output={tmp_path}/c", f"decoding.checkpoints=[{checkpoint}]")
    assert json.loads((tmp_path / "c" / "captions.json").read_text())[0]["caption"] == own[0].text
    assert (tmp_path / "c" / f"{pictures[0].stem}.png").is_file()


def test_a_run_starts_from_it_and_none_goes_on(half, data, tmp_path):
    overrides = [*data, *SMALL, "trainer.max_epochs=1", f"run_dir={tmp_path}/run"]
    with pytest.raises(ConfigError, match=r"resume=.*: an exported checkpoint has no optimizer state\. .* start_from="):
        run("train", *overrides, f"resume={half}")
    run("train", *overrides, f"start_from={half}", "optimizer.lr=1e-9", "weight_averaging=none")
    started = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["state_dict"]
    for name, value in numbers(load(half)).items():
        torch.testing.assert_close(started[f"captioner.{name}"], value, atol=1e-6, rtol=0)


# ---- files that do not belong together, or are damaged


def test_weights_of_another_export_are_not_taken(checkpoint, half, tmp_path):
    path = exported(checkpoint, tmp_path / "x", "dtype=float32")
    path.write_bytes(half.read_bytes())
    with pytest.raises(CheckpointError, match=r"x\.safetensors is damaged, or of another export than x\.json: copy"):
        load(path)
    path.with_suffix(".json").unlink()
    with pytest.raises(
        CheckpointError, match=r"needs both x\.safetensors and x\.json .*\. .*x\.json: there is no such file"
    ):
        load(path)
    path.unlink()
    path.with_suffix(".json").write_bytes(half.with_suffix(".json").read_bytes())
    with pytest.raises(CheckpointError, match=r"x\.json in one folder\. .*x\.safetensors: there is no such file"):
        load(path.with_suffix(".json"))


def test_an_export_is_found_by_the_name_in_its_card(half, tmp_path, monkeypatch):
    for suffix in (".safetensors", ".json"):
        (tmp_path / f"mine-0.5{suffix}").write_bytes(half.with_suffix(suffix).read_bytes())
    monkeypatch.chdir(tmp_path)
    for name in ("mine-0.5", str(tmp_path / "mine-0.5")):
        assert captioning.load(name).vocabulary.words == load(half).vocabulary.words


# ---- those that come with the package


def test_an_unknown_name_lists_those_there_are(half, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    with pytest.raises(CheckpointError, match=r"^there is no checkpoint at 'x': check the path$"):
        captioning.load("x")
    for suffix in (".safetensors", ".json"):
        (tmp_path / f"tiny-0.5{suffix}").write_bytes(half.with_suffix(suffix).read_bytes())
    (tmp_path / "README.md").write_text("No captioner.")
    assert pretrained.names() == ["tiny-0.5"]
    with pytest.raises(
        CheckpointError,
        match=r"^there is no checkpoint at 'tiny': .* with the package \(tiny-0\.5\)$",
    ):
        captioning.load("tiny")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for name in ("runs/tiny-0.5", "other/best.ckpt", "other/tiny/soft", "other/tiny--0", "/other/tiny"):
        with pytest.raises(CheckpointError, match=rf"^there is no checkpoint at '{re.escape(name)}': check the path$"):
            captioning.load(name)
    advice = "check the path, or type hf:somebody/tiny-0.5 for one on the Hugging Face Hub"
    with pytest.raises(CheckpointError, match=rf"^there is no checkpoint at 'somebody/tiny-0\.5': {advice}$"):
        captioning.load("somebody/tiny-0.5")
    assert captioning.load("tiny-0.5").vocabulary.words == load(half).vocabulary.words


def test_what_lies_here_comes_before_the_package(checkpoint, half, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pretrained, "FOLDER", half.parent)
    assert find_checkpoint("toys") == half
    mine = exported(checkpoint, tmp_path / "toys" / "mine")
    assert find_checkpoint("toys").resolve() == mine


def test_captions_without_naming_a_checkpoint(half, pictures, tmp_path, monkeypatch):
    for suffix in (".safetensors", ".json"):
        (tmp_path / f"flickr8k-small{suffix}").write_bytes(half.with_suffix(suffix).read_bytes())
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    run("caption", f"images=[{pictures[0]}]", f"output={tmp_path}/out")
    made = json.loads((tmp_path / "out" / "captions.json").read_text())
    assert [entry["caption"] for entry in made] == [load(half).caption(pictures[0], beam_size=5)[0].text]
    assert (tmp_path / "out" / f"{pictures[0].stem}.png").stat().st_size > 1000


PACKAGED = pretrained.names() or [pytest.param("", marks=pytest.mark.skip(reason="the package brings no captioner"))]
LARGEST = {"flickr8k-small": 6_000_000, "flickr8k-two-encoders": 12_000_000}  # bytes
HEADINGS = ("## Scores", "## Data", "## License", "## What it gets wrong")


def look(name: str, picture: Image.Image) -> None:
    """A packaged captioner says something of a picture, and looks somewhere for each word."""
    captioner = captioning.load(name, device="cpu")
    (made,) = captioner.caption(picture, beam_size=3)
    assert 3 <= len(made.tokens) <= 20 and set(made.tokens) <= set(captioner.vocabulary.words)
    assert np.isfinite(made.log_prob) and made.log_prob < 0
    if made.attention is not None:
        np.testing.assert_allclose(made.attention.sum(1), 1, atol=1e-4)
        assert len(made.attention) == len(made.tokens) and made.attention.max() > 1.2 / made.attention.shape[1]


@pytest.mark.parametrize("name", PACKAGED)
def test_a_packaged_captioner_is_small_and_has_a_card(name):
    files = {suffix: pretrained.FOLDER / f"{name}{suffix}" for suffix in (".safetensors", ".json", ".md")}
    assert sum(files[suffix].stat().st_size for suffix in (".safetensors", ".json")) <= LARGEST[name]
    card = files[".md"].read_text(encoding="utf-8")
    assert all(heading in card for heading in HEADINGS), card
    scores = json.loads(files[".json"].read_text())["scores"]
    assert 0.1 < scores["values"]["BLEU-4"] < 0.4 and scores["of"] in card


@pytest.mark.parametrize("name", PACKAGED)
def test_a_packaged_captioner_captions_a_drawing(name):
    look(name, draw_scene(0, "test", 0)[0].resize((320, 240)))


@pytest.mark.parametrize("name", PACKAGED)
def test_a_packaged_captioner_captions_photographs(name, shared_dir):
    captioner = captioning.load(name, device="cpu")
    photographs = sorted((shared_dir / "coco-sample" / "val2017").glob("*.jpg"))[:8]
    look(name, Image.open(photographs[0]))
    assert len({made.text for made in captioner.caption(photographs, beam_size=3)}) >= 4  # it looks at them
