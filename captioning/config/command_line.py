"""Translate a command line as people type it into the arguments that hydra reads.

Besides hydra's `key=value`, a command takes plain arguments (`photo.jpg`) for the keys that it names, and
`--key value`. After `--` every argument is a plain argument.
"""

import difflib
import functools
import re
import shlex
import typing
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import yaml

from captioning.config.headings import conf_dir
from captioning.config.typed_text import (
    TextKind,
    any_value,
    exists,
    hydra_value,
    literal,
    plain_path,
    text_kind,
)
from captioning.errors import ConfigError

# Hydra's own options (hydra._internal.utils.get_args_parser).
SHORT = {"-h": "--help", "-c": "--cfg", "-p": "--package", "-r": "--run", "-m": "--multirun", "-i": "--info"}
SHORT |= {"-sc": "--shell-completion", "-cp": "--config-path", "-cn": "--config-name", "-cd": "--config-dir"}
WITH_VALUE = ["--cfg", "--package", "--config-path", "--config-name", "--config-dir", "--experimental-rerun"]
SWITCHES = ["--help", "--hydra-help", "--version", "--resolve", "--run", "--multirun", "--shell-completion"]
INFO = ["all", "config", "defaults", "defaults-tree", "plugins", "searchpath"]
SETTING = re.compile(r"(?P<sign>\+\+|\+|~)?(?P<key>[A-Za-z_$][\w$./@:-]*)=", re.ASCII)


class Command(NamedTuple):
    """A command, as far as it is known before its settings are composed."""

    name: str
    schema: type
    plain: tuple[str, ...] = ()  # keys of its plain arguments, in order; "images...": all remaining ones

    @property
    def program(self) -> str:
        """The name of its script."""
        return f"captioning-{self.name.replace('_', '-')}"

    def usage(self) -> str:
        """Return the usage line."""
        plain = "".join(f"[{key.upper().replace('...', ' ...')}] " for key in self.plain)
        return f"{self.program} {plain}[KEY=VALUE | --KEY VALUE] ..."


class Setting(NamedTuple):
    """One setting as it was typed."""

    key: str  # including hydra's prefix +, ++ or ~
    values: tuple[str, ...]  # several for a repeated option or plain arguments; none for `~key`
    plain: bool = False  # True: taken literally, quotes included

    @property
    def value(self) -> str:
        """The last value, which counts; "" if there is none."""
        return self.values[-1] if self.values else ""


class CommandLine(NamedTuple):
    """A command line as it was typed: hydra's options and the settings."""

    flags: list[str]
    settings: list[Setting]

    def sweeps(self) -> bool:
        """Return whether this starts a sweep, where commas separate the jobs' values."""
        modes = [each.value.upper() for each in self.settings if each.key == "hydra.mode"]
        return modes[-1] == "MULTIRUN" if modes else "--multirun" in self.flags


def read_command_line(given: Sequence[str], command: Command) -> CommandLine:
    """Sort the arguments of a command line into hydra's options and settings.

    Raises:
        ConfigError: an unknown option, an option without its value, or too many plain arguments.
    """
    flags: list[str] = []
    settings: list[Setting] = []
    plain: list[str] = []
    rest = list(given)
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            plain += rest
            break
        if argument.startswith("-") and argument != "-":
            if flag := _flag(argument, rest, command):
                flags += flag
            else:
                _add(settings, _option(argument, rest, command), command)
        elif _is_setting(argument, flags, command):
            key, equals, value = argument.partition("=")
            settings.append(Setting(key, (value,) if equals else ()))
        else:
            plain.append(argument)
    return CommandLine(flags, settings + _plain_settings(plain, settings, command))


