"""Gradient accumulation: where a validation may come, and that a left-out batch leaves nothing."""

import pytest
import torch
from processes import ByRow, Case, train
from small_world import run, short, weights
from toys import END, PAD, START

from captioning.data import CaptionBatch
from captioning.errors import ConfigError
from captioning.objectives import CrossEntropy, MovingAverage, Reinforce

SETTINGS = [
    "trainer.max_epochs=3", "trainer.log_every_n_steps=1", "loader.batch_size=2", "trainer.accumulate_grad_batches=2",
    "model/vector=standardized", "model/attention=hard", "objective=scheduled_sampling", "objective.inputs.every=2",
]  # fmt: skip


@pytest.mark.parametrize(
    ("interval", "more", "fits"),
    [
        ("1", [], False),
        ("3", [], False),
        ("2", [], True),
        ("4", [], True),  # the epoch's end
        ("0.5", [], True),
        ("0.25", [], False),
        ("1.0", [], True),
        ("6", ["trainer.check_val_every_n_epoch=null"], True),
        ("3", ["trainer.check_val_every_n_epoch=null"], False),
        ("6", ["trainer.limit_train_batches=3", "trainer.check_val_every_n_epoch=null"], True),  # every second epoch
        ("2", ["trainer.limit_train_batches=3", "trainer.check_val_every_n_epoch=null"], False),  # of epochs of 3
    ],
)
def test_a_validation_inside_a_step_is_refused(data, tmp_path, interval, more, fits):
    given = [
        *SETTINGS,
        f"+trainer.val_check_interval={interval}",
        *more,
        "trainer.max_epochs=-1",
        "trainer.max_steps=1",
    ]
    if fits:
        run("train", *short(data, tmp_path, *given))
        assert weights(tmp_path)["global_step"] == 1
    else:
        with pytest.raises(
            ConfigError,
            match=r"trainer\.val_check_interval puts a validation between two batches of one .* multiple of",
        ):
            run("train", *short(data, tmp_path, *given))


def batch(seed: int) -> CaptionBatch:
    random = torch.Generator().manual_seed(seed)
    images = torch.randn(2, 4, 6, dtype=torch.float64, generator=random)
    tokens = torch.tensor([[[START, 5, END, PAD]], [[START, 4 + seed, 6, END]]])
    return CaptionBatch(torch.arange(2), images, None, tokens)


def make(toy) -> Case:
    torch.manual_seed(3)
    model = toy(attention="hard", conditioning="first_step", dropout=0.0)
    model.decoder.attention.draw = ByRow()
    objective = CrossEntropy(location_loss=Reinforce(scale=1.0, baseline=MovingAverage())).double()
    return Case(model.train(), objective, [])


def test_a_validation_by_the_clock_is_refused(data, tmp_path):
    """It would come elsewhere in a run that goes on."""
    with pytest.raises(ConfigError, match=r"trainer\.val_check_interval"):
        run("train", *short(data, tmp_path, "+trainer.val_check_interval={seconds: 1}"))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_batch_that_is_left_out_leaves_nothing(toy, tmp_path, accumulate):
    """Neither in the gradient nor in the moving average, which a return that is not a number would spoil for ever."""
    good = [batch(seed) for seed in range(4)]
    spoiled = batch(4)._replace(images=torch.full((2, 4, 6), float("nan"), dtype=torch.float64))
    among = [good[0], good[1], spoiled, good[2], good[3]] if accumulate == 1 else [good[0], good[1], spoiled, good[2]]
    without = good if accumulate == 1 else good[:3]
    expected = train(make(toy), without, tmp_path, accumulate=accumulate)
    found = train(make(toy), among, tmp_path, accumulate=accumulate, skip_nonfinite=1)
    assert found["objective.location_loss.baseline.value"].isfinite()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-15, msg=name)


def test_a_step_of_left_out_batches_alone_moves_nothing(toy, tmp_path):
    """Nor does the momentum of the optimizer."""
    good, spoiled = [batch(seed) for seed in range(4)], batch(4)
    spoiled = spoiled._replace(images=torch.full_like(spoiled.images, float("nan")))
    expected = train(make(toy), good, tmp_path, accumulate=2)
    among = [*good[:2], spoiled, spoiled, *good[2:]]
    found = train(make(toy), among, tmp_path, accumulate=2, skip_nonfinite=2)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-15, msg=name)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_whose_gradient_is_not_finite_leaves_nothing(toy, tmp_path, accumulate):
    class Breaks(CrossEntropy):
        """Its second batch has a finite loss, but an infinite derivative."""

        def forward(self, model, batch):
            loss = super().forward(model, batch)
            self.calls = getattr(self, "calls", 0) + 1
            if self.calls != self.at:
                return loss
            bad = model.decoder.embedding.weight[1].sum()
            return loss._replace(total=loss.total + (bad - bad.detach()).abs().sqrt())

    good = [batch(seed) for seed in range(4)]
    expected = train(make(toy), good, tmp_path, accumulate=accumulate)
    case = make(toy)
    case.objective.__class__, case.objective.at = Breaks, 3
    among = good[:2] + [batch(5), batch(6)][:accumulate] + good[2:]  # the step after the first two batches
    found = train(case, among, tmp_path, accumulate=accumulate, skip_nonfinite=1)
    assert case.objective.calls == len(among)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-15, msg=name)


def test_after_training_every_forward_pass_is_a_step_again(toy, tmp_path):
    case = make(toy)
    train(case, [batch(0)], tmp_path)
    before = float(case.objective.location_loss.baseline.value)
    case.objective.train()(case.model.train(), batch(1))
    assert float(case.objective.location_loss.baseline.value) != before
