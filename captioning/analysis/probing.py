"""Find the units of a recurrent network that follow a property of the text, and compare them with chance.

Of hundreds of units, the best one correlates with anything. So a unit is chosen on one half of the data, told of on the
other, and held against the best of all units under labels that were moved about, in two ways:

    within    each sequence's labels are shuffled among its own words: keeps how much of the property a sequence has
    between   sequences of equal length exchange their labels whole: keeps where in a sequence the property stands, so
              a unit that only counts words does as well here as before

Everything is in float64 and takes plain arrays, of captions or of any other text.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from captioning.errors import DataError, must_be

LEVEL = 95  # percentile of the best unit under moved labels that is told as chance
_CHUNK = 32  # permutations at a time


class UnitCorrelation(NamedTuple):
    """One unit that follows one label.

    state, unit: its place, column `unit` of states[state]. chosen: Pearson's r on the half on which it was chosen.
    held_out: r on the other half, of which the rest tells too. within, between: the 95th percentile, over permutations
    of each kind, of the largest |r| of all units of all states. p_within, p_between: the share of permutations, this
    order among them, whose largest |r| is at least |held_out|; small where no chance finds a unit as good.
    """

    label: str
    state: str
    unit: int
    chosen: float
    held_out: float
    within: float
    between: float
    p_within: float
    p_between: float


def correlate_units(
    states: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray],
    *,
    sequences: np.ndarray,
    groups: np.ndarray,
    top: int = 1,
    permutations: int = 200,
    seed: int = 0,
) -> list[UnitCorrelation]:
    """The `top` units for each label, in order of the labels, the best (of the choosing half) first.

    Args:
        states: {name: [N, H]}, a row a word (or character). H may differ.
        labels: {name: [N]}. A label that is the same everywhere in either half is left out.
        sequences: [N], which caption (or window of a text) a row belongs to; rows of one stand in their order.
        groups: [N], what is never divided between the halves: pictures, files.
        top: units a label; of all states together.
        permutations: of each kind; p cannot be below 1 / (1 + permutations).
        seed: of the halves and the permutations.

    Raises:
        DataError: numbers of rows differ, fewer than two groups, or no two sequences of a length.
    """
    must_be("top", top, least=1)
    must_be("permutations", permutations, least=1)
    _check(states, labels, sequences, groups)
    first, second = halves(groups, seed=seed)
    names = [name for name, values in labels.items() if np.ptp(values[first]) > 0 and np.ptp(values[second]) > 0]
    if not names:
        return []
    table = np.stack([labels[name] for name in names], 1)
    chosen, held_out = (
        {name: correlate(values[half], table[half]) for name, values in states.items()} for half in (first, second)
    )
    inside = {name: values[second] for name, values in states.items()}
    generator = np.random.default_rng([seed, 1])
    largest = {}
    for kind, shuffle in (("within", shuffle_within), ("between", shuffle_between)):
        orders = [shuffle(sequences[second], generator) for _ in range(permutations)]
        largest[kind] = largest_by_chance(inside, table[second], orders)
    found = []
    for column, label in enumerate(names):
        for state, unit in _best(chosen, column, top):
            r = held_out[state][unit, column]
            told = {kind: float(np.percentile(values[:, column], LEVEL)) for kind, values in largest.items()}
            shares = {f"p_{kind}": _share(values[:, column], r) for kind, values in largest.items()}
            found.append(
                UnitCorrelation(label, state, unit, float(chosen[state][unit, column]), float(r), **told, **shares)
            )
    return found


def correlate(states: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Pearson's r of each unit with each label, [N, H] and [N, L] -> [H, L]; 0 where either is constant."""
    return _standardize(states).T @ _standardize(labels)


