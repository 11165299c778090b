"""Compose a configuration, check it strictly against its schema, and build parts from `_target_` nodes.

Only this module and the entry points know hydra; below them a configuration has become plain arguments.
"""

import difflib
import inspect
import os
import re
import shlex
import sys
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, HydraException, InstantiationException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from captioning.config.allowlist import (
    OWN_PARTS,
    allowed_in_checkpoint,
    allowed_in_settings,
    check_settings_file,
    locate,
    plugins_allowed,
    targets,
)
from captioning.config.command_line import (
    Command,
    conf_dir,
    heads,
    hydra_arguments,
    open_closed_streams,
    quiet_pipe,
    read_command_line,
)
from captioning.config.help_text import help_text
from captioning.config.interpolations import followers
from captioning.config.sweep import register as register_sweeper
from captioning.config.typed_text import literal
from captioning.config.validation import schema_faults, unknown_key
from captioning.errors import CaptioningError, CheckpointError, ConfigError


def entry_point(
    name: str, schema: type, job: Callable[[dict], None], *, plain: Sequence[str] = ()
) -> Callable[[], None]:
    """A command: composes conf/NAME.yaml with the command line's overrides, checks it, and runs `job`.

    `job(config)` gets plain containers; in a sweep (-m), each job's `run_dir` or `output` is its own folder in that
    of the sweep. What a user can mend is one line on stderr and exit status 1; anything else is a bug and keeps its
    traceback.

    Args:
        plain: keys whose values are typed as plain arguments, in this order; the last may be "images...": all others.
    """
    command = Command(name, schema, tuple(plain))

    def task(config: DictConfig) -> Any:
        try:
            given = HydraConfig.get()
            plugins = OmegaConf.to_container(config).get("plugins")
            with plugins_allowed(plugins, look_here=True):
                plain = check(config, schema, experiment=given.runtime.choices.get("experiment"))
                _refuse_idle(plain, given.overrides.task)
                if given.mode is RunMode.MULTIRUN:
                    folder = given.runtime.output_dir
                    plain |= {key: folder for key in ("run_dir", "output") if key in plain}
                with quiet_pipe():  # hydra would print a line about it
                    return job(plain)
        except (CaptioningError, OmegaConfBaseException) as error:
            if HydraConfig.get().mode is RunMode.MULTIRUN:  # told in the sweep's table
                raise
            sys.exit(f"error: {explain_error(error, command)}")

    task.explain = partial(explain_error, command=command)  # to a sweep

    def main() -> None:
        # Hydra's documented switch for handing exceptions on instead of printing its own summary of them.
        os.environ["HYDRA_FULL_ERROR"] = "1"
        open_closed_streams()
        try:
            with quiet_pipe():
                line = read_command_line(sys.argv[1:], command)
                given = hydra_arguments(line, command)
                if "--help" in line.flags:
                    print(_help(command, _arguments([each for each in given if not each.startswith("like=")])))
                    return
                sys.argv[1:] = _arguments(_like(given) if name == "train" else given)
                register_sweeper()
                hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=name)(task)()
        except (CaptioningError, HydraException, OmegaConfBaseException) as error:
            sys.exit(f"error: {explain_error(error, command)}")
        except KeyboardInterrupt:
            sys.exit(130)

    return main


