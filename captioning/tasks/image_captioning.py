"""Train image captioning: build model, objective and data, and score the captions of each validation."""

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch

from captioning.checkpoints import IMAGE_CAPTIONING, make_metadata, same_encoder, same_images, same_words, take_encoder
from captioning.config import CaptionTrainConfig, build
from captioning.data import CaptionDataset, Vocabulary, collate, cut_warning, select, tokenize_captions
from captioning.errors import CheckpointError, ConfigError, DataError
from captioning.evaluation import decoding_name
from captioning.features import report_unreadable
from captioning.inference import generate_texts
from captioning.metrics import score
from captioning.tasks.parts import Parts
from captioning.text import unsplit_share, unsplit_warning
from captioning.training import digest

_SPLITS = ("train", "val")
LEAST_FOR_CIDER = 20  # validation images
_MOST_UNSPLIT = 0.5  # of the training captions: with more, what is learnt is whole sentences by heart


class ImageCaptioningTask:
    """See `captioning.tasks.parts`; validation writes a caption for every picture and scores them."""

    name: ClassVar = IMAGE_CAPTIONING
    schema: ClassVar = CaptionTrainConfig

    def __call__(self, config: Mapping[str, Any], *, resumed: Mapping | None, started: Mapping | None) -> Parts:
        """The captioner and what trains and scores it; see `Parts`."""
        data, records = config["data"], build(config["data"]["reader"])
        splits = {"train": select(records, "train"), "val": _validation(records, config)}
        wanted = [record for split in _SPLITS for record in splits[split]]
        tokens = dict(zip((record.image_id for record in wanted), tokenize_captions(wanted), strict=True))
        _check_captions(config, splits, tokens)
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
        teacher = _teacher(config, splits["train"], tokens, vocabulary)
        frequencies = reward.state_dict() if reward else None
        captioner = _captioner(config, vocabulary, encoder)
        search, decoding = build(config["decoding"]), decoding_name(config["decoding"])
        _try_decoding(captioner, search, vocabulary, encoder)
        extra = build(data["extra_scores"]) if data["extra_scores"] else None
        references = {record.image_id: record.captions for record in splits["val"]}
        _loaders(config, {"train": [], "val": []}, tokens, vocabulary)
        metadata = make_metadata(config, vocabulary, encoder, tuned=tuned, frequencies=frequencies)

        def load() -> tuple[Any, str]:
            source = build(config["features"])(
                encoder, transform, wanted, name=data["name"], skip_unreadable=data["skip_unreadable"]
            )
            report_unreadable(source)
            captioner.encoder = source.encoder
            kept = {"train": select(source.records, "train"), "val": _validation(source.records, config)}
            metadata["images"] = {split: len(records) for split, records in kept.items()}
            if resumed:
                same_images(resumed, metadata["images"])
            return _loaders(config, kept, tokens, vocabulary, source), _about(kept, tokens, vocabulary)

        return Parts(
            captioner,
            _objective(config, reward, teacher, vocabulary),
            predict=partial(_predict, search=search, vocabulary=vocabulary),
            score=partial(_score, references, extra, f"val/{decoding}/"),
            monitor=f"val/{decoding}/CIDEr",
            mode="max",
            metadata=metadata,
            load=load,
            digest=digest(wanted),
            encoder=encoder,
            encoder_lr=config["encoder_lr"],
            encoder_warmup=config["encoder_warmup"],
            monitor_fault=lambda: _no_cider(splits["val"], tokens, metadata.get("images"), config),
        )


def _check_captions(config: Mapping[str, Any], splits: Mapping[str, Sequence], tokens: Mapping) -> None:
    """Warn of captions that the tokenizer cannot split, and of those that are cut.

    Raises:
        DataError: most training captions cannot be split.
    """
    data, limit = config["data"], config["decoding"].get("max_length")
    for split, records in splits.items():
        texts = [caption for record in records for caption in record.captions]
        if line := unsplit_warning(texts, f"data={data['name']}, data.root={data['root']}, split '{split}'"):
            if split == "train" and unsplit_share(texts) > _MOST_UNSPLIT:
                raise DataError(line)
            print(f"warning: {line}", file=sys.stderr)
    lengths = [len(words) for record in splits["train"] for words in tokens[record.image_id]]
    if line := cut_warning(lengths, data["max_length"], decoding_length=limit):
        print(f"warning: {line}", file=sys.stderr)


def _validation(records: Sequence, config: Mapping[str, Any]) -> list:
    """The validation images. There may be none only where none are asked for.

    Raises:
        DataError: there are none; says how to have some, or how to train without.
    """
    chosen = [record for record in records if record.split == "val"]
    if chosen or config["trainer"].get("limit_val_batches") == 0:
        return chosen
    counts = Counter(record.split for record in records)
    there = ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"
    raise DataError(
        f"no pictures with captions in split 'val'; pictures by split: {there}. Of your own photos (data=csv), write a "
        "`split` column with val for about a tenth of them; data/README.md says what must be on disk for other data "
        "sets. To train to the last epoch without validation: trainer.limit_val_batches=0 early_stopping=none"
    )


