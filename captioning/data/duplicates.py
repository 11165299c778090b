"""Find identical images by the bytes of their files, and near-duplicates by a perceptual hash and their colors.

The hash has 64 bits: the signs of the 64 lowest frequencies (DCT, without the mean) of the gray image. Scaling,
compression, brightness and contrast hardly change it. The hashes of two unrelated photographs differ in about 32 bits.
Drawings of few shapes have close hashes more often. Therefore two images with close hashes must also have correlated
colors at 8 × 8 pixels.
"""

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from captioning.data.pictures import open_picture
from captioning.errors import DataError
from captioning.io import read_file

BITS = 64
_SIDE = 32  # side of the transformed image in pixels
FLAT = 0.05  # gray levels: smaller amplitudes are only rounding
COARSE = 8  # side of the coarse color image in pixels
# Smallest correlation of the colors. Photographs that are scaled, compressed, brightened by 30 % or of another contrast
# have 0.91 or more; different drawings with close hashes have at most 0.84.
CORRELATION = 0.9


class Appearance(NamedTuple):
    """Fingerprints of one image file.

    Attributes:
        digest: SHA-256 of its bytes; b"" for an unreadable image.
        code: perceptual hash; 0 for an unreadable image.
        colors: bytes of the image at 8 × 8 pixels; b"" for an unreadable image.
        fault: why the image is unreadable; None if it is readable.
    """

    digest: bytes
    code: int
    colors: bytes
    fault: str | None


def appearance(path: Path) -> Appearance:
    """Decode one image completely and return its fingerprints."""
    try:
        picture = open_picture(path)
        coarse = picture.resize((COARSE, COARSE), Image.Resampling.BICUBIC, reducing_gap=2)
        return Appearance(hashlib.sha256(read_file(path)).digest(), perceptual_hash(picture), coarse.tobytes(), None)
    except DataError as error:
        return Appearance(b"", 0, b"", str(error))


def perceptual_hash(picture: Image.Image) -> int:
    """Return 64 bits: whether each of the lowest frequencies of the gray image, in a fixed order, is above zero."""
    gray = picture.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    waves, rows, columns = _waves()
    spectrum = waves @ np.asarray(gray, dtype=np.float64) @ waves.T
    bits = spectrum[rows, columns] > FLAT
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


