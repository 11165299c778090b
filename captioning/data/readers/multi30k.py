"""Read Multi30k: captions of Flickr30k's images in English, German, French and Czech (Elliott et al. 2016).

The files are those of github.com/multi30k/dataset. Line n of a caption file belongs to line n of the list of images.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from captioning.data import STRICT, Disk, Handling, Places, Record, own_folder
from captioning.data.readers.checks import CaptionFile, checked, not_blank
from captioning.data.readers.lines import text_lines
from captioning.errors import ConfigError, DataError

LANGUAGES_OF_TASKS = {1: ("en", "de", "fr", "cs"), 2: ("en", "de")}
_EDITIONS = range(1, 6)  # of task 2: five captions per image, written independently in each language
# Image ids are a list's first id plus the position in it, whatever other files are there.
_FIRST_ID = {"train": 0, "val": 1_000_000, "test_2016_flickr": 2_000_000, "test_2016": 2_000_000}
_FIRST_ID |= {"test_2017_flickr": 3_000_000, "test_2017_mscoco": 4_000_000, "test_2018_flickr": 5_000_000}
_OTHER_FIRST_ID = 6_000_000
_ROOTS = ("data/task{task}", "task{task}", "dataset/data/task{task}", "")


def read_multi30k(
    root: str | Path,
    *,
    language: str = "en",
    task: int = 1,
    test: str | None = None,
    images: str = ".",
    faults: Handling = STRICT,
) -> list[Record]:
    """Read the captions of one language. A split is left out if neither its captions nor its list of images is there.

    The id of an image is its position in the list of its split, plus 0 (train), 1,000,000 (val) or 2,000,000 and more
    (test lists), so ids are the same in all languages, whichever files are there.

    Args:
        root: folder with the repository of Multi30k, or with its files; the caption files may be packed (.gz) or not.
        language: "en" or "de"; in task 1 also "fr" or "cs".
        task: 1 for one caption per image (translated from English), 2 for five per image (written independently).
        test: the list of test images, which must be there; None: test_2016_flickr (task 1) or test_2016 (task 2) if it
            is there.
        images: folder of the images, relative to root; ".": also the usual folders of Flickr30k in it.
        faults: how to handle faults, see `captioning.data.readers`.

    Raises:
        ConfigError: the task or language is unknown.
        DataError: files are missing or inconsistent, or only the captions or only the list of a split is there.
    """
    if language not in LANGUAGES_OF_TASKS.get(task, ()):
        known = "; ".join(f"data.reader.task={key}: {', '.join(value)}" for key, value in LANGUAGES_OF_TASKS.items())
        raise ConfigError(
            f"data.reader.language={language} is not a language of data.reader.task={task}. Choose {known}"
        )
    root, disk = Path(root), Disk()
    chosen = test or {1: "test_2016_flickr", 2: "test_2016"}[task]
    sources, seen, halves = [], False, []
    for split, name in (("train", "train"), ("val", "val"), ("test", chosen)):
        listed = _first_file(root, task, "image_splits", [f"{name}.txt", f"{name}_images.txt"])
        with faults:
            found = list(_captions(root, name, language, task))
            seen = seen or bool(found)
            if test and split == "test" and not (listed and found):
                raise DataError(_no_such_test(root, language, task, test))
            if listed and found:
                names = [line.partition("#")[0].strip() for line in text_lines(listed)]
                captions = _in_line(listed, names, found)
                folder = own_folder(root / images, names, disk) if images == "." else root / images
                places = Places(folder, names, disk)
                start = _FIRST_ID.get(name, _OTHER_FIRST_ID)
                records = list(_records(places, listed, names, captions, split=split, start=start, faults=faults))
                places.report(listed, faults)
                sources.append(CaptionFile(listed, records, places.folder))
            elif listed or found:
                halves.append(_other_half(root, name, language, task, listed))
    for message in halves if seen else ():
        with faults:
            raise DataError(message)
    if not sources and (faults is STRICT or not seen):
        raise DataError(_what_is_missing(root, language, task, chosen))
    return checked(sources, disk, faults)


def multi30k_editions(root: Path) -> dict[tuple[int, str], list[Path]]:
    """Return {(task, language): its caption files} of all that are in a folder, with the list of their images."""
    found: dict[tuple[int, str], list[Path]] = {}
    for task, languages in LANGUAGES_OF_TASKS.items():
        for name in ("train", "val", {1: "test_2016_flickr", 2: "test_2016"}[task]):
            if _first_file(root, task, "image_splits", [f"{name}.txt", f"{name}_images.txt"]):
                for language in languages:
                    stem = f"{name}.{language}" if task == 1 else f"{name}.1.{language}"
                    if file := _first_file(root, task, "raw", [stem, f"{stem}.gz"]):
                        found.setdefault((task, language), []).append(file)
    return found


def _captions(root: Path, name: str, language: str, task: int) -> Iterator[Path]:
    """Yield the caption files of a split.

    Raises:
        DataError: some of the five files of task 2 are missing.
    """
    stems = [f"{name}.{language}"] if task == 1 else [f"{name}.{number}.{language}" for number in _EDITIONS]
    found = [_first_file(root, task, "raw", [stem, f"{stem}.gz"]) for stem in stems]
    if any(found) and not all(found):
        missing = stems[found.index(None)]
        raise DataError(f"data.root={root} has no {missing}, but other files of its split: download {missing}.gz")
    yield from (file for file in found if file)


def _first_file(root: Path, task: int, folder: str, names: Sequence[str]) -> Path | None:
    """Return the first of these files that exists: in the folders of the repository, or directly in root."""
    bases = [root / base.format(task=task) for base in _ROOTS]
    places = [place for base in bases for place in (base / folder, base)]
    return next((place / name for place in places for name in names if (place / name).is_file()), None)


def _in_line(listed: Path, names: Sequence[str], files: Sequence[Path]) -> list[list[str]]:
    """Return the captions of each image, one per file.

    Raises:
        DataError: a file has another number of lines than the list of images.
    """
    columns = []
    for file in files:
        lines = text_lines(file)
        if len(lines) != len(names):
            raise DataError(
                f"{file} has {len(lines)} lines, but {listed} lists {len(names)} images: download both again"
            )
        columns.append(lines)
    return [list(captions) for captions in zip(*columns, strict=True)]


def _records(
    places: Places,
    listed: Path,
    names: Sequence[str],
    captions: Sequence[Sequence[str]],
    *,
    split: str,
    start: int,
    faults: Handling,
) -> Iterator[Record]:
    """Yield one record per image. An image that is listed several times has the captions of all its lines."""
    merged: dict[Path, tuple[int, list[str]]] = {}
    for number, (name, texts) in enumerate(zip(names, captions, strict=True)):
        with faults:
            path = places.path(name, f"{listed}, line {number + 1}")
            merged.setdefault(path, (start + number, []))[1].extend(texts)
    for path, (number, texts) in merged.items():
        yield Record(number, path, split, not_blank(texts, faults))


def _no_such_test(root: Path, language: str, task: int, test: str) -> str:
    """Describe that the test split named by the user is not there, and name those that are."""
    bases = [root / base.format(task=task) / folder for base in _ROOTS for folder in ("image_splits", "")]
    lists = {file.stem.removesuffix("_images") for base in bases for file in base.glob("test*.txt")}
    there = sorted(name for name in lists if any(_captions(root, name, language, task)))
    choice = f"Choose one of those that are there: {', '.join(there)}" if there else "Remove data.reader.test"
    return (
        f"data.root={root} has no captions in '{language}' with a list of images for data.reader.test={test}. {choice}"
    )


def _other_half(root: Path, name: str, language: str, task: int, listed: Path | None) -> str:
    """Describe that only the captions of a split are there, or only its list: the split would disappear."""
    stem, folder = f"{name}.{language}" if task == 1 else f"{name}.1.{language}", f"data/task{task}"
    if listed is None:
        needed = f"{folder}/image_splits/{name}{'' if task == 1 else '_images'}.txt"
        return (
            f"data.root={root} has the captions {stem}, but no list of their images: add {needed} from "
            f"github.com/multi30k/dataset, or move the captions of {name} out of data.root"
        )
    needed = f"{folder}/raw/{stem}.gz" if task == 1 else f"{folder}/raw/{stem}.gz … {name}.5.{language}.gz"
    return (
        f"data.root={root} has the list {listed.name}, but no captions in '{language}' for it: add {needed} from "
        f"github.com/multi30k/dataset, or move {listed.name} out of data.root"
    )


def _what_is_missing(root: Path, language: str, task: int, test: str) -> str:
    """Describe the files that are needed, and the languages that are there instead."""
    one = f"train.{language}.gz" if task == 1 else f"train.1.{language}.gz … train.5.{language}.gz"
    there = [f"data.reader.language={name} data.reader.task={number}" for number, name in multi30k_editions(root)]
    choice = f", or use what is there: {'; '.join(there)}" if there else ""
    return (
        f"data.root={root} has no Multi30k captions of task {task} in '{language}': add data/task{task}/raw/{one} and "
        f"data/task{task}/image_splits/ (also val and {test}) from github.com/multi30k/dataset{choice} (see "
        "docs/data.md in the repository)"
    )
