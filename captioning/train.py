"""Trains a captioner: `captioning-train experiment=flickr8k_soft data.root=DIR run_dir=DIR`."""

import logging
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from captioning.config import build, decoding_name, entry_point
from captioning.errors import CheckpointError, ConfigError, must_be
from captioning.schemas import TrainConfig

SPLITS = ("train", "val")


def train(config: dict[str, Any]) -> None:
    """One run; leaves checkpoints/{best,last}.ckpt, config.yaml and metrics.csv in its `run_dir`."""
    import lightning
    import torch

    from captioning.continuing import same_encoder, same_parts, same_words, take_encoder, take_over
    from captioning.data.annotations import select
    from captioning.data.datasets import tokenize_captions
    from captioning.data.vocabulary import Vocabulary
    from captioning.predictor import make_recipe, read_checkpoint
    from captioning.sources import report_unreadable

    run_dir = Path(config["run_dir"])
    _guard(run_dir, config)
    _quiet()
    resumed, started = (read_checkpoint(Path(config[key])) if config[key] else None for key in ("resume", "start_from"))
    lightning.seed_everything(config["seed"], verbose=False)
    data, records = config["data"], build(config["data"]["reader"])
    splits = {split: select(records, split) for split in SPLITS}
    wanted = [record for split in SPLITS for record in splits[split]]
    tokens = dict(zip((record.image_id for record in wanted), tokenize_captions(wanted), strict=True))
    training = (caption for record in splits["train"] for caption in tokens[record.image_id])
    vocabulary = Vocabulary.build(training, min_count=data["min_count"])
    for key, checkpoint in (("resume", resumed), ("start_from", started)):
        same_words(key, checkpoint, vocabulary)

    # All that a configuration can have wrong is told before the features are made, which may take hours.
    encoder, transform = build(config["encoder"]), build(config["transform"])
    tuned = bool(started) and take_encoder(encoder, started, Path(config["start_from"]))
    if started and not tuned:
        same_encoder("start_from", started, encoder)
    if resumed:
        same_encoder("resume", resumed, encoder)
    reward = _reward(config, splits["train"], resumed or started)
    frequencies = reward.state_dict() if reward else None
    recipe = make_recipe(config, vocabulary, encoder, tuned=tuned, frequencies=frequencies)
    task = _task(config, splits["val"], vocabulary, encoder, reward, recipe)
    trainer = _trainer(config, run_dir, monitor=f"val/{task.decoding}/CIDEr")
    _loaders(config, {"train": [], "val": []}, tokens, vocabulary)
    if started:
        take_over(task.captioner, started, Path(config["start_from"]))
    if resumed:
        same_parts(resumed["state_dict"], task, encoder)

    source = build(config["features"])(
        encoder, transform, wanted, name=data["name"], skip_unreadable=data["skip_unreadable"]
    )
    report_unreadable(source)
    task.captioner.encoder = source.encoder
    splits = {split: select(source.records, split) for split in SPLITS}
    loaders = _loaders(config, splits, tokens, vocabulary, source)
    _open_run(config, run_dir, trainer, resumed)
    _announce(splits, tokens, vocabulary, task.captioner)
    torch.set_float32_matmul_precision("high")
    trainer.fit(task, loaders, ckpt_path=config["resume"], weights_only=True)
    best = trainer.checkpoint_callbacks[0]
    if best.best_model_score is None:
        print(f"no validation was run; last checkpoint: {run_dir / 'checkpoints' / 'last.ckpt'}")
    else:
        print(f"best {best.monitor} {float(best.best_model_score):.3f}: {best.best_model_path}")
    print(f"log and configuration: {run_dir}")


def _task(config: Mapping[str, Any], val: Sequence, vocabulary, encoder, reward: Callable | None, recipe: dict):
    """The model, what trains it and what scores it, built and tried; its encoder is set when the source is known."""
    from captioning.predictor import write
    from captioning.task import CaptioningTask

    captioner = build(
        config["model"],
        feature_size=encoder.size,
        grid=encoder.output != "fc",
        regions=encoder.output == "regions",
        vocabulary_size=len(vocabulary),
        pad=vocabulary.pad,
    )
    search = build(config["decoding"])
    _try_decoding(captioner, search, vocabulary, encoder)
    references = {record.image_id: record.captions for record in val}
    extra = build(config["data"]["extra_scores"]) if config["data"]["extra_scores"] else None
    return CaptioningTask(
        captioner,
        _objective(config, reward, vocabulary),
        write=partial(write, search=search, vocabulary=vocabulary),
        score=partial(_score, references, extra),
        decoding=decoding_name(config["decoding"]),
        optimizer=_optimizer(config),
        schedule=_schedule(config),
        encoder_lr=config["encoder_lr"],
        encoder_warmup=config["encoder_warmup"],
        recipe=recipe,
    )


