"""CIDEr-D, CIDEr and BLEU of one caption with dictionaries, straight from the formulas: slow, and written apart."""

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


def bleu_4(words, group):
    product = 1.0
    for order in range(1, 5):
        own, theirs = ngrams(words, order), [ngrams(reference, order) for reference in group]
        correct = sum(min(count, max(other[gram] for other in theirs)) for gram, count in own.items())
        product *= (correct + 1e-15) / (max(len(words) - order + 1, 0) + 1e-9)
    reference = min((abs(len(other) - len(words)), len(other)) for other in group)[1]
    ratio = (len(words) + 1e-15) / (reference + 1e-9)
    return product**0.25 * (math.exp(1 - 1 / ratio) if ratio < 1 else 1.0)


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