def _like(given: Sequence[str]) -> list[str]:
    """like=RUN/config.yaml: that run's settings in the place of conf/train.yaml, with single ones changed beside it.

    Raises:
        ConfigError: there is no such file, or a choice of a group stands beside it, whose parts are settled in it.
    """
    likes = [argument for argument in given if argument.startswith("like=")]
    if any(_value_is_swept(argument) for argument in likes):
        raise ConfigError("like= cannot be swept: give the config.yaml of one run")
    files = [Path(str(_value_of(argument))) for argument in likes]
    if not files:
        return list(given)
    if len(files) > 1:
        raise ConfigError(f"{' '.join(f'like={file}' for file in files)}: one run at a time: give one config.yaml")
    path, rest = files[-1], [argument for argument in given if not argument.startswith("like=")]
    if not path.is_file():
        raise ConfigError(f"like={path}: there is no such file; give the config.yaml of a run")
    if path.name != "config.yaml":  # hydra would look for NAME.yaml, in conf/ of the package first
        raise ConfigError(f"like={path}: give the config.yaml of a run, by this name")
    with plugins_allowed(_plugins_of(rest, path), look_here=True):
        check_settings_file(path)
    groups = [argument for argument in rest if _choices(argument.partition("=")[0].partition("@")[0].lstrip("+~"))]
    if groups:
        raise ConfigError(f"{groups[0]}: like= brings all parts with it; change single settings (model.width=512)")
    if not any(argument.startswith("run_dir=") for argument in rest):
        raise ConfigError(f"like={path} needs a run_dir=DIR of its own beside it")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    ours = ["hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=stdout"]  # as conf/train.yaml has them
    flags, rest = ([each for each in rest if each.startswith("-") is flag] for flag in (True, False))
    flags += ["--config-dir", str(path.parent.resolve()), "--config-name", path.stem]  # the last one counts
    return [*flags, *ours, *followers(content, rest), *rest]  # argparse wants all that is no option in one place


def _plugins_of(given: Sequence[str], path: Path) -> list[str] | str:
    """The modules that the command line names in plugins=; those that a config.yaml names must be among them.

    Raises:
        ConfigError: the file names modules, which may be a stranger's, and the command line does not.
    """
    named = [_value_of(argument) for argument in given if argument.startswith("plugins=")]
    if named:
        return named[-1] or []
    with suppress(OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError):  # told by check_settings_file
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and content.get("plugins"):
            modules = content["plugins"]
            listed = ",".join(map(str, modules)) if isinstance(modules, list) else str(modules)
            raise ConfigError(
                f"like={path} builds parts of modules of its own: if you trust them, add plugins=[{listed:.200}]"
            )
    return []


def _value_of(argument: str) -> Any:
    """The value that hydra reads in `key=value`."""
    return OverridesParser.create().parse_override(argument).value()


def _arguments(given: Sequence[str]) -> list[str]:
    """The command line as hydra takes it.

    GROUP=null is GROUP=none where there is such a choice, and experiment=null is no experiment. In a sweep (-m), a
    given run_dir or output becomes the sweep's folder, in which each job has its own.

    Raises:
        ConfigError: a group that cannot be null, which hydra would answer with a traceback; a sweep over its folder.
    """
    arguments = []
    for argument in given:
        key, _, value = argument.partition("=")
        values = value.split(",")  # of a sweep
        if "null" in values and _choices(key) and argument != "experiment=null":
            if "none" not in _choices(key):
                raise ConfigError(f"{key}=null: it cannot be left out; choose one of {', '.join(_choices(key))}")
            argument = f"{key}={','.join('none' if each == 'null' else each for each in values)}"
        arguments += [argument] if argument != "experiment=null" else []
    if not {"-m", "--multirun"}.isdisjoint(given) and not any(each.startswith("hydra.sweep.dir=") for each in given):
        folders = [each for each in arguments if each.startswith(("run_dir=", "output="))]
        for folder in folders[-1:]:
            key, _, value = folder.partition("=")
            if OverridesParser.create().parse_override(folder).is_sweep_override():
                raise ConfigError(f"{key} cannot be swept over: give one, and each job gets its own folder in it")
            arguments.append(f"hydra.sweep.dir={value}")
    return arguments


def _choices(group: str) -> list[str]:
    """The YAML files of a group; [] for a key that is none."""
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml")) if group else []


