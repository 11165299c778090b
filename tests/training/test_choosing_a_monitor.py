"""What a run goes by, and what it says of an early stop, from the states that Lightning's callbacks hold."""

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks.early_stopping import EarlyStopping

from captioning.training.monitor import choose_monitor, stopped_early


def parts(fault: str = ""):
    return SimpleNamespace(monitor="val/score", mode="max", monitor_fault=lambda: fault)


def test_the_score_unless_it_cannot_work():
    assert choose_monitor(parts(), None) == ("val/score", "max")
    assert choose_monitor(parts("too few images"), None) == ("val/loss", "min")
    assert choose_monitor(parts("too few images"), {}) == ("val/loss", "min")


@pytest.mark.parametrize("fault", ["", "too few images"])
def test_a_resumed_run_keeps_its_own(fault):
    for had, expected in (("val/score", ("val/score", "max")), ("val/loss", ("val/loss", "min"))):
        states = {"a": {"monitor": None}, "b": {"x": 1}, "c": 3, "d": {"monitor": had}}
        assert choose_monitor(parts(fault), {"callbacks": states}) == expected
    other = {"callbacks": {"a": {"monitor": "val/other"}}}
    assert choose_monitor(parts(fault), other) == choose_monitor(parts(fault), None)


def trainer(callbacks, *, mode="min", epoch=5, max_epochs=30, rows=None):
    best = SimpleNamespace(monitor="val/loss", mode=mode)
    return SimpleNamespace(
        early_stopping_callbacks=callbacks,
        checkpoint_callbacks=[best, SimpleNamespace(monitor="other", mode="max")],
        loggers=[SimpleNamespace(rows=rows or {}), SimpleNamespace(rows=None)],
        current_epoch=epoch,
        max_epochs=max_epochs,
    )


def stopped(scores, *, patience=2, **options):
    """A callback that has seen these losses."""
    callback = EarlyStopping("val/loss", patience=patience, **options)
    strategy = SimpleNamespace(reduce_boolean_decision=lambda decision, all: decision)
    for score in scores:
        seen = SimpleNamespace(
            callback_metrics={"val/loss": torch.tensor(score)},
            fast_dev_run=False,
            strategy=strategy,
            should_stop=False,
            world_size=1,
            global_rank=0,
            current_epoch=0,
        )
        callback._run_early_stopping_check(seen)
    return callback


def test_patience_is_told_with_the_best_score_and_its_epoch():
    losses = {step: {"epoch": str(epoch), "val/loss": loss} for step, epoch, loss in ((3, 0, "5"), (6, 1, "3"))}
    rows = {1: {"epoch": "0", "train/loss": "1"}, 2: {"epoch": "", "val/loss": "1"}, 4: {"epoch": "7", "val/loss": ""}}
    rows |= losses | {9: {"epoch": "2", "val/loss": "4"}, 12: {"epoch": "3", "val/loss": "10"}}
    found = stopped_early(trainer([stopped([5.0, 3.0, 4.0, 10.0])], rows=rows, epoch=4))
    assert found == (
        "early stopping ended the run after epoch 4 of at most 30: val/loss did not improve on 3.000 (epoch 2) in "
        "the last 2 validations (early_stopping.patience=2)"
    )
    highest = stopped_early(trainer([stopped([5.0, 3.0, 4.0, 10.0])], rows=rows, mode="max"))
    assert "(epoch 4)" in highest
    assert "after epoch 5 of at most 1: " in stopped_early(trainer([stopped([3.0, 4.0], patience=1)], max_epochs=1))
    once = stopped_early(trainer([stopped([3.0, 4.0], patience=1)], max_epochs=-1))
    assert once == (
        "early stopping ended the run after epoch 5: val/loss did not improve on 3.000 in the last 1 validation "
        "(early_stopping.patience=1)"
    )


def test_what_is_not_finite_is_told_in_lightnings_words():
    found = stopped_early(trainer([stopped([float("nan")])], max_epochs=None))
    assert found.startswith(
        "early stopping ended the run after epoch 5: Monitored metric val/loss = nan is not finite."
    )
    assert "Signaling" not in found and "\n" not in found


def test_a_run_that_did_not_stop_early_says_nothing():
    assert stopped_early(trainer([])) == stopped_early(trainer([stopped([3.0, 4.0])])) == ""
    resumed = stopped([3.0, 4.0, 5.0])
    resumed.patience = 3  # the run goes on with more patience
    assert stopped_early(trainer([resumed])) == ""
    waiting = stopped([3.0])
    waiting.wait_count = 9  # of a checkpoint
    assert stopped_early(trainer([waiting])) == ""
    assert stopped_early(trainer([resumed, stopped([1.0, 2.0, 2.0])])).count("on 1.000") == 1
