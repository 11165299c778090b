"""Measure the diversity, novelty and length of captions."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from captioning.metrics.bleu import bleu, bleu_counts
from captioning.metrics.ciderd import CiderD, DocumentFrequencies
from captioning.metrics.ngrams import References
from captioning.metrics.rouge import rouge_l


def describe_diversity(
    captions: Sequence[Sequence[str]],
    references: Iterable[Sequence[Sequence[str]]],
    *,
    training: Collection[tuple[str, ...]] | None = None,
    unknown: str = "<unk>",
) -> dict[str, float]:
    """Describe a set of captions, one caption per image.

    Args:
        captions: tokens of each caption.
        references: tokens of the references of each image.
        training: tokens of the training captions, to compute "novel".
        unknown: the token for words that are not in the vocabulary.

    Returns:
        {name: value}. Shares are shares of the captions, except "unknown words", which is a share of the words. "div-1"
        and "div-2" are those of `distinct_share`. "novel" is the share of captions that have words and equal no
        training caption, token for token.
    """
    words = [word for caption in captions for word in caption]
    lengths = np.array([len(caption) for caption in captions])
    reference_lengths = [len(reference) for group in references for reference in group]
    spelled = [tuple(caption) for caption in captions]
    result = {
        "distinct": len(set(spelled)) / len(spelled),
        "vocabulary": len(set(words)),
        "div-1": distinct_share(captions, 1),
        "div-2": distinct_share(captions, 2),
        "length": float(lengths.mean()),
        "shortest": int(lengths.min()),
        "longest": int(lengths.max()),
        "length of references": float(np.mean(reference_lengths)),
        "empty": float((lengths == 0).mean()),
        "with unknown words": sum(unknown in caption for caption in captions) / len(captions),
        "unknown words": words.count(unknown) / max(len(words), 1),
    }
    if training is not None:
        result["novel"] = sum(bool(caption) and caption not in training for caption in spelled) / len(spelled)
    return result


def distinct_share(captions: Sequence[Sequence[str]], order: int) -> float:
    """Compute div-n: the number of different n-grams divided by the number of words of a set of captions.

    Sources: Li et al., NAACL 2016; Shetty et al., ICCV 2017.
    """
    grams = {tuple(words[at : at + order]) for words in captions for at in range(len(words) - order + 1)}
    return len(grams) / max(sum(map(len, captions)), 1)


def describe_samples(
    samples: Mapping[Any, Sequence[Sequence[str]]],
    references: Mapping[Any, Sequence[Sequence[str]]],
    index: References,
) -> dict[str, float]:
    """Describe several captions per image.

    div-n and self-CIDEr are means over images. mBLEU-4 is the corpus BLEU-4 of every sample against the other samples
    of its image, without images that have one sample. An oracle score takes the best sample of each image, chosen
    separately for each score.

    Args:
        samples: image id -> tokens of each sample.
        references: image id -> tokens of each reference.
        index: the indexed references.

    Returns:
        {name: value}; "an image" is the mean number of samples per image.
    """
    groups = list(samples.values())
    owners = [image_id for image_id, group in samples.items() for _ in group]
    flat = [" ".join(words).split() for group in groups for words in group]
    starts = np.cumsum([0, *map(len, groups)])[:-1]
    counted = bleu_counts(index, matches := index.match(owners, flat))
    single = bleu(counted)
    result = {
        "an image": len(flat) / len(groups),
        "div-1": float(np.mean([distinct_share(group, 1) for group in groups])),
        "div-2": float(np.mean([distinct_share(group, 2) for group in groups])),
        "mBLEU-4": mutual_bleu(groups),
        "self-CIDEr": self_cider(groups, DocumentFrequencies.of(index)),
    }
    for order in range(single.shape[1]):
        best = [
            start + np.argmax(single[start : start + len(g), order]) for start, g in zip(starts, groups, strict=True)
        ]
        result[f"oracle BLEU-{order + 1}"] = float(bleu(counted[best].sum(0))[order])
    rouge = np.array([rouge_l(words, references[image_id]) for image_id, group in samples.items() for words in group])
    result["oracle ROUGE-L"] = float(np.maximum.reduceat(rouge, starts).mean())
    result["oracle CIDEr"] = float(np.maximum.reduceat(CiderD(index).score(matches), starts).mean())
    return result


def mutual_bleu(groups: Sequence[Sequence[Sequence[str]]]) -> float:
    """Compute mBLEU-4: corpus BLEU-4 of every sample against the other samples of its image.

    It is high if samples repeat one another.
    """
    others = {
        (image, sample): [*group[:sample], *group[sample + 1 :]]
        for image, group in enumerate(groups)
        for sample in range(len(group))
        if len(group) > 1
    }
    if not others:
        return 0.0
    index = References(others)
    matches = index.match(list(others), [groups[image][sample] for image, sample in others])
    return float(bleu(bleu_counts(index, matches).sum(0))[3])


def self_cider(groups: Sequence[Sequence[Sequence[str]]], frequencies: DocumentFrequencies) -> float:
    """Compute self-CIDEr (Wang and Chan, CVPR 2019), averaged over images.

    It is 0 if all samples are equal, and 1 if no two samples share a word. For m samples it is -log_m(√λ₁ / Σ √λ_i),
    where the λ_i are the eigenvalues of their matrix of pairwise plain CIDEr. Plain CIDEr is a cosine similarity, so
    this matrix is positive semi-definite. For one sample, or if all samples are empty, self-CIDEr is 0.
    """
    singles = {(image, sample): [words] for image, group in enumerate(groups) for sample, words in enumerate(group)}
    pairs = [(image, i, words) for image, group in enumerate(groups) for i in range(len(group)) for words in group]
    scorer = CiderD(singles, frequencies=frequencies, plain=True)
    values = iter(scorer([(image, i) for image, i, _ in pairs], [words for *_, words in pairs]) / 10)
    results = []
    for group in groups:
        size = len(group)
        matrix = np.array([[next(values) for _ in range(size)] for _ in range(size)])
        roots = np.sqrt(np.clip(np.linalg.eigvalsh((matrix + matrix.T) / 2), 0, None))
        alike = size < 2 or not roots.any()
        results.append(0.0 if alike else -np.log(roots.max() / roots.sum()) / np.log(size))
    return float(np.mean(results))