def _flag(argument: str, rest: list[str], command: Command) -> list[str]:
    """Return one of hydra's options with its value, which is removed from `rest`; [] for a `--key` of the command."""
    name, equals, value = argument.partition("=")
    own = name.removeprefix("--").replace("-", "_")
    if name.startswith("--") and name not in (*SWITCHES, *WITH_VALUE, "--info") and _known(own, command):
        return []
    name = SHORT.get(name, name)
    if name.startswith("--"):
        fits = [each for each in (*SWITCHES, *WITH_VALUE, "--info") if each.startswith(name)]
        name = name if name in fits else fits[0] if len(fits) == 1 and len(name) > 2 else name
    if name == "--shell-completion" and not any(each.startswith(("install=", "uninstall=", "query=")) for each in rest):
        raise ConfigError(f"{argument} needs install=bash, uninstall=bash or query=bash. Type: {argument} install=bash")
    if name in SWITCHES and not equals:
        return [name]
    if name == "--help" and value == "all":
        return ["--help=all"]
    if name == "--help":
        raise ConfigError(f"--help={value} is not known: type --help, or --help=all for every setting")
    if name in WITH_VALUE:
        if not equals and not rest:
            raise ConfigError(f"{argument} has no value. Type {argument}=VALUE")
        return [f"{name}={value if equals else rest.pop(0)}"]
    if name == "--info":
        return [f"--info={value if equals else rest.pop(0) if rest and rest[0] in INFO else 'all'}"]
    raise ConfigError(_no_option(argument, command))


def _no_option(argument: str, command: Command) -> str:
    name = argument.partition("=")[0]
    options = [f"--{key}" for key in heads(command)] + SWITCHES + WITH_VALUE
    nearest = difflib.get_close_matches(name.replace("-", "_").replace("__", "--", 1), options, n=1, cutoff=0.6)
    guess = f": did you mean {nearest[0]}?" if nearest else f". See: {command.program} --help=all."
    file = f" If it is a file name, type {shlex.quote(f'./{argument}')}" if command.plain else ""
    return f"{command.program} has no option {name}{guess}{file}"


def _option(argument: str, rest: list[str], command: Command) -> Setting:
    """Return a setting that was typed as `--key value`, `--key=value`, or `--key` (true, for a bool)."""
    name, equals, value = argument.removeprefix("--").partition("=")
    key = name.replace("-", "_")
    if equals:
        return Setting(key, (value,))
    if _hint(key, command) is bool:
        return Setting(key, (rest.pop(0) if rest and rest[0] in ("true", "false") else "true",))
    if not rest:
        raise ConfigError(f"{argument} has no value. Type {argument} VALUE")
    return Setting(key, (rest.pop(0),))


def _add(settings: list[Setting], new: Setting, command: Command) -> None:
    """Add an option. Join it with earlier options of the same name, if the key takes a list."""
    kind = text_kind(new.key, command.schema)
    before = [at for at, each in enumerate(settings) if each.key == new.key]
    if kind and kind.several and before:
        settings[before[-1]] = settings[before[-1]]._replace(values=(*settings[before[-1]].values, *new.values))
    else:
        settings.append(new)


def _is_setting(argument: str, flags: Sequence[str], command: Command) -> bool:
    """Return whether an argument is a setting. File names may look like one: `lr=0.1.jpg`, `runs/lr=0.1/best.ckpt`."""
    if argument.startswith("~"):
        key = argument[1:].partition("=")[0]
        return not argument.startswith("~/") and _known(key, command)
    found = SETTING.match(argument)
    if not found:
        return False
    key = found["key"].partition("@")[0]
    if "/" in key:
        folders = [conf_dir(), *(Path(each.partition("=")[2]) for each in flags if each.startswith("--config-dir="))]
        if key.startswith("hydra/") or any((folder / key).is_dir() for folder in folders):
            return True
        if not exists(argument):
            _refuse_misspelled_group(key, folders, command)
        return False
    return bool(found["sign"]) or _known(key, command) or not exists(argument)


def _refuse_misspelled_group(key: str, folders: Sequence[Path], command: Command) -> None:
    """Raise an error for a key such as model/attenton that is almost a group of the command.

    Any other text with a slash may be the path of a file.
    """
    inside = [path.relative_to(folder).as_posix() for folder in folders for path in folder.glob("*/**/")]
    groups = [each for each in inside if "/" in each and _known(each, command)]
    if nearest := difflib.get_close_matches(key, groups, n=1, cutoff=0.75):
        raise ConfigError(f"{command.program} has no group {key}: did you mean {nearest[0]}?")


