"""Measure start-up: seconds from the start of a command to its output, in a separate process.

    python tests/benchmarks/startup.py [--quick] [--only train] [--output bench.json]

`start/train` is `captioning-train --help`, and the same for every command of setup.cfg. `start/train/…` are
configuration
errors: an unknown key, a value of the wrong type, a missing part, missing data. `start/caption/NAME` is one caption
    with its figure, by a captioner that comes with the package. `import/captioning.metrics` needs no torch.
    `floor_ratio` is the time divided by that of a Python interpreter that does nothing.
"""

import configparser
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from measure import run, seconds
from preparing import draw_pictures

from captioning.pretrained import names

ROOT = Path(__file__).parents[2]
FAULTS = {
    "unknown_key": ["model.widht=512"],
    "wrong_type": ["model.width=wide"],
    "wrong_value": ["data=csv", "data.root={folder}", "data.min_count=1", "model.dropout=2"],
    "wrong_part": ["model/attention=sharp"],
    "no_data": ["data=csv", "data.root=nowhere"],
}


def modules() -> list[str]:
    """Return the modules of all commands, such as captioning.train."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup["options.entry_points"]["console_scripts"].split("\n")
    return [line.split("=")[1].strip().partition(":")[0] for line in lines if line]


def start(*arguments: str, fails: bool = False) -> None:
    """Run python with these arguments; end the benchmark if the exit status is not the expected one."""
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if (done.returncode != 0) != fails or "Traceback" in done.stderr:
        raise RuntimeError(f"python {' '.join(arguments)} ended with {done.returncode}: {done.stderr}")


def measure(*arguments: str, fails: bool = False, repeats: int) -> dict[str, Any]:
    """Return the shortest time of several starts."""
    job, floor = partial(start, *arguments, fails=fails), partial(start, "-c", "pass")
    spent, least = seconds(job, floor, repeats=repeats, elsewhere=True)
    return {"value": spent, "unit": "s", "floor_ratio": spent / least}


def cases(arguments) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Yield the cases: help of every command, errors of captioning-train, first captions, and an import."""
    repeats = 1 if arguments.quick else 5
    yield "import/captioning.metrics", partial(measure, "-c", "import captioning.metrics", repeats=repeats)
    for module in modules():
        name = f"start/{module.rpartition('.')[2]}"
        yield name, partial(measure, "-m", module, "--help", repeats=repeats)
    with TemporaryDirectory() as folder:
        records = draw_pictures(Path(folder), 2)
        lines = [
            f"{record.path.name},a picture,{split}" for record, split in zip(records, ("train", "val"), strict=True)
        ]
        Path(folder, "captions.csv").write_text("\n".join(["image,caption,split", *lines]))
        for name, overrides in FAULTS.items():
            given = [override.format(folder=folder) for override in overrides]
            job = partial(measure, "-m", "captioning.train", *given, fails=True, repeats=repeats)
            yield f"start/train/{name}", job
        for name in names():
            given = [f"checkpoint={name}", f"images=[{records[0].path}]", f"output={folder}/captions"]
            yield f"start/caption/{name}", partial(measure, "-m", "captioning.caption", *given, repeats=repeats)


if __name__ == "__main__":
    run(cases, __doc__.splitlines()[0])
