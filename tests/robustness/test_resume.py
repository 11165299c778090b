"""Runs that end before their end: saved between steps, in a validation, asked to stop; what a resumed run must be."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from kills import differing, left
from small_world import run, short, weights

from captioning.checkpoints.resume import FIXED, has_ahead
from captioning.data import ImageSampler
from captioning.errors import ConfigError, TrainingError
from captioning.io import write_whole
from captioning.tasks import image_captioning
from captioning.training import CaptioningTask, Checkpoint, SaveBetweenSteps, digest
from captioning.training.signals import StopRequest

ALWAYS = "trainer.save_every_minutes=1e-9"
LOG_DICT = CaptioningTask.log_dict
SETTINGS = ["trainer.max_epochs=3", "trainer.log_every_n_steps=1", "loader.batch_size=2", "weight_averaging=ema"]
SETTINGS += ["model/vector=standardized"]  # which has something to remember
IN_PARTS = [
    "trainer.max_epochs=3", "trainer.log_every_n_steps=1", "loader.batch_size=2", "trainer.accumulate_grad_batches=2",
    "model/vector=standardized", "model/attention=hard", "objective=scheduled_sampling", "objective.inputs.every=2",
]  # fmt: skip


def ends(monkeypatch, where, count: int, how) -> None:
    """The `count`-th call of a method does `how` first."""
    owner, name = where
    original, calls = getattr(owner, name), []

    def passing(*arguments, **named):
        calls.append(1)
        if len(calls) == count:
            how()
        return original(*arguments, **named)

    monkeypatch.setattr(owner, name, passing)


def killed():
    raise RuntimeError("killed")


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("whole")
    run("train", *short(data, run_dir, *SETTINGS))
    return run_dir


@pytest.mark.parametrize("workers", [0, 1])
def test_a_sampler_starts_inside_an_epoch(workers):
    from captioning.training import CaptionModule

    sampler = ImageSampler(10, shuffle=True, seed=3)
    sampler.set_epoch(4)
    order = list(sampler)
    read = []

    class Data(torch.utils.data.Dataset):
        def __len__(self):
            return 10

        def __getitem__(self, key):
            read.append(key[0])
            return key[0], torch.tensor([key[1]]), [[1, 2]]

    module = CaptionModule(Data(), Data(), batch_size=2, val_batch_size=2, workers=workers, seed=3)
    module.start_at(4, 3)
    loader = module.train_dataloader()
    assert len(loader) == 5  # of an epoch, for the trainer

    def order_of(loader):
        return [(int(i), int(e)) for batch in loader for i, e in zip(batch.image_ids, batch.images, strict=True)]

    iterator = iter(loader)  # loader processes read ahead from here on
    loader.sampler.set_epoch(4)  # by the trainer
    assert order_of(iterator) == order[6:]
    assert workers or set(read) == {index for index, _ in order[6:]}  # what is skipped is not read
    loader.sampler.set_epoch(5)
    assert len(order_of(loader)) == 10


def test_a_run_killed_inside_an_epoch_goes_on_there(whole, data, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        ends(patch, (CaptioningTask, "training_step"), 7, killed)  # of 4 an epoch
        with pytest.raises(RuntimeError, match="killed"):
            run("train", *short(data, tmp_path, *SETTINGS, ALWAYS))
    place = weights(tmp_path)["position"]
    assert place == {"epoch": 1, "batches": 2, "total": 6, "validate": False}
    steps = []
    original = CaptioningTask.training_step
    monkeypatch.setattr(CaptioningTask, "training_step", lambda *given: steps.append(1) or original(*given))
    run("train", *short(data, tmp_path, *SETTINGS, "resume=auto"))
    assert len(steps) == 6
    assert not differing(left(whole), left(tmp_path))


def test_a_run_killed_between_its_first_two_checkpoints_goes_on_from_the_one(whole, data, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        ends(patch, (Checkpoint, "on_train_epoch_end"), 2, killed)  # best.ckpt is saved, last.ckpt would be next
        with pytest.raises(RuntimeError, match="killed"):
            run("train", *short(data, tmp_path, *SETTINGS))
    assert os.listdir(tmp_path / "checkpoints") == ["best.ckpt"]
    steps = []
    original = CaptioningTask.training_step
    monkeypatch.setattr(CaptioningTask, "training_step", lambda *given: steps.append(1) or original(*given))
    run("train", *short(data, tmp_path, *SETTINGS, "resume=auto"))
    assert len(steps) == 8  # of 12
    assert not differing(left(whole), left(tmp_path))


@pytest.mark.slow
def test_a_best_checkpoint_alone_is_gone_on_from_or_replaced_only_where_that_is_asked_for(data, tmp_path, monkeypatch):
    rise(monkeypatch)
    run("train", *short(data, tmp_path / "whole", *SETTINGS))
    rise(monkeypatch)
    run("train", *short(data, tmp_path / "run", *SETTINGS, "trainer.max_epochs=2"))
    last, best = (tmp_path / "run" / "checkpoints" / f"{name}.ckpt" for name in ("last", "best"))
    last.unlink()
    before = best.read_bytes()
    told = rf"resume=auto: {best} exists, but last\.ckpt is missing\. Resume with resume={best}, or .* overwrite=true"
    with pytest.raises(ConfigError, match=told):
        run("train", *short(data, tmp_path / "run", *SETTINGS, "resume=auto"))
    assert best.read_bytes() == before
    run("train", *short(data, tmp_path / "run", *SETTINGS, f"resume={best}"))
    assert not differing(left(tmp_path / "whole"), left(tmp_path / "run"))
    last.unlink()
    rise(monkeypatch)
    run("train", *short(data, tmp_path / "run", *SETTINGS, "resume=auto", "overwrite=true"))
    assert not differing(left(tmp_path / "whole"), left(tmp_path / "run"))


def rise(monkeypatch) -> None:
    """Every validation from here on scores more than the one before."""
    scores = iter(range(1, 99))
    monkeypatch.setattr(
        CaptioningTask,
        "log_dict",
        lambda self, found, **options: LOG_DICT(self, dict.fromkeys(found, float(next(scores))), **options),
    )


def no_number_at(monkeypatch, count: int) -> None:
    """The loss of the `count`-th training batch is not a number."""
    step, calls = CaptioningTask.training_step, []

    def training_step(self, batch, index):
        calls.append(1)
        objective = self.objective.forward
        if len(calls) == count:
            self.objective.forward = lambda *given: objective(*given)._replace(total=torch.tensor(float("nan")))
        try:
            return step(self, batch, index)
        finally:
            self.objective.forward = objective

    monkeypatch.setattr(CaptioningTask, "training_step", training_step)


def test_a_run_that_ends_inside_a_step_computes_its_batches_again(data, tmp_path, monkeypatch):
    """Four batches per epoch; the last.ckpt of a loss that is not a number is saved when one of two is pending."""
    run("train", *short(data, tmp_path / "whole", *IN_PARTS))
    with monkeypatch.context() as patch:
        no_number_at(patch, 8)
        with pytest.raises(TrainingError, match="step 3: train/loss is nan"):
            run("train", *short(data, tmp_path / "cut", *IN_PARTS))
    saved = weights(tmp_path / "cut")
    assert saved["position"] == {"epoch": 1, "batches": 2, "total": 6, "validate": False} and saved["global_step"] == 3
    assert saved["state_dict"]["captioner.vector.batches"] == saved["state_dict"]["objective.inputs.batches"] == 3
    last = tmp_path / "cut" / "checkpoints" / "last.ckpt"  # resume=auto would begin a failed run anew
    run("train", *short(data, tmp_path / "cut", *IN_PARTS, f"resume={last}"))
    assert not differing(left(tmp_path / "whole"), left(tmp_path / "cut"))


@pytest.mark.parametrize("count", [7, 8])  # right after a validation inside the epoch, and a step later
def test_a_validation_inside_an_epoch_is_made_once(data, tmp_path, monkeypatch, count):
    twice = [*SETTINGS, "+trainer.val_check_interval=0.5", "trainer.max_epochs=2"]
    run("train", *short(data, tmp_path / "whole", *twice))
    with monkeypatch.context() as patch:
        ends(patch, (CaptioningTask, "training_step"), count, killed)
        with pytest.raises(RuntimeError, match="killed"):
            run("train", *short(data, tmp_path / "cut", *twice, ALWAYS))
    assert weights(tmp_path / "cut")["position"]["batches"] == count - 5
    run("train", *short(data, tmp_path / "cut", *twice, "resume=auto"))
    assert not differing(left(tmp_path / "whole"), left(tmp_path / "cut"))


@pytest.mark.parametrize(
    ("where", "count", "place"),
    [
        ((CaptioningTask, "training_step"), 6, {"epoch": 1, "batches": 2, "total": 6, "validate": False}),
        ((CaptioningTask, "validation_step"), 1, {"epoch": 0, "batches": 4, "total": 4, "validate": True}),
        ((CaptioningTask, "on_validation_epoch_end"), 1, {"epoch": 1, "batches": 0, "total": 4, "validate": False}),
    ],
)
def test_a_run_that_is_asked_to_stop_saves_and_goes_on(whole, data, tmp_path, monkeypatch, capsys, where, count, place):
    before = signal.getsignal(signal.SIGTERM)
    small = ["loader.val_batch_size=4"]
    with monkeypatch.context() as patch:
        ends(patch, where, count, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit) as leaving:
            run("train", *short(data, tmp_path, *SETTINGS, *small))
    assert leaving.value.code == 143 and signal.getsignal(signal.SIGTERM) is before
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert f"To resume, repeat the command with: resume={last} run_dir={tmp_path}" in capsys.readouterr().err
    assert weights(tmp_path)["position"] == place
    run("train", *short(data, tmp_path, *SETTINGS, *small, f"resume={last}"))
    found = differing(left(whole), left(tmp_path))
    assert not [name for name in found if "val/loss" not in name]  # a mean of other batches


def test_a_run_that_stopped_early_does_not_start_again(data, tmp_path, monkeypatch):
    original = CaptioningTask.log_dict
    fall = iter(range(9, 0, -1))
    monkeypatch.setattr(
        CaptioningTask,
        "log_dict",
        lambda self, scores, **options: original(self, dict.fromkeys(scores, float(next(fall))), **options),
    )
    monkeypatch.setattr(image_captioning, "LEAST_FOR_CIDER", 1)  # there are 8 images
    arguments = ["trainer.max_epochs=6", "early_stopping.patience=1", "resume=auto"]
    run("train", *short(data, tmp_path, *arguments))
    before = (tmp_path / "checkpoints" / "last.ckpt").read_bytes()
    assert weights(tmp_path)["global_step"] == 4
    run("train", *short(data, tmp_path, *arguments))
    assert (tmp_path / "checkpoints" / "last.ckpt").read_bytes() == before
    run("train", *short(data, tmp_path, *arguments, "early_stopping.patience=3"))
    assert weights(tmp_path)["global_step"] == 8


def test_a_checkpoint_of_before_there_were_positions_goes_on_at_its_epoch(whole, data, tmp_path):
    run("train", *short(data, tmp_path, *SETTINGS, "trainer.max_epochs=2"))
    last = tmp_path / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    del checkpoint["position"], checkpoint["captioning"]["settings"], checkpoint["captioning"]["data"]
    del checkpoint["captioning"]["images"]
    (checkpoint["generators"],) = checkpoint["generators"]
    torch.save(checkpoint, last)
    run("train", *short(data, tmp_path, *SETTINGS, "resume=auto"))
    assert not differing(left(whole), left(tmp_path))


CHANGES = {
    "weight_averaging=none": "weight_averaging was moving_average and is null now",
    "weight_averaging.decay=0.5": "weight_averaging.decay was 0.999 and is 0.5 now",
    "optimizer.lr=1.0": "optimizer.lr was 0.0004 and is 1.0 now",
    "seed=5": "seed was 0 and is 5 now",
    "loader.batch_size=4": "loader.batch_size was 2 and is 4 now",
    "data.max_length=3": "data.max_length was null and is 3 now",
    "objective=self_critical": "objective was CrossEntropy and is SelfCritical now",
    "encoder.output=fc": "encoder.output was grid and is fc now",
    "transform.fit=crop": "transform.fit was squash and is crop now",
    "features=online": "features._target_ was captioning.features.stored and is captioning.features.online now",
    "features.mirror=true": "features.mirror was false and is true now",
    "features.crops=0.5": "features.crops was null and is 0.5 now",
    "features.augment=light": "features.augment was null and is light now",
    "model.word_dropout=0.5": "model.word_dropout was 0.0 and is 0.5 now",
    "trainer.precision=bf16-mixed": "trainer.precision was 32-true and is bf16-mixed now",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_resumed_run_must_be_the_same_run(whole, data, change):
    before = (whole / "config.yaml").read_bytes()
    change = [change, *(["model/attention=none"] if "fc" in change else [])]
    here = [item for item in data if "features=online" not in change or not item.startswith("features.root")]
    with pytest.raises(ConfigError) as caught:
        run("train", *short(here, whole, *SETTINGS, "resume=auto", *change))
    assert CHANGES[change[0]] in str(caught.value) and str(caught.value).startswith(
        "resume: the settings differ from the original run"
    )
    assert (whole / "config.yaml").read_bytes() == before


def test_a_setting_that_an_earlier_version_did_not_keep_is_not_asked_for(whole, data, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    del checkpoint["captioning"]["settings"]["features.mirror"]
    torch.save(checkpoint, last)
    run("train", *short(data, tmp_path / "run", *SETTINGS, "resume=auto", "trainer.max_epochs=4"))
    assert weights(tmp_path / "run")["captioning"]["settings"]["features.mirror"] is False


def test_other_captions_are_another_run(whole, data, tmp_path):
    root = Path(data[1].partition("=")[2])
    lines = (root / "captions.csv").read_text().splitlines()
    for path in root.glob("*.png"):
        (tmp_path / path.name).hardlink_to(path)
    moved = [f"data.root={tmp_path}" if item.startswith("data.root") else item for item in data]
    (tmp_path / "captions.csv").write_text("\n".join([lines[0], *lines[3:], *lines[1:3]]))  # another order
    with pytest.raises(ConfigError, match=r"the data differ from the original data"):
        run("train", *short(moved, whole, *SETTINGS, "resume=auto"))
    (tmp_path / "captions.csv").write_text("\n".join(lines))
    shutil.copytree(whole, tmp_path / "copy")
    run("train", *short(moved, tmp_path / "copy", *SETTINGS, "resume=auto", "trainer.log_every_n_steps=3"))


def test_the_table_of_what_may_change_names_every_fixed_setting(pytestconfig):
    table = (pytestconfig.rootpath / "docs" / "reliability.md").read_text()
    assert not [name for name in FIXED if f"`{name.removesuffix('._target_')}`" not in table]


def test_a_whole_file_is_the_old_one_or_the_new_one(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_whole(path, lambda file: file.write(b"old"))

    def full(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(
        ConfigError, match=r"cannot write .*file \(No space left on device\): .*; the old file is unchanged"
    ):
        write_whole(path, full)
    assert path.read_bytes() == b"old" and [each.name for each in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("resume", ["auto", "last.ckpt"])
@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("trainer.max_epochs=2", "has already trained 3 epochs: set trainer.max_epochs to 3 or more"),
        ("trainer.max_steps=7", "has already trained 12 steps: set trainer.max_steps to 12 or more"),
    ],
)
def test_an_end_that_lies_behind_is_refused_before_anything_is_touched(whole, data, resume, given, told):
    kept = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    last = whole / "checkpoints" / "last.ckpt"
    resume = "auto" if resume == "auto" else last
    with pytest.raises(ConfigError, match=f"^{re.escape(f'{last} {told}')}$"):
        run("train", *short(data, whole, *SETTINGS, given, f"resume={resume}"))
    assert kept == {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("checkpoint", "told"),
    [
        ({"position": {"epoch": 1, "batches": 2}}, "1 epoch and a part of the next: set trainer.max_epochs to 2"),
        ({"position": {"epoch": 2, "batches": 0}}, "2 epochs: set trainer.max_epochs to 2"),
        ({"epoch": 1}, "2 epochs: set trainer.max_epochs to 2"),  # of an earlier version
    ],
)
def test_how_many_epochs_a_checkpoint_has_made(checkpoint, told):
    with pytest.raises(ConfigError, match=f"^x has already trained {told} or more$"):
        has_ahead(checkpoint, {"max_epochs": 1, "max_steps": -1}, "x")
    for epochs in (2, -1, None):
        has_ahead(checkpoint, {"max_epochs": epochs, "max_steps": -1}, "x")


def test_tensorboard_hides_steps_that_are_made_again(data, tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with monkeypatch.context() as patch:
        ends(patch, (CaptioningTask, "training_step"), 8, killed)
        with pytest.raises(RuntimeError, match="killed"):
            run("train", *short(data, tmp_path, *SETTINGS))
    run("train", *short(data, tmp_path, *SETTINGS, "resume=auto"))
    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("train/loss")
    assert [event.step for event in found] == list(range(12))


@pytest.mark.slow
def test_a_run_can_be_made_again_from_its_configuration(whole, data, tmp_path):
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "captioning.train", f"like={whole}/config.yaml"]

    def start(*arguments):
        return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=300, env=environment)

    done = start(f"run_dir={tmp_path}/again")
    assert done.returncode == 0, done.stderr
    assert not differing(left(whole), left(tmp_path / "again"))
    assert {path.name for path in (tmp_path / "again").iterdir()} == {path.name for path in whole.iterdir()}
    (start_of,) = json.loads((tmp_path / "again" / "provenance.json").read_text())
    assert start_of["command"].endswith(f"run_dir={tmp_path}/again") and f"like={whole}" in start_of["command"]
    assert start_of["versions"]["torch"] == torch.__version__.partition("+")[0] or "+" in torch.__version__
    assert start_of["seed"] == 0 and start_of["data"]["images"] == {"train": 8, "val": 8}
    assert len(start_of["data"]["sha256"]) == 64
    assert yaml.safe_load((whole / "config.yaml").read_text())["resume"] is None


def test_like_takes_single_settings_only(monkeypatch, tmp_path, whole):
    from captioning.config.like import like_a_run

    like = f"like={whole}/config.yaml"
    assert like_a_run(["seed=1"]) == ["seed=1"]
    with pytest.raises(ConfigError, match=r"model/attention=hard cannot be combined with like=, which sets every part"):
        like_a_run([like, "model/attention=hard", "run_dir=x"])
    with pytest.raises(ConfigError, match=r"like=nowhere\.yaml does not exist: give"):
        like_a_run(["like=nowhere.yaml", "run_dir=x"])
    with pytest.raises(ConfigError, match="needs run_dir=DIR: give the new run its own folder"):
        like_a_run([like])


def test_the_digest_is_of_the_captions_and_their_order_and_not_of_their_folder():
    from captioning.data import Record

    records = [Record(1, Path("a/1.png"), "train", ("one",)), Record(2, Path("a/2.png"), "val", ("two", "three"))]
    moved = [record._replace(path=Path("b") / record.path.name) for record in records]
    assert digest(records) == digest(moved) != digest(records[::-1])
    assert digest(records) != digest([records[0], records[1]._replace(captions=("two three",))])


def test_each_start_is_told_and_where_the_package_is_from(whole, tmp_path):
    from captioning.training.provenance import commit

    repository = tmp_path / "checkout"
    (repository / "captioning").mkdir(parents=True)
    (repository / "captioning" / "__init__.py").write_text("")
    assert commit(repository / "captioning") is None

    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(repository), *identity, *arguments], check=True, capture_output=True)

    git("init")
    assert commit(repository / "captioning") is None  # not in it
    git("add", ".")
    git("commit", "-m", "first")
    clean = commit(repository / "captioning")
    assert len(clean) == 40
    (repository / "captioning" / "__init__.py").write_text("changed = True")
    assert commit(repository / "captioning") == f"{clean}-dirty"


def test_slurm_starts_the_job_again_from_between_two_steps(whole, data, tmp_path, monkeypatch, capfd):
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    (tools / "scontrol").chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
        for name, value in {"JOB_ID": "42", "JOB_NAME": "train", "NTASKS": "1", "PROCID": "0", "LOCALID": "0"}.items():
            patch.setenv(f"SLURM_{name}", value)
        patch.setenv("SLURM_NODEID", "0")
        ends(patch, (CaptioningTask, "training_step"), 6, lambda: os.kill(os.getpid(), signal.SIGUSR1))
        with pytest.raises(SystemExit) as leaving:
            run("train", *short(data, tmp_path / "run", *SETTINGS, "resume=auto"))
        assert leaving.value.code == 128 + signal.SIGUSR1
        assert (tmp_path / "asked").read_text() == "requeue 42\n" and "SLURM job 42 requeued" in capfd.readouterr().err
        assert weights(tmp_path / "run")["position"]["batches"] == 2
        run("train", *short(data, tmp_path / "run", *SETTINGS, "resume=auto"))  # the same command, in the same job
    assert not differing(left(whole), left(tmp_path / "run"))


def test_a_second_ctrl_c_stops_at_once():
    for signals in ((signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGINT)):
        if not (child := os.fork()):
            StopRequest().listen()
            for number in signals:
                os.kill(os.getpid(), number)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGINT
    if not (child := os.fork()):
        stop = StopRequest()
        stop.listen()
        for _ in range(3):  # as some systems repeat it
            os.kill(os.getpid(), signal.SIGTERM)
        os._exit(stop.status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 143


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_reaches_loader_processes_too(data, tmp_path):
    online = [item for item in data if not item.startswith("features.root")]
    endless = ["features=online", "features.workers=2", "trainer.max_epochs=10000", ALWAYS, "schedule=constant"]
    command = [sys.executable, "-m", "captioning.train", *short(online, tmp_path, *endless), "early_stopping=none"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "checkpoints" / "last.ckpt").is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    told = process.communicate(timeout=120)[1]
    assert process.returncode == 130 and "stopped by SIGINT before step" in told and "Traceback" not in told
    assert weights(tmp_path)["position"]


@pytest.mark.slow
def test_two_processes_stop_together_and_draw_on_each_from_its_own_generators(data, tmp_path):
    def start(name, *more):
        two = ["trainer.devices=2", "trainer.strategy=ddp", "resume=auto", "trainer.max_epochs=6", *more]
        command = [sys.executable, "-m", "captioning.train", *short(data, tmp_path / name, "loader.batch_size=2", *two)]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    whole, cut = start("whole"), start("cut", ALWAYS)
    last, deadline = tmp_path / "cut" / "checkpoints" / "last.ckpt", time.monotonic() + 200
    while not last.is_file() and time.monotonic() < deadline:
        time.sleep(0.02)
    cut.send_signal(signal.SIGTERM)  # to one of the two
    assert "stopped by SIGTERM" in cut.communicate(timeout=200)[1] and cut.returncode == 143
    assert len(weights(tmp_path / "cut")["generators"]) == 2
    again = start("cut")
    assert again.wait(timeout=200) == whole.wait(timeout=200) == 0
    assert not differing(left(tmp_path / "whole"), left(tmp_path / "cut"))
    with pytest.raises(ConfigError, match=r"run with 2 processes, but this run has 1, .* trainer\.devices"):
        run("train", *short(data, tmp_path / "cut", "loader.batch_size=2", "resume=auto", "trainer.max_epochs=7"))


@pytest.mark.slow
def test_runs_killed_at_random_moments_are_the_same_runs(pytestconfig):
    script = pytestconfig.rootpath / "tests" / "robustness" / "kills.py"
    environment = {**os.environ, "PYTHONPATH": str(pytestconfig.rootpath), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, script, "--kills", "4", "--stops", "2", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment)
    assert done.returncode == 0 and "survived 6 of 6" in done.stdout, done.stdout + done.stderr


def test_saving_asks_for_a_sensible_interval(data, tmp_path):
    with pytest.raises(ConfigError, match=r"trainer\.save_every_minutes must be above 0, not -1"):
        run("train", *short(data, tmp_path, "trainer.save_every_minutes=-1"))
    assert SaveBetweenSteps(tmp_path / "last.ckpt").stop.received is None
