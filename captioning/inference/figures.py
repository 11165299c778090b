"""Draw a `Caption` with its attention maps, for `captioning-caption figures=[…]` and for notebooks.

| Kind    | Figure                                                      |
|---------|-------------------------------------------------------------|
| `grid`  | one panel per word, smooth attention maps                   |
| `cells` | one panel per word, attention maps as the grid's own cells  |
| `strip` | one panel per word, all in one row, for a paper             |
| `gaze`  | an animation from word to word (GIF)                        |
| `film`  | the same animation as a video (MP4)                         |
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from captioning.errors import ConfigError
from captioning.inference.caption import Caption, tag_notes
from captioning.visualise import attention_figure, caption_figure, find_ffmpeg, save_figure, save_gaze, strip_figure

STILL, MOVING = ("grid", "cells", "strip"), {"gaze": ".gif", "film": ".mp4"}
FIGURES = (*STILL, *MOVING)
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
