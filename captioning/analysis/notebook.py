"""Load a data set for a notebook, count its captions, and collect entries for contact sheets and boxes of words."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from captioning.config import AuditConfig, build, check, compose
from captioning.data import Instances, Record, open_picture, select
from captioning.errors import ConfigError
from captioning.text import tokenize
from captioning.visualise import Entry


class DataSet(NamedTuple):
    """config: conf/data as plain containers. records: of all splits."""

    config: dict[str, Any]
    records: list[Record]

    def split(self, name: str) -> list[Record]:
        """The records of one split."""
        return select(self.records, name)

    def instances(self, records: Sequence[Record]) -> Instances:
        """What is where in their pictures.

        Raises:
            ConfigError: the data set does not say.
        """
        if self.config["instances"] is None:
            raise ConfigError(f"data={self.config['name']} has no instances: use data=coco or data=scenes")
        return build(self.config["instances"])(records=records)


def open_data(overrides: Sequence[str]) -> DataSet:
    """A data set as a command line names it: ["data=flickr8k", "data.root=DIR"]."""
    config = check(compose("audit", list(overrides)), AuditConfig)["data"]
    return DataSet(config, build(config["reader"]))


def caption_counts(records: Iterable[Record], *, words: int = 20) -> dict[str, dict]:
    """{"words a caption": {length: captions}, "most frequent words": {word: times}}, for `bars_figure`."""
    tokens = [tokenize(caption) for record in records for caption in record.captions]
    lengths = Counter(map(len, tokens))
    frequent = Counter(word for line in tokens for word in line).most_common(words)
    return {"words a caption": dict(sorted(lengths.items())), "most frequent words": dict(frequent)}


def image_entries(
    records: Sequence[Record],
    captions: Mapping[str, Mapping[int, str]] | None = None,
    scores: Mapping[str, Mapping[int, float]] | None = None,
) -> list[Entry]:
    """Cards of a caption sheet, one a record.

    Args:
        captions: {label: {image id: text}}; without any, the first reference of each picture.
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
    """Cards of the images in some rows of `comparing.differences`, with both captions and both scores."""
    by_id = {record.image_id: record for record in data.records}
    sides = list(zip(labels, "ab", strict=True))
    captions = {label: {row["image_id"]: row[f"caption_{side}"] for row in rows} for label, side in sides}
    scores = {f"{by} {label}": {row["image_id"]: row[side] for row in rows} for label, side in sides}
    return image_entries([by_id[row["image_id"]] for row in rows], captions, scores)


def ranked(grounded: Mapping[int, Sequence[Any]], measure: str = "attention mass box") -> list[int]:
    """Ids of the images with a word that was measured, those whose words have the most of the measure first."""
    means = {}
    for image_id, mentions in grounded.items():
        if values := [each.measures[measure] for each in mentions if each.measures]:
            means[image_id] = sum(values) / len(values)
    return sorted(means, key=lambda image_id: -means[image_id])


def boxes_by_word(tokens: Sequence[str], mentions: Sequence[Any], things: Sequence[Any]) -> list[list[tuple]]:
    """For each word the boxes (left, top, right, bottom) of the things that it names: `boxes` of a figure.

    Args:
        mentions: of the caption, as `metrics.grounding.ground` gives them. things: instances of the picture.
    """
    boxes: list[list[tuple]] = [[] for _ in tokens]
    for each in mentions:
        here = [thing.box for thing in things if thing.category == each.mention.category]
        for place in range(each.mention.start, each.mention.stop):
            boxes[place] = [(x, y, x + width, y + height) for x, y, width, height in here]
    return boxes
