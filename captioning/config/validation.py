"""Find every fault in settings: compare them with a schema and with the signatures of the parts that they name."""

import dataclasses
import difflib
import inspect
import shlex
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from captioning.config.allowlist import OWN_PARTS, allowed_in_settings, locate
from captioning.errors import ConfigError

# By annotation: the types of the values that fit, as a configuration holds them.
PLAIN = {int: (int,), float: (int, float), str: (str,), bool: (bool,), type(None): (type(None),), dict: (dict,)}
PLAIN |= {list: (list,), Path: (str,)}
NAMES = {type(None): "null", Path: "str"}
# Parts that commands build before they use them; the others, such as a search, they call as functions.
BUILT_WHOLE = {"task", "model", "encoder", "transform", "objective", "trainer", "early_stopping", "weight_averaging"}
BUILT_WHOLE |= {"metrics", "reward", "teacher", "reader", "download"}
FLAGS = {"_partial_": bool, "_recursive_": bool, "_convert_": str}  # hydra's, beside a `_target_`


def schema_faults(node: Any, schema: type, path: str) -> Iterator[str]:
    """All that is wrong with a group of settings, by dotted name below `path`: unknown keys, missing ones, wrong types,
    and arguments that the signature of a `_target_` does not take.
    """
    hints = typing.get_type_hints(schema)
    fields = {field.name: hints[field.name] for field in dataclasses.fields(schema)}
    for key in node.keys() - fields.keys():
        yield unknown_key(f"{path}{key}", [f"{path}{field}" for field in fields])
    for key, kind in fields.items():
        kind = _variant(kind, node.get(key))
        if key not in node:
            yield f"{path}{key} is not set"
        elif dataclasses.is_dataclass(kind):
            if not isinstance(node[key], dict):
                yield f"{path}{key} must be a group of settings, not {node[key]!r}"
            else:
                yield from schema_faults(node[key], kind, f"{path}{key}.")
        else:
            yield from _value_faults(node[key], kind, f"{path}{key}")
            if key in BUILT_WHOLE and isinstance(node[key], dict) and node[key].get("_partial_"):
                yield f"{path}{key}._partial_ must be left out: {path}{key} is built as a whole"
            beside = getattr(schema, "beside_target", {}).get(key, {}) if isinstance(node[key], dict) else {}
            for name, its_kind in beside.items():
                yield from _value_faults(node[key].get(name), its_kind, f"{path}{key}.{name}")
            rest = {name: value for name, value in node[key].items() if name not in beside} if beside else node[key]
            yield from _target_faults(rest, f"{path}{key}")


def _variant(kind: Any, node: Any) -> Any:
    """Of several schemas, the one that knows most of a node's keys; any other kind as it is."""
    schemas = [each for each in typing.get_args(kind) if dataclasses.is_dataclass(each)]
    keys = set(node) if isinstance(node, dict) else set()
    return max(schemas, key=lambda each: len(keys & typing.get_type_hints(each).keys()), default=kind)


def _target_faults(node: Any, path: str) -> Iterator[str]:
    """Holds every `_target_` node below `node` against the signature of its target."""
    if isinstance(node, list):
        for index, item in enumerate(node):
            yield from _target_faults(item, f"{path}[{index}]")
    if not isinstance(node, dict):
        return
    if "_target_" in node:
        yield from _signature_faults(node, path)
    for key, value in node.items():
        yield from _target_faults(value, f"{path}.{key}")


def _signature_faults(node: dict, path: str) -> Iterator[str]:
    named = node["_target_"]
    try:
        if not allowed_in_settings(named):
            if str(named).startswith("captioning."):
                locate(named)  # a slip in its name is told as such
            raise ConfigError(f"'{named}' is not built: {OWN_PARTS}")
        target = locate(named)
    except ConfigError as error:
        yield f"{path}._target_: {error}"
        return
    parameters = inspect.signature(target).parameters
    hints = _hints(target)
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for key in FLAGS.keys() & node.keys():
        yield from _value_faults(node[key], FLAGS[key], f"{path}.{key}")
    for key in node.keys() - {"_target_", *FLAGS}:
        if key in parameters:
            yield from _value_faults(node[key], hints.get(key, Any), f"{path}.{key}")
            if isinstance(node[key], dict) and node[key].get("_partial_") and not _may_be_called(hints.get(key, Any)):
                yield f"{path}.{key}._partial_ must be left out: {path}.{key} is built as a whole"
        elif not takes_any:
            yield unknown_key(f"{path}.{key}", [f"{path}.{name}" for name in parameters])


