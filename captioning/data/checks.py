"""List every fault of a data set: its files, images, captions and words; docs/evaluate.md describes them.

Nothing here stops at a fault: unreadable entries and images are reported, and everything else is checked.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from captioning.data.caption_scripts import (
    Suited,
    group_numbers,
    groups_table,
    script_numbers,
    scripts_table,
    suited_tokenizer,
    table_lines,
    tokenizer_advice,
)
from captioning.data.duplicates import BITS, Appearance, Group, appearance, near_duplicates, same_files
from captioning.data.image_files import holds_image
from captioning.data.lengths import cut_warning, default_length
from captioning.data.places import Disk, canonical, caseless, why_missing
from captioning.data.records import SPLITS, Record
from captioning.data.vocabulary import SPECIALS, Vocabulary
from captioning.errors import ConfigError, DataError
from captioning.io import split_archive, usable_cores
from captioning.text import Tokenizer, is_unsplit, make_tokenizer, script_of, tokenize, unsplit_warning

# No English sentence ends with one of these words. It may end with "in", "on" or "her".
UNFINISHED = frozenset(("a", "an", "the", "and", "or", "of", "with", "his", "its", "their", "is", "are", "as"))
OPEN_ENDS = (",", ";", ":", "-", "&", "(", "/", "\u2026", "...")
NOT_TEXT = {
    "markup": re.compile(r"</?[a-z][^>]*>|&[a-z]{2,8};|&#x?[0-9a-f]+;", re.I),
    "an address or a file name": re.compile(r"https?://|www\.|\w\.(jpe?g|png|gif|webp|bmp|tiff?)\b", re.I),
    "a placeholder": re.compile(r"\W*(nan|none|null|n/?a|undefined|todo|tbd|no caption|untitled)\W*", re.I),
    # UTF-8 that was read as Latin-1 or Windows-1252 and saved again.
    "wrongly decoded characters": re.compile("\ufffd|[\u00c2-\u00c3][\u0080-\u00bf]|\u00e2\u20ac|\u00e2\u0080"),
}
WHOLE = ("a placeholder",)  # these patterns must match the complete caption
# Kinds of notices of the readers (`captioning.data.parsing.note`), in the order of the report.
NOTED = (
    "rejected annotations, left out",
    "images left out",
    "captions with the same number",
    "names that are spelled differently on disk",
    "tables in another encoding",
)
_LETTERS = 0.5  # smallest share of letters among the characters of a caption


def audit_records(
    records: Sequence[Record],
    broken_entries: Sequence[str],
    *,
    min_count: int,
    max_length: int | None,
    max_distance: int = 4,
    workers: int | None = None,
    noted: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    tokenizer: Tokenizer | None = None,
) -> dict[str, Any]:
    """Check a data set and return the report that captioning-audit writes to audit.json.

    Args:
        records: all readable records, including those with faulty captions or images.
        broken_entries: messages about the entries that could not be read.
        min_count: a word is in the vocabulary if it occurs at least this often (conf/shared/data.yaml).
        max_length: longest caption in words (pieces for `bpe`) that training does not cut (conf/shared/data.yaml);
            None: the default of training, from the captions of the training split.
        max_distance: largest number of differing bits, of 64, between the hashes of near-duplicates; 0 … 12.
        workers: processes that decode images; None for one per core.
        noted: kind -> items that the reader reported without refusing them.
        tokenizer: splits the captions, as in training, and has learned its pieces; None: the default tokenizer.

    Returns:
        A dictionary of plain values: "vocabulary", "tokenizer" (the current one, and the one that suits the captions),
        "splits" (the numbers of each split), "groups" (split -> group -> numbers), "scripts" (the shares of each script
        in letters, captions and tokens), "advice" (what to do) and "findings" (kind -> list of everything found).

    Raises:
        ConfigError: max_distance or workers is out of range.
    """
    if not 0 <= max_distance <= 12:  # for larger distances, unrelated images are close as well
        raise ConfigError(f"max_distance={max_distance} must be from 0 to 12, of {BITS} bits")
    looks = _look_at(list(dict.fromkeys(record.path for record in records)), workers)
    tokenizer = tokenizer or make_tokenizer("ptb")
    tokens = [[tokenizer(caption) for caption in record.captions] for record in records]
    if max_length is None:
        training = (
            words for record, texts in zip(records, tokens, strict=True) if record.split == "train" for words in texts
        )
        max_length = default_length(Counter(len(tokenizer.pieces(words)) for words in training))
    vocabulary = _vocabulary(records, tokens, min_count, tokenizer)
    captions = [caption for record in records for caption in record.captions]
    scripts = script_numbers(captions, (words for texts in tokens for words in texts))
    suited = suited_tokenizer(captions, scripts)
    splits = {}
    for split in SPLITS:
        if chosen := [(r, texts) for r, texts in zip(records, tokens, strict=True) if r.split == split]:
            splits[split] = _numbers(chosen, vocabulary, tokenizer, max_length=max_length)
    size = len(vocabulary) - len(SPECIALS) if vocabulary else None
    return {
        "vocabulary": vocabulary and {tokenizer.unit: size, "min_count": min_count},
        "tokenizer": {"name": tokenizer.name, "unit": tokenizer.unit, "suited": suited.name, "reason": suited.reason},
        "max_length": max_length,
        "splits": splits,
        "groups": group_numbers(records),
        "scripts": scripts,
        "advice": _advice(records, tokens, max_length, tokenizer, suited),
        "findings": {
            "broken entries": list(broken_entries),
            **{kind: list((noted or {}).get(kind, ())) for kind in NOTED},
            **_picture_findings(records, looks),
            **_name_findings(records),
            **_caption_findings(records, tokens, max_length, tokenizer),
            **_duplicates(records, looks, max_distance),
        },
    }


def _advice(
    records: Sequence[Record],
    tokens: Sequence[list[list[str]]],
    max_length: int,
    tokenizer: Tokenizer,
    suited: Suited,
) -> list[str]:
    """Return what to do before training, one line per item."""
    training = (texts for record, texts in zip(records, tokens, strict=True) if record.split == "train")
    lengths = Counter(len(tokenizer.pieces(words)) for texts in training for words in texts)
    unsplit = unsplit_warning((caption for record in records for caption in record.captions), "all splits", tokenizer)
    cut = cut_warning(lengths, max_length, unit=tokenizer.unit)
    return tokenizer_advice(tokenizer, suited, unsplit) + ([cut] if cut else [])


def caption_fault(caption: str, tokens: Sequence[str]) -> tuple[str, str] | None:
    """Return (kind, reason) for a caption that is "empty", "cut" (unfinished) or "not text"; None if it seems right.

    Args:
        caption: the caption.
        tokens: its tokens, as used in training.
    """
    if not tokens:
        return ("empty", "blank" if not caption.strip() else "nothing but punctuation")
    for reason, pattern in NOT_TEXT.items():
        if (pattern.fullmatch if reason in WHOLE else pattern.search)(caption):
            return ("not text", reason)
    if any(unicodedata.category(c) in ("Cc", "Cs", "Co", "Cn") and not c.isspace() for c in caption):
        return ("not text", "control characters")
    dense = "".join(caption.split())
    if sum(c.isalpha() or unicodedata.category(c).startswith("M") for c in dense) < _LETTERS * len(dense):
        return ("not text", "few letters")
    if (last := tokenize(caption)[-1:]) and last[0] in UNFINISHED:  # a token may be a single character
        return ("cut", f"ends in '{last[0]}'")
    if caption.rstrip().endswith(OPEN_ENDS):
        return ("cut", f"ends in '{caption.rstrip()[-1]}'")
    return None


def _look_at(paths: Sequence[Path], workers: int | None) -> dict[Path, Appearance]:
    workers = usable_cores() if workers is None else workers
    if workers < 1:
        raise ConfigError(f"workers={workers} must be at least 1, or null for one per core")

    def show(looks: Iterable[Appearance]) -> Iterable[Appearance]:
        return tqdm(looks, total=len(paths), desc="images", unit="images", disable=None)

    if workers == 1:
        return dict(zip(paths, show(map(appearance, paths)), strict=True))
    with ProcessPoolExecutor(workers) as pool:
        return dict(zip(paths, show(pool.map(appearance, paths, chunksize=32)), strict=True))


def _vocabulary(
    records: Sequence[Record], tokens: Sequence[list[list[str]]], min_count: int, tokenizer: Tokenizer
) -> Vocabulary | None:
    """Build the vocabulary of training; None if no word of the training captions is frequent enough."""
    texts = (words for record, own in zip(records, tokens, strict=True) if record.split == "train" for words in own)
    try:
        return Vocabulary.build(texts, min_count=min_count, tokenizer=tokenizer)
    except DataError:
        return None


def _numbers(
    chosen: Sequence[tuple[Record, list[list[str]]]],
    vocabulary: Vocabulary | None,
    tokenizer: Tokenizer,
    *,
    max_length: int,
) -> dict[str, Any]:
    """Return sizes and caption lengths of one split in words, and what the vocabulary lacks in the tokenizer's unit."""
    captions = [words for _, texts in chosen for words in texts]
    lengths = np.array([len(words) for words in captions] or [0])
    pieces = [tokenizer.pieces(words) for words in captions]
    distinct = {word for words in captions for word in words}
    known = None if vocabulary is None else set(vocabulary.words)
    return {
        "pictures": len(chosen),
        "captions": len(captions),
        "words": int(lengths.sum()),
        "distinct words": len(distinct),
        "length": {
            "min": int(lengths.min()),
            "mean": float(lengths.mean()),
            "median": float(np.median(lengths)),
            "95 %": float(np.percentile(lengths, 95)),
            "max": int(lengths.max()),
        },
        "longer than max_length": sum(len(parts) > max_length for parts in pieces),
        "unknown share": None if vocabulary is None else 1 - vocabulary.coverage(captions),
        f"unknown distinct {tokenizer.unit}": None
        if known is None
        else len({part for parts in pieces for part in parts} - known),
    }


