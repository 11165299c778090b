"""What the chosen loggers receive: numbers once, also of resumed runs, images, and the best scores with intervals."""

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from PIL import Image, ImageChops
from small_world import run, short

from captioning.data import open_picture
from captioning.errors import ConfigError
from captioning.inference import load
from captioning.training import CaptioningTask, Tracker, check_loggers, trackers

SETTINGS = ["trainer.max_epochs=3", "trainer.log_every_n_steps=1", "loader.batch_size=2", "weight_averaging=ema"]


class Notebook:
    """A tracker that keeps what it is sent, in a list that all its runs share."""

    name, advice = "wandb", "Buy a new notebook"
    pages: ClassVar[list] = []
    fails = ""

    def __init__(self, **given):
        self.given = given

    def write(self, *entry):
        if self.fails == entry[0]:
            raise OSError("no more paper.\nat all")
        self.pages.append(entry)

    def start(self, run, settings):
        self.write("start", run, settings)
        return run or f"run {len(self.pages)}"

    def log(self, values, step):
        self.write("log", dict(values), step)

    def log_image(self, name, image, text, step):
        self.write("image", name, image.copy(), text, step)

    def finish(self, failed):
        self.write("finish", failed)


@pytest.fixture
def pages(monkeypatch):
    monkeypatch.setitem(trackers.SERVICES, "wandb", Notebook)
    monkeypatch.setattr("captioning.training.loggers.need_package", lambda *names, **given: None)
    monkeypatch.setattr(Notebook, "pages", [])
    return Notebook.pages


def killed_and_resumed(data, run_dir, monkeypatch, *settings: str) -> None:
    """Train three epochs of 4 steps; the run is killed in its eighth step and resumes from the fourth."""
    calls, original = [], CaptioningTask.training_step
    with monkeypatch.context() as patch:

        def dies(*given):
            calls.append(1)
            if len(calls) == 8:
                raise RuntimeError("killed")
            return original(*given)

        patch.setattr(CaptioningTask, "training_step", dies)
        with pytest.raises(RuntimeError, match="killed"):
            run("train", *short(data, run_dir, *SETTINGS, *settings))
    run("train", *short(data, run_dir, *SETTINGS, *settings, "resume=auto"))


