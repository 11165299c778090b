"""Sweeps (-m): a job that fails leaves the others as they are, and a table says what became of each."""

import json
import os
import signal
import sys
import warnings
from pathlib import Path

import pytest
import torch
from small_world import run, short, weights

from captioning.config import EvaluateConfig, TrainConfig, entry_point
from captioning.errors import ConfigError, DataError, TrainingError
from captioning.training import CaptioningTask, train


@pytest.fixture
def sweep(monkeypatch, capsys):
    """sweep(job, …) -> exit status, rows of the table without its head, stdout, stderr."""

    def command(*overrides, job, name="train", schema=TrainConfig):
        monkeypatch.setattr(sys, "argv", [f"captioning-{name}", "-m", *overrides])
        capsys.readouterr()
        try:
            entry_point(name, schema, job)()
            status = 0
        except SystemExit as ending:
            status = ending.code
        out, err = capsys.readouterr()
        lines = out.splitlines()
        head = max((n for n, line in enumerate(lines) if line.startswith("job  settings")), default=len(lines))
        return status, lines[head + 1 :], out, err

    return command


@pytest.fixture
def usual_handlers():
    """Python's own signal handlers, also where the tests run in a shell's background, which ignores Ctrl-C."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    former = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield usual
    for number, handler in former.items():
        signal.signal(number, handler)


def last_words(rows: list[str], folder) -> list[str]:
    """What stands in the table behind each job's folder."""
    return [row.partition(f"{folder}/{number}")[2].strip() for number, row in enumerate(rows)]


def of_width(**faults):
    """A job that notes the widths that it is given, and raises at some."""
    seen = []

    def job(config):
        seen.append(config["model"]["width"])
        fault = faults.get(f"w{seen[-1]}")
        if fault is not None:
            raise fault
        return None

    return job, seen


FAULTS = [
    (DataError("there is no\nsuch file"), "there is no such file"),
    (TrainingError("step 3: train/loss is nan"), "step 3: train/loss is nan"),
    (RuntimeError("out of memory\nin a kernel"), "RuntimeError: out of memory"),
    (KeyError("x"), "KeyError: 'x'"),
    (SystemExit("error: no such tool"), "no such tool"),
    (SystemExit(2), "ended with exit status 2"),
]
CONTINUE = "To continue, run the same command with run_dir=s resume=auto: it skips finished jobs"
CORRECT = "Correct the settings of these jobs: with the same settings they will fail again"


@pytest.mark.parametrize(
    ("faults", "advice"), [(FAULTS, CONTINUE), ([(ConfigError("width must be even"), "width must be even")], CORRECT)]
)
def test_the_other_jobs_run_and_a_table_says_which_failed(sweep, tmp_path, monkeypatch, faults, advice):
    """Job n > 0 fails by fault n, but the last one is done."""
    monkeypatch.chdir(tmp_path)
    widths = [8, *range(1, len(faults) + 1), 16]
    job, seen = of_width(**{f"w{number}": fault for number, (fault, _) in enumerate(faults, 1)})
    status, rows, _, err = sweep(f"model.width={','.join(map(str, widths))}", "run_dir=s", job=job)
    assert seen == widths and status == 1
    assert [row.split()[:3] for row in rows] == [[str(n), f"model.width={w}", f"s/{n}"] for n, w in enumerate(seen)]
    assert last_words(rows, "s") == ["done", *(f"FAILED: {reason}" for _, reason in faults), "done"]
    for number, (fault, reason) in enumerate(faults, 1):
        assert f"error: job {number} (model.width={number}): {reason}\n" in err
        if type(fault) in (RuntimeError, KeyError):  # the end of its traceback
            assert f"\n{type(fault).__name__}: {fault}\n" in err
    assert err.count("Traceback") == sum(type(fault) in (RuntimeError, KeyError) for fault, _ in faults)
    assert err.splitlines()[-1] == f"error: {len(faults)} of {len(widths)} jobs failed. {advice}"
    assert "seed" not in "".join(rows)


