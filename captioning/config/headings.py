"""Find the YAML file of each command, and read what its first comment says about the command.

This file imports neither hydra nor torch, so that the command `captioning` starts at once.
"""

import re
from pathlib import Path
from typing import NamedTuple


class Heading(NamedTuple):
    """The first comment of a command's YAML file.

    purpose: one sentence. examples: command lines. settings: key -> explanation, of the settings that people change;
    the explanation of a key of this file stands beside the key. page: where the documentation is.
    """

    purpose: str
    examples: tuple[str, ...]
    settings: dict[str, str]
    page: str


def conf_dir() -> Path:
    """Return the folder of the YAML files: in the installed package, or `conf/` beside the package in a checkout."""
    inside = Path(__file__).parents[1] / "conf"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "conf"


def read_heading(name: str) -> Heading:
    """Return the heading of conf/NAME.yaml."""
    text = (conf_dir() / f"{name}.yaml").read_text(encoding="utf-8")
    lines = [line[2:] for line in text.partition("\ndefaults:")[0].splitlines()]
    sections: dict[str, list[str]] = {}
    for line in lines[1:]:
        if found := re.match(r"(Examples|Settings|Documentation):(.*)", line):
            section = sections.setdefault(found[1], [found[2]])
        elif line.startswith("  "):
            section.append(line)
    listed = " ".join(line for line in sections["Settings"] if ":" not in line)
    explained = dict(line.strip().split(": ", 1) for line in sections["Settings"] if ":" in line)
    beside = {found[1]: found[2].strip() for found in re.finditer(r"^(\w+):[^#\n]*#(.*)$", text, re.MULTILINE)}
    keys = re.findall(r"[\w./]+", listed)
    return Heading(
        purpose=lines[0],
        examples=tuple(line.strip() for line in sections["Examples"][1:]),
        settings={key: explained.get(key) or beside.get(key, "") for key in keys},
        page=sections["Documentation"][0].strip(),
    )


def notes_of(name: str) -> dict[str, str]:
    """Return the comments beside the top-level keys of conf/NAME.yaml: key -> comment, with its #."""
    text = (conf_dir() / f"{name}.yaml").read_text(encoding="utf-8")
    return {found[1]: found[2] for found in re.finditer(r"^(\w+):[^#\n]*?\s(#.*)$", text, re.MULTILINE)}


def choices_of(group: str) -> list[str]:
    """Return the names of a group's YAML files; [] for a key that is not a group."""
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml")) if group else []
