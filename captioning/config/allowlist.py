"""Decide which classes and functions a `_target_` in a configuration may name.

A configuration names classes and functions by text, and a text can name any function in Python. Allowed are this
package's public parts, torch's optimizers, Lightning's callbacks, and modules that the user names (`plugins`). The only
list of this package's parts is `PARTS` in `captioning/FOLDER/__init__.py`. A checkpoint may come from a stranger, so it
may name less: parts of a model, and classes of `captioning.data`, such as the image transform.
"""

import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import yaml

from captioning.errors import ConfigError
from captioning.io import need_package

PACKAGE = Path(__file__).parents[1]
# Module of another library -> base class. Its classes that derive from the base class are allowed.
LIBRARIES = {
    "torch.optim": "torch.optim.Optimizer",
    "lightning.pytorch.callbacks": "lightning.pytorch.callbacks.Callback",
}
DEEPEST = 50  # levels of nesting
INTERPOLATION = "${"  # hydra resolves it while it builds, and omegaconf's oc.create makes a new node from a text
# A file from a stranger could call any function of these libraries if a user were persuaded to name them as plug-ins.
NOT_PLUGINS = sys.stdlib_module_names | {
    "captioning",
    "torch",
    "torchvision",
    "lightning",
    "numpy",
    "hydra",
    "omegaconf",
}
_plugins: ContextVar[tuple[str, ...]] = ContextVar("plugins", default=())


def locate(target: str) -> Any:
    """Return the class or function with a dotted name.

    Importing a module runs its code, so call `allowed_in_settings` first.

    Raises:
        ConfigError: nothing has this name.
    """
    module, name = _parted(target)
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, ValueError, AttributeError) as error:
        nearest = difflib.get_close_matches(name, parts_of(module), n=1)
        advice = f"did you mean '{module}.{nearest[0]}'?" if nearest else "check its spelling"
        raise ConfigError(f"cannot find '{target}' ({error}): {advice}") from error


def not_allowed(target: Any) -> ConfigError:
    """Return the error for a `_target_` that a configuration may not name."""
    return ConfigError(
        f"{target!r:.100} is not built: it must be a part of this package, a torch optimizer, a Lightning callback, or "
        "a part of your own module with plugins=[MODULE]"
    )


def allowed_in_settings(target: Any) -> bool:
    """Return whether a run's settings may name this target.

    Only modules of this package, of `LIBRARIES` and of plug-ins are imported.

    Raises:
        ConfigError: the target is Lightning's, and Lightning is not installed.
    """
    module, name = _parted(target)
    if name.startswith("_"):
        return False
    if module in LIBRARIES:
        need_package(module.partition(".")[0], extra="train", wanted_by=target)
        found, base = getattr(importlib.import_module(module), name, None), locate(LIBRARIES[module])
        return inspect.isclass(found) and issubclass(found, base)
    return name in parts_of(module) or _of_plugin(target)


def allowed_in_checkpoint(target: Any) -> bool:
    """Return whether a checkpoint may name this target.

    Allowed are the parts of `captioning.models`, the classes of `captioning.data`, and classes of plug-ins.
    """
    module, name = _parted(target)
    if module == "captioning.models":
        return name in parts_of(module)
    if module == "captioning.data":
        return name in parts_of(module) and inspect.isclass(locate(target))
    # A stranger's checkpoint may name only classes of a plug-in, in modules that are imported already.
    return module in sys.modules and _of_plugin(target) and inspect.isclass(locate(target))


def allowed_as_reader(target: Any) -> bool:
    """Return whether a run's config.yaml may name this target as a reader of data or features, or as a score."""
    module, name = _parted(target)
    faces = ("captioning.data", "captioning.features", "captioning.metrics")
    return (module in faces and name in parts_of(module)) or _of_plugin(target)


def parts_of(face: str) -> set[str]:
    """Return the `PARTS` of a folder such as `captioning.models`; an empty set for any other module."""
    package, _, folder = face.partition(".")
    if package != "captioning" or not folder.isidentifier() or not (PACKAGE / folder / "__init__.py").is_file():
        return set()
    parts = getattr(importlib.import_module(face), "PARTS", {})
    return {name for names in parts.values() for name in names}


