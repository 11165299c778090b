"""Read running text for a language model: files as ids of characters or words, cut into B streams of windows.

Files are joined with `<end>`, which also precedes the first file. So the token after `<end>` begins a file.
"""

import hashlib
import re
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from captioning.data.vocabulary import END, PAD, Vocabulary
from captioning.errors import ConfigError, DataError, must_be
from captioning.io import unopened

TEXT_SPLITS = ("train", "val", "test")
UNITS = ("characters", "words")
WORD = re.compile(r"\w+|\s|[^\w\s]")
# Left out of the standard library: tests, which are more than half of it, and tables of encodings, topics and grammar.
_LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test", "encodings", "pydoc_data", "lib2to3"}


class Text(NamedTuple):
    """One file: its name and its text."""

    name: str
    text: str


class Encoded(NamedTuple):
    """Joined texts.

    Attributes:
        ids: [N] int32, from `<end>` to `<end>`.
        widths: [N] int16, number of characters of each token; 1 for `<end>`.
    """

    ids: Tensor
    widths: Tensor


class TextBatch(NamedTuple):
    """One window of B streams.

    Attributes:
        positions: [B] int64, index in the joined text of each stream's first token in this window.
        fresh: [B] bool, True at the beginning of a stream, where the state must not be carried over.
        tokens: [B, 1, 1 + T] int64: the first T are the inputs, the last T the targets; `<pad>` after the last stream's
            end.
        characters: [] int64, number of characters of the targets.
    """

    positions: Tensor
    fresh: Tensor
    tokens: Tensor
    characters: Tensor


def read_texts(
    files: Sequence[str] | str | None = None,
    *,
    text: str | None = None,
    characters: int | None = None,
    val_share: float = 0.05,
    test_share: float = 0.05,
) -> dict[str, list[Text]]:
    """Read text and split it into "train", "val" and "test". Each file is in one split, which only file names decide.

    Without `files`, `text` is used; without both, the source of Python's standard library (about 10 million characters;
    it differs between Python versions).

    Args:
        files: paths of UTF-8 text files. A single file is cut: its end is for validation and test.
        text: a text to use for all three splits, to be learned by heart.
        characters: limit of the total number of characters; files beyond it are left out. None for no limit.
        val_share: share of the characters for validation.
        test_share: share of the characters for test.

    Returns:
        Split -> texts.

    Raises:
        DataError: a file cannot be read, or the text is too short.
        ConfigError: a share is out of range, or there are too few files for three splits.
    """
    must_be("data.reader.val_share", val_share, above=0)
    must_be("data.reader.test_share", test_share, above=0)
    must_be("data.reader.val_share + data.reader.test_share", val_share + test_share, below=1)
    must_be("data.reader.characters", characters, least=1)
    if files is None and text is not None:
        return {split: [Text("text", text)] for split in TEXT_SPLITS}
    paths = {file: Path(file) for file in ([files] if isinstance(files, str) else files or ())}
    found = _read(paths or standard_library(), characters)
    if not found:
        limit = f" of at most data.reader.characters={characters} characters" if characters else ""
        raise DataError(f"data.files: no file has text{limit}: use other files or raise the limit")
    return _cut(found[0], val_share, test_share) if len(found) == 1 else _deal(found, val_share, test_share)


def standard_library() -> dict[str, Path]:
    """Return {name: path} of the Python files of the standard library, without tests and tables."""
    root = Path(sysconfig.get_paths()["stdlib"])
    paths = {path.relative_to(root): path for path in root.rglob("*.py")}
    return {name.as_posix(): path for name, path in paths.items() if _LEFT_OUT.isdisjoint(name.parts)}


def _read(paths: dict[str, Path], characters: int | None) -> list[Text]:
    """Read files in the order of a hash of their names, which mixes packages, up to a total number of characters."""
    found: list[Text] = []
    total = 0
    for name in sorted(paths, key=lambda name: hashlib.sha256(name.encode()).digest()):
        try:
            text = paths[name].read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            if advice := unopened(paths[name], error, advice="correct data.files"):
                raise DataError(advice) from error
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise DataError(f"cannot read {paths[name]} ({reason}): correct data.files") from error
        if total + len(text) <= (characters or float("inf")) and text:
            found.append(Text(name, text))
            total += len(text)
    return found


