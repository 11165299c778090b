"""Caption scores with dictionaries and loops, straight from the definitions: slow, and written apart."""

import math
from collections import Counter


def ngrams(words, order):
    return Counter(tuple(words[at : at + order]) for at in range(len(words) - order + 1))


def document_frequencies(references, n=4):
    """Counter of n-grams over images, and log of the number of images."""
    frequencies = Counter()
    for group in references.values():
        frequencies.update({gram for words in group for order in range(1, n + 1) for gram in ngrams(words, order)})
    return frequencies, math.log(len(references))


def cider(words, group, frequencies, log_images, *, n=4, sigma=6.0, plain=False):
    def vector(words, order):
        return {
            gram: count * (log_images - math.log(max(1, frequencies[gram])))
            for gram, count in ngrams(words, order).items()
        }

    def length(vector):
        return math.sqrt(sum(weight**2 for weight in vector.values()))

    total = 0.0
    for order in range(1, n + 1):
        ours = vector(words, order)
        for reference in group:
            theirs = vector(reference, order)
            if plain:
                product = sum(weight * theirs.get(gram, 0.0) for gram, weight in ours.items())
            else:
                product = sum(min(w, theirs.get(gram, 0.0)) * theirs.get(gram, 0.0) for gram, w in ours.items())
            if scale := length(ours) * length(theirs):
                apart = 0 if plain else max(len(words) - 1, 0) - max(len(reference) - 1, 0)
                total += product / scale * math.exp(-(apart**2) / (2 * sigma**2))
    return 10 * total / n / len(group)


def bleu_counts(words, group, n=4):
    """n correct n-grams, n of its own, length of the caption, length of the closest reference (the shorter of two)."""
    correct, own = [], []
    for order in range(1, n + 1):
        ours, theirs = ngrams(words, order), [ngrams(reference, order) for reference in group]
        correct.append(sum(min(count, max(other[gram] for other in theirs)) for gram, count in ours.items()))
        own.append(max(len(words) - order + 1, 0))
    closest = min(group, key=lambda other: (abs(len(other) - len(words)), len(other)))
    return [*correct, *own, len(words), len(closest)]


def bleu_of(counts):
    """BLEU-1 … n of counts that were added up, with the official scorer's two small numbers."""
    n = len(counts) // 2 - 1
    length, reference = counts[2 * n], counts[2 * n + 1]
    ratio = (length + 1e-15) / (reference + 1e-9)
    penalty = 1.0 if ratio >= 1 else math.exp(1 - 1 / ratio)
    scores = []
    for orders in range(1, n + 1):
        product = math.prod((counts[at] + 1e-15) / (counts[n + at] + 1e-9) for at in range(orders))
        scores.append(product ** (1 / orders) * penalty)
    return scores


def corpus_bleu(corpus, n=4):
    """BLEU-1 … n of (caption, references) pairs."""
    return bleu_of([sum(column) for column in zip(*(bleu_counts(*pair, n) for pair in corpus), strict=True)])


def bleu_4(words, group):
    return corpus_bleu([(words, group)])[3]


def lcs(a, b):
    row = [0] * (len(b) + 1)
    for word in a:
        before, row = row, [0]
        for place, other in enumerate(b):
            row.append(before[place] + 1 if word == other else max(row[-1], before[place + 1]))
    return row[-1]


def rouge_l(words, group):
    precision = max(lcs(words, other) / len(words) for other in group)
    recall = max(lcs(words, other) / len(other) for other in group)
    return 2.44 * precision * recall / (recall + 1.44 * precision) if precision and recall else 0.0


def meteor(counts):
    """METEOR 1.5 of its 23 statistics (Denkowski and Lavie 2014, eqs. 1-4), with its parameters for English.

    Lengths of both sides, their function words, then for exact, stem, synonym and paraphrase matches: content words of
    both sides, function words of both sides; chunks; matched words of both sides.
    """
    length, words = counts[0:2], counts[2:4]
    shares = []
    for side in (0, 1):
        weighed = sum(
            weight * (0.75 * counts[4 + 4 * kind + side] + 0.25 * counts[6 + 4 * kind + side])
            for kind, weight in enumerate((1.0, 0.6, 0.8, 0.6))
        )
        whole = 0.75 * (length[side] - words[side]) + 0.25 * words[side]
        shares.append(weighed / whole if whole else 0.0)
    precision, recall = shares
    if not precision * recall:
        return 0.0
    mean = precision * recall / (0.85 * precision + 0.15 * recall)
    matched = (counts[21] + counts[22]) / 2
    fragments = counts[20] / matched if matched else 0.0
    return mean * (1 - 0.6 * fragments**0.2)


def quantile(values, share):
    """Linear between the two nearest of the sorted values, the first at 0 and the last at 1."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = min(int(place), len(ordered) - 2)
    return ordered[below] + (place - below) * (ordered[below + 1] - ordered[below])
