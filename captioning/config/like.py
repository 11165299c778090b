"""Start a run with the settings of another run: `like=RUN/config.yaml`."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from captioning.config.allowlist import check_settings_file, plugins_allowed
from captioning.config.headings import choices_of
from captioning.config.interpolations import followers
from captioning.errors import ConfigError


def like_a_run(given: Sequence[str]) -> list[str]:
    """Replace `like=RUN/config.yaml` by the arguments with which hydra composes that run's settings.

    Single settings beside it change these settings. A command line without `like=` is returned as it is.

    Raises:
        ConfigError: the file does not exist or is not the config.yaml of a run; a group is chosen beside it, although
            the file sets every part; or run_dir is missing.
    """
    likes = [argument for argument in given if argument.startswith("like=")]
    if any(is_swept(argument) for argument in likes):
        raise ConfigError("like= cannot be swept: give the config.yaml of one run")
    files = [Path(str(_value_of(argument))) for argument in likes]
    if not files:
        return list(given)
    if len(files) > 1:
        raise ConfigError(f"{' '.join(f'like={file}' for file in files)}: give the config.yaml of one run")
    path, rest = files[-1], [argument for argument in given if not argument.startswith("like=")]
    if not path.is_file():
        raise ConfigError(f"like={path} does not exist: give the config.yaml of a run")
    if path.name != "config.yaml":  # hydra would look for NAME.yaml, first in the package's conf/
        raise ConfigError(f"like={path} is not named config.yaml: give the config.yaml of a run")
    with plugins_allowed(_plugins_of(rest, path), look_here=True):
        check_settings_file(path)
    groups = [argument for argument in rest if choices_of(argument.partition("=")[0].partition("@")[0].lstrip("+~"))]
    if groups:
        raise ConfigError(
            f"{groups[0]} cannot be combined with like=, which sets every part: change single settings, such as "
            "model.width=512"
        )
    if not any(argument.startswith("run_dir=") for argument in rest):
        raise ConfigError(f"like={path} needs run_dir=DIR: give the new run its own folder")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    ours = ["hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=stdout"]  # as in conf/train.yaml
    flags, rest = ([each for each in rest if each.startswith("-") is flag] for flag in (True, False))
    flags += ["--config-dir", str(path.parent.resolve()), "--config-name", path.stem]  # the last one counts
    return [*flags, *ours, *followers(content, rest), *rest]  # argparse requires all overrides in one sequence


def _plugins_of(given: Sequence[str], path: Path) -> list[str] | str:
    """Return the modules that the command line names in plugins=.

    Raises:
        ConfigError: the command line names none, but config.yaml does. They may be a stranger's modules.
    """
    named = [_value_of(argument) for argument in given if argument.startswith("plugins=")]
    if named:
        return named[-1] or []
    with suppress(OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError):  # check_settings_file reports these
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and content.get("plugins"):
            modules = content["plugins"]
            listed = ",".join(map(str, modules)) if isinstance(modules, list) else str(modules)
            raise ConfigError(
                f"like={path} uses modules outside this package: if you trust them, add plugins=[{listed:.200}]"
            )
    return []


def is_swept(override: str) -> bool:
    """Return whether an override has several values, for a sweep."""
    return bool(OverridesParser.create().parse_override(override).is_sweep_override())


def _value_of(override: str) -> Any:
    """Return the value that hydra reads in `key=value`."""
    return OverridesParser.create().parse_override(override).value()