def largest_by_chance(states: Mapping[str, np.ndarray], labels: np.ndarray, orders: Sequence[np.ndarray]) -> np.ndarray:
    """The largest |r| of all units of all states with each label, under each order of the labels' rows: [orders, L]."""
    standard = _standardize(labels)
    largest = np.zeros((len(orders), labels.shape[1]))
    for values in states.values():
        units = _standardize(values).T
        for start in range(0, len(orders), _CHUNK):
            moved = np.stack([standard[order] for order in orders[start : start + _CHUNK]], 1)  # [N, chunk, L]
            found = np.abs(units @ moved.reshape(len(moved), -1)).max(0).reshape(moved.shape[1:])
            np.maximum(largest[start : start + _CHUNK], found, out=largest[start : start + _CHUNK])
    return largest


def halves(groups: np.ndarray, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows [N] bool of either half of the groups, drawn at random; no group is in both."""
    kinds = np.unique(groups)
    if len(kinds) < 2:
        raise DataError("one group (picture, file) cannot be halved: give at least two")
    drawn = np.random.default_rng([seed, 0]).permutation(kinds)[: len(kinds) // 2]
    first = np.isin(groups, drawn)
    return first, ~first


def shuffle_within(sequences: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """An order [N] of rows that moves each only within its sequence."""
    order = np.empty(len(sequences), dtype=np.intp)
    order[np.argsort(sequences, kind="stable")] = np.lexsort((generator.random(len(sequences)), sequences))
    return order


def shuffle_between(sequences: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """An order [N] of rows that exchanges whole sequences of equal length, word for word.

    Raises:
        DataError: no two are of a length.
    """
    rows = np.argsort(sequences, kind="stable")
    _, starts, lengths = np.unique(sequences[rows], return_index=True, return_counts=True)
    order, exchanged = np.arange(len(sequences)), False
    for length in np.unique(lengths):
        alike = rows[starts[lengths == length][:, None] + np.arange(length)]  # [sequences, length]
        order[alike] = alike[generator.permutation(len(alike))]
        exchanged |= len(alike) > 1
    if not exchanged:
        raise DataError("no two sequences are of the same length: cut the text into windows of one length")
    return order


def beyond_position(labels: Mapping[str, np.ndarray], sequences: np.ndarray) -> dict[str, np.ndarray]:
    """Labels [N] less their mean at the same place of all sequences of the same length: what counting does not tell.

    A label that place and length decide is 0 everywhere.
    """
    rows = np.argsort(sequences, kind="stable")
    _, starts, lengths = np.unique(sequences[rows], return_index=True, return_counts=True)
    rest = {f"{name}, beyond position": np.zeros(len(sequences)) for name in labels}
    for length in np.unique(lengths):
        alike = rows[starts[lengths == length][:, None] + np.arange(length)]  # [sequences, length]
        for new, values in zip(rest.values(), labels.values(), strict=True):
            new[alike] = values[alike] - values[alike].mean(0)
    return rest


def _standardize(values: np.ndarray) -> np.ndarray:
    """Columns with mean 0 and a sum of squares of 1; constant ones are all 0."""
    values = np.array(values, dtype=np.float64)  # a copy, the only one: a text may have gigabytes of states
    lengths = np.sqrt(np.einsum("nh,nh->h", values, values))
    values -= values.mean(0)
    spread = np.sqrt(np.einsum("nh,nh->h", values, values))
    flat = spread <= 1e-9 * lengths  # what rounding leaves of a constant
    values /= np.where(flat, 1, spread)
    values[:, flat] = 0
    return values


def _best(found: Mapping[str, np.ndarray], column: int, top: int) -> list[tuple[str, int]]:
    """(state, unit) of the largest |r| with a label."""
    candidates = [(abs(r), name, unit) for name, table in found.items() for unit, r in enumerate(table[:, column])]
    return [(name, unit) for _, name, unit in sorted(candidates, key=lambda each: -each[0])[:top]]


def _share(largest: np.ndarray, r: float) -> float:
    return float((1 + (largest >= abs(r)).sum()) / (1 + len(largest)))


def _check(states: Mapping, labels: Mapping, sequences: np.ndarray, groups: np.ndarray) -> None:
    counts = {name: len(values) for name, values in (states | labels).items()}
    for name, count in counts.items():
        if count != len(sequences) or count != len(groups):
            raise DataError(f"{name} has {count} rows, for {len(sequences)} of sequences and {len(groups)} of groups")
