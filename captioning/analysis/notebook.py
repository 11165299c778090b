"""Help notebooks: load a data set, count its captions, and collect entries for contact sheets and boxes for figures."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from captioning.config import AuditConfig, build, check, compose, with_recognized
from captioning.data import Instances, Record, open_picture, select
from captioning.errors import ConfigError
from captioning.text import make_tokenizer
from captioning.visualise import Entry


class DataSet(NamedTuple):
    """A data set.

    Attributes:
        config: its configuration (`conf/data/…`), as plain containers.
        records: the images of all splits, with their captions.
    """

    config: dict[str, Any]
    records: list[Record]

    def split(self, name: str) -> list[Record]:
        """Return the records of one split.

        Raises:
            DataError: the split has no images.
        """
        return list(select(self.records, name))

    def instances(self, records: Sequence[Record]) -> Instances:
        """Return the annotated objects of some images.

        Raises:
            ConfigError: the data set has no annotated objects.
        """
        if self.config["instances"] is None:
            raise ConfigError(f"data={self.config['name']} has no annotated objects. Use data=coco or data=scenes")
        return build(self.config["instances"])(records=records)


def open_data(overrides: Sequence[str]) -> DataSet:
    """Load a data set from overrides as on the command line, for example ["data=flickr8k", "data.root=DIR"]."""
    config = check(compose("audit", with_recognized(overrides)), AuditConfig)["data"]
    return DataSet(config, build(config["reader"]))


def caption_counts(records: Iterable[Record], *, words: int = 20, tokenizer: str = "ptb") -> dict[str, dict]:
    """Count captions by length, and the most frequent words, for `bars_figure`.

    Args:
        records: images with captions.
        words: how many of the most frequent words to count.
        tokenizer: the value of `data.tokenizer`.

    Returns:
        {"words per caption": {length: number of captions}, "most frequent words": {word: count}}.
    """
    split = make_tokenizer(tokenizer)
    tokens = [split(caption) for record in records for caption in record.captions]
    lengths = Counter(map(len, tokens))
    frequent = Counter(word for line in tokens for word in line).most_common(words)
    return {"words per caption": dict(sorted(lengths.items())), "most frequent words": dict(frequent)}


def image_entries(
    records: Sequence[Record],
    captions: Mapping[str, Mapping[int, str]] | None = None,
    scores: Mapping[str, Mapping[int, float]] | None = None,
) -> list[Entry]:
    """Return the entries of a contact sheet, one per record.

    Args:
        records: the images.
        captions: {label: {image id: text}}; None: the first reference of each image.
        scores: {name: {image id: value}}.
    """
    return [
        Entry(
            open_picture(record.path),
            {label: texts[record.image_id] for label, texts in captions.items()} if captions else record.captions[0],
            record.captions if captions else record.captions[1:],
            {name: values[record.image_id] for name, values in (scores or {}).items()},
            record.path.name,
        )
        for record in records
    ]


def differing(
    data: DataSet, rows: Sequence[Mapping[str, Any]], by: str, *, labels: tuple[str, str] = ("A", "B")
) -> list[Entry]:
    """Return the entries of a contact sheet for rows of a comparison, with both captions and both scores.

    Args:
        data: the data set of the images.
        rows: some rows of `captioning.evaluation.differences`.
        by: the score that was compared.
        labels: the names of the two sides.
    """
    by_id = {record.image_id: record for record in data.records}
    sides = list(zip(labels, "ab", strict=True))
    captions = {label: {row["image_id"]: row[f"caption_{side}"] for row in rows} for label, side in sides}
    scores = {f"{by} {label}": {row["image_id"]: row[side] for row in rows} for label, side in sides}
    return image_entries([by_id[row["image_id"]] for row in rows], captions, scores)


def ranked(grounded: Mapping[int, Sequence[Any]], measure: str = "attention mass box") -> list[int]:
    """Sort image ids by a grounding measure, the largest mean over an image's words first.

    Images without measured words are left out.

    Args:
        grounded: {image id: mentions}, from `captioning.evaluation.caption_and_ground`.
        measure: the name of the measure.
    """
    means = {}
    for image_id, mentions in grounded.items():
        if values := [each.measures[measure] for each in mentions if each.measures]:
            means[image_id] = sum(values) / len(values)
    return sorted(means, key=lambda image_id: -means[image_id])


def boxes_by_word(tokens: Sequence[str], mentions: Sequence[Any], things: Sequence[Any]) -> list[list[tuple]]:
    """Return the boxes (left, top, right, bottom) of the objects that each word names, for the `boxes` of a figure.

    Args:
        tokens: the words of a caption.
        mentions: the caption's mentions, from `captioning.metrics.ground_caption`.
        things: the annotated objects of the image.
    """
    boxes: list[list[tuple]] = [[] for _ in tokens]
    for each in mentions:
        here = [thing.box for thing in things if thing.category == each.mention.category]
        for word in range(each.mention.start, each.mention.stop):
            boxes[word] = [(x, y, x + width, y + height) for x, y, width, height in here]
    return boxes
