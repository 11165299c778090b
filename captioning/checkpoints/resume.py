"""Check that a checkpoint fits a run that continues from it (resume=, start_from=), and load its weights.

The `same_…` functions raise a ConfigError that names the key and says what to set. The `take_…` functions raise a
CheckpointError if weights do not fit.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from captioning.checkpoints.read import load_state
from captioning.errors import CheckpointError, ConfigError
from captioning.text import make_tokenizer

_ENCODER = "captioner.encoder."  # prefix of the weights of a fine-tuned encoder in a checkpoint


# Settings that a resumed run must not change; all others may change (see the table in docs/reliability.md).
# FREE: `encoder.weights` and `teacher.file` may change, because the file may have moved. The encoder's fingerprint is
# compared instead.
FIXED = (
    "seed", "data.tokenizer", "data.min_count", "data.max_length", "data.captions_per_image", "data.skip_unreadable",
    "data.unit", "data.window", "data.answers", "data.targets",
    "encoder", "transform", "features._target_", "features.mirror", "features.crops", "features.augment",
    "features.max_regions",
    "loader.batch_size", "loader.order", "loader.shuffle_buffer", "teacher",
    "model", "objective", "reward", "optimizer", "schedule", "encoder_lr", "encoder_warmup", "weight_averaging",
    "decoding", "trainer.precision", "trainer.accumulate_grad_batches", "trainer.limit_train_batches",
    "trainer.overfit_batches", "trainer.check_val_every_n_epoch", "trainer.val_check_interval",
)  # fmt: skip
FREE = ("encoder.weights", "encoder.parts[].weights", "teacher.file")


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a resumed run must not change, by their dotted names; they are saved in checkpoints."""
    return {name: _at(config, name) for name in FIXED}


# Types of the checkpoint's entries that a resumed run needs besides the weights.
_STATES: dict[str, type | tuple[type, ...]] = {
    "optimizer_states": list, "lr_schedulers": list, "callbacks": dict, "loops": dict, "generators": (list, dict),
    "position": dict, "epoch": int, "global_step": int, "skipped": int,
}  # fmt: skip
_OF_METADATA: dict[str, type | tuple[type, ...]] = {"settings": dict, "data": str, "images": dict}


def can_go_on(checkpoint: Mapping[str, Any] | None, path: str | Path | None = None) -> None:
    """Refuse to resume from an exported checkpoint, which has no optimizer state, or from a damaged one.

    Args:
        checkpoint: the checkpoint to resume from; None is accepted.
        path: its file, for error messages.

    Raises:
        ConfigError: the checkpoint has no optimizer state.
        CheckpointError: an entry has a type that training never writes.
    """
    if not checkpoint:
        return
    if "optimizer_states" not in checkpoint:
        raise ConfigError(
            f"resume={path}: an exported checkpoint has no optimizer state. Start a new run from its weights: "
            f"start_from={path}"
        )
    for entries, kinds in ((checkpoint, _STATES), (checkpoint["captioning"], _OF_METADATA)):
        for key, kind in kinds.items():
            if key in entries and (not isinstance(entries[key], kind) or isinstance(entries[key], bool)):
                raise CheckpointError(_damaged(path, key))
    for state in checkpoint.get("callbacks", {}).values():
        if not isinstance(state, dict):
            raise CheckpointError(_damaged(path, "callbacks"))


def has_ahead(checkpoint: Mapping[str, Any], trainer: Mapping[str, Any], path: str | Path) -> None:
    """Check that a checkpoint is not past the last epoch or step of the run that resumes it.

    Args:
        checkpoint: the checkpoint to resume from.
        trainer: the settings of the trainer.
        path: the checkpoint's file, for error messages.

    Raises:
        ConfigError: the checkpoint is already past trainer.max_epochs or trainer.max_steps.
    """
    place = checkpoint.get("position") or {}
    # Earlier versions had no position and saved only at the end of an epoch.
    epochs = int(place.get("epoch", checkpoint.get("epoch", -1) + 1))
    begun = bool(place.get("batches") or place.get("validate"))
    for key, made, least, what in (
        ("max_epochs", epochs, epochs + begun, f"epoch{'s' * (epochs != 1)}{' and a part of the next' * begun}"),
        ("max_steps", steps := int(checkpoint.get("global_step", 0)), steps, f"step{'s' * (steps != 1)}"),
    ):
        limit = trainer.get(key)
        if isinstance(limit, int) and 0 < limit < least:
            raise ConfigError(f"{path} has already trained {made} {what}: set trainer.{key} to {least} or more")


