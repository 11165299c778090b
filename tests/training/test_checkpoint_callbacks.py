"""When last.ckpt is saved between steps, when a run leaves, and what a moved checkpoint says of its best score."""

import signal
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import WeightAveraging

from captioning.training import Checkpoint, SaveBetweenSteps, callbacks
from captioning.training.callbacks import WholeFiles


class Trainer(SimpleNamespace):
    """What the callback reads of a trainer; `others` is what other processes decide."""

    def __init__(self, *, completed=0, accumulated=1, minutes=None, others=(False, False), **options):
        progress = SimpleNamespace(current=SimpleNamespace(completed=completed))
        loop = SimpleNamespace(batch_progress=progress, _batches_that_stepped=99)
        self.fit_loop, self.accumulate_grad_batches = SimpleNamespace(epoch_loop=loop), accumulated
        self.save_every_minutes, self.global_step, self.saved, self.others = minutes, 17, [], list(others)
        self.world_size, self.sanity_checking, self.callbacks = 1, False, []
        self.received_sigterm, self.is_global_zero, self.asked = False, True, []
        self.strategy = SimpleNamespace(reduce_boolean_decision=self.reduced)
        super().__init__(**options)

    def reduced(self, decision, all=True):
        self.asked.append(decision)
        assert all is False  # one process is enough
        return decision or self.others.pop(0)

    def save_checkpoint(self, path):
        self.saved.append(path)


@pytest.fixture
def clock(monkeypatch):
    """The seconds that the callback reads."""
    time = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(callbacks, "perf_counter", lambda: time.now)
    return time


@pytest.fixture
def save(tmp_path, clock):
    callback = SaveBetweenSteps(tmp_path / "run" / "checkpoints" / "last.ckpt")
    callback.stop.listen = lambda slurm=False: None
    callback.on_train_start(Trainer(), None)
    return callback


def test_a_save_is_due_after_so_many_minutes(save, clock):
    trainer = Trainer(minutes=2, others=[False] * 9)
    for seconds, saves in ((120, 0), (121, 1), (121 + 120, 1), (121 + 120.5, 2)):
        clock.now = 1000 + seconds
        save.on_train_batch_start(trainer, None, None, 0)
        assert trainer.saved == [save.path] * saves
    clock.now += 100
    save.on_train_epoch_end(trainer, None)  # saved elsewhere
    clock.now += 119
    save.on_train_batch_start(trainer, None, None, 0)
    assert len(trainer.saved) == 2
    clock.now += 2
    save.on_train_batch_start(trainer, None, None, 0)
    assert len(trainer.saved) == 3
    assert trainer.fit_loop.epoch_loop._batches_that_stepped == 17


def test_without_minutes_no_save_is_due(save, clock):
    trainer = Trainer()
    clock.now += 1e9
    save.on_train_batch_start(trainer, None, None, 0)
    assert trainer.saved == [] and trainer.asked == [False]


@pytest.mark.parametrize(("completed", "asked"), [(0, 1), (1, 0), (3, 0), (4, 1), (6, 0), (8, 1)])
def test_nothing_is_saved_among_batches_of_one_step(save, clock, completed, asked):
    trainer = Trainer(minutes=1, completed=completed, accumulated=4)
    clock.now += 61
    save.on_train_batch_start(trainer, None, None, 0)
    assert len(trainer.saved) == asked and trainer.fit_loop.epoch_loop._batches_that_stepped == 17


def test_a_run_that_is_asked_to_stop_saves_and_says_how_to_go_on(save, capsys):
    save.stop.received, requeued = signal.SIGTERM, []
    save.stop.requeue = lambda: requeued.append(True)
    trainer = Trainer(others=[])
    with pytest.raises(SystemExit) as left:
        save.on_train_batch_start(trainer, None, None, 0)
    assert left.value.code == 143 and trainer.saved == [save.path] and trainer.asked == [True, True]
    run_dir = save.path.parents[1]
    assert capsys.readouterr().err == (
        f"stopped by SIGTERM before step 17. To resume, repeat the command with: resume={save.path} run_dir={run_dir}\n"
    )
    with pytest.raises(SystemExit):
        save.on_train_batch_start(Trainer(is_global_zero=False), None, None, 0)
    assert capsys.readouterr().err == "" and requeued == [True]


