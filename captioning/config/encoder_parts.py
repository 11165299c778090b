"""Fill in the parts of `encoder=side_by_side`: a part is named by its file in conf/encoder, and gets its settings."""

import difflib
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from captioning.config.headings import choices_of, conf_dir
from captioning.config.typed_text import literal
from captioning.errors import ConfigError

_NAME = "encoder"  # key of the name, in a part with settings of its own
_SHARED = {"encoder": ("output",), "transform": ("fit", "resize")}  # settings that, if set, are those of all parts


def with_encoder_parts(config: DictConfig) -> DictConfig:
    """Return a configuration in which each part of its encoder has its own encoder and transform settings.

    A part is the name of a file of conf/encoder, or a mapping with this name as `encoder` and settings that differ
    from the file: `{encoder: efficientnet_lite0, layer: blocks.10}`. A configuration whose encoder has no parts, or
    has complete parts, is returned as it is.

    Raises:
        ConfigError: there is no such file, or it has no such setting.
    """
    parts = OmegaConf.select(config, "encoder.parts")
    if parts is None or not any(_is_named(part) for part in parts):
        return config
    shared = [
        f"{group}.{key}={_text(value)}"
        for group, keys in _SHARED.items()
        for key in keys
        if (value := OmegaConf.select(config, f"{group}.{key}")) is not None
    ]
    named: Any = OmegaConf.to_container(parts, resolve=True)
    loaded = [_load(part, shared) for part in named]
    filled: Any = OmegaConf.create(OmegaConf.to_container(config))
    for group, keys in _SHARED.items():
        kept = {key: value for key, value in filled[group].items() if key not in keys}
        filled[group] = {**kept, "parts": [part[group] for part in loaded]}
    return filled


def _is_named(part: Any) -> bool:
    return isinstance(part, str) or (isinstance(part, Mapping | DictConfig) and "_target_" not in part)


def _load(part: Any, shared: list[str]) -> dict[str, Any]:
    """Return the settings `encoder` and `transform` of one part."""
    own = {_NAME: part} if isinstance(part, str) else dict(part) if isinstance(part, Mapping) else {}
    name, known = own.pop(_NAME, None), [each for each in choices_of("encoder") if each != "side_by_side"]
    if not isinstance(name, str):
        raise ConfigError(
            f"encoder.parts: {part!r:.80} names no file of conf/encoder: write its name, or {{encoder: NAME, …}}, with "
            f"one of {', '.join(known)}"
        )
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        guess = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(f"encoder.parts: there is no encoder {name!r:.80}: {guess}Choose from {', '.join(known)}")
    overrides = [f"{key if key.startswith('transform.') else f'encoder.{key}'}={_text(v)}" for key, v in own.items()]
    with _loader() as load, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hydra asks for `_self_` in the defaults of what it composes by itself
        try:
            content = load(f"encoder/{name}", [*shared, *overrides])
        except Exception as error:  # hydra has many types of errors for wrong overrides
            raise ConfigError(
                f"encoder.parts: {name} cannot have these settings ({str(error).splitlines()[0]}): see "
                f"conf/encoder/{name}.yaml"
            ) from error
        plain: Any = OmegaConf.to_container(content, resolve=True)
    return {key: plain[key] for key in _SHARED}


@contextmanager
def _loader() -> Iterator[Any]:
    """Give a function from (name, overrides) to a composed configuration, with the search path of a running command."""
    if GlobalHydra.instance().is_initialized():
        loader = GlobalHydra.instance().config_loader()
        yield lambda name, given: _without_hydra(loader.load_configuration(name, given, RunMode.RUN))
        return
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield hydra.compose


def _without_hydra(config: DictConfig) -> DictConfig:
    OmegaConf.set_struct(config, False)
    config.pop("hydra", None)
    return config


def _text(value: Any) -> str:
    return literal(value) if isinstance(value, str) else "null" if value is None else str(value).lower()
