"""Measure object hallucination: CHAIR (Rohrbach et al., EMNLP 2018), and precision and recall of named categories.

A mention is a word or phrase of a caption that names a category (`mentions`). CHAIR counts mentions, so a category that
a caption names twice counts twice. A mention is hallucinated if its category is neither annotated in the image nor
named by one of its references. Precision and recall count each category once per image. All scores are quotients of
counts that are summed over images.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from captioning.errors import DataError
from captioning.metrics.mentions import Phrases, find_mentions

PERSON = "person"
# Family -> columns (numerator, denominator) of each of its scores, in the order of `UNDEFINED`.
SHARES: dict[str, tuple[tuple[int, int], ...]] = {
    "CHAIR": ((0, 1), (2, 3)),
    "Object": ((0, 1), (0, 2)),
    "Named": ((0, 1), (0, 2), (3, 4)),
}
# Score -> why it is not defined if its denominator is 0.
UNDEFINED = {
    "CHAIR-i": "no caption names an object",
    "CHAIR-s": "there are no captions",
    "Object-precision": "no caption names an object",
    "Object-recall": "no image has an annotated object",
    "Named-precision": "no caption names an object",
    "Named-recall": "no reference names an object",
    "Named-recall-no-person": "no reference names an object besides persons",
}
LOWER_IS_BETTER = ("CHAIR-i", "CHAIR-s")


class AnnotatedObjects(NamedTuple):
    """The annotated objects of images, and the words that name them.

    Attributes:
        categories: image id -> the categories of its annotated objects.
        phrases: result of `compile_phrases`.
    """

    categories: Mapping[Any, Collection[str]]
    phrases: Phrases

    def describe(self, image_ids: Iterable[Any]) -> str:
        """Return a fingerprint of the images' categories and the words; independent of the images' names and order."""
        images = sorted(repr(sorted(self.categories[image_id])) for image_id in image_ids)
        words = sorted(f"{' '.join(phrase)}: {category}" for phrase, category in self.phrases.items())
        return f"annotated objects {hashlib.sha256(chr(10).join([*images, *words]).encode()).hexdigest()[:8]}"


def count_objects(
    references: Mapping[Any, Sequence[Sequence[str]]],
    captions: Mapping[Any, Sequence[str]],
    objects: AnnotatedObjects,
) -> dict[str, np.ndarray]:
    """Count the objects that captions name.

    Args:
        references: image id -> words of each reference.
        captions: image id -> words of the caption.
        objects: the annotated objects.

    Returns:
        [I, K] counts per image, by family:

        - "CHAIR": hallucinated mentions, all mentions, captions with a hallucinated mention, captions.
        - "Object": named categories that are annotated, named categories, annotated categories.
        - "Named": named categories that the references name, named categories, categories that the references name;
          the first and the third without persons.

    Raises:
        DataError: `objects` lacks an image.
    """
    if missing := [image_id for image_id in references if image_id not in objects.categories]:
        raise DataError(f"'objects' lacks {len(missing)} images, such as image id {missing[0]}: add their categories")
    rows: dict[str, list[tuple[int, ...]]] = {family: [] for family in SHARES}
    for image_id, group in references.items():
        annotated = set(objects.categories[image_id])
        in_references = {category for words in group for category in _categories(words, objects.phrases)}
        mentions = _categories(captions[image_id], objects.phrases)
        wrong = sum(category not in annotated | in_references for category in mentions)
        named = set(mentions)
        right, others = named & in_references, in_references - {PERSON}
        rows["CHAIR"].append((wrong, len(mentions), int(wrong > 0), 1))
        rows["Object"].append((len(named & annotated), len(named), len(annotated)))
        rows["Named"].append((len(right), len(named), len(in_references), len(right & others), len(others)))
    return {family: np.array(counts, dtype=float) for family, counts in rows.items()}


def _categories(words: Sequence[str], phrases: Phrases) -> list[str]:
    return [mention.category for mention in find_mentions(words, phrases)]


def shares_of(family: str, counts: np.ndarray) -> np.ndarray:
    """Compute a family's scores from its counts.

    Args:
        family: "CHAIR", "Object" or "Named".
        counts: […, K] counts of one image, or sums over several.

    Returns:
        […, scores] quotients; nan where the denominator is 0.
    """
    above, below = (counts[..., [pair[at] for pair in SHARES[family]]] for at in (0, 1))
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)


def values_of(counts: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return {score: [I] values of the single images} from the result of `count_objects`."""
    columns = [column for family, counted in counts.items() for column in shares_of(family, counted).T]
    return dict(zip(UNDEFINED, columns, strict=True))