def _damaged(path: str | Path | None, key: str) -> str:
    return (
        f"resume={path}: its entry '{key}' is damaged. Resume from another checkpoint, or start a new run from its "
        f"weights with start_from={path}"
    )


def same_settings(checkpoint: Mapping[str, Any], config: Mapping[str, Any], data: str) -> None:
    """Check that a resumed run has the settings and data of the original run.

    Without this check, a changed learning rate would be silently ignored, because the optimizer's state contains the
    old one.

    Args:
        checkpoint: the checkpoint to resume from.
        config: the settings of the resumed run.
        data: digest of the training and validation data.

    Raises:
        ConfigError: a fixed setting or the data changed; the message lists every change.
    """
    metadata = checkpoint["captioning"]
    if "settings" not in metadata:  # earlier versions did not save them
        return
    changes = [
        f"{key} was {_short(was)} and is {_short(now)} now"
        for name in FIXED
        if name in metadata["settings"]  # earlier versions did not save all of them
        for key, was, now in _changes(metadata["settings"][name], _at(config, name), name)
        if re.sub(r"\[\d+\]", "[]", key) not in FREE
    ]
    if metadata["data"] != data:
        changes.append("the data differ from the original data (check data.root or data.files)")
    if changes:
        raise ConfigError(
            f"resume: the settings differ from the original run: {'; '.join(changes)}. Repeat the original settings "
            "(config.yaml in the run folder), or start a new run from its weights with start_from=CHECKPOINT"
        )


def same_images(checkpoint: Mapping[str, Any], images: Mapping[str, int]) -> None:
    """Check that as many images per split can be read as in the original run; otherwise all batches would differ.

    Args:
        checkpoint: the checkpoint to resume from.
        images: number of readable images per split.

    Raises:
        ConfigError: the numbers differ.
    """
    was = checkpoint["captioning"].get("images", images)
    if was != images:
        raise ConfigError(
            f"resume: the original run could read {was['train']} training and {was['val']} validation images, but now "
            f"{images['train']} and {images['val']} are readable. Restore the image files, then run the command again"
        )


def _at(config: Any, name: str) -> Any:
    for key in name.split("."):
        config = config.get(key) if isinstance(config, Mapping) else None
    return config