@cache
def _waves() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return cosines [12, SIDE] for amplitudes in gray levels, and rows and columns of the 64 lowest frequencies."""
    order = 12  # 1 + 2 + … + 11 frequencies have row + column below 11: enough for 64
    pixels, frequencies = np.arange(_SIDE), np.arange(order)[:, None]
    waves = np.cos(np.pi * frequencies * (2 * pixels + 1) / (2 * _SIDE)) * 2 / _SIDE
    lowest = sorted(((u + v, u, v) for u in range(order) for v in range(order) if u + v), key=lambda key: key)[:BITS]
    _, rows, columns = np.array(lowest).T
    return waves, rows, columns


def close_pairs(codes: np.ndarray, *, distance: int) -> tuple[np.ndarray, np.ndarray]:
    """Find all pairs of codes that differ in at most `distance` bits.

    The search is exact, and not quadratic for spread codes: the bits are cut into distance + 1 runs, and two close
    codes agree in at least one run (Norouzi, Punjani and Fleet 2012). So only codes that share a run are compared.

    Args:
        codes: [N] uint64.
        distance: 0 … 63; larger distances mean shorter runs and more comparisons.

    Returns:
        Pairs of indices [M, 2], the lower index first, and the numbers of differing bits [M].
    """
    found = [np.empty((0, 2), dtype=np.int64)]
    edges = np.linspace(0, BITS, distance + 2).round().astype(int)
    for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        run = (codes >> np.uint64(start)) & np.uint64((1 << (stop - start)) - 1)
        order = np.argsort(run, kind="stable")
        run, ordered = run[order], codes[order]
        rows, step = np.arange(len(codes)), 0
        while len(rows):  # compare each code with the next one of equal run, then with the one after that, …
            step += 1
            rows = rows[rows + step < len(codes)]
            rows = rows[run[rows] == run[rows + step]]
            near = rows[_bits(ordered[rows] ^ ordered[rows + step]) <= distance]
            found.append(np.stack([order[near], order[near + step]], axis=1))
    pairs = np.unique(np.sort(np.concatenate(found), axis=1), axis=0)
    return pairs, _bits(codes[pairs[:, 0]] ^ codes[pairs[:, 1]])


def _bits(words: np.ndarray) -> np.ndarray:
    """Count the bits that are set in each uint64: add neighbors of 1, 2 and 4 bits, then the bytes."""
    one, two, four, sums = (np.uint64(mask) for mask in (0x5 * _ONES, 0x3 * _ONES, 0x0F0F0F0F0F0F0F0F, 0x0101 * _BYTES))
    words = words - ((words >> np.uint64(1)) & one)
    words = (words & two) + ((words >> np.uint64(2)) & two)
    words = (words + (words >> np.uint64(4))) & four
    return ((words * sums) >> np.uint64(56)).astype(np.int64)


_ONES, _BYTES = 0x1111111111111111, 0x0001000100010001


class Group(NamedTuple):
    """Images that are duplicates of each other.

    Attributes:
        members: their indices.
        distance: largest number of differing bits of the pairs of near-duplicates that connect the group; 0 for equal
            files.
    """

    members: tuple[int, ...]
    distance: int


def same_files(digests: Sequence[bytes]) -> list[Group]:
    """Find groups of two or more images with the same bytes. Images without a digest (b"") are left out."""
    groups: dict[bytes, list[int]] = {}
    for number, digest in enumerate(digests):
        if digest:
            groups.setdefault(digest, []).append(number)
    return [Group(tuple(members), 0) for members in groups.values() if len(members) > 1]


def near_duplicates(looks: Sequence[Appearance], *, distance: int) -> list[Group]:
    """Find groups of images that are connected by near-duplicates, with at least two different files.

    Args:
        looks: fingerprints of the images.
        distance: largest number of differing bits of the perceptual hashes.
    """
    files: dict[bytes, list[int]] = {}
    for number, each in enumerate(looks):
        if each.digest:
            files.setdefault(each.digest, []).append(number)
    copies = list(files.values())  # for each different file, the images with these bytes; the first represents them
    pairs, bits = close_pairs(np.array([looks[first].code for first, *_ in copies], dtype=np.uint64), distance=distance)
    colors = np.array([np.frombuffer(looks[first].colors, np.uint8) for first, *_ in copies])
    alike = [_correlate(colors[first], colors[second]) >= CORRELATION for first, second in pairs]
    pairs, bits = pairs[alike].tolist(), bits[alike].tolist()
    parents = list(range(len(copies)))
    for first, second in pairs:
        parents[_root(parents, second)] = _root(parents, first)
    widest: dict[int, int] = {}
    for (first, _), apart in zip(pairs, bits, strict=True):
        root = _root(parents, first)
        widest[root] = max(apart, widest.get(root, 0))
    groups: dict[int, list[int]] = {}
    for file, members in enumerate(copies):
        if (root := _root(parents, file)) in widest:
            groups.setdefault(root, []).extend(members)
    return [Group(tuple(sorted(members)), widest[root]) for root, members in groups.items()]


def _correlate(first: np.ndarray, second: np.ndarray) -> float:
    """Return Pearson's correlation of two images; 1 if they are equal up to rounding, otherwise 0 without contrast."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    if np.abs(first - second).max() <= 2:  # levels; without contrast, the correlation would be that of rounding
        return 1.0
    first, second = first - first.mean(), second - second.mean()
    size = np.sqrt((first @ first) * (second @ second))
    return float(first @ second / size) if size else 0.0


def _root(parents: list[int], node: int) -> int:
    while parents[node] != node:
        parents[node] = parents[parents[node]]
        node = parents[node]
    return node
