"""Damage each file of the miniatures of all layouts of data sets, and read them with the settings of `data=NAME`."""

import gzip
import io
import json
import sys
import tarfile
from collections.abc import Callable
from contextlib import redirect_stderr
from functools import partial
from pathlib import Path
from typing import Any

from damages import BYTES, MUTATIONS, damage, mutate
from hypothesis import strategies as st
from omegaconf import OmegaConf

sys.path.append(str(Path(__file__).parents[1] / "helpers"))  # for fuzzing.py as a script
from miniatures import MINIATURES, Miniature

from captioning.config import build, compose
from captioning.data import Faults
from captioning.errors import CaptioningError

_PHOTO = b"\xff\xd8"  # the first bytes of every photo of the miniatures


class Layout:
    """A target for the reader of one `data=NAME`: an input changes one file of one of its miniatures."""

    known: tuple[type[Exception], ...] = (CaptioningError,)
    names_file = True
    strategy = st.tuples(st.integers(0, 10**6), st.one_of(MUTATIONS, st.builds(lambda each: ("bytes", each), BYTES)))

    def __init__(self, folder: Path, miniatures: list[Miniature]):
        self.folder = folder
        self.files: list[tuple[Path, bytes, dict[str, Any]]] = []
        for number, miniature in enumerate(miniatures):
            root = folder / str(number)
            miniature.draw(root)
            settings = [f"{key}={value}" for key, value in miniature.settings.items()]
            given = compose("audit", [f"data={miniature.data}", f"data.root={root}", *settings])
            reader = OmegaConf.to_container(given, resolve=True)["data"]["reader"]
            files = [(path, path.read_bytes()) for path in sorted(root.rglob("*")) if path.is_file()]
            self.files += [(path, content, reader) for path, content in files if not content.startswith(_PHOTO)]
            build(reader)  # the miniature itself can be read, and slow imports are done before memory is limited

    def __call__(self, value: Any) -> None:
        which, changes = value
        path, content, reader = self.files[which % len(self.files)]
        path.write_bytes(changed(path, content, changes))
        try:
            with redirect_stderr(io.StringIO()):
                build(reader, faults=Faults())  # as captioning-audit does, which does not stop at errors
                build(reader)
        finally:
            path.write_bytes(content)


def changed(path: Path, content: bytes, changes: Any) -> bytes:
    """Return the content of a file with damaged bytes, or with changed lines, entries or cells."""
    if path.suffix == ".gz" and not (isinstance(changes, tuple) and len(changes[1]) % 2):
        return gzip.compress(changed(path.with_suffix(""), gzip.decompress(content), changes))
    if isinstance(changes, tuple):
        return damage(content, changes[1])
    if path.suffix == ".parquet":
        return _changed_table(content, changes)
    if path.suffix == ".tar":
        return _changed_archive(content, changes)
    if path.suffix == ".json":
        return json.dumps(mutate(json.loads(content), changes)).encode()
    if path.suffix == ".jsonl":
        lines = mutate([json.loads(line) for line in content.splitlines()], changes)
        return "".join(f"{json.dumps(line)}\n" for line in (lines if isinstance(lines, list) else [lines])).encode()
    lines = mutate(content.decode().split("\n"), changes)
    lines = lines if isinstance(lines, list) else [lines]
    return "\n".join(str(line)[: 10**5] for line in lines).encode(errors="replace")


def _changed_archive(content: bytes, changes: Any) -> bytes:
    """Return a tar archive with changed names and contents; the same archive if tar cannot store them."""
    file = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        members = [[each.name, archive.extractfile(each).read().decode("latin-1")] for each in archive]  # type: ignore
    try:
        with tarfile.open(fileobj=file, mode="w") as archive:
            for name, text in mutate(members, changes):
                member = tarfile.TarInfo(name)
                data = text.encode("latin-1", errors="replace")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    except Exception:  # a name that is a number, for instance
        return content
    return file.getvalue()


def _changed_table(content: bytes, changes: Any) -> bytes:
    """Return a Parquet file with changed cells; the same file if Parquet cannot store them."""
    import pyarrow
    from pyarrow import parquet

    file = io.BytesIO()
    try:
        rows = mutate(parquet.read_table(io.BytesIO(content)).to_pylist(), changes)
        parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    except Exception:  # pyarrow raises many kinds for values that fit no column, and img2dataset's table is a dummy
        return content
    return file.getvalue()


LAYOUT_TARGETS: dict[str, Callable[[Path], Layout]] = {
    f"data={name}": partial(Layout, miniatures=[each for each in MINIATURES if each.data == name])
    for name in sorted({each.data for each in MINIATURES} - {""})
}
