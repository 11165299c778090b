"""Read running text for a language model: files as ids of characters or words, cut into B streams of windows.

Files are joined by <end>, which stands before the first one too: what follows it is a file's beginning.
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

TEXT_SPLITS = ("train", "val", "test")
UNITS = ("characters", "words")
WORD = re.compile(r"\w+|\s|[^\w\s]")
# Left out of the standard library: tests, which are more than half of it, and tables of characters, words and grammar.
_LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test", "encodings", "pydoc_data", "lib2to3"}


class Text(NamedTuple):
    """One file: its name and what is in it."""

    name: str
    text: str


class Encoded(NamedTuple):
    """Joined texts. ids: [N] int32, from <end> to <end>. widths: [N] int16, characters that each stands for (an <end>
    counts as one)."""

    ids: Tensor
    widths: Tensor


class TextBatch(NamedTuple):
    """One window of B streams.

    positions: [B] int64, where in the joined text each stream's window begins. fresh: [B] bool, True where a stream
    begins anew, so that nothing is carried into it. tokens: [B, 1, 1 + T] int64, the window's inputs and, one to the
    right, its targets; <pad> after the last stream's end. characters: [] int64, that the targets stand for.
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
    """{"train", "val", "test"} -> texts, whole files of each; a function of the files' names alone.

    Args:
        files: paths of UTF-8 text. One file alone is cut: its end is for validation and test.
        text: where there are no files, this text makes up all three splits, to be learnt by heart; without it, the
            text is the source of Python's standard library (about 10 million characters, other in each version).
        characters: at most so many in all, of whole files.
        val_share, test_share: of the characters.

    Raises:
        DataError: a file cannot be read. ConfigError: a share that cannot be, or too few files for three splits.
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
        raise DataError(f"data.files: no text of at most {characters} characters in {len(paths)} files")
    return _cut(found[0], val_share, test_share) if len(found) == 1 else _deal(found, val_share, test_share)


def standard_library() -> dict[str, Path]:
    """{name: path} of the Python files of the standard library, without tests and tables."""
    root = Path(sysconfig.get_paths()["stdlib"])
    paths = {path.relative_to(root): path for path in root.rglob("*.py")}
    return {name.as_posix(): path for name, path in paths.items() if _LEFT_OUT.isdisjoint(name.parts)}


def _read(paths: dict[str, Path], characters: int | None) -> list[Text]:
    """In an order by a hash of the names, which mixes packages, up to so many characters in all."""
    found, total = [], 0
    for name in sorted(paths, key=lambda name: hashlib.sha256(name.encode()).digest()):
        try:
            text = paths[name].read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise DataError(f"cannot read {paths[name]} ({reason}): mend data.files") from error
        if total + len(text) <= (characters or float("inf")) and text:
            found.append(Text(name, text))
            total += len(text)
    return found


def _cut(whole: Text, val_share: float, test_share: float) -> dict[str, list[Text]]:
    name, text = whole
    ends = [round(len(text) * share) for share in (1 - val_share - test_share, 1 - test_share, 1)]
    parts = [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    if not all(parts):
        raise DataError(f"{name}: {len(text)} characters are too few for training, validation and test")
    return {split: [Text(name, part)] for split, part in zip(TEXT_SPLITS, parts, strict=True)}


def _deal(found: Sequence[Text], val_share: float, test_share: float) -> dict[str, list[Text]]:
    """The first files are for validation and test, each until it has its share, and at least one each."""
    wanted = sum(len(text) for _, text in found)
    splits, at = {}, 0
    for split, share in (("val", val_share), ("test", test_share)):
        begin, size = at, 0
        while at < len(found) and size < share * wanted:
            size += len(found[at].text)
            at += 1
        splits[split] = list(found[begin:at])
    splits = {"train": list(found[at:]), **splits}
    if not all(splits.values()):
        raise ConfigError(
            f"data.files: {len(found)} files are too few to be dealt to training, validation and test: "
            "give three or more of like length, or one alone, which is cut"
        )
    return splits


def split_text(text: str, unit: str) -> Sequence[str]:
    """A text's characters, or its words: runs of letters and digits, and all else character by character.

    Joined, they are the text again.
    """
    if unit not in UNITS:
        raise ConfigError(f"data.unit must be {' or '.join(UNITS)}, not {unit!r}")
    return text if unit == "characters" else WORD.findall(text)


def encode_texts(texts: Sequence[Text], vocabulary: Vocabulary, *, unit: str) -> Encoded:
    """All texts behind one another, <end> before, between and after them."""
    ids, widths = [END], [1]
    for _, text in texts:
        tokens = split_text(text, unit)
        ids += [*vocabulary.ids(tokens), END]
        widths += [*map(len, tokens), 1]
    return Encoded(torch.tensor(ids, dtype=torch.int32), torch.tensor(widths).to(torch.int16))


class Windows(Dataset):
    """Item (index, epoch) -> window `index` of all streams, a TextBatch.

    The text is cut into B streams of equal length (the last one padded), the stream b's last target being the first
    input of stream b + 1; each stream into windows, the next beginning at the last target of the one before, so that
    every token but the first <end> is a target once.

    Args:
        text: from `encode_texts`.
        streams: B. window: T, steps of a window.
    """

    def __init__(self, text: Encoded, *, streams: int, window: int):
        must_be("data.window", window, least=1)
        self.text, self.streams, self.window = text, streams, window
        targets = len(text.ids) - 1
        if targets < streams:
            raise ConfigError(f"loader: {targets} tokens cannot make {streams} streams: lower batch_size of the loader")
        self.length = -(-targets // streams)  # of a stream

    def __len__(self) -> int:
        return -(-self.length // self.window)

    def __getitem__(self, key: tuple[int, int]) -> TextBatch:
        index, _ = key
        steps = min(self.window, self.length - index * self.window)
        positions = torch.arange(self.streams) * self.length + index * self.window
        places = positions[:, None] + torch.arange(steps + 1)
        last = len(self.text.ids) - 1
        there, places = places <= last, places.clamp(max=last)
        tokens = self.text.ids[places].long().masked_fill(~there, PAD)
        characters = (self.text.widths[places] * there)[:, 1:].sum()
        return TextBatch(positions, torch.full((self.streams,), index == 0), tokens[:, None], characters)


def only(items: Sequence[TextBatch]) -> TextBatch:
    """A window is a batch already: what collates it."""
    (batch,) = items
    return batch
