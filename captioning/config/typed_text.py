"""Quote what a user typed for a text, so that hydra's grammar returns exactly this text.

Hydra reads `2024` as a number, cannot read `José (1).jpg`, and splits `lr=0.1`. A key that the schema declares as a
text keeps what was typed. These parts of hydra's grammar still work: quotes around the entire value, `[…]` where a list
is allowed, `null`, `${…}`, commas in a sweep, and a backslash before a special character. If a file with exactly the
typed name exists, the name means this file.
"""

import dataclasses
import os
import re
import shlex
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from captioning.config.schemas import PATH, VERBATIM
from captioning.errors import ConfigError

QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
CASTS = re.compile(r"(int|float|bool|str|json_str)\(")
SWEEPS = re.compile(r"(choice|range|interval|glob|sort|shuffle|tag)\(")
ESCAPED = re.compile(r"\\([()\[\]{}:=, \t])")
# The schema does not describe the arguments of a `_target_` node. Arguments with these names are paths.
PATHS_OF_PARTS = {"annotations", "file", "files", "images", "pictures", "questions", "root", "weights"}


class TextKind(NamedTuple):
    """Values that a key of type text accepts."""

    path: bool = False  # file and folder names
    verbatim: bool = False  # free text, taken literally, quotes included
    one: bool = True  # a single text
    several: bool = False  # a list
    null: bool = False


def text_kind(key: str, schema: type) -> TextKind | None:
    """Return which texts a dotted key accepts, or None if it also accepts other values."""
    head, _, rest = key.partition(".")
    for each in (*schema.__subclasses__(), schema):
        hint = typing.get_type_hints(each, include_extras=True).get(head)
        beside = getattr(each, "beside_target", {}).get(head, {})
        if hint is not None and (found := _kind_below(beside.get(rest, hint), "" if rest in beside else rest)):
            return found
    return None


def _kind_below(hint: Any, rest: str) -> TextKind | None:
    choices = _choices(hint)
    if not rest:
        return _kind(choices)
    head, _, below = rest.partition(".")
    for schema in filter(dataclasses.is_dataclass, choices):
        inner = typing.get_type_hints(schema, include_extras=True).get(head)
        if inner is not None:
            return _kind_below(inner, below)
    last = rest.rpartition(".")[2]
    return TextKind(path=True, null=True, several=last in ("files", "images")) if last in PATHS_OF_PARTS else None


def _kind(choices: Sequence[Any]) -> TextKind | None:
    """Return the kind of a union of texts, lists of texts and null, or None for other types."""
    marks: set[str] = set()
    one = several = null = False
    for choice in choices:
        item = typing.get_args(choice)[0] if typing.get_origin(choice) is list else choice
        if typing.get_origin(item) is typing.Annotated:
            marks |= set(item.__metadata__)
            item = item.__origin__
        if item is type(None):
            null = True
        elif item is not str:
            return None
        elif typing.get_origin(choice) is list:
            several = True
        else:
            one = True
    return TextKind(PATH in marks, VERBATIM in marks, one, several, null) if one or several else None


def _choices(hint: Any) -> list[Any]:
    """Return the members of a union, or [hint] for any other hint."""
    return list(typing.get_args(hint)) if typing.get_origin(hint) in (typing.Union, types.UnionType) else [hint]


def literal(text: str) -> str:
    """Return a text in hydra's quotes, escaped so that neither hydra nor omegaconf interprets any of it.

    They interpret only backslashes before quotes and before `${`.
    """
    text = re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", text)
    return _in_quotes(text)


def _in_quotes(text: str) -> str:
    # Within quotes, hydra interprets backslashes only before a quote.
    return "'" + re.sub(r"(\\*)('|\Z)", _double_backslashes, text) + "'"


def _double_backslashes(found: re.Match[str]) -> str:
    return found[1] * 2 + found[2].replace("'", r"\'")


def plain_path(text: str) -> str:
    """Return a path with `~/` replaced by the home folder, as a shell does, unless a file has exactly this name.

    `???` becomes `./???`, because omegaconf reads `???` as a missing value.
    """
    if text.startswith("~/") and not exists(text):
        text = os.path.expanduser(text)
    return "./???" if text == "???" else text


def exists(path: str) -> bool:
    """Return whether a file or folder has this name; broken links count."""
    try:
        return os.path.lexists(path)
    except ValueError:  # a name that no file can have, such as one with a null character
        return False


def hydra_value(key: str, typed: str, kind: TextKind, *, sweeping: bool) -> str:
    """Return the text after `key=` with which hydra reads exactly what was typed.

    Raises:
        ConfigError: an empty file name, or a list without brackets.
    """
    if kind.verbatim:
        return literal(typed)
    if (kind.path and exists(typed)) or QUOTED.fullmatch(typed):
        return _wrapped(_one(key, typed, kind), kind)
    if (CASTS.match(typed) or (sweeping and SWEEPS.match(typed))) and parses(f"x={typed}"):
        return typed
    parts = split_at_commas(typed, kind.path) if "," in typed else [typed]
    if sweeping and len(parts) > 1:
        return ",".join(hydra_value(key, part, kind, sweeping=False) for part in parts)
    if is_list(typed):
        return _list(key, typed, kind)
    if kind.several and len(parts) > 1:
        raise ConfigError(f"{key}={typed} is not a list: for several values, type {shlex.quote(f'{key}=[{typed}]')}")
    return _wrapped(_one(key, typed, kind), kind)