def test_where_all_jobs_are_done_the_status_is_0(sweep, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job, _ = of_width()
    status, rows, _, err = sweep("model.width=8,16", "seed=3", "run_dir=s", job=job)
    assert status == 0 and last_words(rows, "s") == ["done", "done"] and "error" not in err
    assert "seed" not in "".join(rows)  # which all jobs have


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("model/attention=soft,nope", "nope"),
        ("model.width=8,many", "model.width must be int, not 'many'"),
        ("data.min_count=1,${nowhere}", "nowhere"),
        ("optimizer=adam,null", "optimizer"),
    ],
)
def test_settings_that_cannot_be_composed_fail_their_own_job_alone(sweep, tmp_path, monkeypatch, given, reason):
    monkeypatch.chdir(tmp_path)
    seen = []
    status, rows, _, err = sweep(given, "run_dir=s", job=seen.append)
    if not rows:  # refused before the sweep, in one line
        assert given.startswith("optimizer") and isinstance(status, str) and reason in status
        return
    told = last_words(rows, "s") if "s/1" in rows[1] else [rows[0].split()[-1], rows[1]]
    assert status == 1 and len(seen) == 1 and told[0] == "done"
    assert "FAILED: " in rows[1] and reason in rows[1] and "Traceback" not in err


def test_a_key_that_no_job_knows_is_told_for_each(sweep, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, rows, *_ = sweep("model.width=8,16", "model.widht=3", "run_dir=s", job=print)
    assert (status, len(rows)) == (1, 2) or "widht" in str(status)
    assert all("model.widht" in row and "model.width" in row for row in rows)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("swallowed", [False, True])
def test_a_signal_stops_the_whole_sweep(sweep, usual_handlers, tmp_path, monkeypatch, number, status, swallowed):
    monkeypatch.chdir(tmp_path)
    before, seen = usual_handlers[number], []

    def job(config):
        seen.append(config["model"]["width"])
        if len(seen) == 2:
            try:
                os.kill(os.getpid(), number)
            except (KeyboardInterrupt, SystemExit):  # as Lightning does, which leaves with status 1
                if not swallowed:
                    raise
                signal.signal(number, signal.SIG_IGN)
                sys.exit(1)

    left, rows, _, err = sweep("model.width=8,16,24,32", "run_dir=s", job=job)
    assert (left, seen) == (status, [8, 16])
    assert [row.split()[1] for row in rows] == [f"model.width={width}" for width in (8, 16, 24, 32)]
    assert rows[0].endswith("done") and rows[2].endswith("never ran") and rows[3].endswith("never ran")
    name = signal.Signals(number).name
    assert rows[1].endswith(f"stopped by {name}")
    assert f"stopped by {name}, 2 of 4 jobs never ran" in err.splitlines()[-1]
    assert signal.getsignal(number) is before


def test_other_commands_sweep_as_well(sweep, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    splits = []

    def job(config):
        splits.append((config["split"], Path(config["output"]).name))
        if config["split"] == "test":
            raise DataError("no split 'test'")

    status, rows, _, err = sweep(
        "split=test,val",
        "data=scenes",
        "checkpoint=x.ckpt",
        "output=o",
        job=job,
        name="evaluate",
        schema=EvaluateConfig,
    )
    assert status == 1 and splits == [("test", "0"), ("val", "1")]
    assert last_words(rows, "o") == ["FAILED: no split 'test'", "done"] and "resume" not in err
    assert [row.split()[1] for row in rows] == ["split=test", "split=val"]


def test_a_folder_that_cannot_be_made(sweep, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    status, rows, _, _ = sweep("model.width=8,16", "run_dir=file", job=print)
    assert not rows and "cannot create the folder 'file'" in str(status)
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "1").write_text("")
    status, rows, _, err = sweep("model.width=8,16", "run_dir=s", job=lambda config: None)
    assert status == 1 and "Traceback" not in err
    assert last_words(rows, "s")[0] == "done" and "FAILED: cannot create the folder 's/1'" in rows[1]


def test_a_job_leaves_nothing_behind_in_the_process(sweep, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = []

    def job(config):
        state = {
            "precision": torch.get_float32_matmul_precision(),
            "type": torch.get_default_dtype(),
            "gradient": torch.is_grad_enabled(),
            "anomaly": torch.is_anomaly_enabled(),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "threads": torch.get_num_threads(),
            "benchmark": torch.backends.cudnn.benchmark,
            "folder": os.getcwd(),
            "environment": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
            "filters": len(warnings.filters),
            "path": len(sys.path),
            "drawn": float(torch.rand(())),
        }
        found.append(state)
        torch.set_float32_matmul_precision("medium")
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        torch.autograd.set_detect_anomaly(True)
        torch.use_deterministic_algorithms(True)
        torch.set_num_threads(torch.get_num_threads() + 1)
        torch.backends.cudnn.benchmark = True
        os.chdir(tmp_path.parent)
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        warnings.simplefilter("ignore")
        sys.path.insert(0, "x")
        raise RuntimeError("breaks")

    status, rows, *_ = sweep("model.width=8,16,24", "run_dir=s", job=job)
    assert status == 1 and len(found) == 3 and found[0] == found[1] == found[2]
    assert len(rows) == 3


def nan_at_width_8(monkeypatch):
    """The first step of a run of width 8 has no finite loss."""
    original = CaptioningTask.training_step

    def step(self, batch, index):
        if self.metadata["config"]["model"]["width"] == 8:
            with torch.no_grad():
                next(self.captioner.parameters()).fill_(float("nan"))
        return original(self, batch, index)

    monkeypatch.setattr(CaptioningTask, "training_step", step)


def same_weights(one, other):
    ours, theirs = weights(one)["state_dict"], weights(other)["state_dict"]
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.slow
def test_a_job_after_a_diverging_one_is_the_job_alone_and_a_second_sweep_goes_on(sweep, data, tmp_path, monkeypatch):
    alone = tmp_path / "alone"
    run("train", *short(data, alone, "model.width=16", "trainer.max_epochs=2"))
    nan_at_width_8(monkeypatch)
    folder = tmp_path / "s"
    given = short(data, folder, "model.width=8,-1,16", "trainer.max_epochs=2")
    given.remove("model.width=32")
    status, rows, *_ = sweep(*given, job=train)
    assert status == 1
    told = last_words(rows, folder)
    assert told[0].startswith("FAILED: step 0: train/") and "nan" in told[0]
    assert told[1:] == ["FAILED: model.width must be at least 1, not -1", "done"]
    assert same_weights(folder / "2", alone)
    assert (folder / "2" / "metrics.csv").read_text().split("\n")[0]

    monkeypatch.undo()  # what made it diverge is mended
    kept = {path: path.read_bytes() for path in (folder / "2").rglob("*") if path.is_file()}
    status, rows, out, _ = sweep(*given, "resume=auto", job=train)
    told = last_words(rows, folder)
    assert status == 1 and told[0] == "done" and told[2] == "skipped, already finished"
    assert f"{folder}/0 failed earlier and starts again from the beginning (reason: step 0: train/" in out
    assert kept == {path: path.read_bytes() for path in (folder / "2").rglob("*") if path.is_file()}
    assert weights(folder / "0")["global_step"] == 4

    longer = [*given, "trainer.max_epochs=3"]
    status, rows, *_ = sweep(*longer, "resume=auto", job=train)
    assert last_words(rows, folder)[2] == "done" and weights(folder / "2")["global_step"] == 6
    assert json.loads((folder / "2" / "outcome.json").read_text())["why"] == "all 3 epochs are done"


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_in_the_second_sweep(sweep, data, tmp_path, monkeypatch):
    original, steps = CaptioningTask.training_step, []

    def step(self, batch, index):
        steps.append(index)
        if len(steps) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, batch, index)

    monkeypatch.setattr(CaptioningTask, "training_step", step)
    folder = tmp_path / "s"
    given = [*short(data, folder, "trainer.max_epochs=2"), "seed=0,1"]
    status, rows, *_ = sweep(*given, job=train)
    assert status == 143 and [row.split("  ")[-1].strip() for row in rows] == ["stopped by SIGTERM", "never ran"]
    assert not (folder / "0" / "outcome.json").exists()
    status, rows, *_ = sweep(*given, "resume=auto", job=train)
    assert status == 0 and last_words(rows, folder) == ["done", "done"] and len(steps) == 8
    status, rows, *_ = sweep(*given, "resume=auto", job=train)
    assert status == 0 and last_words(rows, folder) == ["skipped, already finished"] * 2