def _may_be_called(kind: Any) -> bool:
    """Whether an annotation may stand for a function: anything but classes."""
    members = [member for member in _members(kind) if member is not type(None)]
    return any(member in (Any, object, Callable) or not inspect.isclass(member) for member in members)


def _value_faults(value: Any, kind: Any, path: str) -> Iterator[str]:
    """Wrong types among plain values and the items of lists; anything but plain annotations is left to the constructor.

    A `_target_` node may stand for any value.
    """
    kinds = _members(kind)
    if isinstance(value, dict) and "_target_" in value:
        return
    origins = [typing.get_origin(each) or each for each in kinds]
    if set(origins) - {type(None)} == {Callable} and value is not None:
        yield f"{path} must be a part, a group with _target_, not {value!r:.60}"
        return
    if not all(origin in PLAIN for origin in origins):
        if value is None and not {type(None), None, Any, object, inspect.Parameter.empty} & set(kinds):
            yield f"{path} must not be null"
        return
    fitting = [each for each, origin in zip(kinds, origins, strict=True) if _is(value, PLAIN[origin])]
    if not fitting:
        names = " or ".join(dict.fromkeys(NAMES.get(origin, origin.__name__) for origin in origins))
        yield f"{path} must be {names}, not {'null' if value is None else repr(value)}{_advice(value, kinds, path)}"
    elif isinstance(value, list):
        yield from _item_faults(value, fitting[0], path)
    elif isinstance(value, dict) and typing.get_args(fitting[0]):
        for key, item in value.items():
            yield from _value_faults(item, typing.get_args(fitting[0])[1], f"{path}.{key}")


def _members(kind: Any) -> list[Any]:
    """The members of a union, or the annotation itself; sequences and mappings of plain values as lists and dicts.

    Sequences of ids are left as they are: in a configuration they are words.
    """
    kind = _bare(kind)
    members = typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else [kind]
    plain = {Sequence[str]: list[str], Sequence[float]: list[float], Mapping[str, str]: dict[str, str]}
    return [
        plain.get(member, member) if typing.get_origin(member) in (Sequence, Mapping) else member for member in members
    ]


def _bare(kind: Any) -> Any:
    """An annotation without what `Annotated` adds to it."""
    return kind.__origin__ if typing.get_origin(kind) is typing.Annotated else kind


def _is(value: Any, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and not (isinstance(value, bool) and bool not in kinds)


def _item_faults(items: list[Any], kind: Any, path: str) -> Iterator[str]:
    """Items of another type than the annotation's, by their places."""
    its_kind = _bare((typing.get_args(kind) or (Any,))[0])
    for place, item in enumerate(items):
        for fault in _value_faults(item, its_kind, f"{path}[{place}]"):
            text = "null" if item is None else item
            of_text = its_kind is str and not isinstance(text, list | dict)
            typed = shlex.quote(f"{path}=[{_double_quoted(text)}]")
            yield f"{fault.partition(': type ')[0]}: type {typed} for that text" if of_text else fault


def _advice(value: Any, kinds: list[Any], path: str) -> str:
    """What to type instead of a text that is no list, or of a number that is no text."""
    if value is None:
        return "" if path.endswith("]") else ": leave it out, or give a value"
    if isinstance(value, str) and any(_bare(item) is str for kind in kinds for item in typing.get_args(kind)):
        return f": type {shlex.quote(f'{path}=[{value}]')}"
    if str in kinds and isinstance(value, int | float):
        return f": type {shlex.quote(f'{path}={_double_quoted(value)}')} for that text"
    return ""


def _double_quoted(value: Any) -> str:
    return f'"{str(value).lower() if isinstance(value, bool) else value}"'


def unknown_key(key: str, known: list[str]) -> str:
    """What to say of a key that is none of those known, with the nearest of them."""
    # A key of the same last name in another place is the likeliest slip.
    leaf = [other for other in known if other.rpartition(".")[2] == key.rpartition(".")[2]]
    nearest = difflib.get_close_matches(key, leaf or known, n=1, cutoff=0.0 if leaf else 0.5)
    return f"unknown configuration key '{key}'" + (f": did you mean '{nearest[0]}'?" if nearest else "")


def _hints(target: Any) -> dict[str, Any]:
    function = target.__init__ if inspect.isclass(target) else target
    # What only passes arguments on may tell a signature of its own (captioning.training.lightning_arguments).
    told = {name: parameter.annotation for name, parameter in inspect.signature(target).parameters.items()}
    hints = {name: hint for name, hint in told.items() if hint is not inspect.Parameter.empty}
    try:
        return hints | typing.get_type_hints(function)
    except (NameError, TypeError):  # a library whose annotations cannot be resolved: names are still checked
        return {}