def _refuse_idle(config: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """Arguments that the command line gives a group that is none, which has nothing to take them.

    An experiment's are left standing (`captioning.train`): there is no other way of going without its group.
    """
    faults = []
    for key in (override.lstrip("+").partition("=")[0] for override in overrides if not override.startswith("~")):
        group, _, argument = key.partition(".")
        others = [choice for choice in _choices(group) if choice != "none"]
        if argument and "none" in _choices(group) and "_target_" not in (config.get(group) or {}):
            faults.append(f"{key}: {group}=none takes no arguments: choose {group}={'|'.join(others)} beside it")
    if faults:
        raise ConfigError("; ".join(faults))


def compose(name: str, overrides: list[str], *, return_hydra_config: bool = False) -> DictConfig:
    """conf/NAME.yaml with overrides, as the command line would compose it; with hydra's own settings, if wanted."""
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return hydra.compose(name, overrides, return_hydra_config=return_hydra_config)


def _help(command: Command, arguments: Sequence[str]) -> str:
    """What --help prints of a command with the settings beside it."""
    overrides = [each for each in arguments if not each.startswith("--")]
    folders = [each.partition("=")[2] for each in arguments if each.startswith("--config-dir=")]
    search = [f"hydra.searchpath=[{','.join(literal(f'file://{os.path.abspath(each)}') for each in folders)}]"]
    overrides = [each for each in overrides if not _value_is_swept(each)] + (search if folders else [])
    composed = compose(command.name, overrides, return_hydra_config=True)
    chosen = {key: choice for key, choice in composed.hydra.runtime.choices.items() if not key.startswith("hydra/")}
    options = {key: _choices(key) for key in sorted(chosen)}
    OmegaConf.set_struct(composed, False)
    composed.pop("hydra")
    about = (conf_dir() / f"{command.name}.yaml").read_text(encoding="utf-8")
    return help_text(command, about, OmegaConf.to_yaml(composed), chosen, options)


def _value_is_swept(override: str) -> bool:
    return OverridesParser.create().parse_override(override).is_sweep_override()


def check(config: DictConfig, schema: type, *, experiment: str | None = None) -> dict:
    """The resolved configuration as plain containers.

    Args:
        experiment: that was chosen: an unknown key that it sets is told as its.

    Raises:
        ConfigError: every unknown key (with the nearest known one), missing value and wrong type at once, by dotted
            name; `_target_` nodes are held against the signature of what they name. Where the schema names a part in
            `schema_of`, it is that part's `schema` that counts.
    """
    schema = _schema(config, schema)
    kinds = typing.get_type_hints(schema)
    unset = [key for key in kinds if key not in config and _choices(key)]  # groups that were not chosen
    needed = [key for key in unset if type(None) not in typing.get_args(kinds[key])]
    missing = [f"{key} is not set: give {key}=NAME, one of {', '.join(_choices(key))}" for key in needed]
    if not missing:  # else what refers to them is missing too
        missing = [f"{key} is not set: give {key}=VALUE" for key in sorted(OmegaConf.missing_keys(config))]
    if missing:
        raise ConfigError("; ".join(missing))
    plain = dict.fromkeys(unset) | OmegaConf.to_container(config, resolve=True)
    faults = [_with_experiment(fault, experiment) for fault in schema_faults(plain, schema, "")]
    if faults:
        raise ConfigError("; ".join(faults))
    return plain


def _schema(config: DictConfig, schema: type) -> type:
    """The schema itself, or that of the part which it names."""
    key = getattr(schema, "schema_of", None)
    if key is None or key not in config:
        return schema
    target = str(OmegaConf.select(config, f"{key}._target_"))
    found = getattr(locate(target), "schema", None) if allowed_in_settings(target) else None
    if not found:
        raise ConfigError(f"{key}._target_: '{target}' is none: choose {key}={'|'.join(_choices(key))}")
    _same_task(config, locate(target).name)
    return found


def _same_task(config: DictConfig, task: str) -> None:
    """Refuses an objective of another task before the faults that all its arguments would be."""
    target = str(OmegaConf.select(config, "objective._target_"))
    its = getattr(locate(target), "of_task", task) if allowed_in_settings(target) else task
    if its != task:
        raise ConfigError(
            f"objective: {target.rpartition('.')[2]} is for task={its}, but this run has task={task}: set task={its}, "
            "or leave objective= out"
        )


def build(node: Mapping[str, Any], **late: Any) -> Any:
    """Instantiates a `_target_` node (and those inside it), with further arguments known only now.

    Raises:
        ConfigError: a target that `captioning.config.allowlist` does not list, or what the targets
            themselves raise.
    """
    for target in targets(node):
        if not allowed_in_settings(target):
            raise ConfigError(f"{target!r:.100} is not built: {OWN_PARTS}")
    if "_target_" not in node:
        raise ConfigError(f"a part needs a _target_ that says what it is, beside {', '.join(map(str, node))}")
    try:
        # Late arguments (modules, callbacks) go past hydra, which would take them for configuration.
        made = hydra.utils.instantiate({**node, "_partial_": True}, _convert_="all")
    except InstantiationException as error:
        if isinstance(cause := _first_cause(error), CaptioningError):
            raise cause from None
        raise
    if node.get("_partial_"):
        return partial(made, **late)
    try:
        inspect.signature(made).bind(**late)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{node['_target_']}: {error}: is _partial_=true missing beside it?") from error
    try:
        return made(**late)
    except TypeError as error:  # a part that is an object already, where the model wants to make it
        if not str(node["_target_"]).startswith("captioning.models."):
            raise  # readers and the like run long, and their bugs keep their traceback
        raise ConfigError(f"{node['_target_']}: {error}: is _partial_=true missing beside one of its parts?") from error


def _first_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def build_trusted(node: Mapping[str, Any], **late: Any) -> Any:
    """As `build`, for a configuration out of a file that may come from a stranger: parts of a model and transforms.

    Raises:
        CheckpointError: it names anything else, or hides it, or its arguments are not those of the parts.
    """
    try:
        named = list(targets(node))
    except ConfigError as error:
        raise CheckpointError(f"checkpoint's configuration: {error}") from error
    for target in named:
        if not allowed_in_checkpoint(target):
            raise CheckpointError(f"checkpoint asks to build {target!r:.100}: only this package's own parts are built")
    try:
        return build(node, **late)
    except CaptioningError:
        raise
    except Exception as error:  # wrong arguments lead the parts to anything
        reason = str(_first_cause(error)).partition("\n")[0]
        raise CheckpointError(f"checkpoint's configuration builds no part of a model ({reason:.200})") from error


def explain_error(error: Exception, command: Command, overrides: Sequence[str] | None = None) -> str:
    """One line (or few) for an exception of ours, hydra's or omegaconf's; unknown keys get the nearest known ones.

    Args:
        overrides: of a job of a sweep; None: those of the command line.
    """
    if isinstance(error, ConfigCompositionException) and "Could not override" in str(error):
        return "; ".join(_unknown_overrides(command, sys.argv[1:] if overrides is None else overrides)) or str(error)
    if isinstance(error, OverrideParseException):
        key, equals, value = error.override.partition("=")
        advice = f": for this text as it stands, type {shlex.quote(f'{key}={literal(value)}')}" if equals else ""
        return f"{command.program} cannot read {error.override}{advice}"
    if isinstance(error, CaptioningError):
        return str(error)
    cause = error.__cause__
    told = [_one_line(each) for each in (error, cause) if each is error or isinstance(each, OmegaConfBaseException)]
    return "; ".join(told)


def _one_line(error: BaseException) -> str:
    """An exception's message in one line; omegaconf's begins with the key."""
    if not isinstance(error, OmegaConfBaseException):
        return " ".join(str(error).partition("Config search path:")[0].split())
    text = f"{error.full_key}: {error.msg or error}" if error.full_key else str(error)
    hint = r"; for a text with ${ in it, type \${" if "nterpolation" in text or "${" in text else ""
    return " ".join(text.partition("\n    full_key")[0].split()) + hint


def _unknown_overrides(command: Command, given: Sequence[str]) -> list[str]:
    """What to say of all given overrides whose key does not exist, found by composing without them."""
    faults, overrides = [], [argument for argument in given if "=" in argument and not argument.startswith("-")]
    while True:
        try:
            composed = compose(command.name, overrides, return_hydra_config=True)
            break
        except ConfigCompositionException as error:
            key = re.search(r"Could not override '([^']+)'", str(error))
            bad = [o for o in overrides if key and re.split(r"=|@", o.lstrip("+~"))[0] == key[1]]
            if not bad:
                return []
            overrides = [o for o in overrides if o not in bad]
            faults.append(key[1])
    chosen = {key: choice for key, choice in composed.hydra.runtime.choices.items() if not key.startswith("hydra")}
    known = [key for key in _dotted(composed) if not key.startswith("hydra")]
    return [_unknown_override(fault, command, chosen, known) for fault in faults]


def _unknown_override(key: str, command: Command, chosen: Mapping[str, Any], known: list[str]) -> str:
    """What is wrong with a key: the command has no such setting, its group is not chosen, or it is misspelled."""
    group = key.partition("@")[0] if "/" in key else key.partition(".")[0]
    options = [choice for choice in _choices(group) if choice != "none"]
    own = heads(command)
    if re.split(r"[/.@]", key)[0] not in own:
        return f"{command.program} has no setting {key}{_nearest(key, [*chosen, *known])}"
    if "/" in group:  # the group of a part that the whole, which is chosen, does not have
        whole = next((f" with {each}={chosen[each]}" for each in _wholes(group) if chosen.get(each)), "")
        return f"{command.program} has no setting {key}{whole}{_nearest(key, list(chosen))}"
    if options and not any(other.startswith(f"{group}.") for other in known):
        return f"{key} needs {group}=NAME beside it, one of {', '.join(options)}"
    if key in known:  # KEY={…} with a key in it that is none
        inside = [other.removeprefix(f"{key}.") for other in known if other.startswith(f"{key}.")]
        its = ", ".join(each for each in inside if "." not in each)
        return f"{key}={{…}} sets keys that it does not have; it has {its}"
    return unknown_key(key, known)


def _wholes(group: str) -> list[str]:
    """The groups that a group is in, the nearest first: `model` of `model/attention`."""
    return [str(parent) for parent in Path(group).parents][:-1]


def _nearest(key: str, known: Sequence[str]) -> str:
    """The settings that a key may stand for, by their whole names and by their last parts."""
    leaves = {re.split(r"[/.]", other)[-1]: other for other in reversed(known)}
    by_leaf = difflib.get_close_matches(re.split(r"[/.]", key)[-1], leaves, n=2, cutoff=0.6)
    near = difflib.get_close_matches(key, known, n=2, cutoff=0.6) + [leaves[leaf] for leaf in by_leaf]
    return f": did you mean {' or '.join(dict.fromkeys(near))}?" if near else ": --help lists those that it has"


def _with_experiment(fault: str, experiment: str | None) -> str:
    """The fault; one of a key that the experiment sets, and no part chosen beside it takes, says whose it is."""
    unknown = re.match(r"unknown configuration key '([^']+)'", fault)
    if unknown and experiment and unknown[1] == "experiment":  # what its file sets did not go to the root
        return f"experiment/{experiment}.yaml needs the line '# @package _global_' at its beginning"
    if not (unknown and experiment and unknown[1] in _set_by(experiment)):
        return fault
    part = unknown[1].rpartition(".")[0] or "part"
    return f"{unknown[0]}: experiment={experiment} sets it, for another {part}: add '~{unknown[1]}' to leave it out"


def _set_by(experiment: str) -> set[str]:
    """The dotted keys that an experiment's file sets, and those that it builds on."""
    path = conf_dir() / "experiment" / f"{experiment}.yaml"
    if not path.is_file():  # of a folder of the user's (--config-dir)
        return set()
    node = OmegaConf.load(path)
    bases = [base for base in node.get("defaults", []) if isinstance(base, str) and base != "_self_"]
    return set(_dotted(node)).union(*map(_set_by, bases))


def _dotted(config: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(config, DictConfig | dict):
        for key in config:
            yield f"{prefix}{key}"
            child = config._get_node(key) if isinstance(config, DictConfig) else config[key]
            yield from _dotted(child, f"{prefix}{key}.")
