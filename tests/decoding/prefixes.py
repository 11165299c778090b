"""Provide random models whose next word depends on the full prefix, and slow searches over lists for comparison."""

import math
import random
from collections import Counter
from typing import NamedTuple

import torch

from captioning.models import Glimpse

PAD, START, END = range(3)


class Prefixes(NamedTuple):
    """A state: each row's index in the tables, [B, K], and the number of words of all rows."""

    row: torch.Tensor
    length: int = 0

    def select(self, index):
        return self._replace(row=self.row.gather(1, index))


class PrefixModel:
    """Logits, attention weights and a random location for every prefix of fewer than `length` words.

    With `impossible`, that share of the words has probability 0.
    """

    def __init__(self, images, *, vocabulary, length, seed, spread=2.0, end_bias=0.0, impossible=0.0):
        generator = torch.Generator().manual_seed(seed)
        self.images, self.vocabulary, self.length = images, vocabulary, length
        # Prefix w1 … wn of image b is row ((b · V + w1) · V + w2) … of the part for its length.
        self.offsets = [0]
        for n in range(length):
            self.offsets.append(self.offsets[-1] + images * vocabulary**n)
        rows = self.offsets[-1]
        self.logits = spread * torch.randn(rows, vocabulary, dtype=torch.float64, generator=generator)
        self.logits[:, END] += end_bias
        if impossible:
            never = torch.rand(rows, vocabulary, generator=generator) < impossible
            never[:, -1] = False
            self.logits[never] = -torch.inf
        self.weights = torch.rand(rows, 3, dtype=torch.float64, generator=generator)
        self.places = torch.randint(0, 3, (rows,), generator=generator)
        self.log_probs = self.logits.log_softmax(-1).tolist()

    def begin(self, images=None):
        """Return (step, state) for some images, by default all."""
        order = range(self.images) if images is None else images

        def step(token, state):
            row = state.row * self.vocabulary + token if state.length else state.row
            at = row + self.offsets[state.length]
            glimpse = Glimpse(self.weights[at], self.weights[at], self.places[at])
            return self.logits[at], Prefixes(row, state.length + 1), glimpse

        return step, Prefixes(torch.tensor(list(order))[:, None])

    def search(self, method, images=None, **arguments):
        step, state = self.begin(images)
        arguments = {"max_length": self.length} | arguments
        return method(step, state, batch=len(state.row), start=START, end=END, **arguments)

    def at(self, image, prefix):
        """Return the row of the tables."""
        row = image
        for word in prefix:
            row = row * self.vocabulary + word
        return row + self.offsets[len(prefix)]

    def log_prob(self, image, tokens):
        """Return the log-probability of tokens, from the tables."""
        return math.fsum(self.log_probs[self.at(image, tokens[:t])][word] for t, word in enumerate(tokens))


def score(log_prob, length, rules):
    """Compute log_prob divided by the length, by either formula."""
    if rules.get("length_penalty"):
        return log_prob / ((5 + length) / 6) ** rules["length_penalty"]
    return log_prob / max(length, 1) ** rules.get("length_normalization", 0.0)


def worth(tokens, log_prob, rules):
    """Compute the score of a caption: with bonuses, divided by its length."""
    return score(log_prob + bonus(tokens, rules), len(tokens), rules)


def groups_of(rules):
    """Return the groups of words of one image, (words, required, bonus), with one for each word of `require`."""
    return [({word}, True, 0.0) for word in set(rules.get("require", ()))] + list(rules.get("groups", ()))


def missing_groups(tokens, rules):
    """Return the required groups of which a prefix or a caption has no word."""
    return [words for words, required, _ in groups_of(rules) if required and not words & set(tokens)]


def bonus(tokens, rules):
    """Return the sum of the bonuses of the groups of which a caption has a word."""
    return sum(bonus for words, _, bonus in groups_of(rules) if words & set(tokens))


def never(rules):
    """Return the words that are never generated."""
    return set(rules.get("forbidden", ())) - set(rules.get("allow", ())) | set(rules.get("avoid", ()))


