"""Train image captioning: build model, objective and data, and score the captions of each validation."""

import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from captioning.checkpoints import IMAGE_CAPTIONING, make_metadata, same_encoder, same_images, same_words, take_encoder
from captioning.config import CaptionTrainConfig, build, build_encoder
from captioning.data import (
    CaptionDataset,
    RecordTable,
    TokenTable,
    Vocabulary,
    check_order,
    collate,
    counts_of_splits,
    cut_captions,
    cut_warning,
    default_length,
    image_ids_of,
    of_split,
    select,
)
from captioning.errors import CheckpointError, ConfigError, DataError, must_be
from captioning.evaluation import decoding_name
from captioning.features import report_unreadable
from captioning.inference import generate_texts
from captioning.io import counted
from captioning.metrics import Scorer, score
from captioning.models import LongestCaption
from captioning.tasks.caption_files import caption_files
from captioning.tasks.illustrations import Illustrator
from captioning.tasks.parts import Parts
from captioning.tasks.tag_places import fill_tag_places, with_nouns
from captioning.text import Tokenizer, Unsplit, unsplit_line

_SPLITS = ("train", "val")
_TOGETHER = 1024  # images whose captions are compared with a teacher's at once
LEAST_FOR_CIDER = 20  # images: with fewer, CIDEr is mostly chance
NAMED = 3  # most validation images that the notice about few images names
_MOST_UNSPLIT = 0.5  # share of the training captions; with more, the model would memorize whole sentences as words


class ImageCaptioningTask:
    """The task of training image captioning; it is validated by the scores of one caption per validation image."""

    name: ClassVar = IMAGE_CAPTIONING
    schema: ClassVar = CaptionTrainConfig

    def __call__(self, config: Mapping[str, Any], *, resumed: Mapping | None, started: Mapping | None) -> Parts:
        """Build the model and everything that trains and scores it.

        Args:
            config: the checked settings of the run.
            resumed: the checkpoint to resume from, if any.
            started: the checkpoint whose weights the run starts from, if any.

        Raises:
            ConfigError: a setting cannot work.
            DataError: the data set is missing or damaged, or most captions cannot be split into words.
            CheckpointError: a checkpoint or teacher file does not fit.
        """
        must_be("data.max_length", config["data"]["max_length"], least=1)
        _check_order(config)
        records, tokens, found = caption_files(config)
        splits = {"train": select(records, "train"), "val": _validation(records, config)}
        wanted = records[: len(splits["train"]) + len(splits["val"])]  # these splits are the first ones
        tokenizer = tokens.tokenizer
        _check_captions(config, tokens)
        decoding = decoding_name(config["decoding"])
        config = _with_length(config, tokens.lengths, tokenizer)
        config = with_nouns(config, {"resume": resumed, "start_from": started})
        data = config["data"]
        vocabulary = tokens.vocabulary(data["min_count"])
        encode = partial(_encoded, tokens=tokens, vocabulary=vocabulary, max_length=data["max_length"])
        for key, checkpoint in (("resume", resumed), ("start_from", started)):
            same_words(key, checkpoint, vocabulary)

        # Every configuration error is reported before any features are computed, which may take hours.
        encoder, transform = build_encoder(config)
        tuned = started is not None and take_encoder(encoder, started, Path(config["start_from"]))
        if started and not tuned:
            same_encoder("start_from", started, encoder)
        if resumed:
            same_encoder("resume", resumed, encoder)
            take_encoder(encoder, resumed, Path(config["resume"]))  # before its frozen part fills a store
        reward = _reward(config, splits["train"], resumed or started, tokenizer)
        teacher = _teacher(config, splits["train"], encode, vocabulary)
        frequencies = reward.state_dict() if reward else None
        captioner = _captioner(config, vocabulary, encoder)
        _check_lengths(config, captioner.longest)
        fill_tag_places(captioner, config["encoder"], encoder)
        search = build(config["decoding"])
        _try_decoding(captioner, search, vocabulary, encoder)
        extra = build(data["extra_scores"]) if data["extra_scores"] else None
        references = {record.image_id: record.captions for record in splits["val"]}
        _loaders(config, {"train": [], "val": []}, encode)
        metadata = make_metadata(config, vocabulary, encoder, tuned=tuned, frequencies=frequencies)
        shown: list[Illustrator] = []  # filled by `load`
        prefix = f"val/{decoding}/"

        def load() -> tuple[Any, str]:
            source = build(config["features"])(
                encoder, transform, wanted, name=data["name"], skip_unreadable=data["skip_unreadable"]
            )
            report_unreadable(source)
            captioner.encoder = source.encoder
            readable = wanted.with_ids(image_ids_of(source.records))
            kept = {"train": select(readable, "train"), "val": _validation(readable, config)}
            metadata["images"] = {split: len(records) for split, records in kept.items()}
            if resumed:
                same_images(resumed, metadata["images"])
            loaders = _loaders(config, kept, encode, source)
            if loaders.locations is not None:
                metadata["shards"] = zlib.crc32(loaders.locations.tobytes())
                if resumed:
                    _same_shards(resumed, metadata["shards"])
            shown.append(Illustrator(kept["val"], loaders.val_data, metadata, search))
            return loaders, _about(kept, tokens, vocabulary)

        return Parts(
            captioner,
            _objective(config, reward, teacher, vocabulary),
            predict=partial(_predict, search=search, vocabulary=vocabulary),
            score=partial(_score, references, extra, prefix, tokenizer),
            monitor=f"{prefix}CIDEr",
            mode="max",
            metadata=metadata,
            load=load,
            digest=found,
            encoder=encoder,
            encoder_lr=config["encoder_lr"],
            encoder_warmup=config["encoder_warmup"],
            monitor_fault=lambda: _no_cider(
                splits["val"], _Pieces(splits["val"], tokens), metadata.get("images"), config
            ),
            illustrate=lambda model, count: shown[-1](model, count),
            intervals=partial(_intervals, references, prefix, tokenizer),
        )


