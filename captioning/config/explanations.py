"""Turn exceptions from hydra and omegaconf into errors that name the setting at fault and say what to type."""

import difflib
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.errors import ConfigCompositionException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from captioning.config.command_line import Command, heads
from captioning.config.composition import compose, dotted_keys
from captioning.config.headings import choices_of
from captioning.config.typed_text import literal
from captioning.config.validation import unknown_key
from captioning.errors import CaptioningError, ConfigError

_LISTED = 12  # choices that a message lists


def explain_error(error: Exception, command: Command, overrides: Sequence[str] | None = None) -> CaptioningError:
    """Return an exception of this package, hydra or omegaconf as an error of this package, with a message of one line.

    Args:
        error: the exception.
        command: the command that raised it.
        overrides: the overrides of a job in a sweep; None: those of the command line.
    """
    if isinstance(error, CaptioningError):
        return error
    if isinstance(error, ConfigCompositionException) and "Could not override" in str(error):
        faults = list(_unknown_overrides(command, sys.argv[1:] if overrides is None else overrides))
        if faults:
            return ConfigError("; ".join(faults))
    if isinstance(error, OverrideParseException):
        key, equals, value = error.override.partition("=")
        literally = f"for this text as it is, type {shlex.quote(f'{key}={literal(value)}')}"
        advice = literally if equals else "type settings as KEY=VALUE or --KEY VALUE"
        return ConfigError(f"{command.program} cannot read {error.override}: {advice}")
    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        return ConfigError(_missing_choice(Path(error.missing_cfg_file), error.options, command.program))
    if swept := re.match(r"Ambiguous value for argument '([^=]+)=(.*)'", str(error)):
        key, values = swept[1], swept[2]
        return ConfigError(f"{key}={values} has several values: add -m for a sweep, or type {key}=[{values}]")
    causes = [each for each in (error, error.__cause__) if each is error or isinstance(each, OmegaConfBaseException)]
    text = "; ".join(_one_line(each) for each in causes if each).rstrip(".")
    return ConfigError(text if r"type \${" in text else f"{text}. See: {command.program} --help=all")


def _missing_choice(path: Path, options: Sequence[str], program: str) -> str:
    """Return the message for a choice that a group does not have, such as the path data/imagenet."""
    group = next((each for each in path.parents if choices_of(str(each))), path.parent)
    choice = path.relative_to(group)
    nearest = difflib.get_close_matches(str(choice), options, n=1)
    guess = f"did you mean {nearest[0]}? " if nearest else ""
    advice = f"{'Choose' if nearest else 'choose'} one of {', '.join(sorted(options))}"
    if len(options) > _LISTED:
        advice = f"{program} --help=all lists all {len(options)} choices"
    return f"{group}={choice} does not exist: {guess}{advice}"


def _one_line(error: BaseException) -> str:
    """Return an exception's message in one line, beginning with the key that omegaconf reports."""
    if not isinstance(error, OmegaConfBaseException):
        return " ".join(str(error).partition("Config search path:")[0].split())
    text = f"{error.full_key}: {error.msg or error}" if error.full_key else str(error)
    hint = r"; for a text that contains ${, type \${" if "nterpolation" in text or "${" in text else ""
    return " ".join(text.partition("\n    full_key")[0].split()) + hint


def _unknown_overrides(command: Command, given: Sequence[str]) -> Iterator[str]:
    """Yield one message per override whose key does not exist. They are found by composing without them."""
    faults, overrides = [], [argument for argument in given if "=" in argument and not argument.startswith("-")]
    while True:
        try:
            composed = compose(command.name, overrides, return_hydra_config=True)
            break
        except ConfigCompositionException as error:
            key = re.search(r"Could not override '([^']+)'", str(error))
            bad = [o for o in overrides if key and re.split(r"=|@", o.lstrip("+~"))[0] == key[1]]
            if not key or not bad:
                return
            overrides = [o for o in overrides if o not in bad]
            faults.append(key[1])
    chosen = {key: choice for key, choice in composed.hydra.runtime.choices.items() if not key.startswith("hydra")}
    known = [key for key in dotted_keys(composed) if not key.startswith("hydra")]
    yield from (_unknown_override(fault, command, chosen, known) for fault in faults)


def _unknown_override(key: str, command: Command, chosen: Mapping[str, Any], known: list[str]) -> str:
    """Return why a key does not exist: the command lacks it, its group is not chosen, or it is misspelled."""
    group = key.partition("@")[0] if "/" in key else key.partition(".")[0]
    options = [choice for choice in choices_of(group) if choice != "none"]
    if re.split(r"[/.@]", key)[0] not in heads(command):
        return f"{command.program} has no setting {key}{_nearest(key, [*chosen, *known], command)}"
    if "/" in group:  # the group of a part, in a model or objective that has no such part
        parent = next((f" with {each}={chosen[each]}" for each in _parents(group) if chosen.get(each)), "")
        return f"{command.program} has no setting {key}{parent}{_nearest(key, list(chosen), command)}"
    if options and not any(other.startswith(f"{group}.") for other in known):
        return f"{key} needs {group}=NAME, one of {', '.join(options)}"
    if key in known:  # KEY={…} with an unknown key inside
        inside = [other.removeprefix(f"{key}.") for other in known if other.startswith(f"{key}.")]
        return f"{key}={{…}} has an unknown key: use only {', '.join(each for each in inside if '.' not in each)}"
    return unknown_key(key, known).replace("there is", f"{command.program} has", 1).replace("'", "")


def _parents(group: str) -> list[str]:
    """Return the groups that contain a group, nearest first: ["model"] for "model/attention"."""
    return [str(parent) for parent in Path(group).parents][:-1]


def _nearest(key: str, known: Sequence[str], command: Command) -> str:
    """Suggest the settings that are most similar to a key, by full name and by the last part of the name."""
    leaves = {re.split(r"[/.]", other)[-1]: other for other in reversed(known)}
    by_leaf = difflib.get_close_matches(re.split(r"[/.]", key)[-1], leaves, n=2, cutoff=0.6)
    near = difflib.get_close_matches(key, known, n=2, cutoff=0.6) + [leaves[leaf] for leaf in by_leaf]
    return f": did you mean {' or '.join(dict.fromkeys(near))}?" if near else f". See: {command.program} --help=all"
