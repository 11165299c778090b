"""Measure how captions differ from one another and from the training captions, and how long they are."""

from collections.abc import Collection, Iterable, Mapping, Sequence

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
    """One caption an image, as tokens: shares are of captions, but "unknown words" of words.

    "novel" (only with `training`) is the share of captions with words that no training caption equals, token for
    token.
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
    """div-n (Li et al., NAACL 2016; Shetty et al., ICCV 2017): different n-grams over words, of a set of captions."""
    grams = {tuple(words[at : at + order]) for words in captions for at in range(len(words) - order + 1)}
    return len(grams) / max(sum(map(len, captions)), 1)


def describe_samples(
    samples: Mapping[int, Sequence[Sequence[str]]],
    references: Mapping[int, Sequence[Sequence[str]]],
    index: References,
) -> dict[str, float]:
    """Several captions an image, as tokens.

    div-n and self-CIDEr are means over images; mBLEU-4 is the corpus BLEU-4 of every sample against the other samples
    of its image (images with one sample left out). An oracle score takes, for each score apart, the sample that is
    best on its own image.
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
    """Corpus BLEU-4 of every sample against the others of its image: high where samples repeat one another."""
    others = {
        (image, place): [*group[:place], *group[place + 1 :]]
        for image, group in enumerate(groups)
        for place in range(len(group))
        if len(group) > 1
    }
    if not others:
        return 0.0
    index = References(others)
    matches = index.match(list(others), [groups[image][place] for image, place in others])
    return float(bleu(bleu_counts(index, matches).sum(0))[3])


def self_cider(groups: Sequence[Sequence[Sequence[str]]], frequencies: DocumentFrequencies) -> float:
    """Self-CIDEr (Wang and Chan, CVPR 2019), mean over images: 0 where samples are alike, 1 where none share a word.

    -log_m(√λ₁ / Σ √λ_i) with λ the eigenvalues of the m samples' matrix of plain CIDEr, a cosine, so that the matrix
    is positive semi-definite. Of one sample, or where all are empty, it is 0.
    """
    singles = {(image, place): [words] for image, group in enumerate(groups) for place, words in enumerate(group)}
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
