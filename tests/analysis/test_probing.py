"""Units that follow a property: against naive loops, with planted units, and with nothing to find."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from captioning.analysis.probing import (
    beyond_position,
    correlate,
    correlate_units,
    halves,
    largest_by_chance,
    shuffle_between,
    shuffle_within,
)
from captioning.errors import ConfigError, DataError
from captioning.visualise.cells import chance_figure, colored_text, compact, units_figure


def pearson(x, y):
    """By its definition, in plain Python."""
    n, mx, my = len(x), math.fsum(x) / len(x), math.fsum(y) / len(y)
    top = math.fsum((x[i] - mx) * (y[i] - my) for i in range(n))
    below = math.sqrt(math.fsum((a - mx) ** 2 for a in x) * math.fsum((b - my) ** 2 for b in y))
    return top / below if below else 0.0


@pytest.fixture
def world():
    """120 sentences of 3 to 7 words in 60 pictures; states of noise; labels "noun" and "position"."""
    generator = np.random.default_rng(3)
    lengths = generator.integers(3, 8, 120)
    sequences = np.repeat(np.arange(120), lengths)
    position = np.concatenate([np.arange(n) for n in lengths]).astype(float)
    noun = (generator.random(len(sequences)) < 0.3).astype(float)
    states = {
        "hidden": generator.normal(size=(len(sequences), 256)),
        "cell": generator.normal(size=(len(sequences), 256)),
    }
    return SimpleNamespace(
        states=states, labels={"noun": noun, "position": position}, sequences=sequences, groups=sequences // 2
    )


def run(world, **options):
    return correlate_units(world.states, world.labels, sequences=world.sequences, groups=world.groups, **options)


def test_correlation_equals_the_naive_loop(world):
    table = np.stack(list(world.labels.values()), 1)
    values = world.states["hidden"][:, :5] * 3 + 100
    values[:, 2] = 0.1  # a unit that is constant follows nothing
    found = correlate(values.astype(np.float32), table)
    for unit in range(5):
        for label in range(2):
            x = values[:, unit].astype(np.float32).astype(float).tolist()
            expected = 0.0 if unit == 2 else pearson(x, table[:, label].tolist())
            assert found[unit, label] == pytest.approx(expected, abs=1e-12)
    assert found.dtype == np.float64


def test_a_planted_unit_is_found_and_holds(world):
    generator = np.random.default_rng(1)
    noise = generator.normal(size=(2, len(world.sequences)))
    world.states["cell"][:, 77] = -world.labels["noun"] + 0.3 * noise[0]
    world.states["hidden"][:, 5] = world.labels["position"] + 0.5 * noise[1]
    noun, position = run(world)
    assert (noun.label, noun.state, noun.unit) == ("noun", "cell", 77)
    assert (position.label, position.state, position.unit) == ("position", "hidden", 5)
    first, second = halves(world.groups)
    for found, half in ((noun.chosen, first), (noun.held_out, second)):
        x, y = world.states["cell"][half, 77], world.labels["noun"][half]
        assert found == pytest.approx(pearson(x.tolist(), y.tolist()), abs=1e-12) and found < -0.7
    assert noun.p_within == noun.p_between == 1 / 201
    assert noun.within < 0.3 and noun.between < 0.3
    # What position explains, exchanging captions keeps: the same unit, as good as ever.
    assert position.between == pytest.approx(abs(position.held_out), abs=1e-12) and position.p_between == 1
    assert position.p_within == 1 / 201


def test_the_best_of_many_is_not_taken_for_more_than_chance(world):
    """The best of 512 units of noise looks good where it was chosen; not elsewhere, and not against its like."""
    (noun, _) = run(world)
    single = 1.96 / math.sqrt((halves(world.groups)[0]).sum())  # of one unit that was not chosen
    assert abs(noun.chosen) > 1.3 * single and abs(noun.held_out) < abs(noun.chosen)
    assert noun.p_within > 0.2 and noun.p_between > 0.2
    assert noun.within > 1.4 * single and noun.between > 1.4 * single


def test_chance_equals_the_naive_loop(world):
    table = np.stack(list(world.labels.values()), 1)
    states = {name: values[:, :6] for name, values in world.states.items()}
    generator = np.random.default_rng(0)
    orders = [shuffle_within(world.sequences, generator) for _ in range(40)]
    found = largest_by_chance(states, table, orders)
    for p in (0, 31, 32, 39):
        for label in range(2):
            moved = [table[row, label] for row in orders[p]]
            rs = [abs(pearson(v[:, unit].tolist(), moved)) for v in states.values() for unit in range(6)]
            assert found[p, label] == pytest.approx(max(rs), abs=1e-12)


def test_shares_and_percentiles_by_counting(world):
    """Of a unit that follows its label a little: some permutations find as much, and some do not."""
    noise = np.random.default_rng(2).normal(size=len(world.sequences))
    world.states = {name: values[:, :3] for name, values in world.states.items()}
    world.states["hidden"][:, 2] = world.labels["noun"] + 4.0 * noise
    shares = set()
    for seed in range(5):
        (noun, _) = run(world, permutations=19, seed=seed)
        _, second = halves(world.groups, seed=seed)
        generator = np.random.default_rng([seed, 1])
        states = {name: values[second] for name, values in world.states.items()}
        table = np.stack(list(world.labels.values()), 1)[second]
        for kind, shuffle in (("within", shuffle_within), ("between", shuffle_between)):
            orders = [shuffle(world.sequences[second], generator) for _ in range(19)]
            largest = sorted(largest_by_chance(states, table, orders)[:, 0])
            assert getattr(noun, kind) == pytest.approx(largest[17] * 0.9 + largest[18] * 0.1)  # the 95th
            over = sum(value >= abs(noun.held_out) for value in largest)
            assert getattr(noun, f"p_{kind}") == (1 + over) / 20
            shares.add(over)
    assert shares - {0, 19}


@pytest.mark.parametrize("mixed", [False, True])
def test_what_each_shuffle_keeps(world, mixed):
    sequences, position, noun = world.sequences, world.labels["position"], world.labels["noun"]
    if mixed:  # sentences whose words do not lie together in the table
        order = np.random.default_rng(2).permutation(len(sequences))
        order = order[np.argsort(position[order], kind="stable")]
        sequences, position, noun = sequences[order], position[order], noun[order]
    generator = np.random.default_rng(0)
    within, between = shuffle_within(sequences, generator), shuffle_between(sequences, generator)
    for order in (within, between):
        assert sorted(order) == list(range(len(sequences))) and (order != np.arange(len(order))).mean() > 0.5
    assert (sequences[within] == sequences).all()
    np.testing.assert_array_equal(position[between], position)
    lengths = np.bincount(sequences)
    for number in range(120):
        source = np.unique(sequences[between][sequences == number])
        assert len(source) == 1 and lengths[source[0]] == lengths[number]  # a whole sentence of the same length
        assert noun[between][sequences == number].tolist() == noun[sequences == source[0]].tolist()


def test_beyond_position_takes_off_what_position_tells(world):
    rest = beyond_position(world.labels, world.sequences)
    np.testing.assert_allclose(rest["position, beyond position"], 0, atol=1e-12)
    lengths = np.bincount(world.sequences)[world.sequences]
    for length, place in ((3, 0), (7, 6), (5, 2)):
        alike = (lengths == length) & (world.labels["position"] == place)
        expected = world.labels["noun"][alike] - world.labels["noun"][alike].mean()
        np.testing.assert_allclose(rest["noun, beyond position"][alike], expected)


def test_halves_never_divide_a_group(world):
    first, second = halves(world.groups)
    assert (first ^ second).all()
    assert not set(world.groups[first]) & set(world.groups[second])
    assert len(set(world.groups[first])) == 30
    assert (halves(world.groups, seed=1)[0] != first).any()


def test_constant_labels_are_left_out(world):
    world.labels["never"] = np.zeros(len(world.sequences))
    assert {found.label for found in run(world, permutations=2)} == {"noun", "position"}
    world.labels = {"never": world.labels["never"]}
    assert run(world) == []


def test_the_top_units_come_in_order(world):
    found = run(world, top=3, permutations=2)
    assert [f.label for f in found] == ["noun"] * 3 + ["position"] * 3
    strengths = [abs(f.chosen) for f in found[:3]]
    assert strengths == sorted(strengths, reverse=True)
    first = halves(world.groups)[0]
    every = np.concatenate([correlate(v[first], world.labels["noun"][first, None]) for v in world.states.values()])
    np.testing.assert_allclose(strengths, np.sort(np.abs(every).ravel())[::-1][:3])


def test_what_cannot_be_is_refused(world):
    with pytest.raises(DataError, match="'hidden' has"):
        correlate_units(
            {"hidden": world.states["hidden"][1:]}, world.labels, sequences=world.sequences, groups=world.groups
        )
    with pytest.raises(DataError, match="at least two"):
        correlate_units(world.states, world.labels, sequences=world.sequences, groups=np.zeros(len(world.sequences)))
    with pytest.raises(DataError, match="windows of the same length"):
        shuffle_between(np.repeat([0, 1, 2], [3, 4, 5]), np.random.default_rng(0))
    with pytest.raises(ConfigError, match="permutations must be at least 1"):
        run(world, permutations=0)


# Figures -------------------------------------------------------------------------------------------------------------


def whole(figure):
    """That no text is cut off at the figure's edges."""
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    for axes in figure.axes:
        box = axes.get_tightbbox(renderer)
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1


