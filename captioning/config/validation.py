"""Find every fault in settings: compare them with a schema and with the signatures of the targets that they name."""

import dataclasses
import difflib
import inspect
import shlex
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from captioning.config.allowlist import allowed_in_settings, locate, not_allowed
from captioning.errors import ConfigError

# Annotation -> types of the values in a configuration that fit it.
PLAIN: dict[Any, tuple[type, ...]] = {
    int: (int,),
    float: (int, float),
    str: (str,),
    bool: (bool,),
    type(None): (type(None),),
    dict: (dict,),
    list: (list,),
    Path: (str,),
}
NAMES: dict[Any, str] = {type(None): "null", Path: "str"}
# Parts that commands need as objects. Other parts, such as a search, they need as functions (`_partial_: true`).
OBJECTS = {"task", "model", "encoder", "transform", "objective", "trainer", "early_stopping", "weight_averaging"}
OBJECTS |= {"metrics", "reward", "teacher", "reader", "download"}
FLAGS: dict[str, type] = {"_partial_": bool, "_recursive_": bool, "_convert_": str}  # hydra's, beside a `_target_`


def schema_faults(node: Any, schema: type, path: str) -> Iterator[str]:
    """Yield one message per fault in a group of settings, with the dotted name of the key.

    Faults are unknown keys, missing keys, wrong types, and arguments that the signature of a `_target_` does not have.

    Args:
        node: the settings.
        schema: dataclass of the group.
        path: dotted name of the group with a dot at its end; "" for the root.
    """
    hints = typing.get_type_hints(schema)
    fields = {field.name: hints[field.name] for field in dataclasses.fields(schema)}
    for key in node.keys() - fields.keys():
        yield unknown_key(f"{path}{key}", [f"{path}{field}" for field in fields])
    for key, kind in fields.items():
        kind = _variant(kind, node.get(key))
        if key not in node:
            yield f"{path}{key} is not set: give {path}{key}=VALUE"
        elif dataclasses.is_dataclass(kind):
            if not isinstance(node[key], dict):
                yield f"{path}{key} must be a group of settings, not {node[key]!r}"
            else:
                yield from schema_faults(node[key], typing.cast(type, kind), f"{path}{key}.")
        else:
            yield from _value_faults(node[key], kind, f"{path}{key}")
            if key in OBJECTS and isinstance(node[key], dict) and node[key].get("_partial_"):
                yield _not_partial(f"{path}{key}")
            beside = getattr(schema, "beside_target", {}).get(key, {}) if isinstance(node[key], dict) else {}
            for name, its_kind in beside.items():
                yield from _value_faults(node[key].get(name), its_kind, f"{path}{key}.{name}")
            rest = {name: value for name, value in node[key].items() if name not in beside} if beside else node[key]
            yield from _target_faults(rest, f"{path}{key}")


def _variant(kind: Any, node: Any) -> Any:
    """Return the schema, of a union of schemas, that has most keys of a node; return any other kind as it is."""
    schemas: list[Any] = [each for each in typing.get_args(kind) if dataclasses.is_dataclass(each)]
    keys = set(node) if isinstance(node, dict) else set()
    return max(schemas, key=lambda each: len(keys & typing.get_type_hints(each).keys()), default=kind)


def _not_partial(path: str) -> str:
    return f"{path}._partial_ must be left out: the command needs {path} as an object, not as a function"


def _target_faults(node: Any, path: str) -> Iterator[str]:
    """Compare every `_target_` node in `node` with the signature of its target."""
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
                locate(named)  # reports a misspelled name
            raise not_allowed(named)
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
                yield _not_partial(f"{path}.{key}")
        elif not takes_any:
            yield unknown_key(f"{path}.{key}", [f"{path}.{name}" for name in parameters])


def _may_be_called(kind: Any) -> bool:
    """Return whether a value of this annotation may be a function: not if every member is a class."""
    members = [member for member in _members(kind) if member is not type(None)]
    return any(member in (Any, object, Callable) or not inspect.isclass(member) for member in members)


def _value_faults(value: Any, kind: Any, path: str) -> Iterator[str]:
    """Yield wrong types of plain values and of the items of lists. Other annotations are left to the constructor.

    A `_target_` node fits any annotation.
    """
    kinds = _members(kind)
    if isinstance(value, dict) and "_target_" in value:
        return
    origins = [typing.get_origin(each) or each for each in kinds]
    if set(origins) - {type(None)} == {Callable} and value is not None:
        yield f"{path} must be a group with _target_, not {value!r:.60}"
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
    """Return the members of a union, or [annotation]. Sequences and mappings of plain values become lists and dicts.

    Sequences of ids stay as they are: in a configuration they are words.
    """
    kind = _bare(kind)
    members = typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else [kind]
    plain = {Sequence[str]: list[str], Sequence[float]: list[float], Mapping[str, str]: dict[str, str]}
    return [
        plain.get(member, member) if typing.get_origin(member) in (Sequence, Mapping) else member for member in members
    ]


def _bare(kind: Any) -> Any:
    """Remove `Annotated` from an annotation."""
    return kind.__origin__ if typing.get_origin(kind) is typing.Annotated else kind


def _is(value: Any, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and not (isinstance(value, bool) and bool not in kinds)


def _item_faults(items: list[Any], kind: Any, path: str) -> Iterator[str]:
    """Yield the items of a list that have another type than the annotation, with their index."""
    its_kind = _bare((typing.get_args(kind) or (Any,))[0])
    for index, item in enumerate(items):
        for fault in _value_faults(item, its_kind, f"{path}[{index}]"):
            text = "null" if item is None else item
            of_text = its_kind is str and not isinstance(text, list | dict)
            typed = shlex.quote(f"{path}=[{_double_quoted(text)}]")
            yield f"{fault.partition(': type ')[0]}: type {typed} for that text" if of_text else fault


def _advice(value: Any, kinds: list[Any], path: str) -> str:
    """Return what to type instead of a text where a list is expected, or of a number where a text is expected."""
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
    """Return the message for an unknown key, with the nearest known key."""
    # A known key with the same last part in another group is the most likely intention.
    leaf = [other for other in known if other.rpartition(".")[2] == key.rpartition(".")[2]]
    nearest = difflib.get_close_matches(key, leaf or known, n=1, cutoff=0.0 if leaf else 0.5)
    return f"there is no setting '{key}': " + (f"did you mean '{nearest[0]}'?" if nearest else "remove it")


def _hints(target: Any) -> dict[str, Any]:
    function = target.__init__ if inspect.isclass(target) else target
    # A function that only passes its arguments on may declare its signature (captioning.training.lightning_arguments).
    annotations = {name: parameter.annotation for name, parameter in inspect.signature(target).parameters.items()}
    hints = {name: hint for name, hint in annotations.items() if hint is not inspect.Parameter.empty}
    try:
        return hints | typing.get_type_hints(function)
    except (NameError, TypeError):  # annotations of a library that cannot be resolved: only the names are checked
        return {}