def test_processes_save_and_leave_together(save, capsys):
    trainer = Trainer(others=[True, False])  # another one's save is due
    save.on_train_batch_start(trainer, None, None, 0)
    assert trainer.saved == [save.path]
    trainer = Trainer(others=[True, True])  # another one was asked to stop
    with pytest.raises(SystemExit) as left:
        save.on_train_batch_start(trainer, None, None, 0)
    assert left.value.code == 1 and trainer.saved == [save.path] and trainer.asked == [False, False]
    assert capsys.readouterr().err == ""


class Average(WeightAveraging):
    def __init__(self):
        super().__init__()
        self.ended = []

    def on_validation_epoch_end(self, trainer, module):
        self.ended.append(len(trainer.saved))


def test_a_validation_is_left_with_the_models_own_weights(save):
    average = Average()
    options = {"callbacks": [object(), average]}
    save.on_validation_batch_start(Trainer(**options), None, None, 0)
    save.stop.received = signal.SIGINT
    for other in ({"world_size": 2}, {"sanity_checking": True}):
        trainer = Trainer(**options, **other)
        save.on_validation_batch_start(trainer, None, None, 0)
        assert trainer.saved == average.ended == []
    trainer = Trainer(**options)
    with pytest.raises(SystemExit) as left:
        save.on_validation_batch_start(trainer, None, None, 0)
    assert left.value.code == 130 and trainer.saved == [save.path] and average.ended == [0]


@pytest.mark.parametrize("slurm", [True, False])
def test_signals_are_taken_over_at_the_start(tmp_path, monkeypatch, clock, slurm):
    monkeypatch.setattr(callbacks.SLURMEnvironment, "detect", staticmethod(lambda: slurm))
    listened = []
    for earlier in (False, True):
        callback = SaveBetweenSteps(tmp_path / "last.ckpt")
        callback.stop.listen = lambda slurm=False: listened.append(slurm)
        callback.on_train_start(Trainer(received_sigterm=earlier), None)
        assert callback.stop.received == (signal.SIGTERM if earlier else None)
        assert callback.saved_at == 1000.0
    assert listened == [slurm, slurm]


def state(folder, **paths):
    return {
        "monitor": "val/loss",
        "best_model_score": torch.tensor(2.5),
        "best_model_path": "",
        "kth_best_model_path": "",
        "kth_value": torch.tensor(2.5),
        "last_model_path": "",
        "best_k_models": {},
        "dirpath": str(folder),
        "current_score": torch.tensor(3.5),
    } | paths


def test_a_moved_best_is_found_in_the_folder_of_the_run(tmp_path):
    checkpoint = Checkpoint(dirpath=tmp_path, monitor="val/loss", save_top_k=1)
    (tmp_path / "best.ckpt").touch()
    old = {"best_model_path": "/old/best.ckpt", "kth_best_model_path": "/old/best.ckpt"}
    models = {"/old/best.ckpt": torch.tensor(2.5), "/etc/passwd": torch.tensor(1.0)}
    checkpoint.load_state_dict(state("/old", **old, last_model_path="/old/last.ckpt", best_k_models=models))
    best = str(tmp_path / "best.ckpt")
    assert checkpoint.best_model_path == checkpoint.kth_best_model_path == best
    assert checkpoint.last_model_path == str(tmp_path / "last.ckpt")
    assert checkpoint.best_k_models == {best: 2.5}
    assert checkpoint.best_model_score == 2.5 and checkpoint.current_score == 3.5


@pytest.mark.parametrize("path", ["/old/gone.ckpt", "", None, "/etc/passwd"])
def test_a_best_that_is_not_there_is_not_gone_by(tmp_path, path):
    checkpoint = Checkpoint(dirpath=tmp_path, monitor="val/loss", save_top_k=1)
    with pytest.warns(UserWarning, match="The dirpath has changed"):
        checkpoint.load_state_dict(state("/old", best_model_path=path))
    assert checkpoint.best_model_score is None
    without = {name: value for name, value in state("/old").items() if name not in ("best_k_models", "current_score")}
    with pytest.warns(UserWarning, match="The dirpath has changed"):
        checkpoint.load_state_dict(without)
    assert checkpoint.current_score is None


def test_a_whole_file_in_a_folder_that_is_made_for_it(tmp_path):
    path = tmp_path / "a" / "b" / "x.ckpt"
    for value in (1, 2):
        WholeFiles().save_checkpoint({"value": value}, path)
    assert torch.load(path) == {"value": 2}
    assert [each.name for each in path.parent.iterdir()] == ["x.ckpt"]
