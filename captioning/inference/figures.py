"""Draw a `Caption` with its attention maps, for `captioning-caption figures=[…]` and for notebooks.

| Kind    | Figure                                                      |
|---------|-------------------------------------------------------------|
| `grid`  | one panel per word, smooth attention maps                   |
| `cells` | one panel per word, attention maps as the grid's own cells  |
| `strip` | one panel per word, all in one row, for a paper             |
| `gaze`  | an animation from word to word (GIF)                        |
| `film`  | the same animation as a video (MP4)                         |

In Python, `heads` draws one word with one panel per head of each layer, of models with several heads.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from captioning.errors import ConfigError
from captioning.inference.attribution import ATTENTION
from captioning.inference.caption import Caption, tag_notes
from captioning.visualise import (
    attention_figure,
    caption_figure,
    find_ffmpeg,
    heads_figure,
    save_figure,
    save_gaze,
    strip_figure,
)

STILL, MOVING = ("grid", "cells", "strip"), {"gaze": ".gif", "film": ".mp4"}
FIGURES = (*STILL, *MOVING)
HEADS = "heads"
FIGURE_FORMATS = ("png", "svg", "pdf")


def draw_figure(picture: Image.Image, caption: Caption, kind: str = "grid", **options: Any) -> Figure:
    """Draw a caption with one attention map per word; without attention, draw the image under its caption.

    Args:
        picture: the captioned image.
        caption: its caption.
        kind: "grid", "cells" or "strip".
        **options: keyword arguments of `attention_figure` (grid, cells) or `strip_figure` (strip).

    Raises:
        ConfigError: `kind` is not one of these.
    """
    check_figures((kind,), of=STILL)
    if caption.attention is None:
        return caption_figure(picture, caption.text)
    if kind == "strip":
        return strip_figure(picture, caption.tokens, caption.attention, **_where(caption) | options)
    where = _where(caption) | {"title": caption.text, "smooth": kind == "grid", "log_prob": caption.log_prob}
    return attention_figure(picture, caption.tokens, caption.attention, **where | options)


def save_caption_figure(
    picture: Image.Image, caption: Caption, path: Path | str, kind: str = "grid", **options: Any
) -> None:
    """Draw one kind of figure and write it to a file.

    Args:
        picture: the captioned image.
        caption: its caption.
        path: the file; its suffix is the format.
        kind: one of `FIGURES`.
        **options: keyword arguments of `attention_figure` (grid, cells), `strip_figure` (strip) or `save_gaze` (gaze,
            film).

    Raises:
        ConfigError: `kind` does not exist, or is an animation and the caption has no attention.
        ToolError: ffmpeg is needed for an MP4 file and is missing.
    """
    check_figures((kind,))
    if kind not in MOVING:
        save_figure(draw_figure(picture, caption, kind, **options), path)
    elif caption.attention is None:
        raise ConfigError(
            f"figures=[{kind}] draws attention maps, but the caption has no attention. Use figures=[grid]"
        )
    else:
        save_gaze(path, picture, caption.tokens, caption.attention, **_where(caption) | options)


def check_kind(kind: str) -> None:
    """Refuse a kind of figure that `Predictor.figure` does not draw."""
    if kind not in (*FIGURES, HEADS):
        raise ConfigError(f"kind={kind!r:.80} does not exist. Choose from {', '.join((*FIGURES, HEADS))}")


def check_heads(predictor: Any, *, map: str, word: str | int | None) -> None:
    """Refuse a figure of heads that cannot be drawn, before the image is captioned.

    Args:
        predictor: a `Predictor`.
        map: the map that was asked for.
        word: the word that was asked for.

    Raises:
        ConfigError: the model has one map per word, no word was named, or a map was.
    """
    if not any(predictor.captioner.head_grid):
        raise ConfigError(
            f'kind="{HEADS}" needs a model with several heads, but {predictor.path} has one. Use kind="strip"'
        )
    if word is None:
        raise ConfigError(f'kind="{HEADS}" draws one word: name it, for example word="dog" or word=1')
    if isinstance(word, bool) or not isinstance(word, str | int):
        raise ConfigError(f'word={word!r:.80} must be a word or its position: type for example word="dog" or word=1')
    if map != ATTENTION:
        raise ConfigError(f'kind="{HEADS}" draws every head: remove map={map!r}, or draw it with kind="strip"')


def draw_heads(
    picture: Image.Image,
    captions: Mapping[str, Caption],
    word: str | int,
    *,
    grid: tuple[int, int],
    path: Path | str | None = None,
) -> Figure:
    """Draw one word of a caption: one row of panels per layer, with the mean of its heads and each head.

    Args:
        picture: the captioned image.
        captions: the caption with the map of each layer's mean, then of each head; see `CaptionModel.map_names`.
        word: the word, or its position in the caption, from 0.
        grid: number of layers and of heads per layer.
        path: a file to write the figure to, or None; its suffix is the format.

    Raises:
        ConfigError: the caption does not have the word.
    """
    layers, heads = grid
    caption = next(iter(captions.values()))
    position = _position(caption, word)
    rows = np.stack([each.attention[position] for each in captions.values() if each.attention is not None])
    weights = np.concatenate((rows[:layers, None], rows[layers:].reshape(layers, heads, -1)), 1)
    tokens = [f"[{each}]" if at == position else each for at, each in enumerate(caption.tokens)]
    figure = heads_figure(picture, weights, title=" ".join(tokens), box=caption.box, grid=caption.grid)
    if path is not None:
        save_figure(figure, path)
    return figure


def _position(caption: Caption, word: str | int) -> int:
    """Return the position of a word in a caption, of its first occurrence."""
    if isinstance(word, int) and 0 <= word < len(caption.tokens):
        return word
    if word not in caption.tokens:
        raise ConfigError(f"word={word!r} is not in the caption: choose one of {' '.join(caption.tokens)!r}")
    return caption.tokens.index(str(word))


def check_drawable(kinds: Sequence[str], predictor: Any) -> None:
    """Refuse animations that cannot be drawn with this predictor, before any image is captioned.

    Args:
        kinds: kinds of figures, of `FIGURES`.
        predictor: a `Predictor`.

    Raises:
        ConfigError: an animation is requested, and the checkpoint (or one checkpoint of an ensemble) has no attention.
        ToolError: a film is requested, and ffmpeg is missing.
    """
    moving = [kind for kind in kinds if kind in MOVING]
    blind = [each.path for each in predictor.members if not each.attends]
    if moving and blind:
        raise ConfigError(
            f"figures=[{','.join(moving)}] draws attention maps, but {blind[0]} has no attention. Use another "
            "checkpoint, or figures=[grid]"
        )
    if "film" in moving:
        find_ffmpeg()


def endings(kinds: Sequence[str], suffix: str) -> dict[str, str]:
    """Return what follows the image's name in each figure's file name: {"grid": ".png", "strip": "_strip.png", …}.

    Args:
        kinds: kinds of figures, of `FIGURES`.
        suffix: format of still figures, one of `FIGURE_FORMATS`; animations have their own.

    Raises:
        ConfigError: an unknown kind or format.
    """
    check_figures(kinds)
    if suffix not in FIGURE_FORMATS:
        raise ConfigError(f"format={suffix} is not supported. Choose one of {', '.join(FIGURE_FORMATS)}")
    return {kind: ("" if kind == "grid" else f"_{kind}") + MOVING.get(kind, f".{suffix}") for kind in kinds}


def check_figures(kinds: Sequence[str], *, of: tuple[str, ...] = FIGURES) -> None:
    """Refuse kinds of figures that do not exist."""
    if unknown := [str(kind) for kind in kinds if kind not in of]:
        raise ConfigError(f"figures=[{unknown[0]}] does not exist. Choose from {', '.join(of)}")


def _where(caption: Caption) -> dict[str, Any]:
    grid = {"box": caption.box, "grid": caption.grid} if caption.regions is None else {"regions": caption.regions}
    return grid | {"places": caption.places, "sentinel": caption.sentinel, "tags": tag_notes(caption)}
