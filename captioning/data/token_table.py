"""Keep the captions of training and validation as ids in a file that all processes of a machine share.

The file has the ids of all pieces, for any `data.min_count` and `data.max_length`: pieces are numbered in the order of
`Vocabulary.build`, so a vocabulary has the first pieces of the file, and longer captions are cut when they are read.
"""

import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

import numpy as np

from captioning.data.row_files import RowFile, write_rows
from captioning.data.vocabulary import END, SPECIALS, START, UNKNOWN, Vocabulary
from captioning.errors import DataError, must_be
from captioning.text import Tokenizer, tokenizer_from_state_dict

_FIRST = len(SPECIALS)  # id of the first piece of a vocabulary


def write_tokens(
    path: Path,
    images: Iterable[Sequence[str]],
    training: int,
    tokenizer: Tokenizer,
    header: Callable[[], Mapping[str, Any]],
) -> None:
    """Write the captions of images as a file for `TokenTable`.

    Captions that have no word are left out. Memory grows with the number of different pieces, not with the number of
    images.

    Args:
        path: the file.
        images: the captions of each image, those for training first.
        training: number of images for training; their captions are counted.
        tokenizer: splits captions into words and pieces; it has learned its pieces.
        header: function that is called after the last image and returns plain values for the file's header.

    Raises:
        ConfigError: the file cannot be written.
    """
    learned = tokenizer.learned_pieces()
    numbers = {piece: number for number, piece in enumerate(learned or ())}  # in the order of their first occurrence
    counts, lengths = array("q", [0] * len(numbers)), Counter[int]()
    sizes = array("q")  # of the rows
    with TemporaryFile(dir=path.parent) as file:
        for image, captions in enumerate(images):
            row = array("i", [0])
            for words in filter(None, map(tokenizer, captions)):
                pieces = tokenizer.pieces(words)
                row[0] += 1
                row.append(len(pieces))
                for piece in pieces:
                    number = numbers.setdefault(piece, len(numbers))
                    if number == len(counts):
                        counts.append(0)
                    counts[number] += image < training
                    row.append(number)
                if image < training:
                    lengths[len(pieces)] += 1
            sizes.append(len(row))
            row.tofile(file)
        file.seek(0)
        pieces = list(numbers)
        known = len(learned or ())
        order = sorted(range(len(pieces)), key=lambda n: (n >= known, -counts[n], pieces[n]))
        place = np.empty(len(pieces), np.int32)
        place[order] = np.arange(len(pieces), dtype=np.int32)

        def finish() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
            text = "\n".join(json.dumps(pieces[number]) for number in order).encode()
            about = {
                "tokenizer": tokenizer.state_dict(),
                "learned": None if learned is None else known,
                "lengths": sorted(lengths.items()),
            }
            arrays: dict[str, np.ndarray] = {
                "counts": np.asarray(counts, np.int64)[order],
                "pieces": np.frombuffer(text, np.uint8) if text else np.empty(0, np.uint8),
            }
            return {**header(), **about}, arrays

        write_rows(path, _renumbered(file, sizes, place), finish)


def _renumbered(file: BinaryIO, sizes: Iterable[int], place: np.ndarray) -> Iterator[bytes]:
    """Yield rows [captions; for each: length, ids of its pieces] with the final ids of the pieces."""
    for size in sizes:
        row = np.frombuffer(file.read(4 * size), np.int32)
        out, at = row.copy(), 1
        for _ in range(int(row[0])):
            out[at + 1 : at + 1 + row[at]] = place[row[at + 1 : at + 1 + row[at]]]
            at += 1 + int(row[at])
        yield out.tobytes()


