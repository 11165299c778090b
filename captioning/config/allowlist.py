"""Decide what a `_target_` may name: parts on this package's faces, a few of other libraries, and named plug-ins.

A configuration names classes and functions by text, and a text can name any function there is. A face
(`captioning/FOLDER/__init__.py`) lists in `PARTS` what a configuration may build; there is no other list. A checkpoint
may come from a stranger, so it may name less: parts of a model, and the class that turns an image into the encoder's
input. Modules of the user's own are allowed only where the user names them (`plugins`).
"""

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

PACKAGE = Path(__file__).parents[1]
# Of other libraries: classes derived from the second, where the first offers them.
LIBRARIES = {
    "torch.optim": "torch.optim.Optimizer",
    "lightning.pytorch.callbacks": "lightning.pytorch.callbacks.Callback",
}
DEEPEST = 50
OWN_PARTS = (
    "only the parts on this package's faces, torch's optimizers, Lightning's callbacks, and modules named by "
    "plugins=[…] are built"
)
INTERPOLATION = "${"  # hydra resolves it while it builds, and omegaconf's oc.create makes a new node of a text
# A file that a stranger wrote could have any function of these called, if a user could be talked into naming them.
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
    """Return what a dotted name stands for.

    Raises:
        ConfigError: nothing has this name. Importing a module runs it: ask `allowed_in_settings` first.
    """
    module, name = _parted(target)
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, ValueError, AttributeError) as error:
        raise ConfigError(f"cannot find '{target}' ({error})") from error


def allowed_in_settings(target: Any) -> bool:
    """Tell whether a run's settings may name this. Imports nothing but this package, the libraries and plug-ins."""
    module, name = _parted(target)
    if name.startswith("_"):
        return False
    if module in LIBRARIES:
        found, base = getattr(importlib.import_module(module), name, None), locate(LIBRARIES[module])
        return inspect.isclass(found) and issubclass(found, base)
    return name in parts_of(module) or _of_plugin(target)


def allowed_in_checkpoint(target: Any) -> bool:
    """Tell whether a checkpoint may name this: parts of `captioning.models`, classes of data and of plug-ins."""
    module, name = _parted(target)
    if module == "captioning.models":
        return name in parts_of(module)
    if module == "captioning.data":
        return name in parts_of(module) and inspect.isclass(locate(target))
    # Of a plug-in a stranger may choose less than its user: classes, in modules that the user's naming has imported.
    return module in sys.modules and _of_plugin(target) and inspect.isclass(locate(target))


def allowed_as_reader(target: Any) -> bool:
    """Tell whether a run's config.yaml may name this as what reads its data or features or scores its captions."""
    module, name = _parted(target)
    faces = ("captioning.data", "captioning.features", "captioning.metrics")
    return (module in faces and name in parts_of(module)) or _of_plugin(target)


def parts_of(face: str) -> set[str]:
    """Return what a configuration may build of a face such as `captioning.models`; nothing of any other module."""
    package, _, folder = face.partition(".")
    if package != "captioning" or not folder.isidentifier() or not (PACKAGE / folder / "__init__.py").is_file():
        return set()
    parts = getattr(importlib.import_module(face), "PARTS", {})
    return {name for names in parts.values() for name in names}


@contextmanager
def plugins_allowed(names: Sequence[str] | str | None, *, look_here: bool = False) -> Iterator[None]:
    """Within it, configurations and checkpoints may also name what these modules define, and their submodules.

    Args:
        names: of modules that the user wrote or trusts; they are imported, which runs them.
        look_here: whether modules are also searched in the current folder, as `python` would do.

    Raises:
        ConfigError: a name that is none, or a module that cannot be imported.
    """
    names = [names] if isinstance(names, str) else () if names is None else names
    if not isinstance(names, list | tuple):
        raise ConfigError(f"plugins must be a list of modules, such as [my_parts], not {names!r:.80}")
    if names and look_here and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    for name in names:
        parts = name.split(".") if isinstance(name, str) else [""]
        if not all(part.isidentifier() for part in parts) or parts[1:] == ["py"]:
            raise ConfigError(f"plugins: {name!r:.80} is no name of a module: give plugins=[my_parts] for my_parts.py")
        if parts[0] in NOT_PLUGINS:
            raise ConfigError(f"plugins=[{name}]: {parts[0]} is a library, and not a module of parts of your own")
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ConfigError(
                f"plugins=[{name}]: cannot import this module ({error}): install it, or start where {name}.py is"
            ) from error
        except SystemExit as error:  # else its status, which may be 0, would become the command's
            raise ConfigError(
                f"plugins=[{name}]: importing this module ends the program (SystemExit: {error.code}): put what it "
                "does below `if __name__ == '__main__':`"
            ) from error
        except SyntaxError as error:
            where = f"{error.filename}, line {error.lineno}"
            raise ConfigError(f"plugins=[{name}]: cannot import this module: {error.msg} ({where})") from error
    token = _plugins.set((*_plugins.get(), *names))
    try:
        yield
    finally:
        _plugins.reset(token)


def allowed_plugins() -> tuple[str, ...]:
    """Return the names of the modules that `plugins_allowed` allows here."""
    return _plugins.get()


def plugins_in(nodes: Iterable[Any]) -> list[str]:
    """Return the modules outside this package and its libraries that the nodes build something of."""
    named = {_parted(target)[0] for node in nodes for target in targets(node)}
    return sorted(name for name in named if name.partition(".")[0] != "captioning" and name not in LIBRARIES)


def missing_plugins(names: Iterable[str]) -> list[str]:
    """Return those modules that `plugins_allowed` does not allow here."""
    return [name for name in names if not _is_plugin(name)]


def check_settings_file(path: Path) -> None:
    """Refuse a run's config.yaml that is more than that, before hydra reads it: hydra's own settings, which name
    classes to build as well, other files to join, or targets that are not built.

    Raises:
        ConfigError: it names the file and what it holds.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"cannot read {path} as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict) or (others := {"hydra", "defaults"} & content.keys()):
        held = f"holds {', '.join(sorted(others))}" if isinstance(content, dict) else "is no mapping of settings"
        raise ConfigError(f"{path} {held}, as the config.yaml of a run never does: it is not read")
    try:
        wrong = [target for target in targets(content) if not allowed_in_settings(target)]
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    if wrong:
        raise ConfigError(f"{path}: {wrong[0]!r:.100} is not built: {OWN_PARTS}")


def targets(node: Any, depth: int = 0) -> Iterator[Any]:
    """Yield all that is named to be built in a node.

    Raises:
        ConfigError: something else than dictionaries, lists and plain values, or a text that stands for another one: a
            target could hide in it.
    """
    if depth > DEEPEST:
        raise ConfigError(f"a configuration is nested at most {DEEPEST} deep")
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
    """("captioning.models", "LSTM") of a dotted name; ("", "") of anything else."""
    module, _, name = target.rpartition(".") if isinstance(target, str) else ("", "", "")
    return (module, name) if module else ("", "")


def _is_plugin(module: str) -> bool:
    return any(module == plugin or module.startswith(f"{plugin}.") for plugin in _plugins.get())


def _of_plugin(target: Any) -> bool:
    """Whether a named plug-in defines it: what a plug-in imports, such as `os.system`, is not its own."""
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
        raise ConfigError(f"a configuration holds plain values, not a {type(value).__name__}")
    if isinstance(value, str) and INTERPOLATION in value:
        raise ConfigError(f"the text {value!r:.80} refers to another value by {INTERPOLATION}: write that value itself")
