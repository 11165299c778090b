"""Save and restore the position inside Lightning's training loops.

Lightning saves its loops' counters as they are in the middle of whatever hook saves, and guesses from them on loading
where that was. Its guess takes a run of `max_steps` one epoch too far, and a run that was broken off before a
validation past it (both: Lightning 2.6). So the place is kept in words of its own.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Position:
    """epoch: epochs done. batches: training batches done of the one after them. total: of all epochs together.
    validate: whether a validation is due before the next batch."""

    epoch: int
    batches: int
    total: int
    validate: bool


def position(trainer) -> Position:
    """That of the step that comes next: batches whose gradient has not been applied yet are to be done again."""
    epochs, batches = trainer.fit_loop.epoch_progress.current, trainer.fit_loop.epoch_loop.batch_progress
    if epochs.processed == epochs.ready:  # at an epoch's end
        return Position(epochs.processed, 0, batches.total.completed, False)
    done = batches.current.completed
    pending = 0 if trainer.validating else done % trainer.accumulate_grad_batches
    return Position(epochs.processed, done - pending, batches.total.completed - pending, trainer.validating)


def go_to(trainer, place: Position, loops: dict[str, Any]) -> None:
    """Sets the loops' counters; the next epoch, validation or batch is then as if the run had come there by itself.

    Args:
        loops: the state of the fit loop that Lightning saved beside the position; the optimizer's steps are of it.
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
    loop._batches_that_stepped = steps - place.validate  # a validation is logged with the step before it
    if inside:
        if place.validate:  # what Lightning takes for a validation that was broken off
            validation.batch_progress.total.ready = validation.batch_progress.total.started = 1
        fit.restarting = True
    else:
        for each in (fit, loop, validation, loop.automatic_optimization):
            each.on_iteration_done()  # nothing is to be taken up
    trainer.datamodule.start_at(place.epoch, place.batches)
