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
from typing import Any

import torch
from hydra import version
from hydra._internal import config_loader_impl, defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.defaults_list import Overrides
from torch import nn

from captioning.config import conf_dir
from captioning.models import weights


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


def remember_networks(owner, name: str) -> None:
    """Draw the random weights of a library's networks once per process, their arguments and state of random numbers.

    Args:
        owner: the class or module of the function that builds them.
        name: of this function, whose first argument is a network's name.
    """
    own, kept = getattr(owner, name), {}
    if hasattr(own, "remembers"):  # another file of tests has asked for it
        return

    @functools.wraps(own)
    def build(network, **options):
        before = hashlib.sha256(torch.get_rng_state().numpy().tobytes()).digest()
        device, dtype = torch.get_default_device(), torch.get_default_dtype()
        if device.type == "meta" or options.get("pretrained") or options.get("weights"):
            return own(network, **options)
        key = network, repr(sorted(options.items())), device, dtype, before
        if key not in kept:
            made = own(network, **options)
            if _bytes(made) > 150e6:
                return made
            if sum(_bytes(each) for each, _ in kept.values()) > 150e6:
                kept.clear()
            kept[key] = made, torch.get_rng_state()
        made, after = kept[key]
        torch.set_rng_state(after)
        return _twin(made, {})

    build.remembers = True
    setattr(owner, name, build)


def _twin(module: nn.Module, made: dict[int, Any]) -> nn.Module:
    """Return a copy with modules, parameters and buffers of its own, in a fifth of the time of copy.deepcopy.

    Args:
        module: a module without hooks. Its other attributes are shared with the copy.
        made: copies by the id of what was copied: a network may have a module or parameter twice.
    """
    if id(module) not in made:
        made[id(module)] = twin = copy.copy(module)
        twin.__dict__ |= {name: value.copy() for name, value in vars(module).items() if isinstance(value, dict | set)}
        for name, each in module._modules.items():
            twin._modules[name] = None if each is None else _twin(each, made)
        for name, value in module._buffers.items():
            twin._buffers[name] = None if value is None else value.clone()
        for name, value in module._parameters.items():
            if value is not None and id(value) not in made:
                made[id(value)] = nn.Parameter(value.detach().clone(), requires_grad=value.requires_grad)
            twin._parameters[name] = None if value is None else made[id(value)]
    return made[id(module)]


def _bytes(network: nn.Module) -> int:
    return sum(each.nbytes for each in network.parameters())


def remember_weights_of_packages() -> None:
    """Read the files of weights that are installed with a package once per process."""
    own, kept = weights._read_state, {}

    @functools.wraps(own)
    def read(file, **options):
        if "site-packages" not in file.parts:
            return own(file, **options)
        if file not in kept:
            kept[file] = own(file, **options)
        return dict(kept[file])

    weights._read_state = read
