"""Provide worlds written by hand or generated node by node: each prefix has its own distribution of the next word.

A search evaluates only the prefixes that it reaches, so a tree may have many words and steps.
"""

import math
import random
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import NamedTuple

import torch
from prefixes import END, START


class Reached(NamedTuple):
    """A state: the words of each row, [B, K, T]; -1 in the first column is the image's number."""

    words: torch.Tensor

    def select(self, index):
        return Reached(self.words.gather(1, index[..., None].expand(-1, -1, self.words.shape[-1])))


class Tree:
    """One image, or several, whose next word has the distribution `probabilities(image, prefix)`, {word: probability}.

    Words that are left out have probability 0. The attention weights of a prefix are [its length, its number among the
    distinct prefixes so far], so that a wrong row or step would be visible.
    """

    def __init__(self, probabilities: Callable, *, vocabulary: int, length: int, images: int = 1):
        self.probabilities, self.vocabulary, self.length, self.images = probabilities, vocabulary, length, images
        self.log_probs, self.number = {}, {}

    def at(self, image, prefix):
        """Return the key of `log_probs` for a prefix; it is created at the first request."""
        key = (image, *prefix)
        if key not in self.log_probs:
            row = [-math.inf] * self.vocabulary
            for word, share in self.probabilities(image, tuple(prefix)).items():
                row[word] = math.log(share) if share else -math.inf
            self.log_probs[key], self.number[key] = row, len(self.number)
        return key

    def weights(self, image, prefix):
        """Return the attention weights of the step that follows a prefix."""
        return [float(len(prefix)), float(self.number[self.at(image, prefix)])]

    def step(self, token, state):
        """Score the next words: the function that a search calls."""
        before = state.words[..., 1:].tolist() if state.words.shape[-1] > 1 else None
        words = torch.cat((state.words, token[..., None]), -1)
        logits, weights = [], []
        for image, rows in zip(state.words[:, 0, 0].tolist(), words[..., 1:].tolist(), strict=True):
            prefixes = [tuple(row[1:]) for row in rows]  # without <start>
            logits.append([self.log_probs[self.at(image, prefix)] for prefix in prefixes])
            weights.append([self.weights(image, prefix) for prefix in prefixes])
        assert before is not None or (token == START).all()
        logits, weights = torch.tensor(logits, dtype=torch.float64), torch.tensor(weights, dtype=torch.float64)
        return logits, Reached(words), SimpleNamespace(weights=weights, places=weights[..., 1].long() % 7)

    def search(self, method, images=None, **arguments):
        """Run a search over some images, by default all."""
        order = list(range(self.images) if images is None else images)
        arguments = {"max_length": self.length, "start": START, "end": END} | arguments
        return method(self.step, Reached(torch.tensor(order)[:, None, None]), batch=len(order), **arguments)

    def log_prob(self, image, tokens):
        """Return the log-probability of tokens."""
        return math.fsum(self.log_probs[self.at(image, tokens[:t])][word] for t, word in enumerate(tokens))


def by_hand(nodes: Mapping[tuple[int, ...], Mapping[int, float]], *, vocabulary: int, length: int) -> Tree:
    """Build a tree of given nodes.

    The words that a node does not name share its remaining probability equally, and so do all words of a node that is
    not given.
    """

    def probabilities(_, prefix):
        given = nodes.get(prefix, {})
        others = [word for word in range(vocabulary) if word not in given]
        return {word: (1 - math.fsum(given.values())) / len(others) for word in others} | dict(given)

    return Tree(probabilities, vocabulary=vocabulary, length=length)


def outlived(seed: int, *, groups: int, width: int, delay: int, ends: int, middle: bool = False, prefix=()) -> Tree:
    """Build a world in which the first group of a diverse search cannot win any more, but still changes the result.

    `ends` beams of the first group end at their second word. Its other beams fall behind for `delay` further words,
    while the beams of the last group continue with words that are nearly certain. Then one word, `late`, is the most
    probable for all of them. A beam that is penalized for it takes another word, after which the caption ends as well
    as it can. After `late`, every word is equally probable. If the first group stopped penalizing because it cannot win
    any more, the search would lose the best caption.

    Args:
        middle: Whether all beams of the second of three groups end at their second word.
        prefix: Words that are nearly certain before this world begins.
    """
    generator, vocabulary = random.Random(seed), 24
    words = [word for word in range(vocabulary) if word != END and word not in prefix]
    generator.shuffle(words)
    late, other, *words = words
    sure, firsts = words[: delay + 1], words[delay + 1 : delay + 1 + groups * width]
    shares = sorted((generator.uniform(0.97, 1.03) * 0.95 / len(firsts) for _ in firsts), reverse=True)
    last = 2 + delay  # words before those in which the groups differ

    def wanted(words):
        """Return {word: probability} after these words, for the nodes that are not random."""
        if not words:
            return dict(zip(firsts, shares, strict=True))
        if words[0] not in firsts:
            return {}
        beam, n = firsts.index(words[0]), len(words)
        if beam < width:
            return {END: 0.12} if n == 1 and beam < ends else {late: 0.9} if n == last else {}
        if middle and beam < 2 * width:
            return {END: 0.25} if n == 1 else {}
        if n < last:
            return {sure[n - 1]: 0.97}
        if n == last and words[1:] == tuple(sure):
            return {late: 0.52, other: 0.46}
        return {END: 0.96} if words[-1] == other else {}

    def probabilities(_, words):
        n = len(prefix)
        given = {prefix[len(words)]: 0.97} if len(words) < n else wanted(words[n:]) if words[:n] == prefix else {}
        noise = random.Random(f"{seed}/{words}")
        rest = {word: noise.uniform(0.9, 1.1) for word in range(vocabulary) if word not in given}
        scale = (1 - math.fsum(given.values())) / math.fsum(rest.values())
        return given | {word: scale * weight for word, weight in rest.items()}

    return Tree(probabilities, vocabulary=vocabulary, length=len(prefix) + last + 3)


def drawn(seed: int, *, vocabulary: int, length: int, images: int = 1, wanted: int = 2) -> Tree:
    """Build a tree in which nodes prefer the same few words at the same step, or end, or continue anywhere.

    The groups of a diverse search then meet on one word, captions end at every step, and beams that were good fall
    behind.

    Args:
        wanted: How many words are preferred at a step.
    """

    def probabilities(image, prefix):
        generator = random.Random(f"{seed}/{image}/{prefix}")
        common = random.Random(f"{seed}/{image}/{len(prefix)}")
        sought = common.sample([word for word in range(vocabulary) if word != END], wanted)
        kind = generator.choices(["sought", "anywhere", "end"], [4, 2, 1])[0] if prefix else "anywhere"
        weights = {word: generator.uniform(0.5, 1.5) for word in range(vocabulary)}
        favor = generator.choice([3.0, 10.0, 40.0]) * vocabulary
        if kind != "anywhere":
            weights |= {word: favor * generator.uniform(0.5, 1.5) for word in (sought if kind == "sought" else [END])}
        total = math.fsum(weights.values())
        return {word: weight / total for word, weight in weights.items()}

    return Tree(probabilities, vocabulary=vocabulary, length=length, images=images)