@contextmanager
def plugins_allowed(names: Sequence[str] | str | None, *, look_here: bool = False) -> Iterator[None]:
    """Allow configurations and checkpoints to name parts of these modules and their submodules, inside a `with` block.

    Args:
        names: names of modules that the user wrote or trusts. They are imported, which runs their code.
        look_here: search the current folder too, as `python` does.

    Raises:
        ConfigError: a text that is not a module name, or a module that cannot be imported.
    """
    names = [names] if isinstance(names, str) else () if names is None else names
    if not isinstance(names, list | tuple):
        raise ConfigError(f"plugins must be a list of modules, such as [my_parts], not {names!r:.80}")
    if names and look_here and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    for name in names:
        parts = name.split(".") if isinstance(name, str) else [""]
        if not all(part.isidentifier() for part in parts) or parts[1:] == ["py"]:
            raise ConfigError(f"plugins: {name!r:.80} is not a module name: give plugins=[my_parts] for my_parts.py")
        if parts[0] in NOT_PLUGINS:
            raise ConfigError(f"plugins=[{name}]: {parts[0]} is a library: name only modules of your own")
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ConfigError(
                f"plugins=[{name}]: cannot import this module ({error}): install it, or start in the folder of "
                f"{name}.py"
            ) from error
        except SystemExit as error:  # otherwise the command would end with its status, which may be 0
            raise ConfigError(
                f"plugins=[{name}]: importing this module ends the program (SystemExit: {error.code}): move its code "
                "below `if __name__ == '__main__':`"
            ) from error
        except SyntaxError as error:
            where = f"{error.filename}, line {error.lineno}"
            raise ConfigError(f"plugins=[{name}]: {error.msg} ({where}): correct this line") from error
    token = _plugins.set((*_plugins.get(), *names))
    try:
        yield
    finally:
        _plugins.reset(token)


def allowed_plugins() -> tuple[str, ...]:
    """Return the names of the modules that `plugins_allowed` currently allows."""
    return _plugins.get()


def plugins_in(nodes: Iterable[Any]) -> list[str]:
    """Return the modules outside this package and `LIBRARIES` that the targets of the nodes are in."""
    named = {_parted(target)[0] for node in nodes for target in targets(node)}
    return sorted(name for name in named if name.partition(".")[0] != "captioning" and name not in LIBRARIES)


def missing_plugins(names: Iterable[str]) -> list[str]:
    """Return the modules that `plugins_allowed` does not currently allow."""
    return [name for name in names if not _is_plugin(name)]


def check_settings_file(path: Path) -> None:
    """Check a run's config.yaml before hydra reads it.

    A run writes neither hydra's own settings, which name classes to build, nor other files to include, nor targets that
    are not allowed. A file with any of these is refused.

    Raises:
        ConfigError: names the file and what it contains.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"cannot read {path} as YAML ({reason}): give the config.yaml of a run") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} does not contain settings: give the config.yaml of a run")
    if others := {"hydra", "defaults"} & content.keys():
        raise ConfigError(
            f"{path} contains {', '.join(sorted(others))}, which the config.yaml of a run never does: give the file "
            "that the run wrote"
        )
    try:
        wrong = [target for target in targets(content) if not allowed_in_settings(target)]
        if wrong:
            raise not_allowed(wrong[0])
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def targets(node: Any, depth: int = 0) -> Iterator[Any]:
    """Yield every `_target_` in a node and below it.

    Raises:
        ConfigError: the node contains anything but dictionaries, lists and plain values, or a text that refers to
            another value, which could hide a target.
    """
    if depth > DEEPEST:
        raise ConfigError(f"the configuration is nested too deeply: at most {DEEPEST} levels are allowed")
    if isinstance(node, dict):
        if "_target_" in node:
            yield node["_target_"]
        for key, value in node.items():
            _plain(key)
            yield from targets(value, depth + 1)
    elif isinstance(node, list):
        for value in node:
            yield from targets(value, depth + 1)
    else:
        _plain(node)


def _parted(target: Any) -> tuple[str, str]:
    """Split "captioning.models.LSTM" into ("captioning.models", "LSTM"); return ("", "") for anything else."""
    module, _, name = target.rpartition(".") if isinstance(target, str) else ("", "", "")
    return (module, name) if module else ("", "")


def _is_plugin(module: str) -> bool:
    return any(module == plugin or module.startswith(f"{plugin}.") for plugin in _plugins.get())


def _of_plugin(target: Any) -> bool:
    """Return whether a named plug-in itself defines the target; its imports, such as `os.system`, do not count."""
    module, _ = _parted(target)
    if not _is_plugin(module) or any(part.startswith("_") for part in target.split(".")):
        return False
    try:
        found = locate(target)
    except ConfigError:
        return False
    return callable(found) and _is_plugin(str(getattr(found, "__module__", "")))


def _plain(value: Any) -> None:
    if type(value) not in (str, int, float, bool, type(None)):
        raise ConfigError(
            f"the configuration contains a {type(value).__name__}: use only texts, numbers, true, false, null"
        )
    if isinstance(value, str) and INTERPOLATION in value:
        raise ConfigError(
            f"the text {value!r:.80} refers to another value with {INTERPOLATION}: write the value itself"
        )
