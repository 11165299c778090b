"""Find every fault in settings: compare them with a schema and with the signatures of the parts that they name."""

import dataclasses
import difflib
import inspect
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any

from captioning.config.allowlist import OWN_PARTS, allowed_in_settings, locate
from captioning.errors import ConfigError

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
        elif not takes_any:
            yield unknown_key(f"{path}.{key}", [f"{path}.{name}" for name in parameters])


def _value_faults(value: Any, kind: Any, path: str) -> Iterator[str]:
    """Wrong types among plain values; anything but plain annotations is left to the constructor."""
    kinds = (
        typing.get_args(kind)
        if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union
        else [kind]
    )
    plain = {int: (int,), float: (int, float), str: (str,), bool: (bool,), type(None): (type(None),), dict: (dict,)}
    plain |= {list: (list,)}
    origins = [typing.get_origin(k) or k for k in kinds]
    if set(origins) - {type(None)} == {Callable} and value is not None:
        if not (isinstance(value, dict) and "_target_" in value):
            yield f"{path} must be a part, a group with _target_, not {value!r:.60}"
        return
    if not all(origin in plain for origin in origins):
        if value is None and not {type(None), None, Any, object, inspect.Parameter.empty} & set(kinds):
            yield f"{path} must not be null"
        return
    fits = any(isinstance(value, plain[o]) and not (isinstance(value, bool) and o in (int, float)) for o in origins)
    if not fits and not (isinstance(value, dict) and "_target_" in value):
        names = " or ".join("null" if origin is type(None) else origin.__name__ for origin in origins)
        yield f"{path} must be {names}, not {value!r}"


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