def _changes(was: Any, now: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    was, now = (None if value == {} else value for value in (was, now))  # {} and None both mean that a group is not set
    if isinstance(was, Mapping) and isinstance(now, Mapping) and was.get("_target_") == now.get("_target_"):
        for key in [*was, *(key for key in now if key not in was)]:
            yield from _changes(was.get(key), now.get(key), f"{path}.{key}")
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for number, (old, new) in enumerate(zip(was, now, strict=True)):
            yield from _changes(old, new, f"{path}[{number}]")
    elif was != now:
        yield path, was, now


def _short(value: Any) -> str:
    """Return a short text for a setting: for a part, the last name of its target."""
    if isinstance(value, Mapping):
        return str(value.get("_target_", "a group")).rpartition(".")[2]
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def same_words(key: str, checkpoint: Mapping[str, Any] | None, vocabulary) -> None:
    """Check that a checkpoint has the same vocabulary and tokenizer, so that word ids mean the same words.

    Args:
        key: the setting that named the checkpoint, for the error message.
        checkpoint: the checkpoint; None is accepted.
        vocabulary: the vocabulary of the run.

    Raises:
        ConfigError: the vocabularies or the tokenizers differ.
    """
    if not checkpoint:
        return
    metadata = checkpoint["captioning"]
    was = metadata.get("tokenizer") or make_tokenizer("ptb").state_dict()
    if metadata["vocabulary"] != vocabulary.state_dict() or was != vocabulary.tokenizer.state_dict():
        now = vocabulary.tokenizer.name
        by = "" if was.get("name") == now else f", and its tokenizer is {was.get('name')}, not {now}"
        raise ConfigError(
            f"{key}: the checkpoint's vocabulary differs from that of this training split{by}. Use the data set, "
            "data.tokenizer and data.min_count of the original run (its config.yaml)"
        )


def same_answers(key: str, checkpoint: Mapping[str, Any] | None, answers) -> None:
    """Check that a checkpoint has the same answers, so that answer ids mean the same answers.

    Args:
        key: the setting that named the checkpoint, for the error message.
        checkpoint: the checkpoint; None is accepted.
        answers: the answers of the run.

    Raises:
        ConfigError: the answers differ.
    """
    if checkpoint and checkpoint["captioning"]["answers"] != answers.state_dict():
        raise ConfigError(
            f"{key}: the checkpoint's answers differ from those of this training split. "
            "Use the data set and data.answers of the original run (its config.yaml)"
        )


def same_encoder(key: str, checkpoint: Mapping[str, Any], encoder) -> None:
    """Check that a checkpoint was trained with the same encoder weights: other features would be useless to its model.

    Fine-tuned encoder weights are in the checkpoint itself, so encoders are compared only if it has none, by their
    fingerprints. A run that starts from such a checkpoint may fine-tune the same encoder.

    Args:
        key: "resume" or "start_from", the setting that named the checkpoint.
        checkpoint: the checkpoint.
        encoder: the encoder of the run.

    Raises:
        ConfigError: the encoder weights differ, or a resumed run changes between fine-tuned and frozen.
    """
    tuned = any(name.startswith(_ENCODER) for name in checkpoint["state_dict"])
    tunes = any(parameter.requires_grad for parameter in encoder.parameters())
    if key == "resume" and tuned != tunes:
        kinds = {True: "fine-tuned", False: "frozen"}
        raise ConfigError(
            f"resume: the checkpoint's encoder is {kinds[tuned]}, but this run's is {kinds[tunes]}. Set "
            "encoder.unfreeze_from as in the original run (its config.yaml), or start a new run from its weights with "
            "start_from=CHECKPOINT"
        )
    was, now = checkpoint["captioning"]["fingerprint"], encoder.fingerprint()
    if not tuned and was != now:
        raise ConfigError(
            f"{key}: the checkpoint was trained with other encoder weights (fingerprint {was}; now {now}). Set "
            "encoder and encoder.weights as in the original run (its config.yaml)"
        )


def same_parts(saved: Mapping[str, Any], task, encoder) -> None:
    """Check that a resumed run has the model and objective of the checkpoint, before any file is rewritten.

    Args:
        saved: the weights of the checkpoint.
        task: the Lightning module of the run.
        encoder: the encoder of the run.

    Raises:
        ConfigError: a weight is missing, unknown, or has another shape.
    """
    own = task.state_dict() | {_ENCODER + name: value for name, value in encoder.state_dict().items()}
    differing = [key for key, value in saved.items() if key not in own or own[key].shape != value.shape]
    differing += [key for key in own.keys() - saved.keys() if not key.startswith(_ENCODER)]
    if differing:
        raise ConfigError(
            f"resume: the model or objective differs from the checkpoint's ({differing[0]}). Repeat the settings of "
            "the original run (its config.yaml), or start a new run from its weights with start_from=CHECKPOINT"
        )


def take_encoder(encoder, checkpoint: Mapping[str, Any], path: Path) -> bool:
    """Load the weights of a fine-tuned encoder from a checkpoint.

    Args:
        encoder: the encoder of the run.
        checkpoint: the checkpoint.
        path: its file, for error messages.

    Returns:
        Whether the checkpoint had encoder weights.

    Raises:
        CheckpointError: the weights do not fit.
    """
    saved = checkpoint["state_dict"].items()
    weights = {name.removeprefix(_ENCODER): value for name, value in saved if name.startswith(_ENCODER)}
    if weights:
        load_state(encoder, weights, path)
    return bool(weights)


def take_over(captioner, checkpoint: Mapping[str, Any], path: Path) -> None:
    """Load all weights of a checkpoint except those of the encoder and the objective.

    Args:
        captioner: the model of the run.
        checkpoint: the checkpoint.
        path: its file, for error messages.

    Raises:
        CheckpointError: the weights do not fit.
    """
    weights = {name: value for name, value in checkpoint["state_dict"].items() if name.startswith("captioner.")}
    weights = {name.removeprefix("captioner."): v for name, v in weights.items() if not name.startswith(_ENCODER)}
    load_state(captioner, weights, path)