def obeys(tokens, rules, *, max_length):
    """Return whether the rules, as plain statements, allow a finished caption."""
    words, n = tokens[:-1], rules.get("no_repeat_ngram", 0)
    grams = [words[i : i + n] for i in range(len(words) - n + 1)] if n else []
    return (
        rules.get("min_length", 0) <= len(tokens) <= max_length
        and not set(words)
        & (set(rules.get("forbidden", ())) - set(rules.get("allow", ())) | set(rules.get("avoid", ())))
        and len(set(grams)) == len(grams)
        and not missing_groups(words, rules)
        and not (words and words[-1] in rules.get("avoid_endings", ()))
        and not any(breaks(tokens[:t], word, rules) for t, word in enumerate(tokens))
    )


def breaks(prefix, word, rules):
    """Return whether a word after a prefix breaks the rules about phrases, as plain statements."""
    phrases = rules.get("phrases")
    if phrases is None:
        return False
    before = list(prefix)
    while before and before[-1] in set(phrases.modifiers) - set(phrases.openers):
        before.pop()
    waits = len(before) < len(prefix) and before and before[-1] in phrases.openers
    grown = (*prefix, word)
    return bool(
        (waits and word in phrases.closers)
        or (word in phrases.once and word in prefix)
        or (phrases.distance and word in prefix[-phrases.distance :])
        or any(len(grown) >= len(each) and grown[-len(each) :] == each for each in phrases.never)
    )


def permitted(prefix, word, rules, *, max_length):
    """Return whether a search may generate `word` next, also if it can no longer satisfy its requirements."""
    n, endings = rules.get("no_repeat_ngram", 0), rules.get("avoid_endings", ())
    missing = missing_groups(prefix, rules)
    grown = (*prefix, word)
    if word in never(rules) or breaks(prefix, word, rules):
        return False
    if missing and max_length - len(prefix) <= len(missing) + 1 and word not in set().union(*missing):
        return False
    if word == END:
        hanging = bool(prefix) and prefix[-1] in endings
        return len(grown) >= rules.get("min_length", 0) and not missing and not hanging
    if len(grown) == max_length and word in endings:
        return False
    return not (n and len(grown) > n and any(grown[i : i + n] == grown[-n:] for i in range(len(grown) - n)))


def every_caption(model, image, rules, *, max_length):
    """Return (finished, unfinished) as {tokens: log-probability}; unfinished ones are cut or have no next word."""
    finished, unfinished, live = {}, {}, {(): 0.0}
    for _ in range(max_length):
        grown = {}
        for prefix, log_prob in live.items():
            log_probs, stuck = model.log_probs[model.at(image, prefix)], True
            for word, p in enumerate(log_probs):
                if p == -math.inf:
                    continue
                if word == END and obeys((*prefix, word), rules, max_length=max_length):
                    finished[(*prefix, word)] = log_prob + p
                if permitted(prefix, word, rules, max_length=max_length):
                    stuck = False
                if word != END:
                    grown[(*prefix, word)] = log_prob + p
            if stuck and reachable(prefix, rules, max_length=max_length):
                unfinished[prefix] = log_prob
        live = grown
    unfinished |= {tokens: p for tokens, p in live.items() if reachable(tokens, rules, max_length=max_length)}
    return finished, unfinished


def reachable(tokens, rules, *, max_length):
    return all(permitted(tokens[:t], word, rules, max_length=max_length) for t, word in enumerate(tokens))


