"""Check a command of the documentation as the command line does, and say how to run it small.

`composed` reads, composes and checks a command's settings with the code of the real command line. `small` returns the
settings that make the command run on the miniature workspace in seconds on a CPU.
"""

import functools
import importlib
import inspect
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from captioning import pretrained
from captioning.config import check, commands, compose, plugins_allowed
from captioning.config.command_line import Command, hydra_arguments, read_command_line
from captioning.config.explanations import explain_error
from captioning.config.like import like_a_run
from captioning.config.typed_text import literal

PRINTING = ("--help", "--info", "--version", "--shell-completion", "--hydra-help")  # options that start no job
MOST_JOBS = 6  # of a sweep that are checked
MISSING = object()
TRAINER = ["max_epochs=1", "limit_train_batches=2", "limit_val_batches=2", "enable_progress_bar=false"]
TRAINER += ["accelerator=cpu", "devices=1", "num_nodes=1", "strategy=auto", "precision=32-true"]
CAPTIONER = ["model.width=16", "model.embedding_size=16", "loader.batch_size=4", "data.min_count=1"]
CAPTIONER += ["data.max_length=8"]  # captions by a model trained for two steps hardly ever end before it


def command_of(name: str) -> Command:
    """Return what the command line knows of a command, for example `train`."""
    main = importlib.import_module(f"captioning.{name.replace('-', '_')}").main
    return inspect.getclosurevars(main).nonlocals["command"]


def composed(name: str, arguments: Sequence[str]) -> list[dict[str, Any]]:
    """Return the checked settings of a command, one dictionary per job of a sweep; none for --help and the like.

    Raises:
        AssertionError: The command line refuses the settings; the message is what it prints.
    """
    command = command_of(name)
    try:
        line = read_command_line(arguments, command)
        given = hydra_arguments(line, command)
        if any(flag.startswith(PRINTING) for flag in line.flags):
            return []
        if likes := [each.partition("=")[2].strip("'") for each in given if each.startswith("like=")]:
            return [_alike(given, Path(likes[0]))]
        given = commands._arguments(given)
        folders = [each.partition("=")[2] for each in given if each.startswith("--config-dir=")]
        overrides = [each for each in given if not each.startswith("-")]
        if folders:
            paths = ",".join(literal(f"file://{os.path.abspath(each)}") for each in folders)
            overrides.append(f"hydra.searchpath=[{paths}]")
        return [_checked(command, tuple(job)) for job in jobs(overrides)]
    except commands.ERRORS as error:
        raise AssertionError(explain_error(error, command, arguments)) from error


def jobs(overrides: Sequence[str]) -> list[list[str]]:
    """Return the overrides of each job of a sweep, at most MOST_JOBS."""
    parsed = [OverridesParser.create().parse_override(each) for each in overrides]
    choices = [
        [f"{each.key_or_group}={value}" for value in each.sweep_string_iterator()]
        if each.is_sweep_override()
        else [text]
        for each, text in zip(parsed, overrides, strict=True)
    ]
    return [list(job) for job in itertools.islice(itertools.product(*choices), MOST_JOBS)]


def _alike(given: list[str], path: Path) -> dict[str, Any]:
    """Return the settings of a run that `like=` repeats, after checking the settings beside it."""
    like_a_run(given)
    config = OmegaConf.load(path)
    for each in given:
        key = each.partition("=")[0]
        if key != "like" and not key.startswith("-"):
            assert OmegaConf.select(config, key, default=MISSING) is not MISSING, f"{path} has no setting {key}"
            OmegaConf.update(config, key, OverridesParser.create().parse_override(each).value())
    return OmegaConf.to_container(config)


@functools.cache
def _checked(command: Command, overrides: tuple[str, ...]) -> dict[str, Any]:
    config = compose(command.name, list(overrides), return_hydra_config=True)
    chosen = OmegaConf.to_container(config.hydra.runtime.choices)
    OmegaConf.set_struct(config, False)
    config.pop("hydra")
    with plugins_allowed(OmegaConf.to_container(config).get("plugins"), look_here=True):
        plain = check(config, command.schema, experiment=chosen.get("experiment"))
        commands._refuse_idle(plain, [each for each in overrides if not each.startswith("hydra.")])
    return plain


def small(name: str, config: Mapping[str, Any]) -> list[str]:
    """Return the settings to add to a command so that it runs in seconds.

    Args:
        config: the command's settings, as `composed` returns them.
    """
    return {
        "train": small_training,
        "prepare": small_encoder,
        "evaluate": small_scores,
        "score": small_scores,
        "compare": small_scores,
        "report": small_scores,
        "ground": lambda _: ["samples=10"],
    }.get(name, lambda _: [])(config) + small_data(config)


def small_scores(config: Mapping[str, Any]) -> list[str]:
    """Return the settings of few resamples, and of CLIP models with random weights where they would be downloaded."""
    wanted = {"clip": config["metrics"]["clipscore"], "pac": config["metrics"]["pac_s"]}
    return ["metrics.bootstrap=10", *(f"metrics.{group}.weights=random" for group, used in wanted.items() if used)]


def small_training(config: Mapping[str, Any]) -> list[str]:
    """Return the settings of a small training run."""
    task = config["task"]["_target_"]
    if config["data"]["name"] == "hello":  # it takes seconds as it is
        return ["trainer.enable_progress_bar=false"]
    trainer = [f"trainer.{each}" for each in TRAINER]
    if task.endswith("LanguageModelTask"):
        reader = ["data.reader.characters=60000"] if config["data"]["files"] is None else []
        return [*trainer, *reader, "model.width=16", "model.layers=1", "data.window=16"]
    if task.endswith("VqaTask") or "answer" in task.lower():
        return [*trainer, *small_encoder(config), "model.width=16", "model.embedding_size=16"]
    return [*trainer, *CAPTIONER, *small_encoder(config), *small_start(config)]


def small_start(config: Mapping[str, Any]) -> list[str]:
    """Return the workspace's run as the start, instead of a captioner of the package, whose vocabulary is another."""
    if config["start_from"] not in pretrained.names():
        return []
    return ["start_from=runs/soft/checkpoints/best.ckpt", "model.feature_width=512", "model.scorer.width=256"]


def small_encoder(config: Mapping[str, Any]) -> list[str]:
    """Return the settings of an encoder on small images; random weights where they would be downloaded."""
    encoder = config["encoder"]
    if encoder["_target_"].endswith(("RegionEncoder", "SideBySide")):
        return []
    if encoder["_target_"].endswith("timm_encoder"):
        return ["encoder.weights=null", "encoder.image_size=112"]  # whole patches of 14 and of 16 pixels
    weights = ["encoder.weights=null"] if encoder["_target_"].endswith("torchvision_encoder") else []
    return [*weights, "encoder.image_size=64"]


def small_data(config: Mapping[str, Any]) -> list[str]:
    """Return the settings of small drawn data sets."""
    data = config.get("data")
    if not isinstance(data, Mapping) or "reader" not in data:
        return []
    target = data["reader"]["_target_"]
    if target.endswith("read_scenes"):
        return [f"data.reader.{split}=8" for split in ("train", "val", "test")]
    if target.endswith("read_easy_vqa"):
        return ["data.root=data/easy_vqa"]
    return []


def settings_file(name: str, arguments: Sequence[str]) -> str:
    """Return the config.yaml of a run with these settings."""
    (config,) = composed(name, arguments)
    return yaml.safe_dump(config, sort_keys=False)
