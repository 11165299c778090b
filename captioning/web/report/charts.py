"""Compute the SVG coordinates (x right, y down) of the lines and bars in the report's charts."""

from collections.abc import Mapping, Sequence
from math import ceil, floor, isfinite, log10
from typing import NamedTuple

WIDTH, HEIGHT = 480, 250
LEFT, RIGHT, TOP, BOTTOM = 48, 128, 10, 34  # margins for the scale, the names of lines, nothing, and the steps
MOST_POINTS = 300  # per line; longer lines are averaged
TICKS = 5  # approximate number
_SPACING = 15  # smallest distance between the names of two lines
WIDEST, LABEL = 44, 24  # largest width of a bar, width of the number below it

Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]


class Tick(NamedTuple):
    """A tick of an axis.

    Attributes:
        at: x or y.
        label: the value at this position, as text.
    """

    at: float
    label: str


class Curve(NamedTuple):
    """A line of a chart.

    Attributes:
        name: the line's name.
        points: "x,y x,y …".
        end: y of the name.
        last: the last value, as text.
        style: 0, 1, … in the order of the lines.
        dots: the points to mark; empty for lines with many points.
    """

    name: str
    points: str
    end: float
    last: str
    style: int
    dots: list[tuple[float, float]]


class Chart(NamedTuple):
    """A chart with one or several lines.

    Attributes:
        title: the title.
        curves: the lines.
        across: the ticks of the x axis.
        up: the ticks of the y axis.
        size: (width, height).
        inner: (x, y, width, height) of the area in which lines are drawn.
    """

    title: str
    curves: list[Curve]
    across: list[Tick]
    up: list[Tick]
    size: tuple[int, int] = (WIDTH, HEIGHT)
    inner: tuple[int, int, int, int] = (LEFT, TOP, WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM)


class Bar(NamedTuple):
    """The two bars of one caption length.

    Attributes:
        left: x of the left edge.
        width: width of the space for both bars.
        written: height of the bar for generated captions, relative to the tallest bar.
        reference: height of the bar for references, relative to the tallest bar.
        told: the description in words.
        label: the length, or "" if there is no room for a label.
    """

    left: float
    width: float
    written: float
    reference: float
    told: str
    label: str


def ticks(low: float, high: float, *, count: int = TICKS) -> list[float]:
    """Return round values from low to high, at distances of 1, 2 or 5 times a power of ten."""
    if not (isfinite(low) and isfinite(high)) or high <= low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** floor(log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    return [step * index for index in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)]


def curves(title: str, series: Series, *, robust: bool = False) -> Chart | None:
    """Build a chart of several quantities over the training steps, with one scale; None if no value is finite.

    Args:
        title: the title.
        series: {name: (steps, values)}.
        robust: whether the scale ignores the highest 3 % of all values, which a loss has at its start.
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
        positions = list(zip([round(each, 1) for each in x], [round(each, 1) for each in y], strict=True))
        points = " ".join(f"{a:g},{b:g}" for a, b in positions)
        few = positions if len(positions) <= MOST_POINTS / 10 else []
        found.append(Curve(name, points, y0 + y[-1], short(own[-1]), style, few))
    across = [Tick(x0 + width * (t - first) / (last - first), short(t)) for t in ticks(first, last, count=4)]
    up = [Tick(y0 + height * (high - t) / (high - low), short(t)) for t in ticks(low, high)]
    return Chart(title, _apart(found, y0 + height - 6), across, up)


def bars(shares: Sequence[tuple[int, float, float]], *, most: int | None = None) -> list[Bar]:
    """Build the bars of a histogram of caption lengths; the tallest bar has height 1.

    Args:
        shares: (length, share of generated captions, share of references) per length.
        most: the length that includes all longer captions; None: there is none.
    """
    tallest = max((max(own, theirs) for _, own, theirs in shares), default=0) or 1
    width = min(WIDEST, WIDTH / max(1, len(shares)))
    every = ceil(LABEL / width)
    found = []
    for index, (length, own, theirs) in enumerate(shares):
        name = f"{length}+" if length == most else str(length)
        description = f"{name} words: {own:.1%} of generated captions, {theirs:.1%} of references"
        label = "" if length % every else name
        found.append(Bar(round(index * width, 1), round(width, 1), own / tallest, theirs / tallest, description, label))
    return found


def short(value: float) -> str:
    """Format a number with few characters: 12 000 as 12k, 0.00012 as 1.2e-4."""
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
    """Reduce a line to at most MOST_POINTS points by averaging groups of consecutive points."""
    size = ceil(len(steps) / MOST_POINTS) or 1
    if size == 1:
        return steps, values
    groups = [slice(at, at + size) for at in range(0, len(steps), size)]
    return [sum(s) / len(s) for s in map(steps.__getitem__, groups)], [
        sum(v) / len(v) for v in map(values.__getitem__, groups)
    ]


def _widened(low: float, high: float) -> tuple[float, float]:
    """Extend the range from low to high a little, also if both are equal."""
    room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return (0.0 if 0 <= low < 4 * room else low - room), high + room


def _apart(found: list[Curve], lowest: float) -> list[Curve]:
    """Move the names of lines apart so that they do not overlap, in their order, from the lower edge upward."""
    limit, placed = lowest, {}
    for curve in sorted(found, key=lambda curve: -curve.end):
        placed[curve.name] = min(curve.end, limit)
        limit = placed[curve.name] - _SPACING
    if limit + _SPACING < TOP:  # too many names: distribute them evenly from the top
        for index, curve in enumerate(sorted(found, key=lambda curve: curve.end)):
            placed[curve.name] = TOP + 5 + _SPACING * index
    return [curve._replace(end=round(placed[curve.name], 1)) for curve in found]
