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
from captioning.data import (
    CaptionDataset,
    Vocabulary,
    collate,
    cut_warning,
    default_length,
    dictionary_option,
    select,
    tokenize_captions,
)
from captioning.errors import CheckpointError, ConfigError, DataError, must_be
from captioning.evaluation import decoding_name
from captioning.features import report_unreadable
from captioning.inference import generate_texts
from captioning.io import counted
from captioning.metrics import Scorer, score
from captioning.models import LongestCaption
from captioning.tasks.illustrations import Illustrator
from captioning.tasks.parts import Parts
from captioning.tasks.tag_places import fill_tag_places, with_nouns
from captioning.text import Tokenizer, make_tokenizer, unsplit_share, unsplit_warning
from captioning.training import digest

_SPLITS = ("train", "val")
LEAST_FOR_CIDER = 20  # images: with fewer, CIDEr is mostly chance
NAMED = 3  # most validation images that the notice about few images names
_MOST_SINGLE = 0.5  # share of words of one character; with more, byte pairs learn hardly anything
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
        data, records = config["data"], build(config["data"]["reader"])
        splits = {"train": select(records, "train"), "val": _validation(records, config)}
        wanted = [record for split in _SPLITS for record in splits[split]]
        tokenizer = make_tokenizer(data["tokenizer"])
        tokenizer.fit(caption for record in splits["train"] for caption in record.captions)
        tokens = dict(zip((record.image_id for record in wanted), tokenize_captions(wanted, tokenizer), strict=True))
        training = [caption for record in splits["train"] for caption in tokens[record.image_id]]
        lengths = [len(tokenizer.pieces(words)) for words in training]
        _check_pieces(training, tokenizer)
        _check_captions(config, splits, lengths, tokenizer)
        decoding = decoding_name(config["decoding"])
        config = _with_length(config, lengths, tokenizer)
        config = with_nouns(config, {"resume": resumed, "start_from": started})
        data = config["data"]
        vocabulary = Vocabulary.build(training, min_count=data["min_count"], tokenizer=tokenizer)
        for key, checkpoint in (("resume", resumed), ("start_from", started)):
            same_words(key, checkpoint, vocabulary)

        # Every configuration error is reported before any features are computed, which may take hours.
        encoder, transform = build(config["encoder"]), build(config["transform"])
        tuned = started is not None and take_encoder(encoder, started, Path(config["start_from"]))
        if started and not tuned:
            same_encoder("start_from", started, encoder)
        if resumed:
            same_encoder("resume", resumed, encoder)
            take_encoder(encoder, resumed, Path(config["resume"]))  # before its frozen part fills a store
        reward = _reward(config, splits["train"], resumed or started, tokenizer)
        teacher = _teacher(config, splits["train"], tokens, vocabulary)
        frequencies = reward.state_dict() if reward else None
        captioner = _captioner(config, vocabulary, encoder)
        _check_lengths(config, captioner.longest)
        fill_tag_places(captioner, config["encoder"], encoder)
        search = build(config["decoding"])
        _try_decoding(captioner, search, vocabulary, encoder)
        extra = build(data["extra_scores"]) if data["extra_scores"] else None
        references = {record.image_id: record.captions for record in splits["val"]}
        _loaders(config, {"train": [], "val": []}, tokens, vocabulary)
        metadata = make_metadata(config, vocabulary, encoder, tuned=tuned, frequencies=frequencies)
        shown: list[Illustrator] = []  # filled by `load`
        prefix = f"val/{decoding}/"

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
            loaders = _loaders(config, kept, tokens, vocabulary, source)
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
            digest=digest(wanted),
            encoder=encoder,
            encoder_lr=config["encoder_lr"],
            encoder_warmup=config["encoder_warmup"],
            monitor_fault=lambda: _no_cider(splits["val"], tokens, metadata.get("images"), config),
            illustrate=lambda model, count: shown[-1](model, count),
            intervals=partial(_intervals, references, prefix, tokenizer),
        )


def _check_captions(
    config: Mapping[str, Any], splits: Mapping[str, Sequence], lengths: Sequence[int], tokenizer: Tokenizer
) -> None:
    """Warn about captions that the tokenizer cannot split into words, and about captions that are cut.

    Args:
        lengths: the numbers of pieces of the training captions.

    Raises:
        DataError: more than half of the training captions cannot be split.
    """
    data, limit = config["data"], config["decoding"].get("max_length")
    for split, records in splits.items():
        texts = [] if tokenizer.splits_unspaced else [caption for record in records for caption in record.captions]
        if line := unsplit_warning(texts, f"data={data['name']}, data.root={data['root']}, split '{split}'"):
            if split == "train" and unsplit_share(texts) > _MOST_UNSPLIT:
                raise DataError(line)
            print(f"warning: {line}", file=sys.stderr)
    own = {"decoding_length": limit, "unit": tokenizer.unit}
    if data["max_length"] is not None and (line := cut_warning(lengths, data["max_length"], **own)):
        print(f"warning: {line}", file=sys.stderr)


