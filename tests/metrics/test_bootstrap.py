"""Bootstrap: exact percentiles of given draws, coverage by simulation, shares of resamples, draws and seeds."""

import math
import re

import numpy as np
import pytest
import slow_scores

from captioning.metrics import ScoreTable, bootstrap
from captioning.metrics.bleu import bleu_counts
from captioning.metrics.grounding import interval
from captioning.metrics.ngrams import References

# Two captions of five images by each of two systems, with references; image 3 has no correct word.
IMAGES = {
    10: (["a b c d e", "a b"], ["a b c d", "b c d e f"], ["c d e", "a b c d e f"]),
    11: (["a b c d"], ["a b c d", "a"], ["d c b a", "a b d c"]),
    12: (["c c a", "b d d d", "e"], ["c c c", "b d d"], ["b d d d a", "c a"]),
    13: (["e f"], ["a b c d e f g", ""], ["x y z u v", "x"]),
    14: (["a c e g i", "a c e"], ["a c e g", "a c e g i k"], ["a c", "a c g i"]),
}
RAW_METEOR = np.array(
    [[5, 4, 2, 1, 3, 3, 1, 1] + [0] * 12 + [2, 4, 4], [7, 6, 3, 2, 4, 4, 2, 2] + [0] * 12 + [1, 6, 6]]
)


def tables_of(system: int) -> list[ScoreTable]:
    """One table per run of a system; the values are those of dictionaries."""
    references = {key: [text.split() for text in row[0]] for key, row in IMAGES.items()}
    index = References(references)
    frequencies = slow_scores.document_frequencies(references)
    tables = []
    for run in range(2):
        captions = {key: row[1 + system][run].split() for key, row in IMAGES.items()}
        single = [slow_scores.corpus_bleu([(captions[key], references[key])]) for key in IMAGES]
        values = {f"BLEU-{order + 1}": np.array([scores[order] for scores in single]) for order in range(4)}
        cider = [slow_scores.cider(captions[key], references[key], *frequencies) for key in IMAGES]
        values |= {"CIDEr": np.array(cider), "METEOR": np.zeros(5)}
        meteor = np.stack([RAW_METEOR[(row + run * system) % 2] * (1 + row) for row in range(5)]).astype(float)
        counts = {"BLEU": bleu_counts(index, index.match(list(captions), list(captions.values()))), "METEOR": meteor}
        tables.append(ScoreTable(list(IMAGES), [" ".join(words) for words in captions.values()], values, counts))
    return tables


def slow_totals(table: ScoreTable, rows: list[int]) -> dict[str, float]:
    """The scores of a list of images with repeats: BLEU of that corpus, METEOR of added counts, means otherwise."""
    references = [[text.split() for text in group] for group, *_ in IMAGES.values()]
    corpus = [(table.captions[row].split(), references[row]) for row in rows]
    result = {f"BLEU-{order}": value for order, value in enumerate(slow_scores.corpus_bleu(corpus), start=1)}
    result["CIDEr"] = sum(table.values["CIDEr"][row] for row in rows) / len(rows)
    result["METEOR"] = slow_scores.meteor([sum(table.counts["METEOR"][row][at] for row in rows) for at in range(23)])
    return result


class Draws:
    """A generator that draws given images."""

    def __init__(self, rows):
        self.rows, self.drawn = rows, 0

    def integers(self, low, high, size):
        assert (low, high, size[1]) == (0, len(self.rows[0]), len(self.rows[0]))
        self.drawn += size[0]
        return np.array(self.rows[self.drawn - size[0] : self.drawn])


@pytest.fixture
def given_draws(monkeypatch):
    """Every generator draws these 120 resamples: more than two chunks of them."""
    random = np.random.default_rng(9)
    rows = [[2, 2, 2, 2, 2], [4, 3, 2, 1, 0], *random.integers(0, 5, (118, 5)).tolist()]
    made = []
    monkeypatch.setattr(np.random, "default_rng", lambda seed: made.append((seed, Draws(rows))) or made[-1][1])
    return rows, made


