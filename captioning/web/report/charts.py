"""Compute the SVG coordinates (x right, y down) of the lines and bars in the report's charts."""

from collections.abc import Mapping, Sequence
from math import ceil, floor, isfinite, log10
from typing import NamedTuple

WIDTH, HEIGHT = 480, 250
LEFT, RIGHT, TOP, BOTTOM = 48, 128, 10, 34  # for the scale, the lines' names, and the steps
MOST_POINTS = 300  # of a line; longer ones are averaged
TICKS = 5  # about so many
_SPACING = 15  # between the names of two lines
WIDEST, LABEL = 44, 24  # of a bar, and of the number under it

Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]


class Tick(NamedTuple):
    """at: x or y. label: of the value there."""

    at: float
    label: str


class Curve(NamedTuple):
    """points: "x,y x,y …". end: where its name stands (y). last: its last value. style: 0, 1, …, by its place."""

    name: str
    points: str
    end: float
    last: str
    style: int
    dots: list[tuple[float, float]]


class Chart(NamedTuple):
    """One panel of curves. inner: (x, y, width, height) of the part that is drawn in."""

    title: str
    curves: list[Curve]
    across: list[Tick]
    up: list[Tick]
    size: tuple[int, int] = (WIDTH, HEIGHT)
    inner: tuple[int, int, int, int] = (LEFT, TOP, WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM)


class Bar(NamedTuple):
    """One length of captions: left and width of its place; heights as shares of the tallest bar; what it tells in
    words; and its label, "" where there is no room for one."""

    left: float
    width: float
    written: float
    reference: float
    told: str
    label: str


def ticks(low: float, high: float, *, count: int = TICKS) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten apart) from low to high."""
    if not (isfinite(low) and isfinite(high)) or high <= low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** floor(log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    return [step * index for index in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)]


def curves(title: str, series: Series, *, robust: bool = False) -> Chart | None:
    """Several quantities over the steps of a run, on one scale; None where there is nothing finite to show.

    Args:
        series: name -> (steps, values).
        robust: the scale leaves out the highest 3 % of all values, which a loss has at its start.
    """
    drawn = {name: _thin(*_finite(*points)) for name, points in series.items()}
    drawn = {name: points for name, points in drawn.items() if points[0]}
    if not drawn:
        return None
    values = sorted(value for _, own in drawn.values() for value in own)
    steps = [step for own, _ in drawn.values() for step in own]
    top = values[ceil(0.97 * (len(values) - 1))] if robust else values[-1]
    low, high = _widened(values[0], max(top, max(own[-1] for _, own in drawn.values())))
    first, last = min(0, *steps), max(1, *steps)
    x0, y0, width, height = Chart("", [], [], []).inner
    found = []
    for style, (name, (own_steps, own)) in enumerate(drawn.items()):
        x = [width * (step - first) / (last - first) for step in own_steps]
        y = [height * (high - value) / (high - low) for value in own]
        places = list(zip([round(each, 1) for each in x], [round(each, 1) for each in y], strict=True))
        points = " ".join(f"{a:g},{b:g}" for a, b in places)
        few = places if len(places) <= MOST_POINTS / 10 else []
        found.append(Curve(name, points, y0 + y[-1], short(own[-1]), style, few))
    across = [Tick(x0 + width * (t - first) / (last - first), short(t)) for t in ticks(first, last, count=4)]
    up = [Tick(y0 + height * (high - t) / (high - low), short(t)) for t in ticks(low, high)]
    return Chart(title, _apart(found, y0 + height - 6), across, up)


def bars(shares: Sequence[tuple[int, float, float]], *, most: int | None = None) -> list[Bar]:
    """(length, share of captions written, share of references) -> bars side by side, the tallest of them 1.

    Args:
        most: the length that stands for all longer ones, too.
    """
    tallest = max((max(own, theirs) for _, own, theirs in shares), default=0) or 1
    width = min(WIDEST, WIDTH / max(1, len(shares)))
    every = ceil(LABEL / width)
    found = []
    for index, (length, own, theirs) in enumerate(shares):
        name = f"{length}+" if length == most else str(length)
        told = f"{name} words: {own:.1%} written, {theirs:.1%} of references"
        label = "" if length % every else name
        found.append(Bar(round(index * width, 1), round(width, 1), own / tallest, theirs / tallest, told, label))
    return found


def short(value: float) -> str:
    """A number in few characters: 12 000 as 12k, 0.00012 as 1.2e-4."""
    if value and abs(value) < 1e-3:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    if abs(value) >= 10_000:
        return f"{value / 1000:.3g}k" if abs(value) < 1e6 else f"{value / 1e6:.3g}M"
    return f"{value:.4g}" if abs(value) >= 1000 else f"{value:.3g}"


def _finite(steps: Sequence[float], values: Sequence[float]) -> tuple[list[float], list[float]]:
    kept = [(step, value) for step, value in zip(steps, values, strict=True) if isfinite(value)]
    return [step for step, _ in kept], [value for _, value in kept]


def _thin(steps: Sequence[float], values: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
    """At most MOST_POINTS points: each the mean of some that follow one another."""
    size = ceil(len(steps) / MOST_POINTS) or 1
    if size == 1:
        return steps, values
    groups = [slice(at, at + size) for at in range(0, len(steps), size)]
    return [sum(s) / len(s) for s in map(steps.__getitem__, groups)], [
        sum(v) / len(v) for v in map(values.__getitem__, groups)
    ]


def _widened(low: float, high: float) -> tuple[float, float]:
    """A little room; and some at all where all values are one."""
    room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return (0.0 if 0 <= low < 4 * room else low - room), high + room


def _apart(found: list[Curve], lowest: float) -> list[Curve]:
    """The names moved from one another, those further down first pushed up from the lower edge, in their order."""
    limit, placed = lowest, {}
    for curve in sorted(found, key=lambda curve: -curve.end):
        placed[curve.name] = min(curve.end, limit)
        limit = placed[curve.name] - _SPACING
    if limit + _SPACING < TOP:  # too many for the room: from the top, evenly
        for index, curve in enumerate(sorted(found, key=lambda curve: curve.end)):
            placed[curve.name] = TOP + 5 + _SPACING * index
    return [curve._replace(end=round(placed[curve.name], 1)) for curve in found]
