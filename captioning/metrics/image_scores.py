"""Score captions by comparing their embeddings with those of the image and of the references.

CLIPScore and RefCLIPScore are defined by Hessel et al. (EMNLP 2021), PAC-S and RefPAC-S by Sarto et al. (CVPR 2023).
Both use the same formulas, with another weight and another model. The model is passed in: this file needs only NumPy.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from captioning.errors import ConfigError, DataError
from captioning.io import counted, file_exists

PROMPT = "A photo depicts "  # precedes each caption and each reference, in both papers
CLIP_WEIGHT, PAC_WEIGHT = 2.5, 2.0  # the papers' w: it only stretches the scores
MEANINGLESS = "RANDOM WEIGHTS: this number means nothing"
ONLY_ENGLISH = "the model knows only English: choose a multilingual one (docs/evaluate.md)"
_ROWS = 8192  # pairs of embeddings that are compared at a time
_SHOWN = 3  # names in an error message


class Embedder(Protocol):
    """A model that maps images and texts to vectors of one space (`captioning.evaluation.ClipEncoder`)."""

    @property
    def random(self) -> bool:
        """Whether the weights are random, so that the scores mean nothing."""

    @property
    def english_only(self) -> bool:
        """Whether the model is known to be trained on English text only."""

    def prepare(self) -> None:
        """Load the weights, unless they are loaded already."""

    def describe(self) -> str:
        """Return the names of the model and of its weights, for readers of the scores."""

    def embed_images(self, paths: Sequence[Path]) -> np.ndarray:
        """Return the embeddings [I, D] of I image files."""

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return the embeddings [T, D] of T texts."""


class ImageScore(NamedTuple):
    """A score that looks at the image.

    Attributes:
        name: "CLIPScore" or "PAC-S"; with references it is "Ref" and this name.
        setting: the setting that turns it on.
        weight: the factor w of the formula.
        embedder: the model.
    """

    name: str
    setting: str
    weight: float
    embedder: Embedder

    @property
    def names(self) -> tuple[str, str]:
        """The names of the score without and with references."""
        return self.name, f"Ref{self.name}"

    def __call__(
        self,
        references: Mapping[Any, Sequence[str]],
        captions: Mapping[Any, str],
        images: Mapping[Any, Path],
    ) -> dict[str, np.ndarray]:
        """Compute both scores of every image, in the order of the references.

        Args:
            references: image id -> raw references; no words are split, because the model has its own tokenizer.
            captions: image id -> raw caption.
            images: image id -> image file.

        Returns:
            {name: [I] scores of the single images}.
        """
        owners = np.repeat(np.arange(len(references)), [len(texts) for texts in references.values()])
        pictures = self.embedder.embed_images([images[image_id] for image_id in references])
        written = self.embedder.embed_texts([PROMPT + captions[image_id] for image_id in references])
        given = self.embedder.embed_texts([PROMPT + text for texts in references.values() for text in texts])
        alone = image_text_scores(pictures, written, weight=self.weight)
        return dict(zip(self.names, (alone, with_references(alone, written, given, owners)), strict=True))


def wanted_scores(
    *, clipscore: bool, pac_s: bool, clip: Embedder | None, pac: Embedder | None
) -> tuple[ImageScore, ...]:
    """Return the scores that the settings turn on.

    Raises:
        ConfigError: a score has no model.
    """
    found = []
    for wanted, name, setting, group, weight, embedder in (
        (clipscore, "CLIPScore", "metrics.clipscore", "metrics.clip", CLIP_WEIGHT, clip),
        (pac_s, "PAC-S", "metrics.pac_s", "metrics.pac", PAC_WEIGHT, pac),
    ):
        if wanted and embedder is None:
            raise ConfigError(f"{setting}=true needs a model: set {group}._target_=captioning.evaluation.ClipEncoder")
        if wanted and embedder is not None:
            found.append(ImageScore(name, setting, weight, embedder))
    return tuple(found)