def slow_search(model, image, widths, *, n_best, rules, max_length, diversity=0.0, forgetful=False):
    """Search like captioning.decoding for one image, over lists, without ending early: [(tokens, log_prob, score)].

    With `forgetful`, it has the fault of ending early: a group that cannot find anything better no longer adds
    penalties.
    """
    groups = [{"live": [((), 0.0)], "ended": [], "left": [], "room": width} for width in widths]
    for _ in range(max_length):
        chosen = Counter()
        for group in groups:
            candidates = []
            for prefix, log_prob in group["live"]:
                log_probs = model.log_probs[model.at(image, prefix)]
                words = [w for w, p in enumerate(log_probs) if p > -math.inf]
                words = [w for w in words if permitted(prefix, w, rules, max_length=max_length)]
                if not words:
                    group["left"].append((prefix, log_prob))
                for word in words:
                    rank = log_prob + log_probs[word] + bonus((*prefix, word), rules) - diversity * chosen[word]
                    candidates.append((rank, (*prefix, word), log_prob + log_probs[word]))
            taken = share_out(sorted(candidates, reverse=True), group["room"], rules)
            group["live"] = [(tokens, p) for _, tokens, p in taken if tokens[-1] != END]
            ended = [(tokens, p) for _, tokens, p in taken if tokens[-1] == END]
            group["ended"] += ended
            group["room"] -= len(ended)
            chosen.update(tokens[-1] for _, tokens, _ in taken)
        for group, width in zip(groups, widths, strict=True):
            best = sorted((worth(tokens, p, rules) for tokens, p in group["ended"]), reverse=True)
            enough = best[min(n_best, width) - 1 :][:1]
            if forgetful and enough and all(score(p, max_length, rules) <= enough[0] for _, p in group["live"]):
                group["live"] = []
    finished, unfinished = [], []
    for group, width in zip(groups, widths, strict=True):
        ranked = [
            sorted(((tokens, p, worth(tokens, p, rules)) for tokens, p in found), key=lambda item: -item[2])
            for found in (group["ended"], group["left"] + group["live"])
        ]
        finished += ranked[0][: min(n_best, width)]
        unfinished += ranked[1][: min(n_best, width)]
    return sorted(finished or unfinished, key=lambda item: -item[2])[:n_best]


def share_out(candidates, room, rules):
    """Return the candidates, best first, that a group of beams selects."""
    required = len(missing_groups((), rules))
    if not required:
        return candidates[:room]
    share, used, served, others = room // (required + 1), Counter(), [], []
    for candidate in candidates:
        bank = required - len(missing_groups(candidate[1], rules))
        used[bank] += 1
        (served if used[bank] <= share else others).append(candidate)
    return (served + others)[:room]


def draw_rules(generator, vocabulary, length):
    """Sample rules; each one is on in about a third of the cases, alone and together with others."""
    words = [word for word in range(vocabulary) if word != END]

    def some(k):
        return tuple(generator.sample(words, min(k, len(words))))

    def on():
        return generator.random() < 0.35

    rules = {}
    if on():
        rules["forbidden"] = some(generator.choice([1, 2]))
        if on():
            rules["allow"] = rules["forbidden"][:1]
    if on():
        rules["avoid"] = some(1)
    if on():
        rules["min_length"] = generator.randint(1, length)
    if on():
        rules["no_repeat_ngram"] = generator.randint(1, 3)
    if on():
        rules["avoid_endings"] = some(generator.choice([1, 2]))
    if on():
        out = set(rules.get("forbidden", ())) - set(rules.get("allow", ())) | set(rules.get("avoid", ()))
        require = tuple(word for word in some(generator.choice([1, 2])) if word not in out)
        if require and len(require) < length:
            rules["require"] = require
    if on():
        for name in generator.sample(["length_normalization", "length_penalty"], generator.choice([1, 1, 2])):
            rules[name] = generator.choice([0.5, 1.0, 2.0])
    return rules


def draw_world(seed, **options):
    """Return a random model and random rules for it."""
    generator = random.Random(seed)
    vocabulary, length = generator.randint(3, 5), generator.choice([1, 2, 3, 4, 4, 5])
    options = {
        "end_bias": generator.choice([-4.0, 0.0, 2.0]),
        "impossible": generator.choice([0.0, 0.0, 0.3]),
    } | options
    model = PrefixModel(2, vocabulary=vocabulary, length=length, seed=seed, **options)
    return model, draw_rules(generator, vocabulary, length), generator