def _picture_findings(records: Sequence[Record], looks: dict[Path, Appearance]) -> dict[str, list]:
    faulty = [record for record in records if looks[record.path].fault]
    silent = [_name(record) for record in records if not any(caption.strip() for caption in record.captions)]
    stated = {record.path.resolve() for record in records}
    folders = sorted({record.path.parent for record in records})
    files = [path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())]
    disk, tops = Disk(), _tops(folders)
    unlisted = [p for p in files if p.name[0] != "." and p.resolve() not in stated and holds_image(p)]
    return {
        "unreadable images": [_name(record) | {"reason": _why(record.path, looks, disk, tops)} for record in faulty],
        "images without captions": silent,
        "image files without an entry": [{"file": str(path)} for path in unlisted],
    }


def _tops(folders: Sequence[Path]) -> dict[Path, Path]:
    """Return for each folder the topmost folder of the list that contains it."""
    return {folder: next((top for top in folders if top in (folder, *folder.parents)), folder) for folder in folders}


def _why(path: Path, looks: Mapping[Path, Appearance], disk: Disk, tops: Mapping[Path, Path]) -> str:
    """Return why an image cannot be read, and for a missing file which similar file was found, if any."""
    fault = looks[path].fault or ""
    why = "" if disk.has(path) else why_missing(path, tops[path.parent], disk)
    return f"{fault}; {why}" if why else fault


