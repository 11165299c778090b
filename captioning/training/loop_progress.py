"""Save and restore the position inside Lightning's training loops.

Lightning saves the counters of its loops in the middle of whichever hook saves. On loading, it guesses from them where
that was. In Lightning 2.6 the guess is wrong twice: a run with `max_steps` gets one epoch too many, and a run that was
stopped right before a validation skips it. So checkpoints contain an explicit position.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Position:
    """A position in a run, between two steps.

    Attributes:
        epoch: number of finished epochs.
        batches: number of finished training batches of the current epoch.
        total: number of finished training batches of all epochs together.
        validate: whether a validation comes before the next batch.
    """

    epoch: int
    batches: int
    total: int
    validate: bool


def position(trainer) -> Position:
    """Return the position of the next step; batches whose gradient is not applied yet count as not done."""
    epochs, batches = trainer.fit_loop.epoch_progress.current, trainer.fit_loop.epoch_loop.batch_progress
    if epochs.processed == epochs.ready:  # at an epoch's end
        return Position(epochs.processed, 0, batches.total.completed, False)
    done = batches.current.completed
    pending = 0 if trainer.validating else done % trainer.accumulate_grad_batches
    return Position(epochs.processed, done - pending, batches.total.completed - pending, trainer.validating)


def go_to(trainer, place: Position, loops: dict[str, Any]) -> None:
    """Set the counters of Lightning's loops, so that the run continues at a position as if it had never stopped.

    Args:
        trainer: the trainer whose loops are set.
        place: the position from the checkpoint.
        loops: the state of the fit loop that Lightning saved in the same checkpoint; it has the optimizer's steps.
    """
    fit = trainer.fit_loop
    loop, validation = fit.epoch_loop, fit.epoch_loop.val_loop
    fit.load_state_dict(loops)
    inside = place.batches > 0 or place.validate
    for epochs in (fit.epoch_progress.total, fit.epoch_progress.current):
        epochs.ready = epochs.started = place.epoch + inside
        epochs.processed = epochs.completed = place.epoch
    for progress, done in ((loop.batch_progress.total, place.total), (loop.batch_progress.current, place.batches)):
        progress.ready = progress.started = progress.processed = progress.completed = done
    loop.batch_progress.is_last_batch = False
    validation.batch_progress.reset()
    steps = loop.global_step
    loop._batches_that_stepped = steps - place.validate  # a validation is logged under the step before it
    if inside:
        if place.validate:  # Lightning takes this for an interrupted validation
            validation.batch_progress.total.ready = validation.batch_progress.total.started = 1
        fit.restarting = True
    else:
        for each in (fit, loop, validation, loop.automatic_optimization):
            each.on_iteration_done()  # no loop was interrupted
    trainer.datamodule.start_at(place.epoch, place.batches)