def _known(key: str, command: Command) -> bool:
    """Return whether the command has the group or top-level setting that contains the key."""
    head = re.split(r"[./@]", key)[0]
    return head == "hydra" or head in heads(command) or (command.name == "train" and key == "like")


def heads(command: Command) -> list[str]:
    """Return the names of the command's top-level settings and groups."""
    kinds = [typing.get_type_hints(each) for each in (*command.schema.__subclasses__(), command.schema)]
    return list(dict.fromkeys([key for each in kinds for key in each if key != "schema_of"] + _groups(command)))


@functools.cache  # it is needed for every argument
def _groups(command: Command) -> list[str]:
    """Return the groups in the `defaults` list of the command's YAML file."""
    with suppress(OSError, yaml.YAMLError):
        content = yaml.safe_load((conf_dir() / f"{command.name}.yaml").read_text(encoding="utf-8"))
        chosen = [key for each in content.get("defaults", []) if isinstance(each, dict) for key in each]
        return [key for key in chosen if not key.startswith("override ")]
    return []


def _hint(key: str, command: Command) -> object:
    for each in (*command.schema.__subclasses__(), command.schema):
        if key in (hints := typing.get_type_hints(each)):
            return hints[key]
    return None


def _plain_settings(plain: Sequence[str], settings: Sequence[Setting], command: Command) -> list[Setting]:
    """Return the plain arguments as settings of the command's plain keys that are not set otherwise."""
    if command.name == "train":  # a config.yaml of a run takes the role of an experiment
        likes = [text for text in plain if Path(text).name == "config.yaml"]
        plain = [text for text in plain if text not in likes]
        return [Setting("like", (text,), True) for text in likes] + _by_position(plain, settings, command)
    return _by_position(plain, settings, command)


def _by_position(plain: Sequence[str], settings: Sequence[Setting], command: Command) -> list[Setting]:
    taken = {each.key for each in settings}
    free = [key for key in command.plain if key.removesuffix("...") not in taken]
    placed = []
    for at, text in enumerate(plain):
        if free and free[0].endswith("..."):
            placed.append(Setting(free[0].removesuffix("..."), tuple(plain[at:]), True))
            break
        if not free:
            takes = " ".join(key.upper() for key in command.plain) or "no plain arguments"
            again = taken & {key.removesuffix("...") for key in command.plain}
            twice = f" ({', '.join(sorted(again))} is already set by KEY=VALUE)" if again else ""
            raise ConfigError(
                f"{command.program} takes {takes}{twice}; {text!r} is one argument too many. Type settings as KEY=VALUE"
                " or --KEY VALUE"
            )
        placed.append(Setting(free.pop(0), (text,), True))
    return placed


def hydra_arguments(line: CommandLine, command: Command) -> list[str]:
    """Return a command line in hydra's grammar, with quotes around texts that need them.

    Raises:
        ConfigError: an empty file name, or a list without brackets.
    """
    sweeping = line.sweeps()
    return [*line.flags, *(_override(each, command, sweeping) for each in line.settings)]


def _override(setting: Setting, command: Command, sweeping: bool) -> str:
    if not setting.values or setting.key.startswith("~"):
        return f"{setting.key}={setting.value}" if setting.values else setting.key
    key = setting.key.lstrip("+")
    kind = None if re.search(r"[/@:]", key) else text_kind(key, command.schema)
    kind = TextKind(path=True) if key == "like" else kind
    if kind is None:
        return f"{setting.key}={any_value(setting.value, sweeping=sweeping)}"
    if len(setting.values) == 1 and not setting.plain:
        return f"{setting.key}={hydra_value(key, setting.value, kind, sweeping=sweeping)}"
    values = [_item(key, text, kind, setting.plain) for text in setting.values]
    return f"{setting.key}={values[0] if len(values) == 1 else '[' + ','.join(values) + ']'}"


def _item(key: str, text: str, kind: TextKind, plain: bool) -> str:
    if not text and kind.path:
        raise ConfigError(f"{key} is an empty file name: set {key}=NAME, and check your shell's variables")
    if not plain:
        return hydra_value(key, text, kind._replace(several=False), sweeping=False)
    return literal(plain_path(text) if kind.path else text)
