"""Check that a checkpoint fits a run that continues from it (resume=, start_from=), and take over its weights.

The `same_…` functions raise a ConfigError that names the key and what to set; the `take_…` ones a CheckpointError
where weights do not fit.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from captioning.checkpoints.read import load_state
from captioning.errors import CheckpointError, ConfigError

_ENCODER = "captioner.encoder."  # names of its weights in a checkpoint that has them: where it was fine-tuned


# Settings that a resumed run must have as they were; all others may change (docs/reliability.md has the table).
# `encoder.weights` may be a file that moved: the fingerprint is held against the checkpoint's. So may `teacher.file`.
FIXED = (
    "seed", "data.min_count", "data.max_length", "data.captions_per_image", "data.skip_unreadable", "data.unit",
    "data.window", "data.answers", "data.targets",
    "encoder", "transform", "features._target_", "features.mirror", "features.crops", "features.max_regions",
    "loader.batch_size", "teacher",
    "model", "objective", "reward", "optimizer", "schedule", "encoder_lr", "encoder_warmup", "weight_averaging",
    "decoding", "trainer.precision", "trainer.accumulate_grad_batches", "trainer.limit_train_batches",
    "trainer.overfit_batches", "trainer.check_val_every_n_epoch", "trainer.val_check_interval",
)  # fmt: skip
FREE = ("encoder.weights", "teacher.file")


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What travels in checkpoints for a run that goes on from them: the fixed settings by their dotted names."""
    return {name: _at(config, name) for name in FIXED}


# What a run goes on from beside the weights, and what each must be.
_STATES = {
    "optimizer_states": list, "lr_schedulers": list, "callbacks": dict, "loops": dict, "generators": (list, dict),
    "position": dict, "epoch": int, "global_step": int, "skipped": int,
}  # fmt: skip
_OF_METADATA = {"settings": dict, "data": str, "images": dict}


def can_go_on(checkpoint: Mapping[str, Any] | None, path: str | Path | None = None) -> None:
    """An exported checkpoint is no place in a run; no checkpoint is fine.

    Raises:
        ConfigError: it has no optimizer. CheckpointError: what the run would go on from is not what training writes.
    """
    if not checkpoint:
        return
    if "optimizer_states" not in checkpoint:
        raise ConfigError("resume: an exported checkpoint has no optimizer: begin a new run with it by start_from=")
    for held, kinds in ((checkpoint, _STATES), (checkpoint["captioning"], _OF_METADATA)):
        for key, kind in kinds.items():
            if key in held and (not isinstance(held[key], kind) or isinstance(held[key], bool)):
                raise CheckpointError(_never_written(path, key, held[key]))
    for state in checkpoint.get("callbacks", {}).values():
        if not isinstance(state, dict):
            raise CheckpointError(_never_written(path, "callbacks", state))


def has_ahead(checkpoint: Mapping[str, Any], trainer: Mapping[str, Any], path: str | Path) -> None:
    """Refuses to go on to an end that lies behind.

    Args:
        trainer: its settings.

    Raises:
        ConfigError: the checkpoint has made more epochs or steps than the run is to have.
    """
    place = checkpoint.get("position") or {}
    epochs = int(place.get("epoch", checkpoint.get("epoch", -1) + 1))  # an earlier version saved at an epoch's end
    begun = bool(place.get("batches") or place.get("validate"))
    for key, made, least, what in (
        ("max_epochs", epochs, epochs + begun, f"epoch{'s' * (epochs != 1)}{' and a part of the next' * begun}"),
        ("max_steps", steps := int(checkpoint.get("global_step", 0)), steps, f"step{'s' * (steps != 1)}"),
    ):
        limit = trainer.get(key)
        if isinstance(limit, int) and 0 < limit < least:
            raise ConfigError(f"{path} has made {made} {what}: set trainer.{key} to {least} or more")


def _never_written(path: str | Path | None, key: str, value: Any) -> str:
    return (
        f"resume={path}: '{key}' in it is {value!r:.60}, which captioning-train never writes: go on from another "
        "checkpoint, or take its weights over with start_from="
    )


def same_settings(checkpoint: Mapping[str, Any], config: Mapping[str, Any], data: str) -> None:
    """A resumed run goes on as what it was. A changed rate would not even be heard: it is in the optimizer's state.

    Args:
        data: digest of what is learnt from.
    """
    metadata = checkpoint["captioning"]
    if "settings" not in metadata:  # of an earlier version
        return
    told = [
        f"{key} was {_told(was)} and is {_told(now)} now"
        for name in FIXED
        if name in metadata["settings"]  # not of an earlier version that did not keep it
        for key, was, now in _changes(metadata["settings"][name], _at(config, name), name)
        if key not in FREE
    ]
    if metadata["data"] != data:
        told.append("the data are not those that it was trained on (data.root, or data.files)")
    if told:
        raise ConfigError(
            f"resume: this would not be the same run: {'; '.join(told)}. Repeat the settings of the first run (its "
            "config.yaml), or take its weights over into a new run with start_from="
        )