def test_intervals_of_given_draws_are_exact(given_draws):
    rows, made = given_draws
    table = tables_of(0)[0]
    found = bootstrap.intervals(table, resamples=120, seed=5)
    scores = [slow_totals(table, row) for row in rows]
    assert list(found) == [*(f"BLEU-{n}" for n in range(1, 5)), "CIDEr", "METEOR"]
    for name, (low, high) in found.items():
        values = [score[name] for score in scores]
        assert low == pytest.approx(slow_scores.quantile(values, 0.025), rel=1e-12)
        assert high == pytest.approx(slow_scores.quantile(values, 0.975), rel=1e-12)
    assert [seed for seed, _ in made] == [5] and made[0][1].drawn == 120
    narrow = bootstrap.intervals(table, resamples=120, level=0.5)["CIDEr"]
    values = [score["CIDEr"] for score in scores]
    assert narrow == pytest.approx((slow_scores.quantile(values, 0.25), slow_scores.quantile(values, 0.75)), rel=1e-12)


def test_comparisons_of_given_draws_are_exact(given_draws):
    """Both systems, and all runs of each, are scored on the same draws; runs count by their mean."""
    rows, made = given_draws
    a, b = tables_of(0), tables_of(1)
    found = bootstrap.paired_bootstrap(a, b, resamples=120, seed=6)
    assert [seed for seed, _ in made] == [6] and list(found) == list(a[0].values)
    for name, row in found.items():
        drawn = [[sum(slow_totals(t, images)[name] for t in side) / 2 for images in rows] for side in (a, b)]
        whole = [sum(slow_totals(t, range(5))[name] for t in side) / 2 for side in (a, b)]
        assert (row.a, row.b) == pytest.approx(whole, rel=1e-12)
        differences = [theirs - ours for ours, theirs in zip(*drawn, strict=True)]
        assert row.low == pytest.approx(slow_scores.quantile(differences, 0.025), rel=1e-9, abs=1e-15)
        assert row.high == pytest.approx(slow_scores.quantile(differences, 0.975), rel=1e-9, abs=1e-15)
        assert row.a_better == sum(difference < -1e-12 for difference in differences) / 120
        assert row.b_better == sum(difference > 1e-12 for difference in differences) / 120
        assert row.low < row.high
    assert 0 < found["CIDEr"].b_better < found["CIDEr"].a_better  # so that swapping them shows


def test_scores_that_a_run_lacks_are_not_compared():
    a, b = tables_of(0), tables_of(1)
    less = b[1]._replace(values={name: v for name, v in b[1].values.items() if name != "CIDEr"})
    assert "CIDEr" not in bootstrap.paired_bootstrap(a, [b[0], less], resamples=5)
    less = a[1]._replace(values={name: v for name, v in a[1].values.items() if name != "METEOR"})
    assert "METEOR" not in bootstrap.paired_bootstrap([a[0], less], b, resamples=5)
    assert "METEOR" not in bootstrap.paired_bootstrap([less, a[0]], b, resamples=5)


def columns(values: np.ndarray) -> ScoreTable:
    """A table of [images, columns]: each column a data set of its own, all resampled alike."""
    return ScoreTable([*range(len(values))], [""] * len(values), {f"m{at}": c for at, c in enumerate(values.T)}, {})


@pytest.mark.parametrize("images", [2, 3])
def test_images_are_drawn_with_replacement_each_as_often(images):
    """Of n images, one is in a resample with probability 1 - (1 - 1/n)^n, and alone in it with n^-n."""
    table, none, most = columns(np.eye(images)), columns(np.zeros((images, images))), np.full((images, images), 0.99)
    there = bootstrap.paired_bootstrap([table], [none], resamples=4000, seed=1)
    alone = bootstrap.paired_bootstrap([table], [columns(most)], resamples=4000, seed=1)
    for name in table.values:
        for share, wanted in (
            (there[name].a_better, 1 - (1 - 1 / images) ** images),
            (alone[name].a_better, images**-images),
        ):
            assert share == pytest.approx(wanted, abs=3 * (wanted * (1 - wanted) / 4000) ** 0.5)


def test_resamples_are_those_of_the_seed_and_all_different():
    values = columns(np.random.default_rng(0).normal(size=(30, 1)))
    same = bootstrap.paired_bootstrap([values], [columns(np.zeros((30, 1)))], resamples=70, seed=3)
    assert same == bootstrap.paired_bootstrap([values], [columns(np.zeros((30, 1)))], resamples=70, seed=3)
    assert same != bootstrap.paired_bootstrap([values], [columns(np.zeros((30, 1)))], resamples=70, seed=4)
    zeros = [columns(np.zeros((30, 1)))]
    first, again = (bootstrap.paired_bootstrap([values], zeros, resamples=70, **seed) for seed in ({}, {"seed": 0}))
    assert first == again and {type(number) for number in first["m0"]} == {float}
    assert bootstrap.intervals(values, resamples=70) == bootstrap.intervals(values, resamples=70, seed=0)
    assert bootstrap.intervals(values, resamples=70) != bootstrap.intervals(values, resamples=70, seed=1)


