"""The position of a run between two steps: read from the counters of Lightning, and each counter as it is set again."""

from types import SimpleNamespace

import pytest
from lightning.pytorch.loops.progress import _BatchProgress, _Progress

from captioning.training.loop_progress import Position, go_to, position


def trainer_at(*, epochs=(3, 3), batches=0, total=0, validating=False, accumulated=1):
    """epochs: ready and processed. batches: done of the epoch. total: done of the run."""
    ready, processed = epochs
    loop = SimpleNamespace(batch_progress=_BatchProgress())
    loop.batch_progress.current.completed, loop.batch_progress.total.completed = batches, total
    # Counters that say something else, so that reading the wrong one shows.
    loop.batch_progress.current.ready = loop.batch_progress.total.ready = 1001
    loop.batch_progress.current.processed = loop.batch_progress.total.processed = 1002
    progress = _Progress()
    progress.current.ready, progress.current.processed = ready, processed
    progress.current.completed = progress.current.started = progress.total.processed = progress.total.ready = 1003
    fit = SimpleNamespace(epoch_progress=progress, epoch_loop=loop)
    return SimpleNamespace(fit_loop=fit, validating=validating, accumulate_grad_batches=accumulated)


def test_at_the_end_of_an_epoch():
    assert position(trainer_at(epochs=(3, 3), batches=7, total=21, accumulated=4)) == Position(3, 0, 21, False)
    assert position(trainer_at(epochs=(0, 0))) == Position(0, 0, 0, False)


@pytest.mark.parametrize(("done", "applied"), [(4, 4), (5, 4), (6, 4), (7, 4), (8, 8)])
def test_batches_whose_gradient_was_not_applied_are_to_be_done_again(done, applied):
    trainer = trainer_at(epochs=(3, 2), batches=done, total=20 + done, accumulated=4)
    assert position(trainer) == Position(2, applied, 20 + applied, False)


def test_in_a_validation_all_batches_are_applied():
    trainer = trainer_at(epochs=(3, 2), batches=7, total=27, accumulated=4, validating=True)
    assert position(trainer) == Position(2, 7, 27, True)


class Recorded(SimpleNamespace):
    def on_iteration_done(self):
        self.done = True


def fresh(global_step: int):
    optimization = Recorded(done=False)
    validation = Recorded(done=False, batch_progress=_BatchProgress())
    validation.batch_progress.total.ready = validation.batch_progress.current.ready = 99
    loop = Recorded(done=False, batch_progress=_BatchProgress(), val_loop=validation, global_step=global_step)
    loop.automatic_optimization, loop.batch_progress.is_last_batch = optimization, True
    fit = Recorded(done=False, epoch_progress=_Progress(), epoch_loop=loop, restarting=False, loaded=None)
    fit.load_state_dict = lambda loops: setattr(fit, "loaded", loops)
    module = SimpleNamespace(started=None)
    module.start_at = lambda *place: setattr(module, "started", place)
    return SimpleNamespace(fit_loop=fit, datamodule=module), fit, loop, validation


def counters(progress) -> tuple[int, int, int, int]:
    return progress.ready, progress.started, progress.processed, progress.completed


@pytest.mark.parametrize(
    ("place", "ready", "stepped", "restarting", "validation_ready"),
    [
        (Position(2, 5, 25, False), 3, 40, True, 0),
        (Position(2, 1, 21, False), 3, 40, True, 0),
        (Position(2, 0, 20, False), 2, 40, False, 0),
        (Position(2, 0, 20, True), 3, 39, True, 1),
        (Position(2, 5, 25, True), 3, 39, True, 1),
    ],
)
def test_every_counter_is_as_if_the_run_had_come_there(place, ready, stepped, restarting, validation_ready):
    trainer, fit, loop, validation = fresh(global_step=40)
    go_to(trainer, place, {"the": "loops"})
    assert fit.loaded == {"the": "loops"}
    for epochs in (fit.epoch_progress.total, fit.epoch_progress.current):
        assert counters(epochs) == (ready, ready, 2, 2)
    assert counters(loop.batch_progress.total) == (place.total,) * 4
    assert counters(loop.batch_progress.current) == (place.batches,) * 4
    assert loop.batch_progress.is_last_batch is False
    assert loop._batches_that_stepped == stepped
    assert fit.restarting is restarting
    started = (validation_ready, validation_ready, 0, 0)
    assert counters(validation.batch_progress.total) == started or not restarting
    assert validation.batch_progress.current.ready == 0
    done = [part.done for part in (fit, loop, validation, loop.automatic_optimization)]
    assert done == [not restarting] * 4
    assert trainer.datamodule.started == (2, place.batches)