def same_images(checkpoint: Mapping[str, Any], images: Mapping[str, int]) -> None:
    """Pictures that could be read, by split: with another left out, all batches are others."""
    was = checkpoint["captioning"].get("images", images)
    if was != images:
        raise ConfigError(
            f"resume: the run had {was['train']} train and {was['val']} val pictures that could be read, and has "
            f"{images['train']} and {images['val']} now: put them back as they were"
        )


def _at(config: Any, name: str) -> Any:
    for key in name.split("."):
        config = config.get(key) if isinstance(config, Mapping) else None
    return config


def _changes(was: Any, now: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    was, now = (None if value == {} else value for value in (was, now))  # a group that is left out may be empty
    if isinstance(was, Mapping) and isinstance(now, Mapping) and was.get("_target_") == now.get("_target_"):
        for key in [*was, *(key for key in now if key not in was)]:
            yield from _changes(was.get(key), now.get(key), f"{path}.{key}")
    elif was != now:
        yield path, was, now


def _told(value: Any) -> str:
    """A setting in few words: a part by the last name of its target."""
    if isinstance(value, Mapping):
        return str(value.get("_target_", "a group")).rpartition(".")[2]
    return "null" if value is None else str(value)


def same_words(key: str, checkpoint: Mapping[str, Any] | None, vocabulary) -> None:
    """Word ids must mean the same words; no checkpoint is fine."""
    if checkpoint and checkpoint["captioning"]["vocabulary"] != vocabulary.state_dict():
        raise ConfigError(
            f"{key}: the checkpoint's vocabulary is not that of this training split; "
            "take the data set, data.min_count and data.max_length of the first run (its config.yaml)"
        )


def same_answers(key: str, checkpoint: Mapping[str, Any] | None, answers) -> None:
    """Answer ids must mean the same answers; no checkpoint is fine."""
    if checkpoint and checkpoint["captioning"]["answers"] != answers.state_dict():
        raise ConfigError(
            f"{key}: the checkpoint's answers are not those of this training split; "
            "take the data set and data.answers of the first run (its config.yaml)"
        )


def same_encoder(key: str, checkpoint: Mapping[str, Any], encoder) -> None:
    """What was learnt on one encoder's features is worth nothing on another's. Fine-tuned weights lie in the checkpoint
    itself, and start_from may go on to tune other ones."""
    tuned = any(name.startswith(_ENCODER) for name in checkpoint["state_dict"])
    tunes = any(parameter.requires_grad for parameter in encoder.parameters())
    if key == "resume" and tuned != tunes:
        kinds = {True: "fine-tuned", False: "frozen"}
        raise ConfigError(
            f"resume: the checkpoint's encoder is {kinds[tuned]}, this one {kinds[tunes]}: set encoder.unfreeze_from "
            "as in the first run (its config.yaml), or take its weights over with start_from="
        )
    was, now = checkpoint["captioning"]["fingerprint"], encoder.fingerprint() if not tunes else None
    if not tunes and was != now:
        raise ConfigError(
            f"{key}: the checkpoint was trained on features of other encoder weights (fingerprint {was}; this encoder "
            f"has {now}): set encoder and encoder.weights as in the first run (its config.yaml)"
        )


def same_parts(saved: Mapping[str, Any], task, encoder) -> None:
    """A run goes on with the model and objective that it had; told before anything of it is rewritten."""
    own = task.state_dict() | {_ENCODER + name: value for name, value in encoder.state_dict().items()}
    differing = [key for key, value in saved.items() if key not in own or own[key].shape != value.shape]
    differing += [key for key in own.keys() - saved.keys() if not key.startswith(_ENCODER)]
    if differing:
        raise ConfigError(
            f"resume: this model or objective is not the checkpoint's ({differing[0]} differs): repeat the overrides "
            "of the first run (its config.yaml), or take its weights over with start_from="
        )


def take_encoder(encoder, checkpoint: Mapping[str, Any], path: Path) -> bool:
    """Takes over the weights of an encoder that was fine-tuned; whether there were any."""
    saved = checkpoint["state_dict"].items()
    weights = {name.removeprefix(_ENCODER): value for name, value in saved if name.startswith(_ENCODER)}
    if weights:
        load_state(encoder, weights, path)
    return bool(weights)


def take_over(captioner, checkpoint: Mapping[str, Any], path: Path) -> None:
    """Takes over all weights but the encoder's and the objective's."""
    weights = {name: value for name, value in checkpoint["state_dict"].items() if name.startswith("captioner.")}
    weights = {name.removeprefix("captioner."): v for name, v in weights.items() if not name.startswith(_ENCODER)}
    load_state(captioner, weights, path)
