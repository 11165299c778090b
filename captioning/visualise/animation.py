"""Animate where each word of a caption looked: a GIF, or an MP4 with ffmpeg.

GIF, or MP4 where ffmpeg is."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from captioning.errors import ToolError
from captioning.io import write_whole
from captioning.visualise.drawing import TEXT, few_colors, fit, mark, new_figure, show, text_height, text_width
from captioning.visualise.maps import Maps

SIDE, SLIMMEST = 420, 280  # of a square picture in pixels, another shape has its area; width of a frame at least
DPI, POINTS, NOTE, MARGIN = 100, 13, 9, 12
SECONDS, PAUSE = 0.7, 2.0  # a word; the whole caption at the end
BOX = {"boxstyle": "round,pad=0.12", "facecolor": "0.15", "edgecolor": "none"}  # behind the word at hand
RATE = 10  # frames a second of an MP4


def save_gaze(
    path: Path | str,
    picture: Image.Image,
    words: Sequence[str],
    weights: np.ndarray,
    *,
    seconds: float = SECONDS,
    side: int = SIDE,
    **where,
) -> None:
    """Writes the frames of `gaze_frames` to a .gif or .mp4, `seconds` a word; never half a file.

    Args:
        words, weights, where: as for `attention_figure`. side: of a square picture, in pixels.


    Raises:
        ToolError: an MP4 without ffmpeg, or ffmpeg failed.
        ValueError: another suffix, or as for `Maps`.
    """
    path = Path(path)
    if path.suffix.lower() not in (".gif", ".mp4"):
        raise ValueError(f"{path}: a gaze is saved as .gif or .mp4")
    frames = gaze_frames(picture, words, weights, side=side, **where)
    durations = [seconds] * (len(frames) - 1) + [PAUSE]
    make = _write_gif if path.suffix.lower() == ".gif" else _write_mp4
    write_whole(path, lambda file: make(file, frames, durations))


def gaze_frames(
    picture: Image.Image, words: Sequence[str], weights: np.ndarray, *, side: int = SIDE, **where
) -> list[Image.Image]:
    """RGB frames of one size: the picture, then the panel of each word with that word set off, then the picture again.

    Args: as for `save_gaze`.
    """
    maps = Maps(words, weights, **where)
    root = (picture.width / picture.height) ** 0.5
    shown = fit(picture, (max(1, round(side * root)), max(1, round(side / root))))
    panels = maps.panels(shown, picture.size)[0] if len(maps) else []
    figure, axes, texts, share = _stage(shown, picture.size, maps)
    plain, frames = np.asarray(shown), []
    for index in [None, *range(len(maps)), len(maps)]:
        word = index if index is not None and index < len(maps) else None
        axes.images[0].set_data(plain if word is None else panels[word].pixels)
        for frame in list(axes.patches):
            frame.remove()
        if word is not None:
            mark(axes, panels[word], picture.size)
        for place, text in enumerate(texts):
            reached = index is not None and place <= index
            text.set_color("white" if place == word else "0.1" if reached else "0.7")
            text.get_bbox_patch().set_visible(place == word)
        if share is not None:
            share(None if word is None else float(maps.sentinel[word]))
        figure.canvas.draw()
        frames.append(Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3]))
    return frames


def _stage(shown: Image.Image, extent: tuple[int, int], maps: Maps):
    """The figure that all frames share: the picture above the words; a sentinel's share, told by a function."""
    width = max(shown.width, SLIMMEST) + 2 * MARGIN
    width += width % 2  # MP4 wants even sides
    placed, lines = _place(maps.words, width - 2 * MARGIN)
    line = text_height("", POINTS, dpi=DPI)
    foot = 2 * MARGIN if maps.sentinel is not None else 0
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
    room, low = width - 2 * MARGIN - 70, MARGIN / height
    for colour, length in (("0.85", room), ("0.3", 0)):
        figure.add_artist(Rectangle((MARGIN / width, low), length / width, 10 / height, color=colour, linewidth=0))
    bar = figure.artists[-1]
    number = figure.text((width - MARGIN) / width, low, "", ha="right", va="bottom", fontsize=NOTE, **TEXT)

    def share(value: float | None) -> None:
        bar.set_width(room * min(max(value or 0.0, 0.0), 1.0) / width)
        number.set_text("" if value is None else f"β {value:.2f}")

    return figure, axes, texts, share


def _place(words: Sequence[str], width: float) -> tuple[list[tuple[float, int, float]], int]:
    """For each word (x, line, points); and the number of lines."""
    placed, x, row, space = [], 0.0, 0, text_width("n", POINTS, dpi=DPI) / 2
    for word in words:
        wide = text_width(word, POINTS, dpi=DPI)
        if x and x + wide > width:
            x, row = 0.0, row + 1
        placed.append((x, row, POINTS * min(1, width / wide)))
        x += wide + space
    return placed, row + 1


def _write_gif(file: BinaryIO, frames: Sequence[Image.Image], durations: Sequence[float]) -> None:
    first, *rest = (few_colors(frame, 128) for frame in frames)
    milliseconds = [round(100 * each) * 10 for each in durations]  # a GIF counts hundredths
    first.save(file, format="GIF", save_all=True, append_images=rest, duration=milliseconds, loop=0)


def find_ffmpeg() -> str:
    """Path of the program that makes MP4, or a ToolError."""
    program = shutil.which("ffmpeg")
    if program is None:
        raise ToolError("MP4 is made by the program ffmpeg, which is not here: install it, or save the gaze as .gif")
    return program


def _write_mp4(file: BinaryIO, frames: Sequence[Image.Image], durations: Sequence[float]) -> None:
    program = find_ffmpeg()
    width, height = frames[0].size
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(RATE), "-i", "-"]
    # In pieces, as the output is a pipe, in which there is no going back to write an index.
    pieces = ["-movflags", "frag_keyframe+empty_moov", "-f", "mp4", "-"]
    command = [program, "-loglevel", "error", *raw, "-pix_fmt", "yuv420p", *pieces]
    film = b"".join(frame.tobytes() * max(1, round(RATE * each)) for frame, each in zip(frames, durations, strict=True))
    done = subprocess.run(command, input=film, capture_output=True, check=False)
    if done.returncode:
        raise ToolError(f"ffmpeg could not make the MP4 ({done.stderr.decode(errors='replace').strip()[:200]})")
    file.write(done.stdout)
