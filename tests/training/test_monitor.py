"""What best.ckpt and early stopping go by where CIDEr cannot work: a handful of photos, one, or none to validate on."""

import csv
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from small_world import run, short, weights

from captioning.checkpoints import resume
from captioning.data import tokenize_captions
from captioning.data.records import Record
from captioning.errors import CheckpointError, ConfigError, DataError
from captioning.tasks import image_captioning
from captioning.tasks.image_captioning import _no_cider
from captioning.text import make_tokenizer
from captioning.training import CaptioningTask
from captioning.training.outcome import read_outcome

COLORS = {"red": (220, 30, 30), "green": (30, 160, 30), "blue": (30, 30, 220), "yellow": (230, 220, 40)}


@pytest.fixture
def photos(tmp_path):
    """photos(train=12, val=1) -> the settings of a CSV file with so many drawn photos."""

    def draw(*, split_column=True, **counts: int) -> list[str]:
        root = tmp_path / "photos"
        root.mkdir()
        random = np.random.default_rng(0)
        with (root / "captions.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "caption", *(["split"] if split_column else [])])
            for split, count in counts.items():
                for number in range(count):
                    color = list(COLORS)[number % len(COLORS)]
                    picture = Image.new("RGB", (64, 64), COLORS[color])
                    picture.paste((255, 255, 255), (int(random.integers(0, 40)), 10, 60, 50))
                    picture.save(root / f"{split}{number}.png")
                    caption = f"a white square on a {color} wall"
                    writer.writerow([f"{split}{number}.png", caption, *([split] if split_column else [])])
        return ["data=csv", f"data.root={root}", f"features.root={tmp_path / 'features'}"]

    return draw


@pytest.mark.slow
def test_one_validation_photo_leaves_a_best_checkpoint_that_has_learnt(photos, tmp_path, capsys):
    data, run_dir = photos(train=12, val=1), tmp_path / "run"
    run("train", *short(data, run_dir, "optimizer.lr=1e-2", "trainer.max_epochs=20", "early_stopping.patience=5"))
    out = capsys.readouterr().out
    line = (
        "Only 1 validation image (val0.png): CIDEr would be 0, so best.ckpt and early stopping use the validation loss "
        "(val/loss)"
    )
    assert line in out.splitlines() and "best val/loss " in out
    best = weights(run_dir, "best")
    assert best["global_step"] > 9  # three steps an epoch: CIDEr, always 0, would have kept the first
    run(
        "caption",
        f"checkpoint={run_dir}/checkpoints/best.ckpt",
        f"images=[{tmp_path}/photos]",
        f"output={tmp_path / 'captions'}",
    )
    captions = [item["caption"] for item in json.loads((tmp_path / "captions" / "captions.json").read_text())]
    assert len(captions) == 13 and all("wall" in caption for caption in captions)


@pytest.mark.parametrize(
    ("count", "limit", "fault"),
    [
        (1, 1.0, "Only 1 validation image (0.png): CIDEr would be 0"),
        (19, 1.0, "Only 19 validation images: CIDEr needs at least 20"),
        (20, 1.0, ""),
        (20, None, ""),
        (40, 0.25, "Only 10 validation images: CIDEr needs at least 20"),
        (3, 1.0, "Only 3 validation images (0.png, 1.png, 2.png): CIDEr needs at least 20"),
        (4, 1.0, "Only 4 validation images: CIDEr needs at least 20"),
        (40, 1, "Only 8 validation images: CIDEr needs at least 20"),
        (40, 3, ""),
    ],
)
def test_cider_takes_twenty_images(tmp_path, count, limit, fault):
    records = [Record(n, tmp_path / f"{n}.png", "val", (f"a dog number {n}",)) for n in range(count)]
    tokens = dict(enumerate(tokenize_captions(records, make_tokenizer("ptb"))))
    config = {"trainer": {"limit_val_batches": limit}, "loader": {"val_batch_size": 8}}
    assert _no_cider(records, tokens, None, config) == fault
    read = {"train": 9, "val": 5}  # of which the others could not be read
    expected = "Only 1 validation image: " if limit == 0.25 else "Only 5 validation images: "
    assert _no_cider(records, tokens, read, config).startswith(expected)


def test_cider_of_the_same_references_everywhere(tmp_path):
    records = [Record(n, tmp_path / f"{n}.png", "val", ("A dog.",)) for n in range(30)]
    tokens = dict(enumerate(tokenize_captions(records, make_tokenizer("ptb"))))
    config = {"trainer": {}, "loader": {"val_batch_size": 8}}
    assert "the same references" in _no_cider(records, tokens, None, config)


def test_photos_that_cannot_be_read_do_not_count(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(image_captioning, "LEAST_FOR_CIDER", 3)
    data = photos(train=4, val=3)
    run("train", *short(data, tmp_path / "whole", "trainer.max_epochs=1"))
    assert "best val/greedy/CIDEr" in capsys.readouterr().out
    (tmp_path / "photos" / "val1.png").write_bytes(b"no image")
    run("train", *short(data, tmp_path / "broken", "trainer.max_epochs=1", "data.skip_unreadable=true"))
    out = capsys.readouterr().out
    line = "Only 2 validation images: CIDEr needs at least 3, so best.ckpt and early stopping use "
    line += "the validation loss (val/loss)"
    assert line in out.splitlines() and "best val/loss" in out


def losses(monkeypatch, values):
    """Validations log these numbers as the loss."""
    values, original = iter(values), CaptioningTask.log

    def log(self, name, value, **options):
        original(self, name, torch.tensor(float(next(values))) if name == "val/loss" else value, **options)

    monkeypatch.setattr(CaptioningTask, "log", log)


def test_early_stopping_says_when_and_why(photos, tmp_path, capsys, monkeypatch):
    losses(monkeypatch, [5, 3, 4, 3.5, 3.25, 9, 9])
    data, run_dir = photos(train=4, val=1), tmp_path / "run"
    settings = ["trainer.max_epochs=30", "early_stopping.patience=3", "resume=auto"]
    run("train", *short(data, run_dir, *settings))
    told = (
        "early stopping ended the run after epoch 5 of at most 30: val/loss did not improve on 3.000 (epoch 2) in "
        "the last 3 validations (early_stopping.patience=3)"
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3] == told and lines[-2].startswith("best val/loss 3.000: ")
    assert weights(run_dir, "best")["position"]["epoch"] == 2
    assert read_outcome(run_dir)["why"] == told
    assert "patience" not in " ".join(lines[:-3])


def test_without_validation_photos_an_error_says_what_to_write(photos, tmp_path, capsys):
    data, run_dir = photos(train=4), tmp_path / "run"
    with pytest.raises(DataError, match="add a `split` column to the CSV file, with `val`") as caught:
        run("train", *short(data, run_dir))
    assert "trainer.limit_val_batches=0 early_stopping=none" in str(caught.value) and not run_dir.exists()
    with pytest.raises(ConfigError, match="set early_stopping=none"):
        run("train", *short(data, run_dir, "trainer.limit_val_batches=0"))
    capsys.readouterr()
    without = ["trainer.limit_val_batches=0", "early_stopping=none", "trainer.max_epochs=2"]
    run("train", *short(data, run_dir, *without))
    out = capsys.readouterr().out
    assert "the run trains to its last epoch and writes no best.ckpt; use checkpoints/last.ckpt" in out
    assert [path.name for path in (run_dir / "checkpoints").iterdir()] == ["last.ckpt"]
    assert weights(run_dir)["position"]["epoch"] == 2


@pytest.mark.parametrize(("first", "then", "kept"), [(1, 20, "val/greedy/CIDEr"), (20, 1, "val/loss")])
def test_a_resumed_run_keeps_what_it_went_by(photos, tmp_path, capsys, monkeypatch, first, then, kept):
    data, run_dir = photos(train=4, val=2), tmp_path / "run"
    monkeypatch.setattr(image_captioning, "LEAST_FOR_CIDER", first)
    run("train", *short(data, run_dir, "trainer.max_epochs=1"))
    monkeypatch.setattr(image_captioning, "LEAST_FOR_CIDER", then)
    run("train", *short(data, run_dir, "trainer.max_epochs=2", "resume=auto"))
    assert f"best {kept} " in capsys.readouterr().out.splitlines()[-2]
    monitors = {state.get("monitor") for state in weights(run_dir)["callbacks"].values() if "monitor" in state}
    assert monitors == {kept, None}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("callbacks", 3), ("optimizer_states", None), ("lr_schedulers", 3), ("loops", []), ("position", 3),
        ("generators", 3), ("skipped", "x"), ("epoch", None), ("global_step", True),
        ("settings", 3), ("settings", None), ("data", 3), ("images", []),
    ],
)  # fmt: skip
def test_a_checkpoint_with_another_kind_of_state_is_refused(key, value):
    checkpoint = {"optimizer_states": [], "captioning": {}}
    resume.can_go_on(checkpoint, "x.ckpt")
    (checkpoint["captioning"] if key in ("settings", "data", "images") else checkpoint)[key] = value
    with pytest.raises(CheckpointError, match=rf"^resume=x.ckpt: its entry '{key}' is damaged\. Resume from another"):
        resume.can_go_on(checkpoint, "x.ckpt")


