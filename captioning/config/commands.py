"""Start a command: read its command line, compose and check its configuration, run its job, and report errors."""

import os
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import captioning
from captioning.config.allowlist import plugins_allowed
from captioning.config.command_line import SWITCHES, Command, heads, hydra_arguments, read_command_line
from captioning.config.composition import as_containers, check, compose
from captioning.config.explanations import explain_error
from captioning.config.headings import choices_of, conf_dir, read_heading
from captioning.config.help_text import full_help, short_help
from captioning.config.like import is_swept, like_a_run
from captioning.config.recognition import with_recognized
from captioning.config.streams import open_closed_streams, quiet_pipe
from captioning.config.sweep import register as register_sweeper
from captioning.config.typed_text import literal, parses
from captioning.errors import CaptioningError, ConfigError
from captioning.io import set_threads

ERRORS = (CaptioningError, HydraException, OmegaConfBaseException)  # that a user can fix


def entry_point(
    name: str, schema: type, job: Callable[[dict[str, Any]], object], *, plain: Sequence[str] = (), bare: str = ""
) -> Callable[[], None]:
    """Return the main function of a command.

    It composes conf/NAME.yaml with the overrides of the command line, checks the result, and runs `job(config)` with
    plain containers. In a sweep (-m), each job gets its own `run_dir` or `output`, inside the folder of the sweep. An
    error that the user can fix is printed as one line on stderr, with exit status 1. Any other exception is a bug and
    keeps its traceback.

    Args:
        name: the command's name, such as "evaluate_answers".
        schema: dataclass of its configuration.
        job: the function to run.
        plain: keys that plain arguments set, in this order; the last may be "images...": all remaining arguments.
        bare: a line to print first if the command has no arguments.
    """
    command = Command(name, schema, tuple(plain))
    explain = partial(explain_error, command=command)

    def task(config: DictConfig) -> Any:
        try:
            given = HydraConfig.get()
            with plugins_allowed(as_containers(config).get("plugins"), look_here=True):
                _refuse_missing(config, command)
                checked = check(config, schema, experiment=given.runtime.choices.get("experiment"))
                _refuse_idle(checked, given.overrides.task)
                if given.mode is RunMode.MULTIRUN:
                    folder = given.runtime.output_dir
                    checked |= {key: folder for key in ("run_dir", "output") if key in checked}
                with quiet_pipe():  # inside hydra, which would print a line of its own
                    return job(checked)
        except (CaptioningError, OmegaConfBaseException) as error:
            if HydraConfig.get().mode is RunMode.MULTIRUN:  # the table of the sweep reports it
                raise
            sys.exit(f"error: {explain(error)}")

    def main() -> None:
        # Hydra's documented switch to raise exceptions instead of printing its own summary of them.
        os.environ["HYDRA_FULL_ERROR"] = "1"
        set_threads()
        open_closed_streams()
        try:
            with quiet_pipe():
                if bare and not sys.argv[1:]:
                    print(bare, flush=True)
                line = read_command_line(sys.argv[1:], command)
                if "--version" in line.flags:
                    print(f"captioning {captioning.__version__}")
                    return
                if "--shell-completion" in line.flags and (typed := os.environ.get("COMP_LINE", "")):
                    if typed.split(" ")[-1].startswith("-"):
                        print(*(f"--{key}" for key in heads(command)), *SWITCHES)
                        return
                    os.environ["COMP_LINE"] = _without_plain(typed)
                given = hydra_arguments(line, command)
                if {"--help", "--help=all"} & set(line.flags):
                    settings = _arguments([each for each in given if not each.startswith("like=")])
                    print(_help(command, settings, everything="--help=all" in line.flags))
                    return
                given = like_a_run(given) if name == "train" else given
                if "--shell-completion" not in line.flags:
                    _refuse_decided(given, command)
                    given = with_recognized(given, decided=getattr(command.schema, "decided", ()))
                sys.argv[1:] = _arguments(given)
                register_sweeper(explain)
                hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=name)(task)()
        except ERRORS as error:
            sys.exit(f"error: {explain(error)}")
        except KeyboardInterrupt:
            sys.exit(130)

    return main


def _refuse_decided(given: Sequence[str], command: Command) -> None:
    """Refuse settings on the command line that the checkpoint decides, so that the command would ignore them."""
    decided: Mapping[str, str] = getattr(command.schema, "decided", {})
    keys = {argument.lstrip("+").partition("=")[0] for argument in given}
    if faults := [f"{key} has no effect: {why}" for key, why in decided.items() if key in keys]:
        raise ConfigError("; ".join(faults))