def _try_decoding(captioner, search: Callable, vocabulary, encoder) -> None:
    """Decodes one picture of nothing: a word or a number that the decoding cannot take is told at once."""
    import torch

    from captioning.predictor import write

    shape = (encoder.size,) if encoder.output == "fc" else (encoder.places or 1, encoder.size)
    with torch.random.fork_rng(devices=[]):  # a search that samples draws nothing from the run's own numbers
        write(captioner.eval(), torch.zeros(1, *shape), search=search, vocabulary=vocabulary)
    captioner.train()


def _optimizer(config: Mapping[str, Any]) -> Callable:
    """Parameter groups -> optimiser; tried on one parameter."""
    import torch

    optimizer = build(config["optimizer"])
    try:
        rates = [group["lr"] for group in optimizer([torch.nn.Parameter(torch.zeros(1))]).param_groups]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"optimizer: {' '.join(str(error).split())}") from error
    must_be("optimizer.lr", min(rates), above=0)
    return optimizer


def _schedule(config: Mapping[str, Any]) -> Callable:
    """Steps of the run -> (step -> factor); tried on a run of one step."""
    schedule = build(config["schedule"])
    schedule(1)
    return schedule


def _trainer(config: Mapping[str, Any], run_dir: Path, *, monitor: str):
    """Writes nothing yet; its first logger is the run's RunLog."""
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    from captioning.task import RunLog

    try:
        return build(
            config["trainer"],
            logger=[RunLog(run_dir / "metrics.csv"), *_tensorboard(run_dir)],
            callbacks=_callbacks(config, monitor=monitor),
            default_root_dir=str(run_dir),
        )
    except (MisconfigurationException, TypeError, ValueError) as error:
        raise ConfigError(f"trainer: {' '.join(str(error).split())}") from error


def _loaders(config: Mapping[str, Any], splits: Mapping[str, Sequence], tokens: Mapping, vocabulary, source=None):
    """Loaders over the records that can be read; without a source or records, a check of the settings."""
    from captioning.data.datasets import CaptionDataset
    from captioning.data.module import CaptionModule

    data = config["data"]
    common = {"vocabulary": vocabulary, "source": source and source.read, "max_length": data["max_length"]}
    limits = {"train": data["captions_per_image"], "val": None}
    datasets = [
        CaptionDataset(
            splits[split],
            [tokens[record.image_id] for record in splits[split]],
            captions_per_image=limits[split],
            seed=config["seed"],
            **common,
        )
        for split in SPLITS
    ]
    return CaptionModule(*datasets, workers=source.workers if source else 0, seed=config["seed"], **config["loader"])


def _open_run(config: Mapping[str, Any], run_dir: Path, trainer, resumed: Mapping[str, Any] | None) -> None:
    """The run's folder and its configuration; what an earlier run left there goes, unless it is gone on with."""
    from captioning.files import make_folder
    from captioning.task import clear_run

    if not resumed:
        clear_run(run_dir)  # what _guard let pass
    make_folder(run_dir)
    if resumed:
        trainer.loggers[0].resume(resumed["global_step"])
    _write_config(config, run_dir)


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


def _reward(config: Mapping[str, Any], records: Sequence, checkpoint: Mapping[str, Any] | None):
    """The reward over the training split's references, with the checkpoint's document frequencies if they are of it."""
    if not config["reward"]:
        return None
    if checkpoint is None:
        print(
            "warning: this objective rewards captions that the model samples, and an untrained model samples nonsense: "
            "give a checkpoint of cross-entropy by start_from=CHECKPOINT",
            file=sys.stderr,
        )
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
        must_be("weight_averaging.decay", config["weight_averaging"].get("decay"), least=0, below=1)
        callbacks.append(build(config["weight_averaging"]))
    if config["trainer"]["enable_progress_bar"]:
        callbacks.append(ProgressBar())
    if config["early_stopping"]:
        if not config["trainer"].get("limit_val_batches", 1):
            raise ConfigError(
                "trainer.limit_val_batches=0 leaves no score for early stopping to watch: set early_stopping=none"
            )
        must_be("early_stopping.patience", config["early_stopping"].get("patience"), least=0)
        callbacks.append(build(config["early_stopping"], monitor=monitor, mode="max"))
    return callbacks


def _tensorboard(run_dir: Path) -> list:
    from lightning.pytorch.loggers import TensorBoardLogger

    return [TensorBoardLogger(run_dir, name="tensorboard", version="")]


def _write_config(config: Mapping[str, Any], run_dir: Path) -> None:
    import yaml

    from captioning.files import write_text

    write_text(run_dir / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False))


def _announce(splits, tokens, vocabulary, captioner) -> None:
    sizes = ", ".join(f"{len(records)} {split}" for split, records in splits.items())
    known = vocabulary.coverage(caption for record in splits["val"] for caption in tokens[record.image_id])
    weights = sum(parameter.numel() for parameter in captioner.parameters() if parameter.requires_grad)
    print(f"images: {sizes}; vocabulary {len(vocabulary)} words ({known:.2%} of val's); {weights / 1e6:.1f} M weights")


main = entry_point("train", TrainConfig, train)

if __name__ == "__main__":
    main()
