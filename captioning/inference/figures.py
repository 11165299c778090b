"""Draw the figures of a `Caption` for `captioning-caption figures=[…]` and for notebooks.

grid    a panel a word                          strip   the same in one row, for a paper
cells   the same, the places as they are        gaze    a moving picture (GIF)   film   the same as MP4
"""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from captioning.errors import ConfigError
from captioning.inference.caption import Caption
from captioning.visualise import attention_figure, caption_figure, find_ffmpeg, save_figure, save_gaze, strip_figure

STILL, MOVING = ("grid", "cells", "strip"), {"gaze": ".gif", "film": ".mp4"}
FIGURES = (*STILL, *MOVING)
FIGURE_FORMATS = ("png", "svg", "pdf")


def draw_figure(picture: Image.Image, caption: Caption, kind: str = "grid", **options: Any) -> Figure:
    """The figure of a caption; without attention, the picture under its caption.

    Args:
        kind: grid, cells or strip.
        options: of `attention_figure` or `strip_figure`.
    """
    check_figures((kind,), of=STILL)
    if caption.attention is None:
        return caption_figure(picture, caption.text)
    if kind == "strip":
        return strip_figure(picture, caption.tokens, caption.attention, **_where(caption) | options)
    where = _where(caption) | {"smooth": kind == "grid", "log_prob": caption.log_prob}
    return attention_figure(picture, caption.tokens, caption.attention, **where | options)


def save_caption_figure(
    picture: Image.Image, caption: Caption, path: Path | str, kind: str = "grid", **options: Any
) -> None:
    """Writes one kind of figure; a moving one of a caption without attention is its words alone over the picture."""
    check_figures((kind,))
    if kind not in MOVING:
        save_figure(draw_figure(picture, caption, kind, **options), path)
    elif caption.attention is None:
        raise ConfigError(f"a {kind} shows where words looked, and this checkpoint has no attention: draw a grid of it")
    else:
        save_gaze(path, picture, caption.tokens, caption.attention, **_where(caption) | options)


def check_drawable(kinds: tuple[str, ...] | list[str], predictor) -> None:
    """Refuse moving kinds that could not be made by a `Predictor`, before anything is captioned.

    Raises:
        ConfigError: the checkpoint (or one of an ensemble) has no attention. ToolError: a film without ffmpeg.
    """
    moving = [kind for kind in kinds if kind in MOVING]
    blind = [each.path for each in predictor.members if not each.attends]
    if moving and blind:
        raise ConfigError(
            f"figures=[{','.join(moving)}] shows where words looked, and {blind[0]} has no attention: give another "
            "checkpoint, or figures=[grid]"
        )
    if "film" in moving:
        find_ffmpeg()


def endings(kinds: tuple[str, ...] | list[str], suffix: str) -> dict[str, str]:
    """What each kind's file is called after the picture's own name: {"grid": ".png", "strip": "_strip.png", …}.

    Raises:
        ConfigError: an unknown kind or format.
    """
    check_figures(kinds)
    if suffix not in FIGURE_FORMATS:
        raise ConfigError(f"format={suffix}: not one of {', '.join(FIGURE_FORMATS)}")
    return {kind: ("" if kind == "grid" else f"_{kind}") + MOVING.get(kind, f".{suffix}") for kind in kinds}


def check_figures(kinds: tuple[str, ...] | list[str], *, of: tuple[str, ...] = FIGURES) -> None:
    """Refuses kinds of figures that there are not."""
    if unknown := [str(kind) for kind in kinds if kind not in of]:
        raise ConfigError(f"there is no figure '{unknown[0]}': choose among {', '.join(of)}")


def _where(caption: Caption) -> dict[str, Any]:
    grid = {"box": caption.box} if caption.regions is None else {"regions": caption.regions}
    return grid | {"places": caption.places, "sentinel": caption.sentinel}
