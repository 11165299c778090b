"""Test the arguments of objectives: their defaults, which the configurations repeat, and values out of range."""

import inspect

import pytest
import torch
import yaml

from captioning.errors import ConfigError
from captioning.objectives import (
    AnswerCrossEntropy,
    CrossEntropy,
    LeaveOneOut,
    MovingAverage,
    Reinforce,
    ScheduledSampling,
    SelfCritical,
    greedy,
    leave_one_out,
)

REINFORCE = {"scale": 0.1, "entropy": 0.002, "reward_to_go": False}
CROSS_ENTROPY = {"doubly_stochastic": 1.0, "label_smoothing": 0.0, "teacher_share": 0.5}
SAMPLING = {"start": 0, "every": 1000, "increase": 0.05, "maximum": 0.25}
SELF_CRITICAL = {"samples": 5, "max_length": None, "doubly_stochastic": 1.0, "label_smoothing": 0.0, "kl": 0.0}
DEFAULTS = {
    AnswerCrossEntropy: {"location_loss": None},
    CrossEntropy: CROSS_ENTROPY | {"location_loss": None, "inputs": None, "teacher": None},
    LeaveOneOut: {"samples": 2},
    MovingAverage: {"decay": 0.9},
    Reinforce: REINFORCE | {"baseline": None},
    ScheduledSampling: SAMPLING,
    SelfCritical: SELF_CRITICAL | {"forbidden": (), "baseline": None, "location_loss": None},
}


@pytest.mark.parametrize("kind", DEFAULTS, ids=lambda kind: kind.__name__)
def test_defaults(kind):
    parameters = inspect.signature(kind).parameters.values()
    found = {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}
    assert found == DEFAULTS[kind]


def test_configurations_repeat_the_defaults(pytestconfig):
    def read(name):
        return yaml.safe_load((pytestconfig.rootpath / "conf" / "objective" / f"{name}.yaml").read_text("utf-8"))

    reinforce = {"_target_": "captioning.objectives.Reinforce"} | REINFORCE
    for name, settings in {"cross_entropy": read("cross_entropy"), "self": read("self_critical")["objective"]}.items():
        expected = SELF_CRITICAL if name == "self" else CROSS_ENTROPY
        assert {key: settings[key] for key in expected} == expected
        assert {key: settings["location_loss"][key] for key in reinforce if key in settings["location_loss"]} == {
            key: value for key, value in reinforce.items() if name != "self" or key != "reward_to_go"
        }
    assert read("answers")["location_loss"] == reinforce
    inputs = read("scheduled_sampling")["inputs"]
    assert inputs == {"_target_": "captioning.objectives.ScheduledSampling"} | SAMPLING
    for name, settings in {"moving_average": {"decay": 0.9}, "leave_one_out": {"samples": 2}}.items():
        own = read(f"location_loss/baseline/{name}")
        assert settings.items() <= own.items()


def make_self_critical(**settings):
    return SelfCritical(len, start=1, end=2, **{"samples": 3} | settings)


REFUSED = [  # (constructor, argument, allowed values at its bounds, refused values beyond them)
    (CrossEntropy, "teacher_share", [0, 1], [-0.001, 1.001]),
    (CrossEntropy, "doubly_stochastic", [0, 1e9], [-0.001]),
    (CrossEntropy, "label_smoothing", [0, 0.999], [-0.001, 1.0]),
    (Reinforce, "scale", [0, 1e9], [-0.001]),
    (Reinforce, "entropy", [0, 1e9], [-0.001]),
    (MovingAverage, "decay", [0, 1], [-0.001, 1.001]),
    (LeaveOneOut, "samples", [2, 100], [1, 0, -1]),
    (ScheduledSampling, "every", [1, 10**9], [0, -1]),
    (ScheduledSampling, "increase", [0, 1], [-0.001]),
    (ScheduledSampling, "maximum", [0, 1], [-0.001, 1.001]),
    (make_self_critical, "max_length", [1, 100], [0, -1]),
    (make_self_critical, "samples", [2, 100], [1, 0, -1]),
    (lambda **settings: make_self_critical(baseline=greedy, **settings), "samples", [1, 100], [0, -1]),
    (make_self_critical, "doubly_stochastic", [0, 1e9], [-0.001]),
    (make_self_critical, "label_smoothing", [0, 0.999], [-0.001, 1.0]),
    (make_self_critical, "kl", [0, 10.0], [-0.001]),
]


@pytest.mark.parametrize(("make", "name", "allowed", "refused"), REFUSED)
def test_a_value_that_cannot_be_is_refused_by_its_name(make, name, allowed, refused):
    for value in allowed:
        make(**{name: value})
    for value in refused:
        with pytest.raises(ConfigError, match=rf"objective\.(\w+\.)*{name}"):
            make(**{name: value})


def test_parts_that_are_left_out():
    for objective in (CrossEntropy(), AnswerCrossEntropy(), make_self_critical()):
        assert isinstance(objective.location_loss, Reinforce)
        assert isinstance(objective.location_loss.baseline, MovingAverage)
    assert make_self_critical().baseline is leave_one_out and make_self_critical(baseline=greedy).baseline is greedy
    assert make_self_critical(forbidden=[0, 1]).forbidden == (0, 1)
    assert [each.of_task for each in (CrossEntropy, SelfCritical)] == ["image_captioning"] * 2
    assert AnswerCrossEntropy.of_task == "vqa"


def test_what_is_remembered_travels_in_checkpoints():
    assert MovingAverage().state_dict() == {"value": torch.zeros(())}
    sampling = ScheduledSampling().state_dict()
    assert sampling == {"batches": torch.zeros(())} and sampling["batches"].dtype == torch.int64
    assert list(CrossEntropy(inputs=ScheduledSampling()).state_dict()) == [
        "location_loss.baseline.value",
        "inputs.batches",
    ]
    assert not LeaveOneOut().state_dict()
