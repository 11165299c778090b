"""Draw counts as bar charts, for example caption lengths and frequent words."""

from collections.abc import Mapping
from math import ceil

from matplotlib.figure import Figure

from captioning.visualise.drawing import TEXT, new_figure, text_width

PANEL = (620, 300)  # pixels of one panel
POINTS = 8
_LETTERS = 36  # labels with more letters in total are drawn vertically


def bars_figure(panels: Mapping[str, Mapping[str | int, float]]) -> Figure:
    """Draw one bar chart per entry.

    Args:
        panels: {title: {label: count}}. Bars are in the given order; if all labels are numbers, they are positioned on
            a numeric axis.
    """
    texts = [str(label) for counts in panels.values() for label in counts]
    foot = 34 + ceil(max((text_width(text, POINTS) for text in texts), default=0))  # labels may be vertical
    width, height = PANEL[0] * len(panels), PANEL[1] + foot
    figure = new_figure(width, height)
    for index, (title, counts) in enumerate(panels.items()):
        corner = (index * PANEL[0] + 78) / width, foot / height
        axes = figure.add_axes((*corner, (PANEL[0] - 96) / width, (PANEL[1] - 44) / height))
        labels, numbers = list(counts), [label for label in counts if isinstance(label, int)]
        numeric = len(numbers) == len(labels)
        at = numbers if numeric else list(range(len(labels)))
        axes.bar(at, list(counts.values()), color="#0072B2", width=0.8)
        if not numeric:
            turned = sum(len(str(label)) + 1 for label in labels) > _LETTERS
            axes.set_xticks(at, [str(label) for label in labels], rotation=90 if turned else 0, parse_math=False)
        axes.set_title(title, fontsize=10, loc="left", **TEXT)
        axes.tick_params(labelsize=POINTS)
        axes.spines[["top", "right"]].set_visible(False)
    return figure
