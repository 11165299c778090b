"""Do once per process what many tests do alike: parse and compose YAML files, and draw a network's random weights.

Every test gets a copy of its own, so that no test can change what another one gets.
"""

import copy
import dataclasses
import functools
import hashlib
import os
import pickle
from pathlib import Path

import torch
from efficientnet_lite_pytorch import EfficientNet
from hydra import version
from hydra._internal import config_loader_impl, defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.defaults_list import Overrides

from captioning.config import conf_dir


def remember_yaml_files() -> None:
    """Let hydra parse each YAML file once per process, not once per composition: a test composes up to 20 times."""
    own, kept = FileConfigSource.load_config, {}

    def load(self, config_path):
        path = os.path.join(self.path, self._normalize_file_name(config_path))
        if not os.path.isfile(path):
            return own(self, config_path)
        about = os.stat(path)
        key = self.provider, path, about.st_ino, about.st_mtime_ns, about.st_size
        if key not in kept:
            kept[key] = pickle.dumps(own(self, config_path))
        return pickle.loads(kept[key])

    FileConfigSource.load_config = load


def remember_compositions() -> None:
    """Let hydra choose and merge YAML files once per process and choice of groups, which takes 0.15 s each time.

    The single settings of a command line, such as `model.width=8`, are read and applied as always. A composition that
    fails, or that may read other files than those of conf/ and of hydra itself, is made as always.
    """
    own_choice, lists = config_loader_impl.create_defaults_list, {}
    own_merge, merged = ConfigLoaderImpl._compose_config_from_defaults_list, {}

    @functools.wraps(own_choice)
    def choose(repo, config_name, overrides_list, **options):
        own = {"repo": repo, "config_name": config_name, "overrides_list": overrides_list, **options}
        if not (sources := _own_sources(repo)):
            return own_choice(**own)
        settings = Overrides(repo=repo, overrides_list=overrides_list).config_overrides
        groups = [each.input_line for each in overrides_list if not any(each is one for one in settings)]
        key = *sources, config_name, *groups, *options.items()
        if key not in lists:
            lists[key] = own_choice(**own)
        return dataclasses.replace(lists[key], config_overrides=settings)

    @functools.wraps(own_merge)
    def merge(self, defaults, repo):
        if not (sources := _own_sources(repo)):
            return own_merge(self, defaults, repo)
        key = *sources, repr(defaults)
        if key not in merged:
            merged[key] = pickle.dumps(own_merge(self, defaults, repo))
        return pickle.loads(merged[key])

    own_map = defaults_list._create_interpolation_map

    @functools.wraps(own_map)
    def map_of_choices(overrides, defaults, self_added):
        """Hydra makes this map for each file, though only a file with ${…} in its defaults needs it."""
        return own_map(overrides, defaults, self_added) if any(each.is_interpolation() for each in defaults) else None

    defaults_list._create_interpolation_map = map_of_choices
    config_loader_impl.create_defaults_list = choose
    ConfigLoaderImpl._compose_config_from_defaults_list = merge


def _own_sources(repo) -> list[str] | None:
    """Return where hydra looks for YAML files, and its version; None if a test may have written files there."""
    for source in repo.get_sources():
        if source.scheme() == "file" and Path(source.path).resolve() != conf_dir().resolve():
            return None
    return [version.getbase(), *map(repr, repo.get_sources())]


def remember_random_networks() -> None:
    """Draw the random weights of EfficientNet-Lite once per process and state of the random numbers."""
    own, kept = EfficientNet.from_name, {}

    def from_name(name, **options):
        before = hashlib.sha256(torch.get_rng_state().numpy().tobytes()).digest()
        key = name, repr(sorted(options.items())), torch.get_default_dtype(), before
        if key not in kept:
            if len(kept) == 8:  # each has 20 MB
                kept.clear()
            kept[key] = own(name, **options), torch.get_rng_state()
        network, after = kept[key]
        torch.set_rng_state(after)
        return copy.deepcopy(network)

    EfficientNet.from_name = from_name
