"""What a user can get wrong in a training: one line that names the key, before any feature is made, nothing lost."""

import pytest
from test_path import data, run, short, world  # noqa: F401

import captioning.sources
from captioning.errors import CaptioningError, ConfigError


@pytest.fixture
def before_features(data, tmp_path, monkeypatch):  # noqa: F811
    """refused(*overrides) -> what training says; it must say it before a picture is looked at, and leave nothing."""

    def extract(*_, **__):
        raise AssertionError("features are being made")

    monkeypatch.setattr(captioning.sources, "extract", extract)

    def refused(*overrides: str) -> str:
        root, run_dir = f"features.root={tmp_path}/no features", tmp_path / "run"
        with pytest.raises(CaptioningError) as caught:
            run("train", *short(data, run_dir), root, *overrides)
        assert not run_dir.exists()
        return str(caught.value)

    return refused


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (["encoder.output=fc"], "model/attention=soft looks over a grid"),
        (["model/readout=sum"], "set model.feature_width=32"),
        (["objective=self_critical", "objective.places.scale=1", "reward.cider_d=0"], "a reward needs a weight"),
        (["objective=scheduled_sampling", "objective.inputs.every=0"], "objective.inputs"),
        (["decoding=beam", "decoding.n_best=9"], "decoding.n_best (9)"),
        (["decoding.max_length=0"], "decoding.max_length (0)"),
        (["optimizer.betas=[2.0,0.9]"], "optimizer: Invalid beta"),
        (["trainer.precision=7"], "trainer: "),
        (["data.min_count=100"], "data.min_count"),
    ],
)
def test_a_part_that_cannot_be_is_told_before_the_features(before_features, fault, told):
    assert told in before_features(*fault)
