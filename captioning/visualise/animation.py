"""Animate where each word of a caption looked, as a GIF, or as an MP4 if ffmpeg is installed."""

import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.text import Text
from PIL import Image

from captioning.errors import ToolError
from captioning.io import write_whole
from captioning.visualise.drawing import (
    TEXT,
    few_colors,
    fit,
    mark,
    new_figure,
    pixels_of,
    show,
    text_height,
    text_width,
)
from captioning.visualise.maps import Maps

SIDE, SLIMMEST = 420, 280  # pixels: side of a square image (others have the same area); smallest width of a frame
DPI, POINTS, NOTE, MARGIN = 100, 13, 9, 12
SECONDS, PAUSE = 0.7, 2.0  # per word; at the end, for the complete caption
BOX = {"boxstyle": "round,pad=0.12", "facecolor": "0.15", "edgecolor": "none"}  # behind the current word
RATE = 10  # frames per second of an MP4


def save_gaze(
    path: Path | str,
    picture: Image.Image,
    words: Sequence[str],
    weights: np.ndarray,
    *,
    seconds: float = SECONDS,
    side: int = SIDE,
    **where: Any,
) -> None:
    """Write an animation that shows one attention map after the other; the file is written atomically.

    Args:
        path: a .gif or .mp4 file.
        picture: the captioned image.
        words: as for `attention_figure`.
        weights: as for `attention_figure`.
        seconds: time per word.
        side: side of a square image in pixels; other shapes have the same area.
        **where: as for `attention_figure`.

    Raises:
        ToolError: an MP4 is requested and ffmpeg is missing, or ffmpeg fails.
        ValueError: the file has another suffix, or an argument is invalid (see `Maps`).
    """
    path = Path(path)
    if path.suffix.lower() not in (".gif", ".mp4"):
        raise ValueError(f"{path}: an animation is saved as .gif or .mp4")
    frames = gaze_frames(picture, words, weights, side=side, **where)
    durations = [seconds] * (len(frames) - 1) + [PAUSE]
    make = _write_gif if path.suffix.lower() == ".gif" else _write_mp4
    write_whole(path, lambda file: make(file, frames, durations))


def gaze_frames(
    picture: Image.Image, words: Sequence[str], weights: np.ndarray, *, side: int = SIDE, **where: Any
) -> list[Image.Image]:
    """Draw the frames of an animation, RGB and of the same size.

    The first and the last frame show the image alone; each frame between shows the attention map of one word, and
    highlights the word. Arguments are those of `save_gaze`.
    """
    maps = Maps(words, weights, **where)
    root = (picture.width / picture.height) ** 0.5
    shown = fit(picture, (max(1, round(side * root)), max(1, round(side / root))))
    panels = maps.panels(shown, picture.size)[0] if len(maps) else []
    figure, axes, texts, share = _stage(shown, picture.size, maps)
    tag = figure.text(0.5, 0.5 * MARGIN / figure.bbox.height, "", ha="center", va="bottom", fontsize=NOTE, **TEXT)
    plain, frames = np.asarray(shown), []
    for index in [None, *range(len(maps)), len(maps)]:
        word = index if index is not None and index < len(maps) else None
        axes.images[0].set_data(plain if word is None else panels[word].pixels)
        for frame in list(axes.patches):
            frame.remove()
        if word is not None:
            mark(axes, panels[word], picture.size)
        for position, text in enumerate(texts):
            reached = index is not None and position <= index
            text.set_color("white" if position == word else "0.1" if reached else "0.7")
            cast(FancyBboxPatch, text.get_bbox_patch()).set_visible(position == word)
        if share is not None and maps.sentinel is not None:
            share(None if word is None else float(maps.sentinel[word]))
        if maps.tags is not None:
            tag.set_text("" if word is None else maps.tags[word])
        frames.append(Image.fromarray(pixels_of(figure)))
    return frames


