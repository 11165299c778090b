"""Run captioning-caption on very many images, one of them broken, and measure whether its memory grows.

The run fails if the broken image is not named.

    python tests/benchmarks/soak.py [--quick] [--pictures 10000] [--minutes 30] [--figures] [--output bench.json]

It captions them once, or again and again in one process for `--minutes`; `--figures` also draws the figures. The result
has images per second, and the slope of the resident memory over the number of images. `make soak` runs it; `make bench`
does not.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from measure import run
from PIL import Image, ImageDraw

EVERY = 50  # images between two measurements of the memory
WARM = 0.3  # share of the first samples that the slope ignores, because libraries fill their caches first
# The command in a separate process: once, or again and again until the minutes are over.
CHILD = """
import sys
from time import monotonic
from captioning.caption import caption
from captioning.config import check, compose
from captioning.config import CaptionConfig

minutes, *overrides = sys.argv[1:]
config, until = check(compose("caption", overrides), CaptionConfig), monotonic() + 60 * float(minutes)
caption(config)
while monotonic() < until:
    caption(config)
"""


def draw_pictures(folder: Path, count: int) -> Path:
    """Draw small images of a few shapes, and truncate one in the middle; return the path of that one."""
    random = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        picture = Image.new("RGB", (96, 64), tuple(random.integers(0, 256, 3).tolist()))
        for _ in range(3):
            x, y = random.integers(0, (80, 50)).tolist()
            ImageDraw.Draw(picture).ellipse((x, y, x + 16, y + 14), fill=tuple(random.integers(0, 256, 3).tolist()))
        picture.save(folder / f"{number:06d}.png")
    bad = folder / f"{count // 2:06d}.png"
    bad.write_bytes(bad.read_bytes()[:60])
    return bad


def make_checkpoint(path: Path, *, image_size: int) -> None:
    """Create a captioner with random weights and the real encoder, as slow and as large as a trained one."""
    import torch

    from captioning.checkpoints import make_metadata
    from captioning.config import build, check, compose
    from captioning.config.schemas import TrainConfig
    from captioning.data import Vocabulary

    torch.manual_seed(0)
    overrides = ["run_dir=x", "model.width=128", "model.embedding_size=128", f"encoder.image_size={image_size}"]
    config = check(compose("train", overrides), TrainConfig)
    vocabulary, encoder = Vocabulary([f"word{number}" for number in range(1000)]), build(config["encoder"])
    captioner = build(
        config["model"], feature_size=encoder.size, grid=True, vocabulary_size=len(vocabulary), pad=vocabulary.pad
    )
    weights = {f"captioner.{name}": value for name, value in captioner.state_dict().items()}
    torch.save({"captioning": make_metadata(config, vocabulary, encoder), "state_dict": weights}, path)


def resident(process: int) -> int:
    """Return the private resident memory of a process in KiB, without files that the system caches for it."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+)", status)[1])


def watch(command: list[str], told: list[str]) -> Iterator[tuple[int, int]]:
    """Run the command, and yield (images captioned, KiB) at intervals; its standard error is in `told` at the end.

    Raises:
        RuntimeError: the command failed.
    """
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment) as child:
            done = 0
            for line in child.stdout:
                done += ".png: " in line
                if done and done % EVERY == 0 and ".png: " in line:
                    yield done, resident(child.pid)
        errors.seek(0)
        told += errors.read().splitlines()
        if child.returncode:
            raise RuntimeError("\n".join(told))


def soak(arguments, *, figures: bool) -> dict[str, Any]:
    """Measure one run."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        bad = draw_pictures(folder / "pictures", arguments.pictures)
        checkpoint = arguments.checkpoint or folder / "x.ckpt"
        if not arguments.checkpoint:
            make_checkpoint(checkpoint, image_size=arguments.image_size)
        overrides = [f"checkpoint={checkpoint}", f"images=[{folder}/pictures]", f"output={folder}/out", "device=cpu"]
        overrides += [
            "skip_unreadable=true",
            f"figures=[{'grid' if figures else ''}]",
            f"decoding={arguments.decoding}",
        ]
        started_at, samples, told = perf_counter(), [], []
        for done, kibibytes in watch([sys.executable, "-c", CHILD, str(arguments.minutes), *overrides], told):
            samples.append((done, kibibytes, perf_counter() - started_at))
        named = [line for line in told if line.startswith("left out: ")]
        if not named or any(str(bad) not in line for line in named):
            raise RuntimeError(f"{bad} should have been named, and nothing else: {named}")
    done, memory, at = np.array(samples, float)[int(WARM * len(samples)) :].T
    slope = np.polyfit(done, memory, 1)[0] if len(done) > 1 else 0.0
    return {
        "value": (done[-1] - done[0]) / (at[-1] - at[0]) if len(done) > 1 else samples[-1][0] / samples[-1][2],
        "unit": "images/s",
        "peak_MiB": max(kibibytes for _, kibibytes, _ in samples) / 1024,
        "pictures": samples[-1][0],
        "left_out": len(named),
        "minutes": samples[-1][2] / 60,
        "first_MiB": memory[0] / 1024,
        "last_MiB": memory[-1] / 1024,
        "slope_KiB_per_1000": 1000 * slope,
    }


def cases(arguments) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Yield the only case."""
    if arguments.quick:
        arguments.pictures, arguments.image_size, arguments.decoding = 200, 64, "greedy"
    name = f"caption/{arguments.pictures}" + ("/figures" if arguments.figures else "")
    yield name, partial(soak, arguments, figures=arguments.figures)


def options(parser) -> None:
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--figures", action="store_true")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--decoding", default="beam")


if __name__ == "__main__":
    run(cases, __doc__.splitlines()[0], options=options)