def check_images(scores: Sequence[ImageScore], images: Mapping[Any, Path] | None, image_ids: Sequence[Any]) -> None:
    """Check that every image has a file, and load the models.

    Args:
        scores: the scores; without any, nothing is checked.
        images: image id -> image file.
        image_ids: the images that are scored.

    Raises:
        ConfigError: no files are given, or a model cannot be loaded.
        DataError: an image has no file.
    """
    if not scores:
        return
    if images is None:
        raise ConfigError(f"{scores[0].setting}=true looks at the images. Give their folder: images=FOLDER")
    if unnamed := [image_id for image_id in image_ids if image_id not in images]:
        raise DataError(
            f"{scores[0].setting}=true needs a file for each image, but {len(unnamed)} of "
            f"{counted(len(image_ids), 'image')} have none: image ids {_first(unnamed)}. Give each image a file name"
        )
    if missing := [path for image_id in image_ids if not file_exists(path := images[image_id])]:
        raise DataError(
            f"{scores[0].setting}=true needs the image files, but {len(missing)} of {counted(len(image_ids), 'file')} "
            f"do not exist: {_first(missing)}. Check the folder of the images"
        )
    for score in scores:
        score.embedder.prepare()


def score_notes(scores: Sequence[ImageScore], *, english: bool) -> dict[str, str]:
    """Return notes for the readers of scores that do not mean what they seem to.

    Args:
        scores: the scores.
        english: whether the captions may be English.
    """
    found: dict[str, str] = {}
    for score in scores:
        if score.embedder.random:
            found |= dict.fromkeys(score.names, MEANINGLESS)
        elif score.embedder.english_only and not english:
            found |= dict.fromkeys(score.names, ONLY_ENGLISH)
    return found


def image_text_scores(images: np.ndarray, captions: np.ndarray, *, weight: float) -> np.ndarray:
    """Compute w · max(cos(image, caption), 0) for every image.

    Args:
        images: [I, D] embeddings of the images.
        captions: [I, D] embeddings of their captions.
        weight: w.

    Returns:
        [I] scores: CLIPScore for w = 2.5 (Hessel et al. 2021, section 3), PAC-S for w = 2 (Sarto et al. 2023).
    """
    return weight * np.maximum(_cosines(images, captions), 0)


def with_references(scores: np.ndarray, captions: np.ndarray, references: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """Compute the harmonic mean of a score and of the caption's cosine to its nearest reference, RefCLIPScore.

    A cosine below 0 counts as 0, as in the paper. The authors' program does not do this; no real caption has one. The
    harmonic mean of 0 and 0 is 0.

    Args:
        scores: [I] results of `image_text_scores`.
        captions: [I, D] embeddings of the captions.
        references: [R, D] embeddings of the references of all images; each image has at least one.
        owners: [R] index of the image that a reference belongs to.

    Returns:
        [I] scores (Hessel et al. 2021, section 3).
    """
    nearest = np.zeros(len(scores))
    np.maximum.at(nearest, owners, _cosines(captions, references, owners))
    total = scores + nearest
    return np.divide(2 * scores * nearest, total, out=np.zeros(len(scores)), where=total > 0)


def _cosines(left: np.ndarray, right: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
    """Return the cosine of each row of `right` and its row of `left`, in 64 bits; 0 for a vector of zeros.

    Args:
        left: [N, D] vectors.
        right: [M, D] vectors.
        rows: [M] row of `left` for each row of `right`; None: the same row.
    """
    rows = np.arange(len(right)) if rows is None else rows
    result = np.empty(len(right))
    for start in range(0, len(right), _ROWS):
        part = slice(start, start + _ROWS)
        result[part] = np.einsum("nd,nd->n", _unit(left[rows[part]]), _unit(right[part]))
    return result


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def _first(items: Sequence[Any]) -> str:
    return ", ".join(map(str, items[:_SHOWN])) + (" …" if len(items) > _SHOWN else "")