def _no_cider(records: Sequence, tokens: Mapping, read: Mapping[str, int] | None, config: Mapping[str, Any]) -> str:
    """Why CIDEr cannot tell captions of this validation apart; "" where it can. It weights words by how few images'
    references have them: with one image, or the same references everywhere, all weights are 0, and with few the scores
    are mostly chance.

    Args:
        read: images by split that could be read, where that is known.
    """
    count = read["val"] if read else len(records)
    limit = config["trainer"].get("limit_val_batches")
    limit = 1.0 if limit is None else limit  # a share; an int is a number of batches
    count = min(count, limit * config["loader"]["val_batch_size"] if isinstance(limit, int) else int(limit * count))
    if count == 1:
        return "the validation has 1 image, for which CIDEr is 0 whatever the caption"
    if count < LEAST_FOR_CIDER:
        return f"the validation has {count} images, and CIDEr needs at least {LEAST_FOR_CIDER}"
    if len({frozenset(map(tuple, tokens[record.image_id])) for record in records}) == 1:
        return "all validation images have the same references, for which CIDEr is 0 whatever the caption"
    return ""


def _captioner(config: Mapping[str, Any], vocabulary, encoder):
    """The model; its encoder is set when the source of its features is known."""
    return build(
        config["model"],
        feature_size=encoder.size,
        grid=encoder.output != "fc",
        regions=encoder.output == "regions",
        vocabulary_size=len(vocabulary),
        pad=vocabulary.pad,
    )


def _try_decoding(captioner, search: Callable, vocabulary, encoder) -> None:
    """Decodes one picture of nothing: a word or a number that the decoding cannot take is told at once."""
    shape = (encoder.size,) if encoder.output == "fc" else (encoder.places or 1, encoder.size)
    with torch.random.fork_rng(devices=[]):  # a search that samples draws nothing from the run's own numbers
        generate_texts(captioner.eval(), torch.zeros(1, *shape), search=search, vocabulary=vocabulary)
    captioner.train()


def _loaders(config: Mapping[str, Any], splits: Mapping[str, Sequence], tokens: Mapping, vocabulary, source=None):
    """Loaders over the records that can be read; without a source or records, a check of the settings."""
    data = config["data"]
    common = {"vocabulary": vocabulary, "source": source and source.read, "max_length": data["max_length"]}
    limits = {"train": data["captions_per_image"], "val": None}
    datasets = [
        CaptionDataset(
            splits[split],
            [tokens[record.image_id] for record in splits[split]],
            captions_per_image=limits[split],
            views=source.views if source and split == "train" else (),
            seed=config["seed"],
            **common,
        )
        for split in _SPLITS
    ]
    from captioning.training import CaptionModule

    return CaptionModule(*datasets, workers=source.workers if source else 0, seed=config["seed"], **config["loader"])


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


def _teacher(config: Mapping[str, Any], records: Sequence, tokens: Mapping, vocabulary):
    """The teacher of a file of soft targets, which must know captions of the training split; None without."""
    if not config["teacher"]:
        return None
    if config["reward"]:
        raise ConfigError(
            "teacher is for objective=distilled, which learns from captions: leave it out beside a reward"
        )
    teacher, length = build(config["teacher"], vocabulary=vocabulary), config["data"]["max_length"]
    items = [
        (
            record.image_id,
            torch.empty(0),
            [vocabulary.encode(words, max_length=length) for words in tokens[record.image_id]],
        )
        for record in records
    ]
    batch = collate(items)
    real = (batch.tokens[..., 1:] != vocabulary.pad).any(-1)
    known, captions = int((teacher.knows(batch.image_ids, batch.tokens) & real).sum()), int(real.sum())
    if not known:
        raise CheckpointError(
            f"teacher.file: {config['teacher']['file']} has soft targets of other captions than these, or cut to "
            "another data.max_length: make it again by captioning-distill with this run's data"
        )
    if known < captions:
        print(f"teacher: soft targets of {known} of {captions} training captions; the others are learnt without")
    return teacher


def _objective(config: Mapping[str, Any], reward: Callable | None, teacher, vocabulary):
    """The objective; one that asks for a reward gets it, and the words' ids."""
    if not reward:
        return build(config["objective"], **({"teacher": teacher} if teacher else {}))

    def of_ids(image_ids: Sequence[int], captions: Sequence[Sequence[int]]) -> Sequence[float]:
        ended = [vocabulary.end in caption for caption in captions]
        return reward(image_ids, [vocabulary.decode(caption) for caption in captions], ended)

    forbidden = (vocabulary.pad, vocabulary.start, vocabulary.unknown)
    ids = {"start": vocabulary.start, "end": vocabulary.end, "forbidden": forbidden}
    return build(config["objective"], reward=of_ids, **ids)


def _predict(captioner, batch, loss, *, search: Callable, vocabulary) -> dict[int, str]:
    """{image id: caption} of one validation batch."""
    texts = generate_texts(captioner, batch.images, batch.mask, search=search, vocabulary=vocabulary)
    return dict(zip(batch.image_ids.tolist(), texts, strict=True))


def _score(
    references: Mapping[int, Sequence[str]], extra: Callable | None, prefix: str, captions: Mapping[int, str]
) -> dict[str, float]:
    """Scores of the images that this validation wrote captions for (all, unless trainer.limit_val_batches is set)."""
    scores = score({image_id: references[image_id] for image_id in captions}, captions)
    scores |= extra(captions, split="val") if extra else {}
    return {prefix + name: value for name, value in scores.items()}


def _about(splits, tokens, vocabulary) -> str:
    sizes = ", ".join(f"{len(records)} {split}" for split, records in splits.items())
    known = vocabulary.coverage(caption for record in splits["val"] for caption in tokens[record.image_id])
    return f"images: {sizes}; vocabulary {len(vocabulary)} words ({known:.2%} of val's)"