# Coverage: of how many data sets that are drawn from a known distribution the interval has the true score. The error of
# such a share of N is binomial; three standard errors are allowed.

TRIALS = 2000


def misses(found: dict, truth: float) -> tuple[float, float]:
    """Shares of intervals that lie wholly below and wholly above the truth."""
    bounds = np.array(list(found.values()))
    return float((bounds[:, 1] < truth).mean()), float((bounds[:, 0] > truth).mean())


def is_covered(shares: tuple[float, float], tail: float = 0.025, trials: int = TRIALS) -> bool:
    """Whether each end misses in `tail` of the trials, within three binomial standard errors."""
    return all(abs(share - tail) < 3 * (tail * (1 - tail) / trials) ** 0.5 for share in shares)


def test_95_percent_of_the_intervals_of_a_mean_have_it():
    table = columns(np.random.default_rng(7).normal(3.0, 2.0, (200, TRIALS)))
    shares = misses(bootstrap.intervals(table, resamples=1000), 3.0)
    assert is_covered(shares)
    # The check can fail: of another level, and of intervals with one end only.
    assert not is_covered(misses(bootstrap.intervals(table, resamples=1000, level=0.90), 3.0))
    assert not is_covered(misses(bootstrap.intervals(table, resamples=1000, level=0.99), 3.0))
    ends = bootstrap.intervals(table, resamples=1000, level=0.90)
    assert not is_covered(misses({name: (low, np.inf) for name, (low, _) in ends.items()}, 3.0))


def test_95_percent_of_the_intervals_of_a_difference_have_it():
    """Systems whose captions of an image score alike: drawing other images for B would cover 100 %."""
    random = np.random.default_rng(2)
    image = random.normal(1.0, 1.0, (200, TRIALS))
    a, b = image + random.normal(0, 0.3, image.shape), image + random.normal(0.1, 0.3, image.shape)
    found = bootstrap.paired_bootstrap([columns(a)], [columns(b)], resamples=1000)
    assert is_covered(misses({name: (row.low, row.high) for name, row in found.items()}, 0.1))


def test_equal_systems_are_called_better_in_5_percent_of_comparisons():
    """The share of resamples in which A is better is above 0.975 for 2.5 % of data sets, and so is B's."""
    random = np.random.default_rng(3)
    image = random.normal(1.0, 1.0, (200, TRIALS))
    a, b = image + random.normal(0, 0.3, image.shape), image + random.normal(0, 0.3, image.shape)
    found = bootstrap.paired_bootstrap([columns(a)], [columns(b)], resamples=1000).values()
    assert is_covered(tuple(np.mean([[row.a_better > 0.975, row.b_better > 0.975] for row in found], axis=0)))


# Kinds of images: counts of a caption (4 correct, 4 of its own, length, closest reference) and how often they come.
KINDS = np.array(
    [
        [5, 4, 3, 2, 5, 4, 3, 2, 5, 6],
        [4, 2, 1, 0, 12, 11, 10, 9, 12, 11],
        [9, 7, 5, 4, 10, 9, 8, 7, 10, 12],
        [20, 9, 4, 1, 30, 29, 28, 27, 30, 33],
    ],
    float,
)
OTHERS = KINDS - np.array([[0] * 10, [1, 1, 0, 0] + [0] * 6, [2, 2, 1, 1] + [0] * 6, [0] * 10])
OFTEN = np.array([0.3, 0.3, 0.3, 0.1])


def corpus(counts: np.ndarray) -> ScoreTable:
    values = {f"BLEU-{order}": np.zeros(len(counts)) for order in range(1, 5)}
    return ScoreTable([*range(len(counts))], [""] * len(counts), values, {"BLEU": counts})


def test_95_percent_of_the_intervals_of_corpus_bleu_have_it():
    """The truth is the BLEU of all images that there are, a ratio of sums; the mean of the images' BLEU is another."""
    random, trials = np.random.default_rng(4), 600
    truth, other = slow_scores.bleu_of(OFTEN @ KINDS), slow_scores.bleu_of(OFTEN @ OTHERS)
    mean = sum(share * slow_scores.bleu_of(kind)[3] for share, kind in zip(OFTEN, KINDS, strict=True))
    assert abs(mean - truth[3]) > 0.05
    alone, paired = [], []
    for _ in range(trials):
        drawn = random.choice(4, 150, p=OFTEN)
        tables = corpus(KINDS[drawn]), corpus(OTHERS[drawn])
        alone.append(list(bootstrap.intervals(tables[0], resamples=300).values()))
        found = bootstrap.paired_bootstrap(tables[:1], tables[1:], resamples=300)
        paired.append([(row.low, row.high) for row in found.values()])
    for order in (0, 3):
        whole = dict(enumerate(np.array(alone)[:, order]))
        apart = dict(enumerate(np.array(paired)[:, order]))
        assert is_covered(misses(whole, truth[order]), trials=trials)
        assert is_covered(misses(apart, other[order] - truth[order]), trials=trials)


