"""Trains a captioner: `captioning-train experiment=flickr8k_soft data.root=DIR run_dir=DIR`."""

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from captioning.config import build, decoding_name, entry_point
from captioning.errors import CheckpointError, ConfigError
from captioning.schemas import TrainConfig


def train(config: dict[str, Any]) -> None:
    """One run; leaves checkpoints/{best,last}.ckpt, config.yaml and metrics.csv in its `run_dir`."""
    import lightning
    import torch

    from captioning.data.annotations import select
    from captioning.data.datasets import CaptionDataset, tokenize_captions
    from captioning.data.module import CaptionModule
    from captioning.data.vocabulary import Vocabulary
    from captioning.predictor import load_weights, make_recipe, read_checkpoint, write
    from captioning.sources import report_unreadable
    from captioning.task import CaptioningTask, RunLog, clear_run

    run_dir = Path(config["run_dir"])
    _guard(run_dir, config)
    _quiet()
    resumed, started = (read_checkpoint(Path(config[key])) if config[key] else None for key in ("resume", "start_from"))
    lightning.seed_everything(config["seed"], verbose=False)
    data = config["data"]
    records = build(data["reader"])
    wanted = [*select(records, "train"), *select(records, "val")]
    encoder, transform = build(config["encoder"]), build(config["transform"])
    source = build(config["features"])(
        encoder, transform, wanted, name=data["name"], skip_unreadable=data["skip_unreadable"]
    )
    report_unreadable(source)
    splits = {split: select(source.records, split) for split in ("train", "val")}
    captions = {split: tokenize_captions(chosen) for split, chosen in splits.items()}
    vocabulary = Vocabulary.build(
        (tokens for group in captions["train"] for tokens in group), min_count=data["min_count"]
    )
    for key, checkpoint in (("resume", resumed), ("start_from", started)):
        _same_words(key, checkpoint, vocabulary)
    common = {"vocabulary": vocabulary, "source": source.read, "max_length": data["max_length"], "seed": config["seed"]}
    loaders = CaptionModule(
        CaptionDataset(splits["train"], captions["train"], captions_per_image=data["captions_per_image"], **common),
        CaptionDataset(splits["val"], captions["val"], **common),
        workers=source.workers,
        seed=config["seed"],
        **config["loader"],
    )
    captioner = build(
        config["model"],
        feature_size=encoder.size,
        grid=encoder.output != "fc",
        vocabulary_size=len(vocabulary),
        pad=vocabulary.pad,
        encoder=source.encoder,
    )
    if started:
        # A frozen encoder is no part of the checkpoint; what it has of a fine-tuned one is taken over too.
        own = {f"encoder.{name}": value for name, value in captioner.encoder.state_dict().items()}
        weights = {name.removeprefix("captioner."): value for name, value in started["state_dict"].items()}
        weights = {name: value for name, value in weights.items() if not name.startswith("objective.")}
        load_weights(captioner, own | weights, Path(config["start_from"]))
    references = {record.image_id: record.captions for record in splits["val"]}
    decoding = decoding_name(config["decoding"])
    reward = _reward(config, splits["train"], resumed or started)
    task = CaptioningTask(
        captioner,
        _objective(config, reward, vocabulary),
        write=partial(write, search=build(config["decoding"]), vocabulary=vocabulary),
        score=partial(_score, references, build(data["extra_scores"]) if data["extra_scores"] else None),
        decoding=decoding,
        optimizer=build(config["optimizer"]),
        schedule=build(config["schedule"]),
        encoder_lr=config["encoder_lr"],
        encoder_warmup=config["encoder_warmup"],
        recipe=make_recipe(config, vocabulary, encoder, reward.state_dict() if reward else None),
    )
    if resumed:
        _same_parts(resumed["state_dict"], task.state_dict())
    if not resumed:
        clear_run(run_dir)  # what _guard let pass
    run_dir.mkdir(parents=True, exist_ok=True)
    log = RunLog(run_dir / "metrics.csv")
    if resumed:
        log.resume(resumed["global_step"])
    _write_config(config, run_dir)
    _announce(splits, captions, vocabulary, captioner)
    trainer = build(
        config["trainer"],
        logger=[log, *_tensorboard(run_dir)],
        callbacks=_callbacks(config, monitor=f"val/{decoding}/CIDEr"),
        default_root_dir=str(run_dir),
    )
    torch.set_float32_matmul_precision("high")
    trainer.fit(task, loaders, ckpt_path=config["resume"], weights_only=True)
    best = trainer.checkpoint_callbacks[0]
    if best.best_model_score is None:
        print(f"no validation was run; last checkpoint: {run_dir / 'checkpoints' / 'last.ckpt'}")
    else:
        print(f"best val/{decoding}/CIDEr {float(best.best_model_score):.3f}: {best.best_model_path}")
    print(f"log and configuration: {run_dir}")