def _stage(shown: Image.Image, extent: tuple[int, int], maps: Maps) -> tuple[Figure, Axes, list[Text], Callable | None]:
    """Draw what all frames share: the image above the words.

    Returns the figure, the axes of the image, the words, and a function that shows the sentinel's share (or None).
    """
    width = max(shown.width, SLIMMEST) + 2 * MARGIN
    width += width % 2  # MP4 needs even sides
    placed, lines = _place(maps.words, width - 2 * MARGIN)
    line = text_height("", POINTS, dpi=DPI)
    under = 2 * MARGIN if maps.tags is not None else 0  # for the tag
    foot = under + (2 * MARGIN if maps.sentinel is not None else 0)
    height = shown.height + 3 * MARGIN + lines * line + foot
    height += height % 2
    figure: Figure = new_figure(width, height, dpi=DPI)
    left, bottom = (width - shown.width) / 2, height - MARGIN - shown.height
    axes = figure.add_axes((left / width, bottom / height, shown.width / width, shown.height / height))
    show(axes, np.asarray(shown), extent)
    texts = [
        figure.text(
            (MARGIN + x) / width,
            (bottom - MARGIN - row * line) / height,
            word,
            va="top",
            fontsize=points,
            bbox=BOX,
            **TEXT,
        )
        for word, (x, row, points) in zip(maps.words, placed, strict=True)
    ]
    if maps.sentinel is None:
        return figure, axes, texts, None
    room, low = width - 2 * MARGIN - 70, (MARGIN + under) / height
    for color, length in (("0.85", room), ("0.3", 0)):
        bar = Rectangle((MARGIN / width, low), length / width, 10 / height, color=color, linewidth=0)
        figure.add_artist(bar)
    number = figure.text((width - MARGIN) / width, low, "", ha="right", va="bottom", fontsize=NOTE, **TEXT)

    def share(value: float | None) -> None:
        bar.set_width(room * min(max(value or 0.0, 0.0), 1.0) / width)
        number.set_text("" if value is None else f"β {value:.2f}")

    return figure, axes, texts, share


def _place(words: Sequence[str], width: float) -> tuple[list[tuple[float, int, float]], int]:
    """Arrange words in lines; return (x, line, font size in points) per word, and the number of lines."""
    placed: list[tuple[float, int, float]] = []
    x, row, space = 0.0, 0, text_width("n", POINTS, dpi=DPI) / 2
    for word in words:
        wide = text_width(word, POINTS, dpi=DPI)
        if x and x + wide > width:
            x, row = 0.0, row + 1
        placed.append((x, row, POINTS * min(1, width / wide)))
        x += wide + space
    return placed, row + 1


def _write_gif(file: BinaryIO, frames: Sequence[Image.Image], durations: Sequence[float]) -> None:
    first, *rest = (few_colors(frame, 128) for frame in frames)
    milliseconds = [round(100 * each) * 10 for each in durations]  # GIF durations are hundredths of a second
    first.save(file, format="GIF", save_all=True, append_images=rest, duration=milliseconds, loop=0)


def find_ffmpeg() -> str:
    """Return the path of the program ffmpeg, which writes MP4 files.

    Raises:
        ToolError: ffmpeg is missing.
    """
    program = shutil.which("ffmpeg")
    if program is None:
        raise ToolError(
            "MP4 files (figures=[film]) need the program 'ffmpeg'. Install it, or use a GIF (figures=[gaze])"
        )
    return program


def _write_mp4(file: BinaryIO, frames: Sequence[Image.Image], durations: Sequence[float]) -> None:
    program = find_ffmpeg()
    width, height = frames[0].size
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(RATE), "-i", "-"]
    # Fragments, because the output is a pipe: ffmpeg cannot go back in it to write an index.
    pieces = ["-movflags", "frag_keyframe+empty_moov", "-f", "mp4", "-"]
    command = [program, "-loglevel", "error", *raw, "-pix_fmt", "yuv420p", *pieces]
    film = b"".join(frame.tobytes() * max(1, round(RATE * each)) for frame, each in zip(frames, durations, strict=True))
    done = subprocess.run(command, input=film, capture_output=True, check=False)
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip()[:200]
        raise ToolError(f"'ffmpeg' could not write the MP4 ({reason}). Use a GIF (figures=[gaze]), or reinstall ffmpeg")
    file.write(done.stdout)