def _cut(whole: Text, val_share: float, test_share: float) -> dict[str, list[Text]]:
    name, text = whole
    ends = [round(len(text) * share) for share in (1 - val_share - test_share, 1 - test_share, 1)]
    parts = [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    if not all(parts):
        raise DataError(
            f"{name}: {len(text)} characters are too few for training, validation and test: use a longer text"
        )
    return {split: [Text(name, part)] for split, part in zip(TEXT_SPLITS, parts, strict=True)}


def _deal(found: Sequence[Text], val_share: float, test_share: float) -> dict[str, list[Text]]:
    """Assign the first files to validation and test until each has its share, at least one file each."""
    wanted = sum(len(text) for _, text in found)
    splits: dict[str, list[Text]] = {}
    at = 0
    for split, share in (("val", val_share), ("test", test_share)):
        begin, size = at, 0
        while at < len(found) and size < share * wanted:
            size += len(found[at].text)
            at += 1
        splits[split] = list(found[begin:at])
    splits = {"train": list(found[at:]), **splits}
    if not all(splits.values()):
        raise ConfigError(
            f"data.files: {len(found)} files are too few for training, validation and test: give three or more "
            "files of similar length, or a single one, which is cut"
        )
    return splits


def split_text(text: str, unit: str) -> Sequence[str]:
    """Split a text into characters, or into words: runs of letters and digits, and each other character by itself.

    The parts joined are the text again.

    Args:
        text: the text.
        unit: "characters" or "words".

    Raises:
        ConfigError: another unit.
    """
    if unit not in UNITS:
        raise ConfigError(f"data.unit must be {' or '.join(UNITS)}, not {unit!r}")
    return text if unit == "characters" else WORD.findall(text)


def encode_texts(texts: Sequence[Text], vocabulary: Vocabulary, *, unit: str) -> Encoded:
    """Encode all texts, joined with `<end>` before, between and after them."""
    ids, widths = [END], [1]
    for _, text in texts:
        tokens = split_text(text, unit)
        ids += [*vocabulary.ids(tokens), END]
        widths += [*map(len, tokens), 1]
    return Encoded(torch.tensor(ids, dtype=torch.int32), torch.tensor(widths).to(torch.int16))


class Windows(Dataset):
    """Windows of text for truncated backpropagation: the item of (index, epoch) is window `index` of all streams.

    The text is cut into B streams of equal length; the last one is padded. The last target of stream b is the first
    input of stream b + 1. Each stream is cut into windows of T steps in the same way. So every token except the first
    `<end>` is a target exactly once.

    Args:
        text: from `encode_texts`.
        streams: B, number of streams.
        window: T, steps per window.

    Raises:
        ConfigError: there are more streams than tokens.
    """

    def __init__(self, text: Encoded, *, streams: int, window: int):
        must_be("data.window", window, least=1)
        self.text, self.streams, self.window = text, streams, window
        targets = len(text.ids) - 1
        if targets < streams:
            raise ConfigError(
                f"{targets} tokens are too few for {streams} streams: lower loader.batch_size and loader.val_batch_size"
            )
        self.length = -(-targets // streams)  # tokens per stream

    def __len__(self) -> int:
        return -(-self.length // self.window)

    def __getitem__(self, key: tuple[int, int]) -> TextBatch:
        index, _ = key
        steps = min(self.window, self.length - index * self.window)
        positions = torch.arange(self.streams) * self.length + index * self.window
        indices = positions[:, None] + torch.arange(steps + 1)
        last = len(self.text.ids) - 1
        there, indices = indices <= last, indices.clamp(max=last)
        tokens = self.text.ids[indices].long().masked_fill(~there, PAD)
        characters = (self.text.widths[indices] * there)[:, 1:].sum()
        return TextBatch(positions, torch.full((self.streams,), index == 0), tokens[:, None], characters)


def only(items: Sequence[TextBatch]) -> TextBatch:
    """Return the only item: the collate function for windows, which are batches already."""
    (batch,) = items
    return batch
