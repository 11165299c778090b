"""Commands with scores that look at the image, with a tiny CLIP of random weights."""

import json
import re
import sys

import numpy as np
import pytest
import torch
from small_runs import make_run
from tiny_clip import images_of, make_tiny_clip, plain_embeddings

from captioning import compare, evaluate, report, score
from captioning.config import ScoreConfig, build, check, compose
from captioning.evaluation import ClipEncoder, PacEncoder

pytest.importorskip("open_clip", reason="the extra `clip` is not installed")
REFERENCES = {1: ["A dog.", "A dog runs."], 2: ["two cats"], 3: ["a man on a horse"]}
CAPTIONS = {1: "a dog runs", 2: "two cats sleep", 3: "a horse"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny_clip(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def encoder(tiny):
    return ClipEncoder(f"local-dir:{tiny}", "random", device="cpu")


def write(path, content):
    path.write_text(json.dumps(content))
    return path


def run(module, monkeypatch, *arguments):
    """The command in this process, as its console script starts it."""
    monkeypatch.setattr(sys, "argv", [f"captioning-{module.__name__.rpartition('.')[2]}", *map(str, arguments)])
    module.main()


@pytest.fixture
def scored(tmp_path, tiny):
    """A file of captions, the settings of the tiny model, and annotations that name the images."""
    listed = [{"image_id": key, "caption": text} for key, texts in REFERENCES.items() for text in texts]
    names = [{"id": key, "file_name": f"val2014/{key}.png"} for key in REFERENCES]
    annotations = write(tmp_path / "annotations.json", {"images": names, "annotations": listed})
    results = write(tmp_path / "results.json", [{"image_id": key, "caption": text} for key, text in CAPTIONS.items()])
    clip = [f"metrics.clip.model=local-dir:{tiny}", "metrics.clip.weights=random", "metrics.clip.device=cpu"]
    return results, annotations, ["metrics.clipscore=true", *clip, "metrics.bootstrap=20"]


def test_captions_of_a_file_are_scored_with_their_images(scored, encoder, tiny, tmp_path, monkeypatch, capsys):
    results, annotations, clip = scored
    run(score, monkeypatch, results, annotations, f"images={tiny}", *clip, f"output={tmp_path / 'out'}")
    printed = capsys.readouterr().out
    assert printed.splitlines()[0].endswith(f", CLIPScore of {encoder.describe()}")
    values = json.loads((tmp_path / "out" / "scores.json").read_text())
    statistics = json.loads((tmp_path / "out" / "statistics.json").read_text())
    assert statistics["about"]["models"] == {"CLIPScore": encoder.describe()}
    pictures, rows = plain_embeddings(
        encoder, images_of(tiny), [f"A photo depicts {text}" for text in CAPTIONS.values()]
    )
    cosines = (pictures * rows).sum(axis=1) / np.linalg.norm(pictures, axis=1) / np.linalg.norm(rows, axis=1)
    assert (cosines > 0).any()
    assert values["CLIPScore"] == pytest.approx(np.mean(2.5 * np.maximum(cosines, 0)), abs=1e-5)
    assert (
        f"  {'CLIPScore':<14}{values['CLIPScore']:8.4f}   95 % " in printed and "RANDOM WEIGHTS: this number" in printed
    )
    plain = json.loads(json.dumps(values))
    run(score, monkeypatch, results, annotations, "metrics.bootstrap=20", f"output={tmp_path / 'plain'}")
    unchanged = json.loads((tmp_path / "plain" / "scores.json").read_text())
    assert {name: plain[name] for name in unchanged} == unchanged and len(plain) == len(unchanged) + 2


def test_runs_are_compared_by_the_score_of_one_model_only(scored, encoder, tiny, tmp_path, monkeypatch, capsys):
    results, annotations, clip = scored
    other = write(tmp_path / "other.json", [{"image_id": key, "caption": f"no {key}"} for key in CAPTIONS])
    for name, file in (("a", results), ("b", other)):
        run(score, monkeypatch, file, annotations, f"images={tiny}", *clip, f"output={tmp_path / name}")
    capsys.readouterr()
    run(compare, monkeypatch, tmp_path / "a", tmp_path / "b", "by=RefCLIPScore", "metrics.bootstrap=20")
    of_folders = capsys.readouterr().out
    run(compare, monkeypatch, results, other, f"annotations={annotations}", f"images={tiny}", *clip, "by=RefCLIPScore")
    of_files = capsys.readouterr().out

    def differences(printed):
        return [line.split()[:4] for line in printed.splitlines() if line.startswith(("  CLIPScore", "  RefCLIPScore"))]

    assert len(differences(of_files)) == 2 and differences(of_files) == differences(of_folders)
    torch.save(encoder._ready().model.state_dict(), tmp_path / "w.pt")
    run(score, monkeypatch, other, annotations, f"images={tiny}", *clip, f"metrics.clip.weights={tmp_path / 'w.pt'}",
        f"output={tmp_path / 'c'}")  # fmt: skip
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        run(compare, monkeypatch, tmp_path / "a", tmp_path / "c")
    error = str(caught.value)
    assert f"'{tmp_path / 'a'}' has the CLIPScore of {encoder.describe()}, '{tmp_path / 'c'}'" in error


def test_folders_with_one_name_and_other_models_are_not_compared(scored, tiny, tmp_path, monkeypatch, capsys):
    results, annotations, clip = scored
    folder = tmp_path / "clip"
    folder.mkdir()
    given = ["metrics.clipscore=true", f"metrics.clip.model=local-dir:{folder}", *clip[2:]]
    content = (tiny / "open_clip_config.json").read_text()
    for name, activation in (("a", "true"), ("b", "false"), ("again", "true")):
        (folder / "open_clip_config.json").write_text(
            content.replace('"quick_gelu": true', f'"quick_gelu": {activation}')
        )
        run(score, monkeypatch, results, annotations, f"images={tiny}", *given, f"output={tmp_path / name}")
    with pytest.raises(SystemExit, match=r"they cannot be compared\. Score both with the same model and weights"):
        run(compare, monkeypatch, tmp_path / "a", tmp_path / "b")
    capsys.readouterr()
    run(compare, monkeypatch, tmp_path / "a", tmp_path / "again", "metrics.bootstrap=20")
    assert "CLIPScore" in capsys.readouterr().out


def test_images_are_asked_for_before_anything_is_scored(scored, tiny, tmp_path, monkeypatch, capsys):
    results, annotations, clip = scored
    for given, message in (
        (clip, "metrics.clipscore=true looks at the images. Give their folder: images=FOLDER"),
        ([f"images={tiny}"], "is used only by scores that look at the images: add metrics.clipscore=true"),
        ([*clip, f"images={tmp_path}"], f"images={tmp_path} does not have 3 of 3 images: val2014/1.png, val2014/2.png"),
    ):
        with pytest.raises(SystemExit, match=re.escape(message)) as caught:
            run(score, monkeypatch, results, annotations, *given)
        assert "\n" not in str(caught.value) and not capsys.readouterr().out


def test_a_split_is_evaluated_and_reported_with_its_images(encoder, tiny, tmp_path, monkeypatch, capsys):
    folder = make_run(tmp_path)
    clip = ["metrics.clipscore=true", f"metrics.clip.model=local-dir:{tiny}", "metrics.clip.weights=random"]
    given = ["data=csv", f"data.root={tmp_path / 'data'}", f"features.root={tmp_path / 'features'}", "device=cpu"]
    checkpoint = folder / "checkpoints" / "best.ckpt"
    run(evaluate, monkeypatch, checkpoint, *given, *clip, "decoding=greedy", f"output={folder / 'val'}")
    printed = capsys.readouterr().out
    assert "  RefCLIPScore" in printed and f"CLIPScore of {encoder.describe()}" in printed
    captions = json.loads((folder / "val" / "captions.json").read_text())
    own = ClipEncoder(f"local-dir:{tiny}", "random", device="cpu")
    pictures = own.embed_images([tmp_path / "data" / entry["file_name"] for entry in captions])
    rows = own.embed_texts([f"A photo depicts {entry['caption']}" for entry in captions])
    cosines = (pictures * rows).sum(axis=1) / np.linalg.norm(pictures, axis=1) / np.linalg.norm(rows, axis=1)
    value = json.loads((folder / "val" / "scores.json").read_text())["CLIPScore"]
    assert value == pytest.approx(np.mean(2.5 * np.maximum(cosines, 0)), abs=1e-5)
    run(report, monkeypatch, folder, *clip, "device=cpu", "examples=1", "by=CLIPScore")
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count(f", CLIPScore of {encoder.describe()}") == 1 and "RefCLIPScore" in page
    monkeypatch.setattr("captioning.evaluation.write_captions", None)  # the error comes before the captions
    missing = [*clip[:2], "metrics.clip.weights=none.pt", "decoding=greedy", f"output={tmp_path / 'again'}"]
    with pytest.raises(SystemExit, match=r"metrics.clip.weights=none.pt: there is no such file"):
        run(evaluate, monkeypatch, checkpoint, *given, *missing)


def test_settings_build_the_models_of_the_papers_without_loading_them():
    config = check(
        compose("score", ["results=r", "annotations=a", "metrics.clipscore=true", "metrics.pac_s=true"]), ScoreConfig
    )
    scorer = build(config["metrics"])
    assert scorer.looks_at_images
    clip, pac = (each.embedder for each in scorer._image_scores)
    assert clip.describe() == "ViT-B-32-quickgelu with weights openai" and clip.half and clip.english_only
    assert pac.describe() == "ViT-B-32-quickgelu" and not pac.half and isinstance(pac, PacEncoder) and pac.english_only
    assert clip._loaded is None and pac._loaded is None