def _refuse_missing(config: DictConfig, command: Command) -> None:
    """Refuse to start without the required plain arguments, with an example of the command."""
    keys = [key.removesuffix("...") for key in command.plain]
    if missing := [key for key in keys if OmegaConf.is_missing(config, key)]:
        advice = f"type, for example: {read_heading(command.name).examples[0]}"
        raise ConfigError(f"{command.program} needs {' and '.join(missing)}: {advice}")


def _without_plain(line: str) -> str:
    """Remove the arguments that hydra's completion cannot read (`photo.jpg`, `--key value`), except the last word."""
    program, *words = line.split(" ")
    return " ".join([program, *(word for word in words[:-1] if "=" in word and parses(word)), *words[-1:]])


def _help(command: Command, arguments: Sequence[str], *, everything: bool) -> str:
    """Return the text of --help or --help=all, with the values that the arguments set."""
    overrides = [each for each in arguments if not each.startswith("-") and not is_swept(each)]
    folders = [each.partition("=")[2] for each in arguments if each.startswith("--config-dir=")]
    if folders:
        paths = ",".join(literal(f"file://{os.path.abspath(each)}") for each in folders)
        overrides.append(f"hydra.searchpath=[{paths}]")
    composed, chosen = _composed(command, overrides)
    if everything:
        options = {key: choices_of(key) for key in sorted(chosen)}
        return full_help(command, OmegaConf.to_yaml(composed), chosen, options)
    # The settings of a group without a choice are unknown. They are shown for the group's choice in the first example.
    example = read_heading(command.name).examples[0].split()
    unknown = [key for key in typing.get_type_hints(command.schema) if key in chosen and chosen[key] is None]
    if choices := [each for each in example if each.partition("=")[0] in unknown]:
        composed, _ = _composed(command, overrides + choices)
    return short_help(command, as_containers(composed), chosen)


def _composed(command: Command, overrides: list[str]) -> tuple[DictConfig, dict[str, Any]]:
    """Return the configuration without hydra's own settings, and group -> its current choice."""
    composed = compose(command.name, overrides, return_hydra_config=True)
    chosen = {key: choice for key, choice in composed.hydra.runtime.choices.items() if not key.startswith("hydra/")}
    OmegaConf.set_struct(composed, False)
    composed.pop("hydra")
    return composed, chosen


def _arguments(given: Sequence[str]) -> list[str]:
    """Return a command line with the additions that hydra needs.

    GROUP=null becomes GROUP=none where this choice exists, and experiment=null is removed. In a sweep (-m), the given
    run_dir or output becomes the sweep's folder, in which each job has its own folder.

    Raises:
        ConfigError: a group that cannot be null (hydra would print a traceback), or a sweep over the folder.
    """
    arguments = []
    for argument in given:
        key, _, value = argument.partition("=")
        values = value.split(",")  # more than one in a sweep
        if "null" in values and choices_of(key) and argument != "experiment=null":
            if "none" not in choices_of(key):
                raise ConfigError(f"{key}=null is not possible: choose one of {', '.join(choices_of(key))}")
            argument = f"{key}={','.join('none' if each == 'null' else each for each in values)}"
        arguments += [argument] if argument != "experiment=null" else []
    if not {"-m", "--multirun"}.isdisjoint(given) and not any(each.startswith("hydra.sweep.dir=") for each in given):
        folders = [each for each in arguments if each.startswith(("run_dir=", "output="))]
        for folder in folders[-1:]:
            key, _, value = folder.partition("=")
            if is_swept(folder):
                raise ConfigError(f"{key} cannot be swept: give one folder, and each job gets its own folder inside it")
            arguments.append(f"hydra.sweep.dir={value}")
    return arguments


def _refuse_idle(config: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """Refuse arguments on the command line for a group with the choice none, which would ignore them.

    Arguments from an experiment are allowed (`captioning.training.run` drops them): otherwise an experiment could not
    be used without one of its groups.
    """
    faults = []
    for key in (override.lstrip("+").partition("=")[0] for override in overrides if not override.startswith("~")):
        group, _, argument = key.partition(".")
        others = [choice for choice in choices_of(group) if choice != "none"]
        if argument and "none" in choices_of(group) and "_target_" not in (config.get(group) or {}):
            faults.append(f"{key} has no effect with {group}=none: add {group}={'|'.join(others)}")
    if faults:
        raise ConfigError("; ".join(faults))