def _name_findings(records: Sequence[Record]) -> dict[str, list]:
    """Find files, with or without a record, whose names are the same on a case-insensitive file system."""
    disk = Disk()
    alike: defaultdict[str, set[Path]] = defaultdict(set)
    for folder in dict.fromkeys(record.path.parent for record in records):
        for name in disk.listing(folder).files:
            alike[caseless(str(folder / name))].add(folder / name)
    for record in records:
        alike[caseless(str(record.path))].add(record.path)
    items = []
    for paths in alike.values():
        for path in sorted(paths) if len(paths) > 1 else ():
            others = sorted(paths - {path})
            same = all(canonical(path.name) == canonical(other.name) for other in others)
            kind = "composition of accents" if same else "case"
            item = {"file": str(path), "reason": f"{', '.join(o.name for o in others)} differs by {kind} only"}
            items.append(item)
    return {"names that differ only by case or normalization": items}


def _caption_findings(
    records: Sequence[Record], tokens: Sequence[list[list[str]]], max_length: int, tokenizer: Tokenizer
) -> dict[str, list]:
    found: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for record, texts in zip(records, tokens, strict=True):
        for caption, words in zip(record.captions, texts, strict=True):
            if is_unsplit(caption, tokenizer):
                item = {"caption": caption, "reason": f"{script_of(caption)} script, without spaces between words"}
                found["unsplit"].append(_name(record) | item)
            if (length := len(tokenizer.pieces(words))) > max_length:
                item = {"caption": caption, "reason": f"{length} {tokenizer.unit}, cut to {max_length}"}
                found["long"].append(_name(record) | item)
            if fault := caption_fault(caption, words):
                found[fault[0]].append(_name(record) | {"caption": caption, "reason": fault[1]})
    return {
        "empty captions": found["empty"],
        "unfinished captions": found["cut"],
        "captions that are not text": found["not text"],
        "captions that the tokenizer cannot split": found["unsplit"],
        "captions longer than max_length": found["long"],
    }


