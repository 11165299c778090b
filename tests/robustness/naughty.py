"""Odd file names, image ids and list items that people really use, and the required result for each of them."""

import io
import json
import os
import random
import sys
import unicodedata
from collections import defaultdict
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import strategies as st
from PIL import Image

from captioning.config import (
    CaptionConfig,
    CompareConfig,
    DemoConfig,
    EvaluateConfig,
    PrepareConfig,
    ScoreConfig,
    entry_point,
)
from captioning.data import read_csv
from captioning.errors import ConfigError, DataError
from captioning.evaluation import match, read_references, read_results

# Stems of file names; no two differ only in case or Unicode normal form. A suffix follows.
STEMS = [
    "josé", "照片", "写真 1", "фото", "صورة", "ภาพ", "😀", "IMG (1)", "it's", 'the "best"', "a b", " lead", "trail ",
    "#1", "wow!", "cats & dogs", "lr=0.1", "epoch=3-step=100", "2024", "2024_01_01", "1e3", "007", "0x1F", "null",
    "None", "true", "no", "nan", "-dash", "--output", "~home", "~", "$HOME", "${x}", "${oc.env:HOME}", "a,b", "[x]",
    "{x}", "a:b", "a;b", "a|b", "a*b", "a?b", "a<b>c", "a%20b", "a@b", "a+b", "+a", "a^b", "a`b`", "a\\b", "\\", "..a",
    "...", "a'b\"c", "'", '"', "''", "a=b=c", "=a", "x='y'", "images=[a", "a\tb", "\u200bzero", "\u202eright", "ﬁ", "ß",
    "İ", "Ⅷ", "a\u0301bc", "e\u0301", "CON", "x" * 200,
]  # fmt: skip


def _distinct(stems: list[str]) -> list[str]:
    seen: dict[str, str] = {}
    for stem in stems:
        seen.setdefault(unicodedata.normalize("NFC", stem).casefold(), stem)
    return list(seen.values())


STEMS = _distinct(STEMS)
NAMES = [f"{stem}.png" for stem in STEMS]
# An element of a list of settings, for every type of YAML and hydra.
ITEMS = [
    "a.png", "2024", "007", "1e3", "1.5", "true", "null", "[a]", "{a: 1}", "''", '""', "a b", "'a b'", "~", "[]", "{}",
    "nan", "inf", "-1", "0", "0x1F", "2024_01_01", "a=b", "é", "照片", "${x}", "'", "[", "{", ",", " ",
]  # fmt: skip
FOLDERS = ("", "", "cats", "dogs", "Bilder/José")


def spelled(name: str, draw: random.Random) -> str:
    """Return the name as another program or operating system would write it."""
    how = draw.randrange(6)
    if how == 0:
        return unicodedata.normalize("NFD", name)
    if how == 1:
        return unicodedata.normalize("NFC", name)
    if how == 2 and "\\" not in name:
        return name.replace("/", "\\")
    return f"./{name}" if how == 3 else name


class Identities:
    """Generate results and references whose names and ids agree, disagree or are missing.

    A caption must be scored against its own image, or the files must be refused. It must never be compared with the
    references of another image.
    """

    known: tuple[type[Exception], ...] = (DataError,)
    names_file = True
    strategy = st.integers(0, 2**32)

    def __init__(self, folder: Path):
        self.folder = folder

    def __call__(self, value: int) -> None:
        draw = random.Random(value)
        count = draw.randint(1, 6)
        names = [_in_folder(name, draw) for name in draw.sample(NAMES, count)]
        if draw.random() < 0.3:  # the same name in several folders
            names = [f"{folder}/{names[0].rpartition('/')[2]}" for folder in "abcdef"[:count]]
        ids = draw.sample(range(9), count)
        with_names, kind = draw.random() < 0.8, draw.choice([int, str, float, lambda number: f"{number:012}"])
        named = [{"file_name": name} if with_names else {} for name in names]
        images = [{"id": kind(key), **name} for key, name in zip(ids, named, strict=True)]
        texts = [{"image_id": kind(key), "id": at, "caption": str(at)} for at, key in enumerate(ids)]
        references = self.write("annotations.json", {"images": images, "annotations": texts})
        owners = draw.sample(range(count), draw.choice([count, count, max(1, count - 1)]))
        theirs = self.numbers(draw, [ids[owner] for owner in owners])
        entries = []
        for key, owner in zip(theirs, owners, strict=True):
            name = {"file_name": f"/x/{spelled(names[owner], draw)}"} if draw.random() < 0.9 else {}
            number = {"image_id": draw.choice([int, str, float])(key)} if not name or draw.random() < 0.9 else {}
            entries.append({"caption": str(owner), **name, **number})
        self.check(self.write("results.json", entries), references, ids, draw)

    def check(self, results: Path, references: Path, ids: list[int], draw: random.Random) -> None:
        found, truths = read_results(results), read_references(references).images
        matched = match(found, truths, files=(results, references), subset=draw.random() < 0.5)
        named = {entry.texts[0]: entry for entry in found}
        for key, (text,) in matched.captions.items():
            (own,) = matched.references[key]
            by_name = named[text].name is not None and any(entry.name for entry in truths)
            assert text == own if by_name else named[text].image_id == key, f"{text} is scored as {own}"

    @staticmethod
    def numbers(draw: random.Random, own: list[int]) -> list[int]:
        """Return the ids in the results: the right ones, some of them exchanged, or consecutive numbers."""
        kind = draw.randrange(4)
        if kind == 0:
            return list(range(len(own)))
        if kind == 1:
            return draw.sample(own, len(own))
        if kind == 2 and len(own) > 1:
            return [own[1], own[0], *own[2:]]
        return own

    def write(self, name: str, content: Any) -> Path:
        path = self.folder / name
        path.write_text(json.dumps(content), encoding="utf-8")
        return path


