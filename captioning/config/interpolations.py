"""Find which settings of a run's config.yaml were written as another one's value (`root: ${data.root}` in conf/).

config.yaml holds the values themselves: where one is changed beside it, those that were made of it have to follow.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from captioning.config.command_line import conf_dir
from captioning.config.schemas import TrainConfig
from captioning.config.typed_text import text_kind

_WHOLE = re.compile(r"\$\{([\w.]+)\}")
_PACKAGE = re.compile(r"#\s*@package\s+(\S+)")


def followers(content: Mapping[str, Any], given: Sequence[str]) -> list[str]:
    """Return overrides that have settings of `content` refer again to those that `given` overrides changes.

    Only what has the other's value follows it. They belong in front of `given`, where a setting may be given by itself.
    """
    changed = [re.split(r"[=@]", argument.lstrip("+"))[0] for argument in given if re.match(r"[+\w]", argument)]
    found: dict[str, str] = {}
    for key, source in _references(content):
        value = _at(content, source)
        if source in changed and key != source and value is not None and _same(_at(content, key), value):
            found[key] = source
    return [f"{key}=${{{source}}}" for key, source in found.items()]


def _references(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(key, the key that it is written as) by all files of conf/ that the run may have been composed of."""
    sources = set()
    for path in sorted(conf_dir().rglob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        head = _PACKAGE.search(text.partition("\n")[0])
        group = ".".join(path.parent.relative_to(conf_dir()).parts)
        package = "" if head and head[1] == "_global_" else head[1] if head else group
        leaves = dict(_leaves(yaml.safe_load(text), package))
        targets = {key: value for key, value in leaves.items() if key.endswith("_target_")}
        for key, value in leaves.items():
            reference = _WHOLE.fullmatch(value) if isinstance(value, str) else None
            if not reference:
                continue
            source = reference[1]
            sources.add(source)
            if group == "shared":  # @_here_: a part of the data set's own file
                key = key.replace(group, source.partition(".")[0], 1)
            beside = f"{key.rpartition('.')[0]}._target_"
            beside = [beside] if beside in targets else list(targets)
            if not beside or any(_at(content, each) == targets[each] for each in beside):  # else another was chosen
                yield key, source
    for source in sources:  # a reader of the user's own: what has the name of a data set's folder stands for it
        kind = text_kind(source, TrainConfig)
        if kind and kind.path:
            head, folder = source.partition(".")[0], _at(content, source)
            below = [key for key, value in _leaves(content.get(head), head, lists=False) if _same(value, folder)]
            yield from ((key, source) for key in below if key.count(".") > 1)


def _leaves(node: Any, path: str, *, lists: bool = True) -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of all that is no mapping; and no list, if lists are gone into."""
    if isinstance(node, Mapping):
        items = node.items()
    elif isinstance(node, list) and lists:
        items = enumerate(node)
    else:
        yield path, node
        return
    for key, value in items:
        yield from _leaves(value, f"{path}.{key}" if path else str(key), lists=lists)


def _at(node: Any, path: str) -> Any:
    """What stands under a dotted key, in which a number may be a place in a list; None where there is nothing."""
    for key in path.split("."):
        if isinstance(node, list) and key.isdecimal() and int(key) < len(node):
            node = node[int(key)]
        else:
            node = node.get(key) if isinstance(node, Mapping) else None
    return node


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and one == other