class TokenTable:
    """The captions of training and validation images as ids, in a file of `write_tokens`.

    Args:
        file: the file.

    Attributes:
        tokenizer: the tokenizer that split the captions, with the pieces that it learned.
        lengths: {number of pieces: number of training captions}.

    Raises:
        ValueError: the file is damaged.
    """

    def __init__(self, file: RowFile):
        self._file = file
        self._counts = file.array("counts")
        self._text = file.array("pieces")
        self.header = file.header
        self.lengths: dict[int, int] = dict(file.header["lengths"])
        self.tokenizer = tokenizer_from_state_dict(file.header["tokenizer"])

    def __len__(self) -> int:
        return len(self._file)

    def __reduce__(self):
        return TokenTable, (self._file,)

    def vocabulary(self, min_count: int) -> Vocabulary:
        """Return the vocabulary of the training captions, as `Vocabulary.build` makes it.

        Raises:
            ConfigError: min_count is below 1.
            DataError: no word is frequent enough.
        """
        must_be("data.min_count", min_count, least=1)
        learned = self.header["learned"]
        size = int((self._counts >= min_count).sum()) if learned is None else learned
        if not size:
            raise DataError(f"no word occurs {min_count} times in the training captions: lower data.min_count")
        return Vocabulary(self._pieces()[:size], self.tokenizer)

    def pieces(self, image: int) -> list[list[int]]:
        """Return the captions of one image as numbers of pieces, where equal pieces have equal numbers.

        Raises:
            DataError: the file was damaged.
        """
        row = memoryview(self._file[image]).cast("i").tolist()
        captions, at = [], 1
        for _ in range(row[0]):
            captions.append(row[at + 1 : at + 1 + row[at]])
            at += 1 + row[at]
        return captions

    def encoded(self, images: Sequence[int] | np.ndarray, vocabulary: Vocabulary, max_length: int | None):
        """Return the captions of images as ids of a vocabulary of this table: a sequence for `CaptionDataset`.

        Args:
            images: the rows of the table.
            vocabulary: from `vocabulary`.
            max_length: longer captions are cut to this number of pieces, followed by `<end>`.
        """
        must_be("data.max_length", max_length, least=1)
        return EncodedCaptions(self, images, len(vocabulary) - _FIRST, max_length, self._unfinished())

    def coverage(self, images: Iterable[int], vocabulary: Vocabulary) -> float:
        """Return the share of the captions' pieces that are in the vocabulary; 1.0 if there are none."""
        size, known, total = len(vocabulary) - _FIRST, 0, 0
        for image in images:
            for caption in self.pieces(image):
                known += sum(piece < size for piece in caption)
                total += len(caption)
        return known / total if total else 1.0

    def _pieces(self) -> list[str]:
        text = self._text.tobytes()
        return [json.loads(line) for line in text.split(b"\n")] if text else []

    def _unfinished(self) -> frozenset[int]:
        """Return the numbers of the pieces that do not end a word."""
        if self.header["learned"] is None:
            return frozenset()
        finished = map(self.tokenizer.is_finished, self._pieces())
        return frozenset(number for number, ends in enumerate(finished) if not ends)


class EncodedCaptions(Sequence[list[list[int]]]):
    """The captions of images as ids of a vocabulary, made when they are asked for (see `TokenTable.encoded`)."""

    def __init__(
        self,
        table: TokenTable,
        images: Sequence[int] | np.ndarray,
        size: int,
        max_length: int | None,
        unfinished: frozenset[int],
    ):
        self._table, self._images, self._size = table, images, size
        self._max_length, self._unfinished = max_length, unfinished

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index):
        """Return the captions of one image: `<start>`, ids and `<end>` of each, as `Vocabulary.encode` returns them."""
        size = self._size
        return [
            [START, *(piece + _FIRST if piece < size else UNKNOWN for piece in self._cut(caption)), END]
            for caption in self._table.pieces(int(self._images[index]))
        ]

    def _cut(self, pieces: list[int]) -> list[int]:
        kept = pieces[: self._max_length]
        while len(kept) < len(pieces) and kept and kept[-1] in self._unfinished:
            kept.pop()
        return kept