@pytest.mark.parametrize("callbacks", [3, {"a": 3}, {"EarlyStopping": []}])
def test_what_callbacks_hold_is_checked_before_a_run_is_touched(photos, tmp_path, callbacks):
    data, run_dir = photos(train=4, val=1), tmp_path / "run"
    run("train", *short(data, run_dir, "trainer.max_epochs=1"))
    last = run_dir / "checkpoints" / "last.ckpt"
    torch.save(weights(run_dir) | {"callbacks": callbacks}, last)
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError, match=r"resume=.*last\.ckpt: its entry 'callbacks' is damaged"):
        run("train", *short(data, run_dir, "trainer.max_epochs=2", "resume=auto"))
    assert before == {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}


def test_own_soft_takes_a_few_photos_without_a_split_column(photos, tmp_path, capsys):
    data = photos(split_column=False, photo=24)
    run(
        "train",
        *["experiment=own_soft", *data, "encoder.image_size=64", "model.width=16", "model.embedding_size=8"],
        *["trainer.max_epochs=1", "trainer.enable_progress_bar=false", "trainer.accelerator=cpu"],
        *["features.mirror=false", "features.crops=null", f"run_dir={tmp_path / 'run'}"],
    )
    out = capsys.readouterr().out
    line = "CIDEr would be 0, so best.ckpt and early stopping use the validation loss (val/loss)"
    assert re.search(rf"^Only 1 validation image \(photo\d+\.png\): {re.escape(line)}$", out, re.M)
    assert (tmp_path / "run" / "checkpoints" / "best.ckpt").is_file()
