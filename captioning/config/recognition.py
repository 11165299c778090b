"""Replace `data=auto` on a command line by the settings of the data set in data.root."""

import sys
from collections.abc import Collection, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from captioning.config.allowlist import locate
from captioning.config.like import is_swept
from captioning.config.typed_text import literal
from captioning.errors import ConfigError

AUTO = "data=auto"
RECOGNIZER = "captioning.data.recognize_data"  # named as in a YAML file: this folder does not import data sets


def with_recognized(given: Sequence[str], *, decided: Collection[str] = ()) -> list[str]:
    """Replace `data=auto` by the settings of the data set in data.root, and print what was recognized.

    Other settings on the command line change these settings. A command line without `data=auto` is returned
    as it is.

    Args:
        given: the arguments of the command line.
        decided: settings that the checkpoint decides, so that they are neither set nor printed.

    Raises:
        ConfigError: data.root is missing or swept, or the folder has several layouts.
        DataError: the folder has no known layout.
    """
    if AUTO not in given:
        return list(given)
    roots = [argument for argument in given if argument.startswith("data.root=")]
    if not roots:
        raise ConfigError(f"{AUTO} needs data.root=DIR: give the folder of the data set")
    if is_swept(roots[-1]):
        raise ConfigError(f"{AUTO} cannot be combined with a sweep over data.root: give data=NAME, or one folder")
    root = OmegaConf.create({"root": OverridesParser.create().parse_override(roots[-1]).value()})["root"]
    found = locate(RECOGNIZER)(str(root))
    print(found.line(decided), file=sys.stderr)
    flags, rest = ([each for each in given if each.startswith("-") is flag] for flag in (True, False))
    ours = [f"{key}={_hydra_text(value)}" for key, value in found.settings.items() if key not in decided]
    return [*flags, *ours, *(each for each in rest if each != AUTO)]


def _hydra_text(value: Any) -> str:
    return literal(value) if isinstance(value, str) else str(value).lower()
