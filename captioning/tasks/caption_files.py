"""Keep what a run reads of its captions in files beside the stored features, which all its processes share.

    features.root/captions/NAME-HASH.records    all images with their captions
    features.root/captions/NAME-HASH.tokens     the captions of training and validation as ids of pieces

The first run with a data set writes them; later runs only open them. HASH is a hash of the reader's settings, and for
tokens of the tokenizer's name, too. A file is written again if the code, or a file that the reader read, has changed
since.

Without a folder of stored features (`features=online`, for instance), if it cannot be written, and for readers of
plug-ins, whose data may be anywhere, a process writes the files to a temporary folder for itself.
"""

import hashlib
import io
import json
import os
import platform
import re
import sys
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from filelock import FileLock

import captioning.data
from captioning.config import build
from captioning.data import (
    BROKEN_ROWS,
    Record,
    RecordTable,
    RowFile,
    TokenTable,
    dictionary_option,
    first_change,
    of_split,
    watch_reads,
    write_records,
    write_tokens,
)
from captioning.errors import ConfigError
from captioning.text import Tokenizer, make_tokenizer, unsplit
from captioning.training import digest

_PACKAGE = Path(__file__).parents[1]
_MOST_SINGLE = 0.5  # share of words of one character; with more, byte pairs learn hardly anything
_SPLITTERS = ("regex", "nltk", "tokenizers", "jieba", "fugashi", "unidic-lite", "pythainlp")  # may be missing
_temporary: list[TemporaryDirectory] = []  # deleted when the process ends

Table = TypeVar("Table", RecordTable, TokenTable)


def caption_files(config: Mapping[str, Any]) -> tuple[RecordTable, TokenTable, str]:
    """Return the records of a run, the captions of training and validation as ids, and the digest of their data.

    Prints what the reader prints, also if the records are not read again.

    Args:
        config: the checked settings of the run.

    Raises:
        ConfigError: a setting of the reader or the tokenizer cannot work.
        DataError: the data set is missing or damaged.
    """
    data, folder, records = config["data"], _folder(config), record_file(config)
    settings, state = _settings(data), records.header
    about: dict[str, Any] = {"digest": state["digest"], "code": _code("data", "text"), "splitter": data["tokenizer"]}
    about["versions"] = [platform.python_version(), unicodedata.unidata_version, *map(_version, _SPLITTERS)]
    tokens = _open(
        _path(folder, data["name"], {**settings, "tokenizer": data["tokenizer"]}, "tokens"),
        lambda path: TokenTable(RowFile(path)),
        lambda path: _write_tokens(path, records, data["tokenizer"], about),
        about,
    )
    return records, tokens, state["digest"]


def record_file(config: Mapping[str, Any]) -> RecordTable:
    """Return the records of a data set of captions, like `caption_files`, without the ids of their captions.

    Args:
        config: checked settings with the groups data and features.

    Raises:
        ConfigError: a setting of the reader cannot work.
        DataError: the data set is missing or damaged.
    """
    data = config["data"]
    about: dict[str, Any] = {"settings": _settings(data), "code": _code("data")}
    if not _is_own(data["reader"]):
        about["run"] = os.urandom(8).hex()  # so that the reader is called at every start
    records = _open(
        _path(_folder(config), data["name"], _settings(data), "records"),
        lambda path: RecordTable(RowFile(path)),
        lambda path: _write_records(path, data["reader"], about),
        about,
    )
    print(records.header["printed"], end="", file=sys.stderr)
    return records


def _settings(data: Mapping[str, Any]) -> dict[str, Any]:
    return {"reader": data["reader"], "folder": os.getcwd()}


def _folder(config: Mapping[str, Any]) -> Path | None:
    """Return the folder of the files; None for a temporary one."""
    features = config["features"]
    kept = features["_target_"] == "captioning.features.stored" and _is_own(config["data"]["reader"])
    return Path(features["root"], "captions") if kept else None


def _is_own(reader: Mapping[str, Any]) -> bool:
    return str(reader["_target_"]).startswith("captioning.data.")


def _path(folder: Path | None, name: str, settings: Mapping[str, Any], suffix: str) -> Path:
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    file = re.sub(r"[^\w.-]", "_", f"{name}-{key}.{suffix}")
    return (folder or _temporary_folder()) / file


def _temporary_folder() -> Path:
    if not _temporary:
        _temporary.append(TemporaryDirectory(prefix="captioning-"))
    return Path(_temporary[0].name)


