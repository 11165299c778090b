"""Runs that stay near their start: `objective.kl` through a kill and an export, and `train_only`."""

import pytest
import torch
from small_world import rows, run, run_until_killed, short, weights

from captioning.errors import ConfigError
from captioning.inference import load
from captioning.training.freezing import train_only

KL = ["objective=self_critical", "objective.kl=0.1", "trainer.log_every_n_steps=1", "optimizer.lr=0.01"]
PREFIX = "objective.start_model.model."


@pytest.fixture(scope="module")
def soft(data, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("soft")
    run("train", *short(data, run_dir, "trainer.max_epochs=2", "trainer.log_every_n_steps=1"))
    return run_dir


def test_a_killed_run_compares_with_the_same_start(soft, data, tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    arguments = [*KL, f"start_from={soft}/checkpoints/last.ckpt", "trainer.max_epochs=3"]
    run("train", *short(data, whole, *arguments))
    # An epoch has 2 steps: it is killed in the second epoch.
    run_until_killed(monkeypatch, *short(data, broken, *arguments), calls=4)
    run("train", *short(data, broken, *arguments, f"resume={broken}/checkpoints/last.ckpt"))
    first, second, start = (weights(folder)["state_dict"] for folder in (whole, broken, soft))
    assert first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())
    kept = {name.removeprefix(PREFIX): value for name, value in second.items() if name.startswith(PREFIX)}
    assert kept and all(torch.equal(value, start[f"captioner.{name}"]) for name, value in kept.items())
    name = "captioner.decoder.embedding.weight"
    assert (second[name] - start[name]).abs().max() > 1e-3
    divergences = [float(row["train/kl"]) for row in rows(whole) if row["train/kl"]]
    assert [float(row["train/kl"]) for row in rows(broken) if row["train/kl"]] == divergences
    assert divergences[-1] > 0.01
    last = load(broken / "checkpoints" / "last.ckpt")
    assert not any("start_model" in name for name in last.captioner.state_dict())


def test_a_divergence_without_a_start_is_refused_before_training(data, tmp_path):
    with pytest.raises(ConfigError, match=r"objective\.kl compares .*: add start_from=CHECKPOINT"):
        run("train", *short(data, tmp_path / "run", *KL))
    assert not (tmp_path / "run").exists()


def test_only_the_named_modules_are_trained(soft, data, tmp_path, capsys):
    arguments = [f"start_from={soft}/checkpoints/last.ckpt", "trainer.max_epochs=1", "weight_averaging=ema"]
    capsys.readouterr()
    run("train", *short(data, tmp_path, *arguments, "train_only=[decoder.readout,decoder.embedding]"))
    before, after = weights(soft)["state_dict"], weights(tmp_path)["state_dict"]
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    trained = ("captioner.decoder.readout.", "captioner.decoder.embedding.")
    parameters = {name for name in before if name.startswith(trained)}
    assert changed & parameters and not {name for name in changed - parameters if "vector" not in name}
    count = sum(before[name].numel() for name in parameters)
    assert f"model: {count:,} trainable weights" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["decoder.readuot"], r"train_only: the model has no module 'decoder\.readuot' \(nearest: decoder\.readout"),
        ([""], r"train_only: the model has no module ''"),
        (["encoder"], r"train_only: the model has no module 'encoder'.*\. Name some of: .*decoder\.readout"),
        (["decoder.readout.dropout"], r"train_only: decoder\.readout\.dropout has nothing to train"),
        ([], r"train_only is an empty list: name modules to train, or set train_only=null"),
    ],
)
def test_wrong_names_of_modules(toy, names, told):
    model = toy()
    with pytest.raises(ConfigError, match=told):
        train_only(model, names)
    assert all(parameter.requires_grad for parameter in model.parameters())