def _check_order(config: Mapping[str, Any]) -> None:
    """Refuse `loader.order=shards` if the images have no features in shards.

    Raises:
        ConfigError: the order is unknown, or the features are not those of a feature store.
    """
    loader, features = config["loader"], config["features"]["_target_"]
    check_order(loader["order"], loader["shuffle_buffer"])
    if loader["order"] == "shards" and features != "captioning.features.stored":
        raise ConfigError(
            "loader.order=shards reads the shards of a feature store one after the other, but "
            f"features={features.rpartition('.')[2]} has none: set loader.order=images, or features=store"
        )


def _check_captions(config: Mapping[str, Any], tokens: TokenTable) -> None:
    """Warn about captions that the tokenizer cannot split into words, and about captions that are cut.

    Raises:
        DataError: more than half of the training captions cannot be split.
    """
    data, limit = config["data"], config["decoding"].get("max_length")
    if line := tokens.header["few_pieces"]:
        print(line, file=sys.stderr)
    for split, counts in tokens.header["unsplit"].items():
        found = Unsplit(*counts)
        if line := unsplit_line(found, f"data={data['name']}, data.root={data['root']}, split '{split}'"):
            if split == "train" and found.share > _MOST_UNSPLIT:
                raise DataError(line)
            print(f"warning: {line}", file=sys.stderr)
    own = {"decoding_length": limit, "unit": tokens.tokenizer.unit}
    if data["max_length"] is not None and (line := cut_warning(tokens.lengths, data["max_length"], **own)):
        print(f"warning: {line}", file=sys.stderr)


