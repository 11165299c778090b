"""Write what --help prints: usage, the groups that a command has, and its settings with their values."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from captioning.config.command_line import Command

FOOTER = """A name of a file is taken as it is typed: captioning quotes it for hydra. Behind -- all arguments are plain.
Quotes ("2024"), lists ([a,b]), null and ${key} are read as hydra reads them, unless a file has this very name.
--cfg job prints the settings; -m runs a sweep over KEY=A,B; --hydra-help lists hydra's own options."""


def help_text(
    command: Command, about: str, settings: str, chosen: Mapping[str, Any], options: Mapping[str, Sequence[str]]
) -> str:
    """Return the text.

    Args:
        about: the command's YAML file: its heading, and what it says of each key.
        settings: all settings as they are composed, in YAML.
        chosen: group -> the choice that is made in it.
        options: group -> its choices.
    """
    heading = "\n".join(line.removeprefix("# ") for line in re.match(r"(#.*\n)*", about)[0].splitlines())
    parts = [heading, f"usage: {command.usage()}"]
    if options:
        rows = [f"  {group}={_one_of(chosen[group], choices)}" for group, choices in options.items()]
        parts.append("Groups (GROUP=CHOICE; the choice made now is in brackets):\n" + "\n".join(rows))
    notes = {found[1]: found[2] for found in re.finditer(r"^(\w+):[^#\n]*?\s(#.*)$", about, re.MULTILINE)}
    lines = [_with_note(line, notes) for line in settings.rstrip().splitlines()]
    parts.append("Settings (KEY=VALUE, or --KEY VALUE):\n" + "\n".join(f"  {line}" for line in lines))
    return "\n\n".join([*parts, FOOTER])


def _one_of(chosen: Any, choices: Sequence[str]) -> str:
    return "|".join(f"[{choice}]" if choice == chosen else choice for choice in choices)


def _with_note(line: str, notes: Mapping[str, str]) -> str:
    """A line of YAML with what the command's file says of its key."""
    found = re.match(r"(\w+):", line)
    return f"{line:<27} {notes[found[1]]}" if found and found[1] in notes else line
