"""Fit the constants of `captioning/tags/calibration.py`, and print how reliable tags are.

    python docs/calibrate_tags.py COCO FLICKR8K [--cache FILE.npy]

COCO has annotations and images of train2017 (a sample is enough), FLICKR8K has dataset_flickr8k.json. Photos of other
splits are not used. A noun is confirmed by a photo if a reference mentions it or a word of its category of COCO, or if
an annotated object is of that category. Its broader noun confirms it too, if that is a noun of the table: "bird"
confirms "owl", but "food" does not confirm "popsicle". Confidences are cross-validated: those of one fifth of the
photos come from constants that were fitted to the others. Each data set has the same total weight.
"""

import argparse
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import yaml

from captioning.data import COCO_WORDS, Record, open_picture, read_coco, read_instances, read_karpathy, select
from captioning.tags import Calibration, Tagger, coco_words, forms, imagenet_nouns, load_tagger
from captioning.text import PUNCTUATION, tokenize

TEMPERATURES = (0.6, 0.8, 1.0, 1.3)
KINDS = ("category", "scene", "food", "clothing")
LEAST = 0.01  # nouns of a lower probability are neither fitted nor counted
FOLDS, RIDGE = 5, 1.0
BINS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
THRESHOLDS = (0.3, 0.5, 0.7, 0.9)


class Photos(NamedTuple):
    """Photos of one data set. references: words of each caption. objects: categories of the annotated objects."""

    name: str
    records: list[Record]
    references: list[list[list[str]]]
    objects: list[set[str]] | None


def read(coco: str, flickr8k: str) -> list[Photos]:
    """Read the photos of both data sets."""
    train = select(read_coco(coco, layout=2017), "train")
    instances = read_instances(coco, train).pictures
    objects = [{each.category for each in instances[record.image_id].instances} for record in train]
    val = select(read_karpathy(flickr8k, annotations="dataset_flickr8k.json"), "val")
    return [
        Photos("COCO train2017", train, _references(train), objects),
        Photos("Flickr8k val", val, _references(val), None),
    ]


def _references(records: Iterable[Record]) -> list[list[list[str]]]:
    return [
        [[word for word in tokenize(caption.lower()) if word not in PUNCTUATION] for caption in record.captions]
        for record in records
    ]


@cache
def _nothing() -> frozenset[str]:
    return frozenset(yaml.safe_load(COCO_WORDS.read_text(encoding="utf-8"))["nothing"])


def phrases(references: Sequence[Sequence[str]]) -> set[str]:
    """Return all phrases of one to three words, without those that name no category, such as "bus stop"."""
    found: set[str] = set()
    for words in references:
        parts: list[list[str]] = [[]]
        at = 0
        while at < len(words):
            skip = next((n for n in (3, 2) if " ".join(words[at : at + n]) in _nothing()), 0)
            parts += [[]] if skip else []
            parts[-1] += [] if skip else [words[at]]
            at += skip or 1
        for part in parts:
            found |= {" ".join(part[start : start + n]) for n in (1, 2, 3) for start in range(len(part) - n + 1)}
    return found


def confirmed(photos: Photos, nouns: Sequence[str]) -> np.ndarray:
    """Return whether each photo confirms each noun: bool [photos, nouns]."""
    rows = {row.noun: row for row in imagenet_nouns() if row.noun}
    broader = {noun: rows[noun].broader if rows[noun].broader in rows else "" for noun in nouns}
    names = {noun: {noun, broader[noun], rows[noun].category} - {""} for noun in nouns}
    for row in rows.values():  # a narrower noun confirms the broader one, as their probabilities are added up
        if row.broader in names and rows[row.broader].category in ("", row.category):
            names[row.broader].add(row.noun)
    words = {noun: {form for name in names[noun] for form in forms(name)} for noun in nouns}
    result = np.zeros((len(photos.records), len(nouns)), bool)
    for index, references in enumerate(photos.references):
        said = phrases(references)
        objects = photos.objects[index] if photos.objects else set()
        result[index] = [bool(words[noun] & said) or rows[noun].category in objects for noun in nouns]
    return result


def in_photo(photos: Photos, categories: Sequence[str]) -> np.ndarray:
    """Return which categories are in each photo: annotated, or, without annotations, mentioned by a reference."""
    if photos.objects is not None:
        return np.array([[category in objects for category in categories] for objects in photos.objects])
    said = [phrases(references) for references in photos.references]
    words = [set(forms(category)) for category in categories]
    return np.array([[bool(each & those) for each in words] for those in said])


@torch.inference_mode()
def encode(tagger: Tagger, records: Sequence[Record]) -> np.ndarray:
    """Return the mean features of all views of each photo: float32 [photos, V, D]."""
    means = []
    for record in records:
        photo = open_picture(record.path)
        means.append(tagger.encoder(torch.stack([view(photo) for view in tagger.views])).mean(1))
    return torch.stack(means).numpy()


@torch.inference_mode()
def probabilities(tagger: Tagger, features: np.ndarray, temperature: float) -> np.ndarray:
    """Return the probabilities of all nouns, averaged over the views: [photos, nouns]."""
    tagger.calibration = Calibration(temperature=temperature)
    chunks = [tagger.noun_probabilities(chunk).mean(1) for chunk in torch.from_numpy(features).split(64)]
    return torch.cat(chunks).double().numpy()