class Tables:
    """Generate tables of captions and images with odd names: a caption must go to its own image, or be refused."""

    known: tuple[type[Exception], ...] = (DataError,)
    names_file = True
    strategy = st.integers(0, 2**32)

    def __init__(self, folder: Path):
        self.folder, self.owners = folder, {}
        for at, name in enumerate(NAMES):
            for place in ("", "cats/"):
                path = folder / place / name
                path.parent.mkdir(exist_ok=True)
                if "/" not in name and len(name.encode()) < 255:
                    Image.new("RGB", (4, 4), (at, 0, 0)).save(path, format="PNG")
                    self.owners[f"{place}{name}"] = path

    def __call__(self, value: int) -> None:
        draw = random.Random(value)
        chosen = draw.sample(list(self.owners), 4)
        mark = draw.choice([",", ";", "\t"])
        rows = [f"image{mark}caption{mark}split"]
        for at, name in enumerate(chosen):
            text = spelled(name, draw).replace('"', '""')
            text = text.upper() if draw.random() < 0.1 else text
            rows.append(f'"{text}"{mark}caption {at}{mark}train')
        file = self.folder / "captions.csv"
        file.write_text("\n".join(rows) + "\n", encoding=draw.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16"]))
        found = defaultdict(list)
        for record in read_csv(self.folder):
            for caption in record.captions:
                found[caption].append(record.path)
        for at, name in enumerate(chosen):
            (path,) = found[f"caption {at}"]
            assert path.samefile(self.owners[name]), f"{name} was read as {path}"


def _in_folder(name: str, draw: random.Random) -> str:
    folder = draw.choice(FOLDERS)
    return f"{folder}/{name}" if folder else name


class CommandLines:
    """Generate command lines with file names and list items of every kind.

    The command must receive the typed text, or report an error in one line. After `--` any text is a file name.
    Elsewhere hydra's grammar may refuse it, with an error and exit status 1.
    """

    known: tuple[type[Exception], ...] = (ConfigError,)
    names_file = False
    COMMANDS: ClassVar = {
        "caption": (CaptionConfig, "images", ["figures=[]"], ["images", "figures", "crops", "decoding.checkpoints"]),
        "score": (ScoreConfig, "results", ["annotations=a.json"], ["results", "samples", "output", "plugins"]),
        "compare": (CompareConfig, "a", ["b=b"], ["a", "b", "annotations", "output"]),
        "prepare": (PrepareConfig, "data.root", ["data=scenes"], ["splits", "data.root", "download", "features.root"]),
        "demo": (DemoConfig, "checkpoint", [], ["checkpoint", "examples", "hosts", "limits.waiting"]),
        "evaluate": (EvaluateConfig, "checkpoint", ["data=scenes"], ["checkpoint", "output", "crops", "split"]),
    }
    ITEM = st.one_of(st.sampled_from(ITEMS), st.sampled_from(NAMES), st.text(max_size=6))
    strategy = st.tuples(
        st.sampled_from(sorted(COMMANDS)),
        st.sampled_from(["plain", "behind --", "setting", "option", "list", "nested"]),
        st.integers(0, 3),
        st.lists(ITEM, min_size=1, max_size=3),
    )

    def __init__(self, folder: Path):
        self.folder, self.jobs, self.given = folder, {}, []
        for name, (schema, plain, *_) in self.COMMANDS.items():
            several = name in ("caption", "demo")
            plain = [f"{plain}..." if several else plain]
            self.jobs[name] = entry_point(name, schema, self.given.append, plain=plain)

    def __call__(self, value: Any) -> None:
        name, form, which, items = value
        items = [item for item in items if "\0" not in item and item.isprintable()] or ["a.png"]
        _, plain, beside, keys = self.COMMANDS[name]
        key = keys[which]
        typed = {
            "plain": items[:1],
            "behind --": ["--", items[0]],
            "setting": [f"{key}={items[0]}"],
            "option": [f"--{key.replace('_', '-')}", items[0]],
            "list": [f"{key}=[{','.join(items)}]"],
            "nested": [f"{key}=[[{','.join(items)}],{{a: {items[0]}}}]"],
        }[form]
        self.given.clear()
        before, argv, here = sys.argv, [f"captioning-{name}", *beside, *typed], Path.cwd()
        try:
            sys.argv = argv
            os.chdir(self.folder)
            with redirect_stdout(io.StringIO()):
                self.jobs[name]()
        except SystemExit as error:
            told = error.code
            assert isinstance(told, str) and told.startswith("error: "), f"exit status {told!r}"
            raise ConfigError(told) from None
        finally:
            sys.argv = before
            os.chdir(here)
        if form == "behind --":
            found = self.given[0]
            for part in plain.split("."):
                found = found[part]
            assert (found[0] if isinstance(found, list) else found) == items[0], f"{items[0]!r} came as {found!r}"
