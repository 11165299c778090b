"""Load a CLIP model of the package open_clip with weights of a hub, of a file, or random ones."""

import difflib
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from zipfile import BadZipFile, ZipFile

from captioning.errors import ConfigError
from captioning.evaluation.clip_identity import PREFIXES, hashed_name, named_model
from captioning.io import need_package

if TYPE_CHECKING:
    from torch import Tensor, dtype

RANDOM_WEIGHTS = "random"  # the value of `weights` for random weights


class ClipChoice(NamedTuple):
    """The settings that name a model and its weights.

    Attributes:
        group: the group of the settings, for error messages, for example "metrics.clip".
        model: the name of the model.
        weights: a name, a file, "random", or None for the model's own weights.
        advice: what to do if the weights are missing.
    """

    group: str
    model: str
    weights: str | None
    advice: str

    @property
    def file(self) -> Path | None:
        """The file of the weights; None if they have a name, are random, or are the model's own."""
        named = None if self.weights in (None, RANDOM_WEIGHTS) else Path(str(self.weights))
        return named if named is not None and named.is_file() else None

    def describe(self) -> str:
        """Return the names of the model and of its weights, which differ for models that give other scores.

        The name of a file or of a folder is followed by the beginning of a SHA-256, and a model of a hub by its
        revision.
        """
        model = named_model(self.model, own_weights=self.weights is None)
        if self.weights is None:
            return model
        if self.weights == RANDOM_WEIGHTS:
            return f"{model} with RANDOM weights"
        return f"{model} with weights {hashed_name(self.file) if self.file else self.weights}"


class LoadedClip(NamedTuple):
    """A CLIP model, its image transform and its tokenizer.

    Attributes:
        model: the model, in evaluation mode on its device.
        transform: an image -> the model's input.
        tokenizer: T texts -> [T, 77] ids.
        device: the device of the model.
        dtype: the type of the images that the model expects.
    """

    model: Any
    transform: Callable[[Any], "Tensor"]
    tokenizer: Callable[[list[str]], "Tensor"]
    device: str
    dtype: "dtype"


def load_clip(choice: ClipChoice, *, device: str, half: bool) -> LoadedClip:
    """Load a model; weights with a name are downloaded once.

    Args:
        choice: the model and its weights.
        device: the device to load it to.
        half: whether to compute in 16 bits.

    Raises:
        ConfigError: a package is missing, or the model or the weights do not exist, do not fit or cannot be downloaded.
    """
    _check(choice)
    import open_clip
    import torch

    options: dict[str, Any] = {"device": device, "precision": "fp16" if half else "fp32"}
    with _explained(choice), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # random weights are always the same
        if choice.file or choice.weights == RANDOM_WEIGHTS:
            made = open_clip.create_model_and_transforms(
                choice.model, load_weights=False, pretrained_text=False, **options
            )
            model, transform = made[0], made[2]
        else:
            model, transform = open_clip.create_model_from_pretrained(choice.model, choice.weights, **options)
        if choice.file:
            _load_file(model, choice.file)
        tokenizer = open_clip.get_tokenizer(choice.model)
        return LoadedClip(model.eval(), transform, tokenizer, device, torch.float16 if half else torch.float32)


def _check(choice: ClipChoice) -> None:
    """Check the settings before anything is downloaded.

    Raises:
        ConfigError: the package is missing, or there is no such model, or no such weights.
    """
    group, model, weights, advice = choice
    need_package("open_clip", extra="clip", wanted_by=f"{group}.model={model}")
    import open_clip

    own = model.startswith(PREFIXES)
    if not own and open_clip.get_model_config(model) is None:
        nearest = difflib.get_close_matches(model, open_clip.list_models(), n=1, cutoff=0)
        raise ConfigError(
            f"{group}.model={model}: open_clip has no such model: did you mean {nearest[0]}? To list all models, run "
            "python -c 'import open_clip; print(open_clip.list_models())'"
        )
    if weights is None and not own:
        raise ConfigError(f"{group}.weights is null, but {model} has no weights of its own. {advice}")
    tags = [] if own else open_clip.list_pretrained_tags_by_model(model)
    if weights not in (None, RANDOM_WEIGHTS, *tags) and not choice.file:
        known = f", or a name: {', '.join(tags)}" if tags else ", or null for the model's own weights"
        raise ConfigError(
            f"{group}.weights={weights}: there is no such file, and {model} has no weights of this name. "
            f"Give a file{known}"
        )


@contextmanager
def _explained(choice: ClipChoice) -> Iterator[None]:
    """Turn each error of open_clip into one line; another activation, of which it only warns, is an error too."""
    group, model, weights, _ = choice
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # the log would repeat the error many times
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", message="QuickGELU mismatch")
            yield
    except UserWarning as error:
        raise ConfigError(
            f"{group}.weights={weights} were trained with another activation than {group}.model={model}. Use the model "
            "whose name ends with -quickgelu, or the one without this ending"
        ) from error
    except Exception as error:  # the network, damaged files, other shapes: open_clip raises anything
        reason = " ".join(str(error).split()).partition(". ")[0] or type(error).__name__
        if reason.startswith("Required pretrained weights"):
            reason = "it has no weights"
        where = "folder" if model.startswith("local-dir:") else "connection"
        advice = f"Check the {where}, or download the weights elsewhere and set {group}.weights=FILE"
        advice = "Give a file with weights of this model" if choice.file else advice
        advice = "Install the package, or choose another model" if "pip install" in reason else advice
        named = f"{group}.model={model}, {group}.weights={weights or 'null'}"
        raise ConfigError(f"{named}: cannot load the model ({reason:.300}). {advice}") from error
    finally:
        logging.disable(before)


def _load_file(model: Any, file: Path) -> None:
    """Load weights from safetensors, a state dict, or one of OpenAI's archives such as ViT-B-32.pt."""
    import open_clip
    import torch

    if not _is_archive(file):
        open_clip.load_checkpoint(model, str(file))
        return
    values = torch.jit.load(str(file), map_location="cpu").state_dict()
    for number in ("input_resolution", "context_length", "vocab_size"):
        values.pop(number, None)
    model.load_state_dict(values)


def _is_archive(file: Path) -> bool:
    """Return whether a file is a TorchScript archive."""
    try:
        with ZipFile(file) as content:
            return any(name.endswith("/constants.pkl") for name in content.namelist())
    except BadZipFile:
        return False