def inputs(values: np.ndarray, kinds: Sequence[str]) -> np.ndarray:
    """Return what the logistic regression reads: logit, 1 and the indicators of the kinds, [photos, nouns, 2 + 4]."""
    clipped = np.clip(values, 1e-6, 1 - 1e-6)
    logit = np.log(clipped / (1 - clipped))
    indicators = [np.broadcast_to([each == kind for each in kinds], values.shape) for kind in KINDS]
    return np.stack([logit, np.ones_like(logit), *indicators], -1).astype(float)


def fit(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Fit a logistic regression by Newton's method, with a small ridge penalty."""
    constants = np.zeros(x.shape[1])
    for _ in range(30):
        p = 1 / (1 + np.exp(-x @ constants))
        gradient = x.T @ (weights * (p - y)) + RIDGE * constants
        curvature = (x * (weights * p * (1 - p))[:, None]).T @ x + RIDGE * np.eye(len(constants))
        constants = constants - np.linalg.solve(curvature, gradient)
    return constants


def cross_validate(x: np.ndarray, y: np.ndarray, weights: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Return the confidences [photos, nouns] of photos whose fold was left out of the fit; 0 where not `used`."""
    folds = np.random.default_rng(0).integers(0, FOLDS, len(x))[:, None]
    found = np.zeros(y.shape)
    for fold in range(FOLDS):
        train, test = used & (folds != fold), used & (folds == fold)
        found[test] = 1 / (1 + np.exp(-x[test] @ fit(x[train], y[train], weights[train])))
    return found


def log_loss(confidences: np.ndarray, y: np.ndarray, weights: np.ndarray) -> float:
    """Return the mean negative log-likelihood in nats."""
    likelihood = np.clip(np.where(y, confidences, 1 - confidences), 1e-9, 1)
    return float(-(weights * np.log(likelihood)).sum() / weights.sum())


def reliability(confidences: np.ndarray, y: np.ndarray) -> list[str]:
    """Return the lines of a table: tags per bin of confidence, their mean confidence, and the share confirmed."""
    lines = ["| Confidence | Tags | Mean confidence | Confirmed |", "|---|---|---|---|"]
    for low, high in pairwise(BINS):
        inside = (confidences >= low) & (confidences < high)
        means = f"{confidences[inside].mean():.2f} | {y[inside].mean():.2f}" if inside.any() else "– | –"
        lines.append(f"| {low:.1f}–{high:.1f} | {inside.sum()} | {means} |")
    return lines


def categories_table(confidences: np.ndarray, nouns: Sequence[str], photos: Photos) -> list[str]:
    """Return the lines of a table: precision and recall of the categories that the table of nouns has, except person.

    A category has the highest confidence of its nouns.
    """
    of = {row.noun: row.category for row in imagenet_nouns() if row.category}
    listed = [category for category in coco_words() if category in of.values() and category != "person"]
    columns = [[index for index, noun in enumerate(nouns) if of.get(noun) == category] for category in listed]
    scores = np.stack([confidences[:, each].max(1) for each in columns], 1)
    truth = in_photo(photos, listed)
    lines = [f"{len(listed)} categories, {truth.sum()} in {len(truth)} photos", ""]
    lines += ["| Threshold | Tags | Tags per photo | Precision | Recall |", "|---|---|---|---|---|"]
    for threshold in THRESHOLDS:
        named = scores >= threshold
        right = (named & truth).sum()
        numbers = f"{named.sum() / len(named):.2f} | {right / max(1, named.sum()):.2f} | {right / truth.sum():.2f}"
        lines.append(f"| {threshold} | {named.sum()} | {numbers} |")
    return lines


def main() -> None:
    """Fit the constants for each temperature, and print those of the best one with its tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("coco")
    parser.add_argument("flickr8k")
    parser.add_argument("--cache", type=Path, help="file for the features of the photos, which take minutes")
    arguments = parser.parse_args()
    sets, tagger = read(arguments.coco, arguments.flickr8k), load_tagger(probes=())
    cache_file = arguments.cache
    if cache_file and cache_file.is_file():
        features = np.load(cache_file)
    else:
        features = encode(tagger, [record for photos in sets for record in photos.records])
        if cache_file:
            np.save(cache_file, features)
    y = np.concatenate([confirmed(photos, tagger.nouns) for photos in sets])
    counts = [len(photos.records) for photos in sets]
    weights = np.repeat([sum(counts) / len(counts) / count for count in counts], counts)[:, None] * np.ones(y.shape)
    used = probabilities(tagger, features, 1.0) > LEAST
    results = []
    for temperature in TEMPERATURES:
        x = inputs(probabilities(tagger, features, temperature), tagger.kinds)
        confidences = cross_validate(x, y, weights, used)
        loss = log_loss(confidences[used], y[used], weights[used])
        results.append((loss, temperature, fit(x[used], y[used], weights[used]), confidences))
        print(f"temperature {temperature}: log loss {loss:.4f}")
    _, temperature, (slope, offset, *offsets), confidences = min(results, key=lambda each: each[0])
    further = ", ".join(f'"{kind}": {value:.2f}' for kind, value in zip(KINDS, offsets, strict=True))
    print(f"Calibration({temperature=}, slope={slope:.2f}, offset={offset:.2f}, offsets={{{further}}})")
    starts = np.cumsum([0, *counts])
    for photos, (start, stop) in zip(sets, pairwise(starts), strict=True):
        own = confidences[start:stop]
        print(
            f"\n{photos.name}, all nouns\n",
            *reliability(own[used[start:stop]], y[start:stop][used[start:stop]]),
            sep="\n",
        )
        print(f"\n{photos.name}, categories of COCO\n", *categories_table(own, tagger.nouns, photos), sep="\n")


if __name__ == "__main__":
    main()
