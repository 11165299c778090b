"""Find settings in a run's config.yaml that conf/ defines as references, such as `root: ${data.root}`.

config.yaml contains values instead of references. If a user changes a value, the settings that refer to it must change
too.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml

from captioning.config.headings import conf_dir
from captioning.config.schemas import TrainConfig
from captioning.config.typed_text import text_kind

_WHOLE = re.compile(r"\$\{([\w.]+)\}")
_PACKAGE = re.compile(r"#\s*@package\s+(\S+)")


def followers(content: Mapping[str, Any], given: Sequence[str]) -> list[str]:
    """Return overrides that restore the references in `content` to settings that the overrides `given` change.

    A reference is restored only if both settings have the same value in `content`. Put these overrides before `given`,
    because `given` may also set one of the referring settings.
    """
    changed = [re.split(r"[=@]", argument.lstrip("+"))[0] for argument in given if re.match(r"[+\w]", argument)]
    found: dict[str, str] = {}
    for key, source in _references(content):
        value = _at(content, source)
        if source in changed and key != source and value is not None and _same(_at(content, key), value):
            found[key] = source
    return [f"{key}=${{{source}}}" for key, source in found.items()]


def _references(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (key, key that it refers to) from every file of conf/ that may be part of the run's configuration."""
    sources = set()
    for path in sorted(conf_dir().rglob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        if "${" not in text:  # most files, whose parsing would take a tenth of a second
            continue
        package_line = _PACKAGE.search(text.partition("\n")[0])
        group = ".".join(path.parent.relative_to(conf_dir()).parts)
        named = package_line[1] if package_line else group
        package = "" if named == "_global_" else named
        leaves = dict(_leaves(yaml.safe_load(text), package))
        targets = {key: value for key, value in leaves.items() if key.endswith("_target_")}
        for key, value in leaves.items():
            reference = _WHOLE.fullmatch(value) if isinstance(value, str) else None
            if not reference:
                continue
            source = reference[1]
            sources.add(source)
            if group == "shared":  # included with @_here_, so its keys are in the group of the including file
                key = key.replace(group, source.partition(".")[0], 1)
            own = f"{key.rpartition('.')[0]}._target_"
            near = [own] if own in targets else list(targets)
            if not near or any(_at(content, each) == targets[each] for each in near):  # otherwise not this file's part
                yield key, source
    for path_key in sources:  # a reader in the user's own module: settings with the same path as the data set's folder
        kind = text_kind(path_key, TrainConfig)
        if kind and kind.path:
            head, folder = path_key.partition(".")[0], _at(content, path_key)
            below = [key for key, value in _leaves(content.get(head), head, lists=False) if _same(value, folder)]
            yield from ((key, path_key) for key in below if key.count(".") > 1)


def _leaves(node: Any, path: str, *, lists: bool = True) -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of every value in nested mappings, and in lists if `lists`."""
    items: Iterable[tuple[Any, Any]]
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
    """Return the value of a dotted key, where a number may be the index into a list; None if there is none."""
    for key in path.split("."):
        if isinstance(node, list) and key.isdecimal() and int(key) < len(node):
            node = node[int(key)]
        else:
            node = node.get(key) if isinstance(node, Mapping) else None
    return node


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and one == other
