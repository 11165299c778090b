"""Write the texts of --help and --help=all."""

import re
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

from captioning.config.command_line import Command
from captioning.config.headings import notes_of, read_heading

GENERAL = """File names need no further quotes than in other programs. Everything after -- is a file name, -x.jpg too.
KEY="2024" is a text, KEY=[a,b] a list, KEY=null no value, and KEY=${OTHER} the value of the setting OTHER.
--cfg job prints the settings without starting. -m KEY=A,B starts one job per value.
Settings are read by the library hydra; --hydra-help lists its own options."""


def short_help(command: Command, composed: Mapping[str, Any], chosen: Mapping[str, Any]) -> str:
    """Return the text of --help: purpose, usage, examples, and the settings that people change with their defaults.

    Args:
        command: the command.
        composed: the settings, with references as text.
        chosen: group -> its current choice.
    """
    heading = read_heading(command.name)
    examples = [f"  {each}" for each in heading.examples]
    typed = {key: _with_default(key, composed, chosen) for key in heading.settings}
    width = max(map(len, typed.values())) + 2
    rows = [f"  {typed[key]:<{width}}{explanation}" for key, explanation in heading.settings.items()]
    return "\n".join(
        [
            heading.purpose,
            f"usage: {command.usage()}",
            "",
            "Examples:",
            *examples,
            "",
            "Common settings, with their defaults:",
            *rows,
            "",
            f"All settings: {command.program} --help=all. Manual: {heading.page} in the repository",
            f'Tab completion in bash: eval "$({command.program} -sc install=bash)"',
        ]
    )


def _with_default(key: str, composed: Mapping[str, Any], chosen: Mapping[str, Any]) -> str:
    """Return `key=default`, with DATE_TIME for the current time and NAME for the name of the data set."""
    value: Any = chosen[key] if key in chosen else reduce(lambda node, name: node[name], key.split("."), composed)
    if value == "???" or (value is None and key == "data"):
        return f"{key} (required)"
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    text = f"[{','.join(map(str, value))}]" if isinstance(value, list) else text or '""'
    text = re.sub(r"\$\{now:[^}]*\}", "DATE_TIME", text)
    text = re.sub(r"\$\{\w+\.(\w+)\}", lambda found: found[1].upper(), text)
    return f"{key}={text}"


def full_help(command: Command, settings: str, chosen: Mapping[str, Any], options: Mapping[str, Sequence[str]]) -> str:
    """Return the text of --help=all: every group with its choices, and every setting with its value.

    Args:
        command: the command.
        settings: all settings as composed, in YAML.
        chosen: group -> its current choice.
        options: group -> its choices.
    """
    parts = [f"{read_heading(command.name).purpose}\nusage: {command.usage()}"]
    if options:
        rows = [f"  {group}={_one_of(chosen[group], choices)}" for group, choices in options.items()]
        parts.append("Groups (GROUP=CHOICE; the current choice is in brackets):\n" + "\n".join(rows))
    notes = notes_of(command.name)
    lines = [_with_note(line.replace(": ???", ": (required)"), notes) for line in settings.rstrip().splitlines()]
    parts.append("Settings (KEY=VALUE, or --KEY VALUE):\n" + "\n".join(f"  {line}" for line in lines))
    return "\n\n".join([*parts, GENERAL])


def _one_of(chosen: Any, choices: Sequence[str]) -> str:
    return "|".join(f"[{choice}]" if choice == chosen else choice for choice in choices)


def _with_note(line: str, notes: Mapping[str, str]) -> str:
    """Append the comment of a top-level key to its line of YAML."""
    found = re.match(r"(\w+):", line)
    return f"{line:<27} {notes[found[1]]}" if found and found[1] in notes else line