def in_csv(run_dir: Path) -> dict[str, list[tuple[int, float]]]:
    """Name -> [(step, value)] of metrics.csv."""
    found: dict[str, list[tuple[int, float]]] = {}
    with (run_dir / "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if value and name != "step":
                    found.setdefault(name, []).append((int(row["step"]), float(value)))
    return found


def same(received, expected) -> bool:
    """Whether (step, value) are equal, up to the rounding of a float32."""
    return [step for step, _ in received] == [step for step, _ in expected] and [
        value for _, value in received
    ] == pytest.approx([value for _, value in expected], rel=1e-6)


def settings(**given) -> dict:
    return {"logger": ["csv"], "log_images": None, "project": "p", **given}


def test_names_of_loggers():
    check_loggers(settings(logger="tensorboard"))
    check_loggers(settings(logger=[]))
    told = r"^logger=wandv does not exist \(nearest: wandb\)\. Choose from csv, tensorboard, wandb, mlflow, trackio$"
    with pytest.raises(ConfigError, match=told):
        check_loggers(settings(logger=["csv", "wandv"]))
    with pytest.raises(ConfigError, match="log_images must be at least 0, not -1"):
        check_loggers(settings(logger="tensorboard", log_images=-1))
    with pytest.raises(ConfigError, match="log_images=2 needs a logger that shows images: set logger=tensorboard"):
        check_loggers(settings(log_images=2))


@pytest.mark.parametrize(
    ("name", "extra"), [("tensorboard", "train"), ("wandb", "wandb"), ("mlflow", "mlflow"), ("trackio", "trackio")]
)
def test_a_logger_without_its_package_is_one_line(name, extra, monkeypatch):
    monkeypatch.setattr("captioning.io.optional_packages.find_spec", lambda package: None)
    with pytest.raises(ConfigError) as caught:
        check_loggers(settings(logger=[name]))
    assert str(caught.value) == f"logger={name} needs the package {name}. Run: pip install 'captioning[{extra}]'"


def test_what_was_logged_before_is_not_logged_again(tmp_path, pages):
    first = Tracker(Notebook(), tmp_path / "t" / "wandb.json")
    first.open({"seed": 1}, resumed=False)
    first.log_metrics({"a": 1.0, "epoch": 0}, 3)
    first.log_metrics({"a": 2.0, "epoch": 0}, 5)
    first.log_metrics({"val": 7.0, "epoch": 0}, 5)  # a step has several parts
    first.log_image("images/1", Image.new("L", (1, 1)), "a dog", 5)
    again = Tracker(Notebook(), tmp_path / "t" / "wandb.json")
    again.open({"seed": 1}, resumed=True)
    for step in (4, 5, 6):
        again.log_metrics({"a": float(step), "new": 1.0}, step)
        again.log_image("images/1", Image.new("L", (1, 1)), "a cat", step)
    assert [entry[1] for entry in pages if entry[0] == "start"] == [None, "run 1"]
    logged = [entry[1:] for entry in pages if entry[0] == "log"]
    assert logged[:3] == [({"a": 1.0, "epoch": 0}, 3), ({"a": 2.0, "epoch": 0}, 5), ({"val": 7.0, "epoch": 0}, 5)]
    assert logged[3:] == [({"new": 1.0}, 4), ({"new": 1.0}, 5), ({"a": 6.0, "new": 1.0}, 6)]
    assert [entry[3:] for entry in pages if entry[0] == "image"] == [("a dog", 5), ("a cat", 6)]
    again.finalize("failed")
    again.finalize("success")
    assert pages[-1] == ("finish", True) and pages[-2][0] != "finish"


def test_a_new_run_does_not_read_the_file_of_an_earlier_one(tmp_path, pages):
    path = tmp_path / "wandb.json"
    path.write_text("{")
    Tracker(Notebook(), path).open({}, resumed=False)
    assert json.loads(path.read_text()) == {"run": "run 1", "logged": {}}
    path.write_text("{")
    with pytest.raises(ConfigError, match=r"wandb\.json is damaged: delete it, then the tracker starts a new run"):
        Tracker(Notebook(), path).open({}, resumed=True)


def test_a_tracker_that_fails_does_not_end_the_run(tmp_path, pages, monkeypatch, capsys):
    tracker = Tracker(Notebook(), tmp_path / "wandb.json")
    tracker.open({}, resumed=False)
    monkeypatch.setattr(Notebook, "fails", "log")
    for step in (7, 8):
        tracker.log_metrics({"a": 1.0}, step)
    told = "warning: logger=wandb failed at step 7 (no more paper). The run continues without it; metrics.csv has all"
    assert capsys.readouterr().err == f"{told} numbers\n"
    assert json.loads((tmp_path / "wandb.json").read_text())["logged"] == {}
    monkeypatch.setattr(Notebook, "fails", "start")
    with pytest.raises(ConfigError) as caught:
        Tracker(Notebook(), tmp_path / "wandb.json").open({}, resumed=True)
    told = "logger=wandb: cannot continue a run (no more paper). Buy a new notebook, or delete "
    assert str(caught.value) == f"{told}{tmp_path / 'wandb.json'} to start a new run there"


def test_a_tracker_receives_all_numbers_images_and_the_best_scores(data, tmp_path, monkeypatch, pages):
    """A killed and resumed run: its tracker has what metrics.csv has, and what a command computes from best.ckpt."""
    killed_and_resumed(data, tmp_path, monkeypatch, "logger=wandb", "log_images=2", "early_stopping=none")
    assert not (tmp_path / "tensorboard").exists()
    starts = [entry for entry in pages if entry[0] == "start"]
    assert [entry[1] for entry in starts] == [None, "run 1"]
    assert starts[0][2]["model"]["width"] == 32
    assert [entry[1] for entry in pages if entry[0] == "finish"] == [True, False]
    received: dict[str, list[tuple[int, float]]] = {}
    for _, values, step in (entry for entry in pages if entry[0] == "log"):
        for name, value in values.items():
            received.setdefault(name, []).append((step, value))
    best = {name.removeprefix("best/"): value for name, value in received.items() if name.startswith("best/")}
    expected = in_csv(tmp_path)
    assert [step for step, _ in received["train/loss"]] == list(range(12))
    for name in expected.keys() - {"epoch", "words/s"}:
        assert same(received[name], expected[name]), name

    images = [entry[1:] for entry in pages if entry[0] == "image"]
    assert [(name, step) for name, _, _, step in images] == [
        (f"images/{number}", step) for step in (4, 8, 12) for number in (1, 2)
    ]
    captioner = load(tmp_path / "checkpoints" / "last.ckpt", device="cpu")
    for _, image, text, _ in images[-2:]:
        name, _, caption = text.partition(": ")
        path = next(Path(each.removeprefix("data.root=")) for each in data if each.startswith("data.root=")).rglob(name)
        (found,) = captioner.caption([open_picture(next(path))], "greedy", max_length=captioner.max_length)
        assert caption == found.text
        assert image.width <= 1200 and ImageChops.invert(image.convert("L")).getbbox()  # not blank

    # The best validation was that of the last epoch.
    assert best["val/loss"] == [(12, pytest.approx(min(value for _, value in expected["val/loss"])))]
    evaluation = ["split=val", "decoding=greedy", "metrics.bootstrap=1000", f"output={tmp_path}/scores"]
    run("evaluate", *data, f"checkpoint={tmp_path}/checkpoints/best.ckpt", *evaluation)
    scores, bounds = (
        json.loads((tmp_path / "scores" / f"{name}.json").read_text()) for name in ("scores", "statistics")
    )
    for name in ("BLEU-1", "ROUGE-L"):
        found = [best[f"val/greedy/{name}{end}"] for end in ("", "_low", "_high")]
        assert found == [[(12, pytest.approx(value))] for value in (scores[name], *bounds["intervals"][name])], name


def test_images_do_not_change_the_random_numbers_of_a_run(data, tmp_path, pages):
    sampled = ["decoding=sample", "trainer.max_epochs=2", "loader.batch_size=4", "logger=wandb"]
    for count in (0, 2):
        run("train", *short(data, tmp_path / str(count), *sampled, f"log_images={count}"))
    first, second = (torch.load(tmp_path / str(count) / "checkpoints" / "last.ckpt") for count in (0, 2))
    for name, weight in first["state_dict"].items():
        assert torch.equal(weight, second["state_dict"][name]), name
    assert torch.equal(first["generators"][0]["cpu"], second["generators"][0]["cpu"])
    assert len([entry for entry in pages if entry[0] == "image"]) == 4


def test_tensorboard_shows_images(data, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run("train", *short(data, tmp_path, "trainer.max_epochs=1", "logger=tensorboard", "log_images=1"))
    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert found.Tags()["images"] == ["images/1"] and [each.step for each in found.Images("images/1")] == [2]
    assert not (tmp_path / "trackers").exists()
    assert "best/" not in (tmp_path / "metrics.csv").read_text()


def test_only_captioning_draws_images(tmp_path):
    from language_models import run as run_language_model

    with pytest.raises(ConfigError, match="log_images=1 is for image captioning; this task draws no images"):
        run_language_model("experiment=char_hello", "log_images=1", f"run_dir={tmp_path}")


def test_mlflow_has_the_numbers_of_a_resumed_run_once(data, tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="pip install '.[mlflow]'")
    # Creating a database takes half a minute, files none.
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/mlruns")
    killed_and_resumed(data, tmp_path / "run", monkeypatch, "logger=[csv,mlflow]", "project=birds", "log_images=1")
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"file:{tmp_path}/mlruns")
    (found,) = client.search_runs([client.get_experiment_by_name("birds").experiment_id])
    assert found.info.status == "FINISHED" and found.data.params["model/width"] == "32"
    for name, values in in_csv(tmp_path / "run").items():
        if name not in ("epoch", "words/s"):
            history = client.get_metric_history(found.info.run_id, name)
            assert same([(each.step, each.value) for each in history], values), name
    pictures = [each.path for each in client.list_artifacts(found.info.run_id, "images") if each.path.endswith("png")]
    assert len(pictures) == 3


def records_of(content: bytes, *, block: int = 32768) -> Iterator[bytes]:
    """The records of an offline run's file: a LevelDB log, after a header of seven bytes in its first block."""
    place, record = 7, b""
    while place + 7 <= len(content):
        if block - place % block < 7:
            place += block - place % block
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        record += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield record
            record = b""


def test_wandb_writes_offline_runs(data, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="pip install '.[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    killed_and_resumed(data, tmp_path, monkeypatch, "logger=wandb", "log_images=1")
    from wandb.proto import wandb_internal_pb2

    received, ids = [], set()
    for path in sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb"), key=lambda each: each.stat().st_mtime):
        for content in records_of(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(content)
            if record.HasField("run"):
                ids.add(record.run.run_id)
            values = {
                item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item
            }
            if "train/loss" in values:
                received.append((int(values["trainer/global_step"]), values["train/loss"]))
    assert len(ids) == 1, ids  # the resumed run continues it
    assert same(received, in_csv(tmp_path)["train/loss"])
    assert list((tmp_path / "wandb").rglob("files/media/images/**/*.png"))


def test_trackio_has_the_numbers_of_a_resumed_run_once(data, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "store"))  # read when Trackio is imported
    pytest.importorskip("trackio", reason="pip install '.[trackio]'")
    from trackio import sqlite_storage

    killed_and_resumed(data, tmp_path, monkeypatch, "logger=trackio", "project=test-of-captioning", "log_images=1")
    name = json.loads((tmp_path / "trackers" / "trackio.json").read_text())["run"]
    rows = sqlite_storage.SQLiteStorage.get_logs("test-of-captioning", name)
    received = [(row["step"], row["train/loss"]) for row in rows if not math.isnan(row.get("train/loss", math.nan))]
    assert same(received, in_csv(tmp_path)["train/loss"])
    assert len([row for row in rows if "images/1" in row]) == 3
