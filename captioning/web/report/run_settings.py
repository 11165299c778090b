"""Read a run's config.yaml, which may come from a stranger, and build its readers of data and features."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from captioning.config import allowed_as_reader, build
from captioning.errors import ConfigError, DataError


def read_settings(file: Path) -> dict[str, Any]:
    """A run's config.yaml as plain containers.

    Raises:
        DataError: it is missing, or not one.
    """
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"there is no {file}: give the run_dir of a training") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"cannot read {file} ({' '.join(str(error).split())[:200]})") from error
    for group, key in (("data", "reader"), ("data", "name"), ("features", "_target_")):
        if not isinstance(content, dict) or not isinstance(content.get(group), dict) or key not in content[group]:
            raise DataError(
                f"{file} is not the configuration of a run that captions pictures: {group}.{key} is missing"
            )
    return content


def moved(node: Any, old: Any, new: str | None) -> Any:
    """Settings with a root folder, and what lies in it, in another place; as they are where none is given."""
    if new is None or not isinstance(old, str):
        return node
    if isinstance(node, Mapping):
        return {key: moved(value, old, new) for key, value in node.items()}
    inside = isinstance(node, str) and (node == old or node.startswith(f"{old}/"))
    return new + node[len(old) :] if inside else node


def build_reader(node: Any, **late: Any) -> Any:
    """As `build`, out of a run's own configuration, which may be a stranger's.

    Raises:
        ConfigError: it names anything but a reader of data or features.
    """
    target = node.get("_target_") if isinstance(node, Mapping) else None
    if not allowed_as_reader(target):
        raise ConfigError(f"config.yaml asks to build {target!r:.100}: only this package's readers of data are built")
    if any(isinstance(value, dict | list) and "_target_" in str(value) for value in node.values()):
        raise ConfigError(f"config.yaml asks to build something inside {target}: a reader takes plain settings")
    return build(node, **late)
