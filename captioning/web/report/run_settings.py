"""Read a run's config.yaml, which may come from an untrusted source, and build its readers of data and features."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from captioning.config import allowed_as_reader, build
from captioning.errors import ConfigError, DataError


def read_settings(file: Path) -> dict[str, Any]:
    """Read a run's `config.yaml` as plain containers.

    Raises:
        DataError: the file is missing, damaged, or not the configuration of a captioning run.
    """
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{file} does not exist. Give the folder of a run: run_dir=…") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"cannot read {file} ({reason}). Repair it, or give the folder of another run: run_dir=…"
        ) from error
    for group, key in (("data", "reader"), ("data", "name"), ("features", "_target_")):
        if not isinstance(content, dict) or not isinstance(content.get(group), dict) or key not in content[group]:
            raise DataError(
                f"{file} is not the configuration of a captioning run: {group}.{key} is missing. Give the folder of "
                "another run: run_dir=…"
            )
    return content


def moved(node: Any, old: Any, new: str | None) -> Any:
    """Replace the root folder `old` by `new` in all paths of some settings; without `new`, return them unchanged."""
    if new is None or not isinstance(old, str):
        return node
    if isinstance(node, Mapping):
        return {key: moved(value, old, new) for key, value in node.items()}
    inside = isinstance(node, str) and (node == old or node.startswith(f"{old}/"))
    return new + node[len(old) :] if inside else node


def build_reader(node: Any, **late: Any) -> Any:
    """Build a reader from a run's configuration, which may come from an untrusted source.

    Args:
        node: the part of the configuration.
        **late: further arguments of the reader.

    Raises:
        ConfigError: the configuration names anything other than a reader of data or features of this package.
    """
    target = node.get("_target_") if isinstance(node, Mapping) else None
    if not allowed_as_reader(target):
        name = "nothing" if target is None else f"{target!r:.100}"
        raise ConfigError(f"config.yaml names {name} as a reader. It must be one of this package's readers of data")
    if any(isinstance(value, dict | list) and "_target_" in str(value) for value in node.values()):
        raise ConfigError(f"config.yaml has a _target_ inside the settings of {target}. Remove it: use plain settings")
    return build(node, **late)
