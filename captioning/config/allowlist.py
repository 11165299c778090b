"""What a `_target_` may name: this package's own parts, and the few of other libraries that its settings choose among.

A configuration names functions by text, and a text can name any function there is. So what may be built is listed
here, for a run's settings and, more narrowly, for what a checkpoint brings along: that may come from a stranger.
"""

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from captioning.errors import ConfigError

# Of a checkpoint: classes of a model's parts, these builders, and the transform.
_MODEL = re.compile(r"captioning\.models\.\w+")
BUILDERS = {
    "captioning.models.build_answerer",
    "captioning.models.build_captioner",
    "captioning.models.learned",
    "captioning.models.one_hot",
    "captioning.models.efficientnet_lite_encoder",
    "captioning.models.torchvision_encoder",
    "captioning.data.Transform",
}
# Of a run's settings: besides, what these modules define.
SETTINGS = {
    "captioning.data.readers",
    "captioning.io.download",
    "captioning.data.instances",
    "captioning.data.scenes",
    "captioning.data.corpus",
    "captioning.data.vqa",
    "captioning.decoding",
    "captioning.tasks.vqa",
    "captioning.tasks.image_captioning",
    "captioning.tasks.language_model",
    "captioning.metrics",
    "captioning.metrics.reward",
    "captioning.objectives",
    "captioning.training.lr_schedules",
    "captioning.features.sources",
    "captioning.inference.distillation",
    "captioning.training.lightning_arguments",
}
# Of other libraries: classes derived from the second, where the first offers them.
LIBRARIES = {
    "torch.optim": "torch.optim.Optimizer",
    "lightning.pytorch.callbacks": "lightning.pytorch.callbacks.Callback",
}
DEEPEST = 50
OWN_PARTS = "only this package's own parts, torch's optimisers and Lightning's callbacks are (captioning/trust.py)"
INTERPOLATION = "${"  # hydra resolves it while it builds, and omegaconf's oc.create makes a new node of a text


def locate(target: str) -> Any:
    """What a dotted name stands for.

    Raises:
        ConfigError: nothing, or no text. Importing a module runs it: ask `may_build` first.
    """
    module, _, name = target.rpartition(".") if isinstance(target, str) else ("", "", "")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, ValueError, AttributeError) as error:
        raise ConfigError(f"cannot find '{target}' ({error})") from error


def allowed_in_settings(target: Any) -> bool:
    """Whether a run's settings may name this; imports nothing but this package and the two libraries."""
    module, _, name = target.rpartition(".") if isinstance(target, str) else ("", "", "")
    if name.startswith("_"):
        return False
    if module in LIBRARIES:
        found, base = getattr(importlib.import_module(module), name, None), locate(LIBRARIES[module])
        return inspect.isclass(found) and issubclass(found, base)
    return allowed_in_checkpoint(target) or (module in SETTINGS and _own(target))


def allowed_in_checkpoint(target: Any) -> bool:
    """Whether a checkpoint may name this."""
    module, _, name = target.rpartition(".") if isinstance(target, str) else ("", "", "")
    if module and target in BUILDERS:
        return True
    public = bool(_MODEL.fullmatch(module)) and not name.startswith("_")
    return public and _own(target) and inspect.isclass(locate(target))


def check_settings_file(path: Path) -> None:
    """Refuses a run's config.yaml that is more than that, before hydra reads it: hydra's own settings, which name
    classes to build as well, other files to join, or targets that are not built.

    Raises:
        ConfigError: it names the file and what it holds.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"cannot read {path} as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict) or (others := {"hydra", "defaults"} & content.keys()):
        held = f"holds {', '.join(sorted(others))}" if isinstance(content, dict) else "is no mapping of settings"
        raise ConfigError(f"{path} {held}, as the config.yaml of a run never does: it is not read")
    try:
        wrong = [target for target in targets(content) if not allowed_in_settings(target)]
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    if wrong:
        raise ConfigError(f"{path}: {wrong[0]!r:.100} is not built")


def _own(target: str) -> bool:
    """Whether it is defined in this package, where only its place says so: what a module imports is not its own."""
    try:
        found = locate(target)
    except ConfigError:
        return False
    return callable(found) and str(getattr(found, "__module__", "")).startswith("captioning.")


def targets(node: Any, depth: int = 0) -> Iterator[Any]:
    """All that is named to be built in a node.

    Raises:
        ConfigError: something else than dictionaries, lists and plain values, or a text that stands for another one: a
            target could hide in it.
    """
    if depth > DEEPEST:
        raise ConfigError(f"a configuration is nested at most {DEEPEST} deep")
    if isinstance(node, dict):
        if "_target_" in node:
            yield node["_target_"]
        for key, value in node.items():
            _plain(key)
            yield from targets(value, depth + 1)
    elif isinstance(node, list):
        for value in node:
            yield from targets(value, depth + 1)
    else:
        _plain(node)


def _plain(value: Any) -> None:
    if type(value) not in (str, int, float, bool, type(None)):
        raise ConfigError(f"a configuration holds plain values, not a {type(value).__name__}")
    if isinstance(value, str) and INTERPOLATION in value:
        raise ConfigError(f"the text {value!r:.80} refers to another value by {INTERPOLATION}: write that value itself")