def _wrapped(value: str, kind: TextKind) -> str:
    """Return a single text as a list of one, if the key takes only lists."""
    return value if kind.one or value == "null" else f"[{value}]"


def _list(key: str, typed: str, kind: TextKind) -> str:
    inner = typed.strip()[1:-1]
    items = split_at_commas(inner, kind.path) if inner.strip() else []
    return f"[{','.join(_item(key, item, kind) for item in items)}]"


def _item(key: str, typed: str, kind: TextKind) -> str:
    typed = typed if kind.path and exists(typed) else typed.strip()
    if not (kind.path and exists(typed)) and is_list(typed):  # the schema rejects it and names its index
        return _list(key, typed, kind)
    return _one(key, typed, kind._replace(null=False))


def _one(key: str, typed: str, kind: TextKind) -> str:
    """Return the text with which hydra reads a single typed text."""
    if typed.lower() == "null" and (kind.null or not (kind.path and exists(typed))):
        return "null"
    if kind.path and exists(typed):
        return literal(plain_path(typed))
    if QUOTED.fullmatch(typed):
        return literal(plain_path("???")) if kind.path and typed[1:-1] == "???" else typed
    if kind.path and not typed:
        raise ConfigError(f"{key} is empty: type a name after {key}=, or leave {key} out")
    if not typed.startswith("\\\\"):  # a network path of Windows: \\server\share
        typed = ESCAPED.sub(r"\1", typed)
    typed = plain_path(typed) if kind.path else typed
    return _in_quotes(typed) if re.search(r"\$\{[^}]+\}", typed) else literal(typed)


def any_value(typed: str, *, sweeping: bool) -> str:
    """Return the text with which hydra reads a value of any type.

    What hydra's grammar can read stays as typed. Anything else becomes a text, or a list or mapping of texts.
    """
    if parses(f"x={typed}") or CASTS.match(typed) or SWEEPS.match(typed):
        return typed
    if typed.startswith("{") and typed.endswith("}"):
        pairs = [item.partition(":") for item in split_at_commas(typed[1:-1], False)]
        mapping = ",".join(f"{key}:{any_value(value.strip(), sweeping=False)}" for key, _, value in pairs)
        return f"{{{mapping}}}" if parses(f"x={{{mapping}}}") else typed
    parts = split_at_commas(typed, False) if sweeping else [typed]
    if len(parts) > 1:
        return ",".join(any_value(part.strip(), sweeping=False) for part in parts)
    if is_list(typed):
        items = split_at_commas(typed.strip()[1:-1], False)
        return f"[{','.join(any_value(item.strip(), sweeping=False) for item in items)}]"
    return _in_quotes(typed)


def parses(override: str) -> bool:
    """Return whether hydra's grammar can read an override."""
    try:
        OverridesParser.create().parse_override(override)
    except (HydraException, RecursionError):
        return False
    return True


def is_list(typed: str) -> bool:
    """Return whether the entire text is one list `[…]`; `[1] a.jpg` and `[1] and [2]` are not."""
    typed = typed.strip()
    if len(typed) < 2 or typed[0] != "[" or typed[-1] != "]":
        return False
    closed = next((at for at, depth in _depths(typed, "[]") if depth == 0), len(typed) - 1)
    return typed[closed + 1 :].lstrip()[:1] in ("", ",", "]")


def split_at_commas(typed: str, paths: bool) -> list[str]:
    """Split the inside of a list at its commas, except in quotes, in brackets and in names of existing files."""
    depths = list(_depths(typed))
    balanced = bool(depths) and depths[-1][1] == 0 and all(depth >= 0 for _, depth in depths)
    cuts = [at for at, depth in depths if typed[at] == "," and (depth == 0 or not balanced)]
    parts = [typed[start + 1 : end] for start, end in zip([-1, *cuts], [*cuts, len(typed)], strict=True)]
    return _joined(parts) if paths else parts


def _joined(parts: list[str]) -> list[str]:
    """Join parts again that together, but not alone, are the name of an existing file."""
    joined, at = [], 0
    while at < len(parts):
        end = at + 1
        if not exists(parts[at].strip()):
            ends = (end for end in range(len(parts), at + 1, -1) if exists(",".join(parts[at:end]).strip()))
            end = next(ends, end)
        joined.append(",".join(parts[at:end]))
        at = end
    return joined


def _depths(typed: str, brackets: str = "[({])}") -> Iterator[tuple[int, int]]:
    """Yield (index, depth of brackets after it) for every character outside quotes.

    A quote opens only at the beginning of an item.
    """
    depth, at, opens = 0, 0, True
    while at < len(typed):
        if opens and (found := QUOTED.match(typed, at)) and re.match(r"\s*([,\]]|$)", typed[found.end() :]):
            at = found.end()
            opens = False
            continue
        if typed[at] in brackets:
            depth += 1 if typed[at] in "[({" else -1
        yield at, depth
        opens = typed[at] in ",[" or (opens and typed[at].isspace())
        at += 1