def student(images: int) -> float:
    """How often Student's |t| of n - 1 degrees of freedom stays below 1.96 √((n - 1) / n): a sum over its density."""
    free = images - 1
    scale = math.gamma(images / 2) / math.gamma(free / 2) / math.sqrt(math.pi * free)
    edge, steps = 1.959964 * math.sqrt(free / images), 10_000
    middles = ((at + 0.5) * edge / steps for at in range(steps))
    return 2 * scale * sum((1 + t * t / free) ** (-images / 2) for t in middles) * edge / steps


def stated(distribution: str) -> dict[int, float]:
    """{images: probability} of the docstring's sentence about a distribution."""
    _, _, text = " ".join(bootstrap.__doc__.split()).partition(distribution)
    return {
        int(images): float(share) for share, images in re.findall(r"(0\.\d\d) for (\d+)", re.split(r"[;.] ", text)[0])
    }


def test_few_images_are_covered_less_as_the_docstring_says():
    """Percentiles know no Student's t, and the spread of a resample is √((n - 1) / n) of that of the data."""
    random = np.random.default_rng(5)
    assert list(stated("normally distributed")) == [10, 20, 50, 100]
    for images, share in stated("normally distributed").items():
        assert student(images) == pytest.approx(share, abs=0.005)
        covered = 1 - sum(misses(bootstrap.intervals(columns(random.normal(size=(images, TRIALS))), resamples=400), 0))
        assert covered == pytest.approx(share, abs=0.005 + 3 * (share * (1 - share) / TRIALS) ** 0.5)
    assert list(stated("exponential distribution")) == [10, 20, 50, 200]
    for images, share in stated("exponential distribution").items():
        table = columns(random.exponential(size=(images, TRIALS)))
        covered = 1 - sum(misses(bootstrap.intervals(table, resamples=400), 1.0))
        assert covered == pytest.approx(share, abs=0.005 + 3 * (share * (1 - share) / TRIALS) ** 0.5)


# The interval of grounding's measures


def test_intervals_of_given_rows_are_exact(given_draws, monkeypatch):
    rows, _ = given_draws
    draws = iter(rows)

    class Single:
        def integers(self, low, high, size):
            assert (low, high, size) == (0, 5, 5)
            return np.array(next(draws))

    seeds = []
    monkeypatch.setattr(np.random, "default_rng", lambda seed: seeds.append(seed) or Single())
    values = np.array([[3.0, 1], [5.0, 4], [0.5, 2], [7.0, 1], [1.0, 9]])
    low, high = interval(values, lambda v: v.sum(0)[0] / v.sum(0)[1], samples=120, seed=8)
    drawn = [sum(values[at][0] for at in row) / sum(values[at][1] for at in row) for row in rows]
    assert (low, high) == pytest.approx((slow_scores.quantile(drawn, 0.025), slow_scores.quantile(drawn, 0.975)))
    assert seeds == [8]


def test_intervals_are_of_1000_resamples_of_seed_0():
    values = np.random.default_rng(0).normal(size=11)
    assert interval(values, np.mean) == interval(values, np.mean, samples=1000, seed=0)
    assert interval(values, np.mean) != interval(values, np.mean, samples=1000, seed=1)


def test_95_percent_of_the_intervals_of_a_ratio_have_it():
    """As many words as an image names things, whose measure depends on their number: the mean is over words."""
    random, trials = np.random.default_rng(6), 2000
    numbers = random.integers(1, 4, (200, trials))
    sums = numbers * (0.2 * numbers + random.normal(0, 0.1, numbers.shape))
    truth = 0.2 * (1 + 4 + 9) / (1 + 2 + 3)
    low, high = interval(np.stack([sums, numbers], 1), lambda v: v[:, 0].sum(0) / v[:, 1].sum(0), samples=400)
    assert is_covered(misses(dict(enumerate(zip(low, high, strict=True))), truth))
