"""Find the units of a recurrent network that follow a property of the text, and compare them with chance.

Among hundreds of units, the best one correlates with any property by chance. So a unit is chosen on one half of the
data and evaluated on the other half. There it is compared with the best of all units under permuted labels. Labels are
permuted in two ways:

- *within*: each sequence's labels are shuffled among its own words. This keeps how often a sequence has the property.
- *between*: sequences of equal length exchange all their labels. This keeps where in a sequence the property occurs, so
  a unit that only counts words correlates as well as before.

All computations are in float64. They take plain arrays, from captions or from any other text.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from captioning.errors import DataError, must_be

LEVEL = 95  # percentile of the best unit's |r| under permuted labels, reported as chance
_CHUNK = 32  # permutations computed at a time


class UnitCorrelation(NamedTuple):
    """The correlation of one unit with one label.

    Attributes:
        label: the name of the label.
        state: the name of the state or gate.
        unit: the unit's column in `states[state]`.
        chosen: Pearson's r on the half of the data on which the unit was chosen.
        held_out: Pearson's r on the other half. All following numbers are of this half, too.
        within: chance level: the 95th percentile, over permutations within sequences, of the largest |r| of all units.
        between: the same for permutations between sequences.
        p_within: the share of permutations within sequences, including the original order, whose largest |r| is at
            least |held_out|. It is small if chance rarely finds a unit as good.
        p_between: the same for permutations between sequences.
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
    """Find the units that correlate most with each label.

    Args:
        states: {name: [N, H]}, one row per word (or character). H may differ between states.
        labels: {name: [N]}. Labels that are constant in either half are left out.
        sequences: [N], the caption (or window of a text) of each row; the rows of a sequence are in their order.
        groups: [N], the image (or file) of each row; a group is never divided between the halves.
        top: units per label, among all states.
        permutations: number of permutations of each kind; p cannot be below 1 / (1 + permutations).
        seed: of the halves and the permutations.

    Returns:
        The `top` units of each label, in the order of the labels; the best unit of the choosing half comes first.

    Raises:
        ConfigError: `top` or `permutations` is below 1.
        DataError: the numbers of rows differ, there are fewer than two groups, or no two sequences have equal lengths.
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
            chance = {kind: float(np.percentile(values[:, column], LEVEL)) for kind, values in largest.items()}
            shares = {f"p_{kind}": _share(values[:, column], r) for kind, values in largest.items()}
            found.append(
                UnitCorrelation(label, state, unit, float(chosen[state][unit, column]), float(r), **chance, **shares)
            )
    return found


def correlate(states: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Compute Pearson's r of each unit with each label: [N, H] and [N, M] -> [H, M]; 0 if either is constant."""
    return _standardize(states).T @ _standardize(labels)


def largest_by_chance(states: Mapping[str, np.ndarray], labels: np.ndarray, orders: Sequence[np.ndarray]) -> np.ndarray:
    """Compute the largest |r| of all units of all states with each of M labels.

    Args:
        states: {name: [N, H]}.
        labels: [N, M].
        orders: permutations of the labels' rows, [N] each.

    Returns:
        [number of orders, M].
    """
    standard = _standardize(labels)
    largest = np.zeros((len(orders), labels.shape[1]))
    for values in states.values():
        units = _standardize(values).T
        for start in range(0, len(orders), _CHUNK):
            moved = np.stack([standard[order] for order in orders[start : start + _CHUNK]], 1)  # [N, chunk, M]
            found = np.abs(units @ moved.reshape(len(moved), -1)).max(0).reshape(moved.shape[1:])
            np.maximum(largest[start : start + _CHUNK], found, out=largest[start : start + _CHUNK])
    return largest


def halves(groups: np.ndarray, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Divide the groups into two random halves, and return the rows of each half as [N] bool.

    Raises:
        DataError: there are fewer than two groups.
    """
    kinds = np.unique(groups)
    if len(kinds) < 2:
        raise DataError("'groups' has only one group (image or file), which cannot be halved. Give at least two")
    drawn = np.random.default_rng([seed, 0]).permutation(kinds)[: len(kinds) // 2]
    first = np.isin(groups, drawn)
    return first, ~first


def shuffle_within(sequences: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return a random order [N] of the rows that permutes each sequence's rows among themselves."""
    order = np.empty(len(sequences), dtype=np.intp)
    order[np.argsort(sequences, kind="stable")] = np.lexsort((generator.random(len(sequences)), sequences))
    return order


def shuffle_between(sequences: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return a random order [N] of the rows that permutes sequences of equal length.

    Raises:
        DataError: no two sequences have the same length.
    """
    rows = np.argsort(sequences, kind="stable")
    _, starts, lengths = np.unique(sequences[rows], return_index=True, return_counts=True)
    order, exchanged = np.arange(len(sequences)), False
    for length in np.unique(lengths):
        alike = rows[starts[lengths == length][:, None] + np.arange(length)]  # [sequences, length]
        order[alike] = alike[generator.permutation(len(alike))]
        exchanged |= len(alike) > 1
    if not exchanged:
        raise DataError("no two 'sequences' have the same length. Split the text into windows of the same length")
    return order


def beyond_position(labels: Mapping[str, np.ndarray], sequences: np.ndarray) -> dict[str, np.ndarray]:
    """Subtract from each label its mean at the same position in all sequences of the same length.

    What remains cannot be predicted by counting words. A label that position and length determine becomes 0 everywhere.

    Args:
        labels: {name: [N]}.
        sequences: [N], the sequence of each row.
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
    """Shift and scale columns to mean 0 and a sum of squares of 1; constant columns become 0."""
    values = np.array(values, dtype=np.float64)  # the only copy: the states of a text may take gigabytes
    lengths = np.sqrt(np.einsum("nh,nh->h", values, values))
    values -= values.mean(0)
    spread = np.sqrt(np.einsum("nh,nh->h", values, values))
    flat = spread <= 1e-9 * lengths  # constant up to rounding
    values /= np.where(flat, 1, spread)
    values[:, flat] = 0
    return values


def _best(found: Mapping[str, np.ndarray], column: int, top: int) -> list[tuple[str, int]]:
    """Return (state, unit) of the `top` largest |r| with a label."""
    candidates = [(abs(r), name, unit) for name, table in found.items() for unit, r in enumerate(table[:, column])]
    return [(name, unit) for _, name, unit in sorted(candidates, key=lambda each: -each[0])[:top]]


def _share(largest: np.ndarray, r: float) -> float:
    return float((1 + (largest >= abs(r)).sum()) / (1 + len(largest)))


def _check(states: Mapping, labels: Mapping, sequences: np.ndarray, groups: np.ndarray) -> None:
    counts = {name: len(values) for name, values in {**states, **labels}.items()}
    for name, count in counts.items():
        if count != len(sequences) or count != len(groups):
            raise DataError(
                f"'{name}' has {count} rows, 'sequences' {len(sequences)} and 'groups' {len(groups)}. They must have "
                "equally many rows"
            )
