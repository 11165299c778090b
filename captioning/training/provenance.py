"""Record everything that is needed to reproduce a run: versions, commit, seed, data and command."""

import hashlib
import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from captioning.data import Record
from captioning.io import write_json

_PACKAGES = ("captioning", "torch", "torchvision", "lightning", "hydra-core", "numpy", "pillow", "tensorboard")


def digest(records: Iterable[Record]) -> str:
    """Return the SHA-256 of the training and validation data: split, id, file name and captions per image, in order.

    The folders of the images are not part of it.
    """
    return digest_of([record.split, record.image_id, record.path.name, *record.captions] for record in records)


def digest_of(items: Iterable[Sequence[Any]]) -> str:
    """Return the SHA-256 of items given as plain lists, in their order."""
    total = hashlib.sha256()
    for item in items:
        total.update(json.dumps(item).encode() + b"\n")
    return total.hexdigest()


def commit(folder: Path) -> str | None:
    """Return the git commit of the checkout that contains the package, with "-dirty" if tracked files were changed.

    Returns:
        None if the package is not in its own checkout, or there is no git.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # fails if the package is in a folder of another repository
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def describe_run(seed: int, data: Mapping[str, Any], *, start_from: str | None = None) -> dict[str, Any]:
    """Return a description of this process as plain containers: time, command, versions, machine and data.

    Args:
        seed: seed of the run.
        data: facts about the data, for example its digest.
        start_from: the checkpoint whose weights the run starts from; on the hub, with its commit.
    """
    import torch

    return {
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(sys.orig_argv),
        "folder": str(Path.cwd()),
        "seed": seed,
        "data": dict(data),
        "start_from": start_from,
        "commit": commit(Path(__file__).parent),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES},
        "machine": platform.platform(),
        "threads": torch.get_num_threads(),  # another number of threads may round sums differently
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
    }


def record(path: Path, start: Mapping[str, Any], *, anew: bool) -> None:
    """Append the description of a start (`describe_run`) to a JSON file, or replace the file if `anew`."""
    earlier: Sequence[Any] = []
    if path.is_file() and not anew:
        earlier = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, [*earlier, start])


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