def test_chosen_units_are_drawn_as_they_are(world):
    followers = run(world, permutations=5)
    readings = []
    for number in (0, 1):
        rows = world.sequences == number
        states = {name: values[rows] for name, values in world.states.items()}
        labels = {name: values[rows] for name, values in world.labels.items()}
        readings.append(SimpleNamespace(words=[f"word{n}" for n in range(rows.sum())], states=states, labels=labels))
    figure = units_figure(readings, followers)
    whole(figure)
    every = [np.concatenate([r.states[f.state][:, f.unit] for r in readings]) for f in followers]
    for axes, reading in zip(figure.axes, readings, strict=True):
        for row, (follower, values) in enumerate(zip(followers, every, strict=True)):
            shown = axes.images[0].get_array()[row]
            own = reading.states[follower.state][:, follower.unit]
            np.testing.assert_allclose(shown * np.ptp(values) + values.min(), own)
        texts = {(round(t.get_position()[0]), round(t.get_position()[1])): t.get_text() for t in axes.texts}
        noun, position = reading.labels["noun"], reading.labels["position"]
        expected = {(n, 0): "●" for n in range(len(noun)) if noun[n]}
        expected |= {(n, 1): f"{n}" for n in range(1, len(position))}
        assert texts == expected


def test_chance_is_drawn_beside_what_was_found(world):
    followers = run(world, top=2, permutations=5)
    figure = chance_figure(followers)
    whole(figure)
    axes = figure.axes[0]
    bars = [bar.get_width() for container in axes.containers for bar in container]
    assert bars == [f.between for f in followers] + [f.within for f in followers]
    dots = [line.get_xdata().tolist() for line in axes.lines]
    assert dots == [[abs(f.chosen) for f in followers], [abs(f.held_out) for f in followers]]
    small = compact(figure)
    assert small.size == tuple(figure.canvas.get_width_height()) and small.mode == "P"
    drawn = np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(float)
    assert np.abs(np.asarray(small.convert("RGB")) - drawn).mean() < 2


def test_coloured_text_is_lighter_where_the_unit_is_higher():
    text = colored_text(list("a<b"), np.array([-3.0, 0.5, 7.0]), between="")
    assert text.count("<span") == 3 and "&lt;" in text and "<b" not in text
    colors = [part[:7] for part in text.split("background:")[1:]]
    lightness = [sum(int(c[i : i + 2], 16) * w for i, w in ((1, 0.3), (3, 0.59), (5, 0.11))) for c in colors]
    assert lightness[0] < lightness[1] - 50 < lightness[2] - 100


def test_a_unit_that_varies_little_beside_its_mean_counts_as_any_other():
    random = np.random.default_rng(0)
    states, labels = random.normal(size=(50, 3)), random.normal(size=(50, 2))
    np.testing.assert_allclose(correlate(1 + 1e-6 * states, labels), correlate(states, labels), atol=1e-8)