def _with_length(config: Mapping[str, Any], lengths: Mapping[int, int], tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the settings with the limits that follow the data: data.max_length, and those of decoding and objective.

    Args:
        lengths: {number of pieces: number of training captions}.
    """
    limit = config["data"]["max_length"]
    if limit is None:
        limit, longest = default_length(lengths), max(lengths, default=0)
        cut = cut_captions(lengths, limit)
        share = f": {cut} of {counted(sum(lengths.values()), 'caption')} cut" if cut else ""
        print(f"data.max_length: {limit} {tokenizer.unit} (the longest training caption has {longest}{share})")
    filled = {**config, "data": {**config["data"], "max_length": limit}}
    for part in ("decoding", "objective"):
        if "max_length" in config[part] and config[part]["max_length"] is None:
            filled[part] = {**config[part], "max_length": limit}
    return filled


def _validation(records: RecordTable, config: Mapping[str, Any]) -> RecordTable:
    """Return the validation records; there may be none only if trainer.limit_val_batches is 0.

    Raises:
        DataError: there are none. The message says how to add some, or how to train without validation.
    """
    chosen = of_split(records, "val")
    if chosen or config["trainer"].get("limit_val_batches") == 0:
        return chosen
    raise DataError(
        f"split 'val' has no images with captions (images per split: {counts_of_splits(records)}). For "
        "your own photos (data=csv), add a `split` column to the CSV file, with `val` for about a tenth of them; for "
        "other data sets, docs/data.md in the repository lists the files. To train without validation, add: "
        "trainer.limit_val_batches=0 early_stopping=none"
    )


def _no_cider(records: Sequence, tokens: Mapping, read: Mapping[str, int] | None, config: Mapping[str, Any]) -> str:
    """Return why CIDEr cannot compare captions on this validation split; "" if it can.

    CIDEr gives a word more weight if fewer images have it in their references. With one image, or the same references
    for all images, every weight is 0. With few images, the scores are mostly chance.

    Args:
        read: number of readable images per split, if known.
    """
    count = read["val"] if read else len(records)
    limit = config["trainer"].get("limit_val_batches")
    limit = 1.0 if limit is None else limit  # a float is a share of the images, an int a number of batches
    count = min(count, limit * config["loader"]["val_batch_size"] if isinstance(limit, int) else int(limit * count))
    if count < LEAST_FOR_CIDER:
        named = f" ({', '.join(record.path.name for record in records)})" if count == len(records) <= NAMED else ""
        why = "CIDEr would be 0" if count == 1 else f"CIDEr needs at least {LEAST_FOR_CIDER}"
        return f"Only {counted(count, 'validation image')}{named}: {why}"
    if len({frozenset(map(tuple, tokens[record.image_id])) for record in records}) == 1:
        return "All validation images have the same references: CIDEr would be 0"
    return ""


def _captioner(config: Mapping[str, Any], vocabulary, encoder):
    """Return the model; its encoder is set later, when the source of its features is known."""
    return build(
        config["model"],
        feature_size=encoder.size,
        grid=encoder.grid_shape or encoder.output != "fc",
        regions=encoder.output == "regions",
        vocabulary_size=len(vocabulary),
        pad=vocabulary.pad,
    )


def _check_lengths(config: Mapping[str, Any], longest: LongestCaption | None) -> None:
    """Refuse training captions, and captions that the objective samples, that are longer than the model can read.

    The validation's search is refused by `_try_decoding`.

    Args:
        config: the settings with all lengths.
        longest: the longest caption that the model can read, or None.
    """
    if longest is None:
        return
    longest.check("data.max_length", config["data"]["max_length"], extra=1)
    if (length := config["objective"].get("max_length")) is not None:
        longest.check("objective.max_length", length)


def _try_decoding(captioner, search: Callable, vocabulary, encoder) -> None:
    """Decode one blank image, so that unusable decoding settings are reported at once."""
    shape = (encoder.size,) if encoder.output == "fc" else (encoder.places or 1, encoder.size)
    with torch.random.fork_rng(devices=[]):  # a search that samples must not change the run's random numbers
        generate_texts(captioner.eval(), torch.zeros(1, *shape), search=search, vocabulary=vocabulary)
    captioner.train()


def _encoded(records: Sequence, *, tokens: TokenTable, vocabulary: Vocabulary, max_length: int) -> Sequence:
    """Return the captions of records of the same run as ids."""
    return tokens.encoded(records.rows if isinstance(records, RecordTable) else [], vocabulary, max_length)


class _Pieces(Mapping):
    """The captions of some images as numbers of pieces: image id -> captions."""

    def __init__(self, records: RecordTable, tokens: TokenTable):
        self._rows = dict(zip(records.image_ids.tolist(), records.rows, strict=True))
        self._tokens = tokens

    def __getitem__(self, image_id: int) -> list[list[int]]:
        return self._tokens.pieces(int(self._rows[image_id]))

    def __iter__(self) -> Iterator[int]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def _loaders(config: Mapping[str, Any], splits: Mapping[str, Sequence], encode: Callable, source=None):
    """Return the loaders of the readable records; without a source and records, only check the settings.

    Args:
        encode: function from records to their captions as ids.
    """
    data = config["data"]
    limits = {"train": data["captions_per_image"], "val": None}
    datasets = [
        CaptionDataset(
            splits[split],
            encode(splits[split]),
            source=source and source.read,
            captions_per_image=limits[split],
            views=source.views if source and split == "train" else (),
            augment=source.augment if source and split == "train" else None,
            seed=config["seed"],
        )
        for split in _SPLITS
    ]
    from captioning.training import CaptionModule

    return CaptionModule(
        *datasets,
        workers=source.workers if source else 0,
        seed=config["seed"],
        locations=_locations(source, splits["train"]) if source and config["loader"]["order"] == "shards" else None,
        **config["loader"],
    )


def _locations(source, records: Sequence) -> np.ndarray:
    """Return where the features of training images are: [N, 2] shard and row.

    Raises:
        DataError: the store lost features since it was opened.
    """
    read = source.read
    while hasattr(read, "reads"):  # of several encoders, each with a store of its own: the first one's
        read = read.reads[0]
    locations = read.store.locations(image_ids_of(records))
    if (locations < 0).any():
        raise DataError("features.root: the store has no features of some training images: run captioning-prepare")
    return locations


def _reward(config: Mapping[str, Any], records: Sequence, checkpoint: Mapping[str, Any] | None, tokenizer: Tokenizer):
    """Return the reward over the references of the training split; None if the objective needs none.

    It takes the checkpoint's document frequencies if they were counted on the same captions.
    """
    if not config["reward"]:
        return None
    if checkpoint is None:
        print(
            "warning: this objective rewards sampled captions, but an untrained model samples nonsense. First train "
            "with objective=cross_entropy, then start from that checkpoint with start_from=CHECKPOINT",
            file=sys.stderr,
        )
    saved = checkpoint and checkpoint["captioning"].get("frequencies")
    references = {record.image_id: record.captions for record in records}
    try:
        reward = build(config["reward"], references=references, saved=saved, tokenizer=tokenizer)
    except CheckpointError as error:
        raise CheckpointError(f"{config['resume'] or config['start_from']}: {error}") from error
    if saved and not reward.taken_over:
        print("reward: the checkpoint has document frequencies of other training captions, so they were counted again")
    return reward


def _same_shards(checkpoint: Mapping[str, Any], shards: int) -> None:
    """Check that the features are in the same shards as when the run started, on which the order of training depends.

    Raises:
        ConfigError: they are in others.
    """
    if checkpoint["captioning"].get("shards", shards) != shards:
        raise ConfigError(
            "resume: the images are in other shards of features.root than when the run started, so loader.order=shards "
            "would give another order. Restore the feature store, or start the run again with overwrite=true"
        )


def _teacher(config: Mapping[str, Any], records: Sequence, encode: Callable, vocabulary: Vocabulary):
    """Return the teacher, whose file must have soft targets for captions of the training split; None if not set."""
    if not config["teacher"]:
        return None
    if config["reward"]:
        raise ConfigError(
            "teacher cannot be combined with a reward: use objective=distilled for a teacher, or set teacher=null"
        )
    teacher, texts, known, captions = build(config["teacher"], vocabulary=vocabulary), encode(records), 0, 0
    ids = image_ids_of(records)
    for first in range(0, len(records), _TOGETHER):
        some = range(first, min(first + _TOGETHER, len(records)))
        batch = collate([(int(ids[index]), torch.empty(0), texts[index]) for index in some])
        real = (batch.tokens[..., 1:] != vocabulary.pad).any(-1)
        known += int((teacher.knows(batch.image_ids, batch.tokens) & real).sum())
        captions += int(real.sum())
    if not known:
        raise CheckpointError(
            f"teacher.file={config['teacher']['file']} has soft targets of other captions, or of captions cut to "
            "another data.max_length. Run captioning-distill again with this run's data"
        )
    if known < captions:
        print(f"teacher: {known} of {captions} training captions have soft targets; the others are learned without")
    return teacher


def _objective(config: Mapping[str, Any], reward: Callable | None, teacher, vocabulary):
    """Return the objective; it receives the teacher, or the reward and the ids of the special tokens."""
    if not reward:
        return build(config["objective"], **({"teacher": teacher} if teacher else {}))
    if config["objective"].get("kl") and not (config["start_from"] or config["resume"]):
        raise ConfigError(
            "objective.kl compares with the model that the run starts from: add start_from=CHECKPOINT, or set "
            "objective.kl=0"
        )

    def of_ids(image_ids: Sequence[int], captions: Sequence[Sequence[int]]) -> Sequence[float]:
        ended = [vocabulary.end in caption for caption in captions]
        return reward(image_ids, [vocabulary.scored_words(caption) for caption in captions], ended)

    forbidden = (vocabulary.pad, vocabulary.start, vocabulary.unknown)
    ids = {"start": vocabulary.start, "end": vocabulary.end, "forbidden": forbidden}
    return build(config["objective"], reward=of_ids, **ids)


def _predict(captioner, batch, loss, *, search: Callable, vocabulary) -> dict[int, str]:
    """Return {image id: caption} of one validation batch."""
    texts = generate_texts(captioner, batch.images, batch.mask, search=search, vocabulary=vocabulary)
    return dict(zip(batch.image_ids.tolist(), texts, strict=True))


def _score(
    references: Mapping[int, Sequence[str]],
    extra: Callable | None,
    prefix: str,
    tokenizer: Tokenizer,
    captions: Mapping[int, str],
) -> dict[str, float]:
    """Return the scores of the captioned images: all of the split, unless trainer.limit_val_batches is set."""
    scores = score({image_id: references[image_id] for image_id in captions}, captions, tokenizer=tokenizer)
    scores |= extra(captions, split="val") if extra else {}
    return {prefix + name: value for name, value in scores.items()}


def _intervals(
    references: Mapping[int, Sequence[str]], prefix: str, tokenizer: Tokenizer, captions: Mapping[int, str]
) -> dict[str, tuple[float, float, float]]:
    """Return the scores of the captioned images with their 95 % bootstrap intervals, by their full names."""
    truths = {image_id: references[image_id] for image_id in captions}
    report = Scorer(bootstrap=1000)(truths, captions, tokenizer=tokenizer)
    return {prefix + name: (report.scores[name], *bounds) for name, bounds in report.intervals.items()}


def _about(splits: Mapping[str, RecordTable], tokens: TokenTable, vocabulary: Vocabulary) -> str:
    known = tokens.coverage(map(int, splits["val"].rows), vocabulary)
    unit, tokenizer = vocabulary.tokenizer.unit, vocabulary.tokenizer.name
    covers = f", which cover {known:.2%} of the {unit} of the validation captions" if splits["val"] else ""
    train, val = (
        counted(len(splits[split]), f"{name} image") for split, name in (("train", "training"), ("val", "validation"))
    )
    return f"data: {train}, {val}; vocabulary: {len(vocabulary):,} {unit} (tokenizer {tokenizer}){covers}"
