"""Draw many images on one sheet, each with its captions, references and scores. Sizes are in pixels."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from captioning.visualise.drawing import TEXT, fit, new_figure, show, text_height, wrap

CARD, TALLEST = 380, 420  # width of a card, largest height of an image
MARGIN, GAP, SPACE = 30, 28, 8  # around the sheet, between cards, between the texts of a card
TITLE, CAPTION, REFERENCE, NOTE = 14, 10.5, 8, 8  # font sizes in points
_GRAY: dict[str, Any] = {"parse_math": False, "color": "0.38"}


class Entry(NamedTuple):
    """One card of a contact sheet.

    Attributes:
        picture: the image.
        captions: a caption, or {label: caption} to compare several.
        references: reference captions.
        scores: {name: value}, the scores of this image.
        title: a text above the image, such as its file name.
    """

    picture: Image.Image
    captions: str | Mapping[str, str]
    references: Sequence[str] = ()
    scores: Mapping[str, float] = {}
    title: str = ""


def caption_sheet(entries: Sequence[Entry], *, columns: int = 4, title: str = "", most_references: int = 3) -> Figure:
    """Draw a contact sheet: cards of equal width in rows; a row is as high as its highest card.

    Args:
        entries: the cards.
        columns: cards per row.
        title: a text above all cards.
        most_references: how many references to show per image, at most.

    Raises:
        ValueError: there are no entries or no columns.
    """
    if not entries or columns < 1:
        raise ValueError(
            f"caption_sheet has {len(entries)} entries and columns={columns}: it needs at least one of each"
        )
    columns = min(columns, len(entries))
    cards = [_card(entry, most_references) for entry in entries]
    rows = [cards[at : at + columns] for at in range(0, len(cards), columns)]
    heights = [max(card.height for card in row) for row in rows]
    width = 2 * MARGIN + columns * (CARD + GAP) - GAP
    heading, points = wrap(title, TITLE, width - 2 * MARGIN)
    head = text_height(heading, points) + SPACE if title else 0
    height = 2 * MARGIN + head + sum(heights) + GAP * (len(rows) - 1)
    figure = new_figure(width, height)
    if title:
        figure.text(MARGIN / width, 1 - MARGIN / height, heading, va="top", fontsize=points, **TEXT)
    top = MARGIN + head
    for row, tall in zip(rows, heights, strict=True):
        for column, card in enumerate(row):
            _draw(figure, card, MARGIN + column * (CARD + GAP), top, size=(width, height))
        top += tall + GAP
    return figure


class _Card(NamedTuple):
    """The content of a card.

    Attributes:
        above: (wrapped text, font size in points, style) of the texts above the image, from the top.
        picture: the resized image.
        extent: (width, height) of the original image.
        below: the texts below the image, as `above`.
        height: of the card.
    """

    above: list[tuple[str, float, dict]]
    picture: Image.Image
    extent: tuple[int, int]
    below: list[tuple[str, float, dict]]
    height: int


def _card(entry: Entry, most_references: int) -> _Card:
    scaling = min(CARD / entry.picture.width, TALLEST / entry.picture.height)
    wide, high = (max(1, round(side * scaling)) for side in entry.picture.size)
    shown = fit(entry.picture, (wide, high))
    above = [_text(entry.title, NOTE, _GRAY)] if entry.title else []
    captions = {"": entry.captions} if isinstance(entry.captions, str) else entry.captions
    below = [
        _text(f"{label}: {text}" if label else text or "(empty)", CAPTION, TEXT) for label, text in captions.items()
    ]
    if entry.scores:
        scores = " · ".join(f"{name} {value:.2f}" for name, value in entry.scores.items())
        below.append(_text(scores, NOTE, TEXT | {"fontweight": "bold"}))
    below += [_text(f"– {text}", REFERENCE, _GRAY) for text in entry.references[:most_references]]
    texts = [*above, *below]
    height = shown.height + sum(text_height(text, points) for text, points, _ in texts) + SPACE * len(texts)
    return _Card(above, shown, entry.picture.size, below, ceil(height))


def _text(text: str, points: float, style: dict) -> tuple[str, float, dict]:
    weight = style.get("fontweight", "normal")
    return *wrap(text, points, CARD, weight=weight), style


def _draw(figure: Figure, card: _Card, left: float, top: float, *, size: tuple[float, float]) -> None:
    width, height = size

    def write(texts: Sequence[tuple[str, float, dict]], at: float) -> float:
        for text, points, style in texts:
            figure.text(left / width, 1 - at / height, text, va="top", fontsize=points, linespacing=1.25, **style)
            at += text_height(text, points) + SPACE
        return at

    at = write(card.above, top)
    corner = (left + (CARD - card.picture.width) / 2) / width, (height - at - card.picture.height) / height
    axes = figure.add_axes((*corner, card.picture.width / width, card.picture.height / height))
    show(axes, np.asarray(card.picture), card.extent)
    write(card.below, at + card.picture.height + SPACE)
