"""Draw counts as bars: lengths of captions, frequent words."""

from collections.abc import Mapping
from math import ceil

from matplotlib.figure import Figure

from captioning.visualise.drawing import TEXT, new_figure, text_width

PANEL = (620, 300)  # pixels of one panel
POINTS = 8
_LETTERS = 36  # labels longer than that together are turned


def bars_figure(panels: Mapping[str, Mapping[str | int, float]]) -> Figure:
    """A panel a name, {title: {label: count}}, bars in the order given; numbers as labels have their true distances."""
    labels = [str(label) for counts in panels.values() for label in counts]
    foot = 34 + ceil(max((text_width(label, POINTS) for label in labels), default=0))  # labels may be turned
    width, height = PANEL[0] * len(panels), PANEL[1] + foot
    figure = new_figure(width, height)
    for index, (title, counts) in enumerate(panels.items()):
        place = ((index * PANEL[0] + 78) / width, foot / height, (PANEL[0] - 96) / width, (PANEL[1] - 44) / height)
        axes = figure.add_axes(place)
        labels, numeric = list(counts), all(isinstance(label, int) for label in counts)
        at = labels if numeric else list(range(len(labels)))
        axes.bar(at, list(counts.values()), color="#0072B2", width=0.8)
        if not numeric:
            turned = sum(len(str(label)) + 1 for label in labels) > _LETTERS
            axes.set_xticks(at, labels, rotation=90 if turned else 0, parse_math=False)
        axes.set_title(title, fontsize=10, loc="left", **TEXT)
        axes.tick_params(labelsize=POINTS)
        axes.spines[["top", "right"]].set_visible(False)
    return figure