def _check_pieces(captions: Sequence[Sequence[str]], tokenizer: Tokenizer) -> None:
    """Warn if the words are mostly single characters, of which byte pairs make few longer pieces."""
    if tokenizer.learned_pieces() is None:
        return
    counts, characters = Counter(word for words in captions for word in words), make_tokenizer("characters")
    single = {word: count for word, count in counts.items() if len(characters(word)) <= 1}  # none of them: a space
    share = sum(single.values()) / max(1, counts.total())
    if share > _MOST_SINGLE:
        base, option = tokenizer.word_tokenizer, dictionary_option(single)
        words = f", or pieces of dictionary words: bpe:4000:unicode:{option}" if option and not base.option else ""
        print(
            f"warning: data.tokenizer={tokenizer.name}: {share:.0%} of the words of {base.name} have one character, "
            f"so few longer pieces are learned. Use data.tokenizer={base.name}{words}",
            file=sys.stderr,
        )


def _with_length(config: Mapping[str, Any], lengths: Sequence[int], tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the settings with the limits that follow the data: data.max_length, and those of decoding and objective.

    Args:
        lengths: the numbers of pieces of the training captions.
    """
    limit = config["data"]["max_length"]
    if limit is None:
        limit, longest = default_length(lengths), max(lengths, default=0)
        cut = sum(length > limit for length in lengths)
        share = f": {cut} of {counted(len(lengths), 'caption')} cut" if cut else ""
        print(f"data.max_length: {limit} {tokenizer.unit} (the longest training caption has {longest}{share})")
    filled = {**config, "data": {**config["data"], "max_length": limit}}
    for part in ("decoding", "objective"):
        if "max_length" in config[part] and config[part]["max_length"] is None:
            filled[part] = {**config[part], "max_length": limit}
    return filled


def _validation(records: Sequence, config: Mapping[str, Any]) -> list:
    """Return the validation records; there may be none only if trainer.limit_val_batches is 0.

    Raises:
        DataError: there are none. The message says how to add some, or how to train without validation.
    """
    chosen = [record for record in records if record.split == "val"]
    if chosen or config["trainer"].get("limit_val_batches") == 0:
        return chosen
    counts = Counter(record.split for record in records)
    there = ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"
    raise DataError(
        f"split 'val' has no images with captions (images per split: {there}). For your own photos (data=csv), add a "
        "`split` column to the CSV file, with `val` for about a tenth of them; for other data sets, docs/data.md in "
        "the repository lists the files. To train without validation, add: trainer.limit_val_batches=0 "
        "early_stopping=none"
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


def _loaders(config: Mapping[str, Any], splits: Mapping[str, Sequence], tokens: Mapping, vocabulary, source=None):
    """Return the loaders of the readable records; without a source and records, only check the settings."""
    data = config["data"]
    common = {"vocabulary": vocabulary, "source": source and source.read, "max_length": data["max_length"]}
    limits = {"train": data["captions_per_image"], "val": None}
    datasets = [
        CaptionDataset(
            splits[split],
            [tokens[record.image_id] for record in splits[split]],
            captions_per_image=limits[split],
            views=source.views if source and split == "train" else (),
            augment=source.augment if source and split == "train" else None,
            seed=config["seed"],
            **common,
        )
        for split in _SPLITS
    ]
    from captioning.training import CaptionModule

    return CaptionModule(*datasets, workers=source.workers if source else 0, seed=config["seed"], **config["loader"])


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


def _teacher(config: Mapping[str, Any], records: Sequence, tokens: Mapping, vocabulary):
    """Return the teacher, whose file must have soft targets for captions of the training split; None if not set."""
    if not config["teacher"]:
        return None
    if config["reward"]:
        raise ConfigError(
            "teacher cannot be combined with a reward: use objective=distilled for a teacher, or set teacher=null"
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


def _about(splits, tokens, vocabulary) -> str:
    known = vocabulary.coverage(caption for record in splits["val"] for caption in tokens[record.image_id])
    unit, tokenizer = vocabulary.tokenizer.unit, vocabulary.tokenizer.name
    covers = f", which cover {known:.2%} of the {unit} of the validation captions" if splits["val"] else ""
    train, val = (
        counted(len(splits[split]), f"{name} image") for split, name in (("train", "training"), ("val", "validation"))
    )
    return f"data: {train}, {val}; vocabulary: {len(vocabulary):,} {unit} (tokenizer {tokenizer}){covers}"
