"""Compose a command's configuration from YAML files and overrides, and check it strictly against its schema."""

import re
import typing
from collections.abc import Iterator
from typing import Any, cast

import hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from captioning.config.allowlist import allowed_in_settings, locate
from captioning.config.encoder_parts import with_encoder_parts
from captioning.config.headings import choices_of, conf_dir
from captioning.config.validation import schema_faults
from captioning.errors import ConfigError


def compose(name: str, overrides: list[str], *, return_hydra_config: bool = False) -> DictConfig:
    """Compose conf/NAME.yaml with overrides, as the command line does.

    Args:
        name: the command's name, such as "train".
        overrides: in hydra's grammar.
        return_hydra_config: include hydra's own settings.
    """
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return hydra.compose(name, overrides, return_hydra_config=return_hydra_config)


def check(config: DictConfig, schema: type, *, experiment: str | None = None) -> dict[str, Any]:
    """Check a configuration, and return it as plain containers with every reference resolved.

    If the schema has `schema_of`, the `schema` of the part that this key names is used instead. The arguments of
    `_target_` nodes are compared with the signature of the target.

    Args:
        config: as composed.
        schema: the dataclass of the command.
        experiment: the chosen experiment. Its name is added to errors about unknown keys that it sets.

    Raises:
        ConfigError: lists every unknown key (with the nearest known key), missing value and wrong type.
    """
    schema, config = _schema(config, schema), with_encoder_parts(config)
    kinds = typing.get_type_hints(schema)
    unset = [key for key in kinds if key not in config and choices_of(key)]  # groups without a choice
    needed = [key for key in unset if type(None) not in typing.get_args(kinds[key])]
    missing = [f"{key} is not set: give {key}=NAME, one of {', '.join(choices_of(key))}" for key in needed]
    if not missing:  # otherwise the values that refer to these groups are missing too
        missing = [f"{key} is not set: give {key}=VALUE" for key in sorted(OmegaConf.missing_keys(config))]
    if missing:
        raise ConfigError("; ".join(missing))
    plain = dict.fromkeys(unset) | as_containers(config, resolve=True)
    faults = [_with_experiment(fault, experiment) for fault in schema_faults(plain, schema, "")]
    if faults:
        raise ConfigError("; ".join(faults))
    return plain


def as_containers(config: DictConfig, *, resolve: bool = False) -> dict[str, Any]:
    """Return a configuration as plain dictionaries and lists, with references resolved or as text."""
    return cast("dict[str, Any]", OmegaConf.to_container(config, resolve=resolve))


def _schema(config: DictConfig, schema: type) -> type:
    """Return the schema, or the schema of the part that its `schema_of` names."""
    key = getattr(schema, "schema_of", None)
    if key is None or key not in config:
        return schema
    target = OmegaConf.select(config, f"{key}._target_")
    if target is None:
        raise ConfigError(f"{key}._target_ is not set: choose {key}={'|'.join(choices_of(key))}")
    target = str(target)
    found = getattr(locate(target), "schema", None) if allowed_in_settings(target) else None
    if not found:
        raise ConfigError(f"{key}._target_: '{target}' is not a {key}: choose {key}={'|'.join(choices_of(key))}")
    _same_task(config, locate(target).name)
    return found


def _same_task(config: DictConfig, task: str) -> None:
    """Refuse an objective of another task here. Otherwise each of its arguments would be reported as a fault."""
    target = str(OmegaConf.select(config, "objective._target_"))
    its = getattr(locate(target), "of_task", task) if allowed_in_settings(target) else task
    if its != task:
        raise ConfigError(
            f"objective: {target.rpartition('.')[2]} is for task={its}, but this run has task={task}: set task={its}, "
            "or leave objective= out"
        )


def _with_experiment(fault: str, experiment: str | None) -> str:
    """Add to a fault about an unknown key that the chosen experiment sets this key."""
    unknown = re.match(r"there is no setting '([^']+)'", fault)
    if unknown and experiment and unknown[1] == "experiment":  # without the line, its settings are not at the root
        return f"experiment/{experiment}.yaml must begin with the line '# @package _global_'"
    if not (unknown and experiment and unknown[1] in _set_by(experiment)):
        return fault
    part = unknown[1].rpartition(".")[0] or "part"
    return f"{unknown[0]}: experiment={experiment} sets it for another {part}. To remove it, add '~{unknown[1]}'"


def _set_by(experiment: str) -> set[str]:
    """Return the dotted keys that an experiment sets, including those of the experiments that it extends."""
    path = conf_dir() / "experiment" / f"{experiment}.yaml"
    if not path.is_file():  # an experiment in the user's own folder (--config-dir)
        return set()
    node = cast(DictConfig, OmegaConf.load(path))
    bases = [base for base in node.get("defaults", []) if isinstance(base, str) and base != "_self_"]
    return set(dotted_keys(node)).union(*map(_set_by, bases))


def dotted_keys(config: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted name of every key in nested mappings."""
    if isinstance(config, DictConfig | dict):
        for key in map(str, config):
            yield f"{prefix}{key}"
            child = config._get_node(key) if isinstance(config, DictConfig) else config[key]
            yield from dotted_keys(child, f"{prefix}{key}.")