def _open(path: Path, make: Callable[[Path], Table], write: Callable[[Path], None], about: Mapping[str, Any]) -> Table:
    """Return the table of a file, after writing the file if it is missing, damaged or of other data."""
    started_at = time.time_ns()
    if table := _current(path, make, about, started_at):
        return table
    new = [folder for folder in (path.parent, *path.parents[1:]) if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(f"{path}.lock"):
                if table := _current(path, make, about, started_at):  # another process has written it in the meantime
                    return table
                write(path)
        except BaseException:
            _remove(Path(f"{path}.lock"), new)  # a fault of the data leaves no folders
            raise
    except (OSError, ConfigError) as error:
        reason = getattr(error, "strerror", None) or error
        if path.parent in (Path(each.name) for each in _temporary) or os.access(path.parent, os.W_OK):
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(
                f"cannot keep the captions in {path.parent} ({reason}): set features.root to another folder"
            ) from error
        print(
            f"the captions cannot be kept in {path.parent} ({reason}), so they are read at every start", file=sys.stderr
        )
        path = _temporary_folder() / path.name
        write(path)
    return make(path)


def _remove(lock: Path, folders: Sequence[Path]) -> None:
    """Remove a lock file, and those of these folders that are empty, the innermost first."""
    with suppress(OSError):
        if folders:
            lock.unlink(missing_ok=True)
        for folder in folders:
            folder.rmdir()


def _current(path: Path, make: Callable[[Path], Table], about: Mapping[str, Any], started_at: int) -> Table | None:
    """Return the table of a file; None if the file is missing, damaged, or of other data.

    Data that were read after `started_at` (in ns) are current for this process.
    """
    try:
        table = make(path)
        header = table.header
        if any(header[key] != value for key, value in about.items()):
            return None
        read_at = None if header["read_at"] >= started_at else header["read_at"]
        return None if first_change(header["reads"], read_at=read_at) else table
    except BROKEN_ROWS:
        return None


def _write_records(path: Path, reader: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    if _is_own(reader):  # importing its modules lists the current folder, which is no part of the data set
        getattr(captioning.data, reader["_target_"].rpartition(".")[2], None)
    with watch_reads() as reads, _captured_stderr() as printed:
        records: Sequence[Record] = build(reader)
    wanted = (record for split in ("train", "val") for record in of_split(records, split))
    state = {"reads": reads, "read_at": time.time_ns(), "printed": printed.getvalue(), "digest": digest(wanted)}
    write_records(path, records, lambda: {**about, **state})


def _write_tokens(path: Path, records: RecordTable, name: str, about: Mapping[str, Any]) -> None:
    splits = {split: records.split(split) for split in ("train", "val")}
    training = splits["train"]
    tokenizer = make_tokenizer(name).fit(caption for record in training for caption in record.captions)
    wanted = (record.captions for part in splits.values() for record in part)

    def state() -> dict[str, Any]:
        texts = {split: (caption for record in part for caption in record.captions) for split, part in splits.items()}
        unspaced = {} if tokenizer.splits_unspaced else {split: unsplit(found) for split, found in texts.items()}
        single = _few_pieces(training, tokenizer)
        return {**about, "reads": {}, "read_at": 0, "unsplit": unspaced, "few_pieces": single}

    write_tokens(path, wanted, len(training), tokenizer, state)


def _few_pieces(training: Iterable[Record], tokenizer: Tokenizer) -> str:
    """Return a warning if the words are mostly single characters, of which byte pairs make few longer pieces."""
    if tokenizer.learned_pieces() is None:
        return ""
    counts = Counter(word for record in training for caption in record.captions for word in tokenizer(caption))
    characters = make_tokenizer("characters")
    single = {word: count for word, count in counts.items() if len(characters(word)) <= 1}  # none of them: a space
    share = sum(single.values()) / max(1, counts.total())
    if share <= _MOST_SINGLE:
        return ""
    base, option = tokenizer.word_tokenizer, dictionary_option(single)
    words = f", or pieces of dictionary words: bpe:4000:unicode:{option}" if option and not base.option else ""
    return (
        f"warning: data.tokenizer={tokenizer.name}: {share:.0%} of the words of {base.name} have one character, "
        f"so few longer pieces are learned. Use data.tokenizer={base.name}{words}"
    )


class _Captured(io.StringIO):
    """A stream for what is printed to stderr, except progress bars, which are still shown."""

    def __init__(self, stderr):
        super().__init__()
        self.stderr = stderr

    def write(self, text: str) -> int:
        """Keep the text; write what belongs to a progress bar, which returns to the beginning of its line."""
        return self.stderr.write(text) if "\r" in text else super().write(text)

    def isatty(self) -> bool:
        """Return whether stderr is a terminal."""
        return bool(self.stderr.isatty())


@contextmanager
def _captured_stderr() -> Iterator[io.StringIO]:
    """Capture what is printed to stderr; after an error it is printed."""
    before = sys.stderr
    captured = _Captured(before)
    sys.stderr = captured
    try:
        yield captured
    except BaseException:
        before.write(captured.getvalue())
        raise
    finally:
        sys.stderr = before


@cache
def _code(*folders: str) -> str:
    """Return a digest of the code of some folders of the package."""
    total = hashlib.sha256()
    for file in sorted(path for folder in folders for path in (_PACKAGE / folder).rglob("*.py")):
        total.update(file.read_bytes())
    return total.hexdigest()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