def _quiet() -> None:
    """Lightning's tips and remarks on its own insides are not news to whoever trains a captioner."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module=r"lightning\..*")


def _guard(run_dir: Path, config: Mapping[str, Any]) -> None:
    """A finished or broken-off run is never overwritten by accident."""
    resumed_here = config["resume"] and Path(config["resume"]).resolve().parent == (run_dir / "checkpoints").resolve()
    if any((run_dir / "checkpoints").glob("*.ckpt")) and not (resumed_here or config["overwrite"]):
        raise ConfigError(
            f"{run_dir} already holds a run: go on with resume={run_dir}/checkpoints/last.ckpt, "
            "give another run_dir, or set overwrite=true"
        )


def _same_words(key: str, checkpoint: Mapping[str, Any] | None, vocabulary) -> None:
    if checkpoint and checkpoint["captioning"]["vocabulary"] != vocabulary.state_dict():
        raise ConfigError(
            f"{key}: the checkpoint's vocabulary is not that of this training split; "
            "take the data set, data.min_count and data.max_length of the first run (its config.yaml)"
        )


def _same_parts(saved: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """A run goes on with the model and objective that it had; told before anything of it is rewritten."""
    differing = [key for key, value in saved.items() if key not in own or own[key].shape != value.shape]
    differing += [key for key in own.keys() - saved.keys() if not key.startswith("captioner.encoder.")]
    if differing:
        raise ConfigError(
            f"resume: this model or objective is not the checkpoint's ({differing[0]} differs): repeat the overrides "
            "of the first run (its config.yaml), or take its weights over with start_from="
        )


def _reward(config: Mapping[str, Any], records: Sequence, checkpoint: Mapping[str, Any] | None):
    """The reward over the training split's references, with the checkpoint's document frequencies if they are of it."""
    if not config["reward"]:
        return None
    saved = checkpoint and checkpoint["captioning"].get("frequencies")
    references = {record.image_id: record.captions for record in records}
    try:
        reward = build(config["reward"], references=references, saved=saved)
    except CheckpointError as error:
        raise CheckpointError(f"{config['resume'] or config['start_from']}: {error}") from error
    if saved and not reward.taken_over:
        print("reward: document frequencies counted anew: the checkpoint's are of other training captions")
    return reward


def _objective(config: Mapping[str, Any], reward: Callable | None, vocabulary):
    """The objective; one that asks for a reward gets it, and the words' ids."""
    if not reward:
        return build(config["objective"])

    def of_ids(image_ids: Sequence[int], captions: Sequence[Sequence[int]]) -> Sequence[float]:
        ended = [vocabulary.end in caption for caption in captions]
        return reward(image_ids, [vocabulary.decode(caption) for caption in captions], ended)

    forbidden = (vocabulary.pad, vocabulary.start, vocabulary.unknown)
    ids = {"start": vocabulary.start, "end": vocabulary.end, "forbidden": forbidden}
    return build(config["objective"], reward=of_ids, **ids)


def _score(
    references: Mapping[int, Sequence[str]], extra: Callable | None, captions: Mapping[int, str]
) -> dict[str, float]:
    """Scores of the images that this validation wrote captions for (all, unless trainer.limit_val_batches is set)."""
    from captioning.metrics import score

    scores = score({image_id: references[image_id] for image_id in captions}, captions)
    return scores | (extra(captions, split="val") if extra else {})


def _callbacks(config: Mapping[str, Any], *, monitor: str) -> list:
    from lightning.pytorch.callbacks import LearningRateMonitor

    from captioning.task import Checkpoint, ProgressBar

    folder = {
        "dirpath": Path(config["run_dir"], "checkpoints"),
        "save_on_train_epoch_end": True,
        "enable_version_counter": False,
    }
    callbacks = [
        # Without the epoch or score in its name, so that scripts find it; the score is in metrics.csv.
        Checkpoint(filename="best", monitor=monitor, mode="max", **folder),
        Checkpoint(filename="last", **folder),
        LearningRateMonitor(),
    ]
    if config["weight_averaging"]:
        callbacks.append(build(config["weight_averaging"]))
    if config["trainer"]["enable_progress_bar"]:
        callbacks.append(ProgressBar(refresh_rate=10))
    if config["early_stopping"]:
        callbacks.append(build(config["early_stopping"], monitor=monitor, mode="max"))
    return callbacks


def _tensorboard(run_dir: Path) -> list:
    from lightning.pytorch.loggers import TensorBoardLogger

    return [TensorBoardLogger(run_dir, name="tensorboard", version="")]


def _write_config(config: Mapping[str, Any], run_dir: Path) -> None:
    import yaml

    from captioning.files import write_text

    write_text(run_dir / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False))


def _announce(splits, captions, vocabulary, captioner) -> None:
    sizes = ", ".join(f"{len(records)} {split}" for split, records in splits.items())
    known = vocabulary.coverage(tokens for group in captions["val"] for tokens in group)
    weights = sum(parameter.numel() for parameter in captioner.parameters() if parameter.requires_grad)
    print(f"images: {sizes}; vocabulary {len(vocabulary)} words ({known:.2%} of val's); {weights / 1e6:.1f} M weights")


main = entry_point("train", TrainConfig, train)

if __name__ == "__main__":
    main()