def _duplicates(records: Sequence[Record], looks: dict[Path, Appearance], max_distance: int) -> dict[str, list]:
    seen = [looks[record.path] for record in records]
    same, near = same_files([each.digest for each in seen]), near_duplicates(seen, distance=max_distance)
    return {
        "same files within a split": _groups(records, same, lambda splits: len(splits) == 1),
        "same files across splits": _groups(records, same, lambda splits: len(splits) > 1),
        "near-duplicates within a split": _groups(records, near, lambda splits: len(splits) == 1),
        "near-duplicates across splits": _groups(records, near, lambda splits: len(splits) > 1),
    }


def _groups(records: Sequence[Record], groups: Iterable[Group], wanted: Callable[[set[str]], bool]) -> list[dict]:
    named: list[dict[str, Any]] = [
        {"bits": group.distance, "pictures": [_name(records[number]) for number in group.members]} for group in groups
    ]
    return [group for group in named if wanted({picture["split"] for picture in group["pictures"]})]


def _name(record: Record) -> dict[str, Any]:
    return {"file": str(record.path), "split": record.split, "image_id": record.image_id}


WIDTH = 100  # characters of an example on the terminal; audit.json has the complete text


def audit_table(report: Mapping[str, Any], *, title: str, examples: int, min_count: int, max_distance: int) -> str:
    """Format the report of `audit_records` as text.

    Args:
        report: the report.
        title: the first line.
        examples: number of examples per finding.
        min_count: the setting with which the report was made; so is max_distance.
        max_distance: see `audit_records`.
    """
    vocabulary, tokenizer = report["vocabulary"], report["tokenizer"]
    unit = tokenizer["unit"]
    size = f"{vocabulary[unit]} {unit}" if vocabulary else "none, so the share of <unk> is unknown"
    entries = f"words with {min_count} or more occurrences in train" if unit == "words" else f"all learned {unit}"
    of = "" if unit == "words" else f" {unit}"  # lengths and sizes are in words; these columns may count pieces
    rows: list[tuple[str, ...]] = [
        ("split", "images", "captions", "words", "distinct", "min", "mean", "median", "95 %", "max")
        + (f"over {report['max_length']}{of}", f"<unk>{of} %", f"<unk> distinct{of}")
    ]
    for split, numbers in report["splits"].items():
        lengths = [f"{value:.1f}" if isinstance(value, float) else str(value) for value in numbers["length"].values()]
        share, distinct = numbers["unknown share"], numbers[f"unknown distinct {unit}"]
        unknown = ("-", "-") if share is None else (f"{100 * share:.2f}", str(distinct))
        sizes = [str(numbers[key]) for key in ("pictures", "captions", "words", "distinct words")]
        rows.append((split, *sizes, *lengths, str(numbers["longer than max_length"]), *unknown))
    lines = [title, f"tokenizer: {tokenizer['name']} ({tokenizer['suited']} suits: {tokenizer['reason']})"]
    lines += [f"vocabulary ({entries}): {size}", "", *table_lines(rows)]
    for table in (groups_table(report["groups"]), scripts_table(report["scripts"])):
        lines += ["", *table] if table else []
    lines += ["", *(f"note: {line}" for line in report["advice"])] if report.get("advice") else []
    lines += ["", f"findings (near-duplicates differ in at most {max_distance} of 64 bits)"]
    for kind, found in report["findings"].items():
        lines.append(f"  {len(found):6d}  {kind}")
        lines += [f"          {_example(item)}" for item in found[:examples]]
        lines += [f"          … {len(found) - examples} more"] if len(found) > examples > 0 else []
    return "\n".join(lines)


def _example(item: str | Mapping[str, Any]) -> str:
    if isinstance(item, str):
        return item
    if "pictures" in item:
        shown = ", ".join(f"{_file(picture['file'])} ({picture['split']})" for picture in item["pictures"])
        return _short(f"{shown}; {item['bits']} bits differ")
    name = _file(item["file"]) + (f" ({item['split']})" if "split" in item else "")
    caption = f": {item['caption']!r}" if "caption" in item else ""
    return _short(name + caption + (f": {item['reason']}" if "reason" in item else ""))


def _file(path: str) -> str:
    """Return the name of a file; of one in an archive, with the archive: archives often have the same names."""
    inside = split_archive(path)
    return Path(path).name if inside is None else f"{Path(inside[0]).name}/{inside[1]}"


def _short(text: str) -> str:
    text = text.encode("utf-8", "backslashreplace").decode()  # file names may contain undecodable bytes
    return text if len(text) <= WIDTH else text[: WIDTH - 2] + " …"
