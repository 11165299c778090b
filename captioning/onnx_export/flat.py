"""Flatten a model's state and memory into named tensors, and find out which of their axes vary.

An ONNX graph has tensors as inputs and outputs, and no nested tuples. The names of a tensor come from the fields that
lead to it, as in `state.hidden` and `memory.keys.places`.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor

from captioning.errors import ConfigError
from captioning.models import CaptionModel, Past

Axes = tuple[int | str, ...]  # a size, or a name of an axis that varies
BATCH, BEAMS, PLACES, WORDS = "batch", "beams", "places", "words"


class GraphLayout(NamedTuple):
    """The inputs and outputs of a model's `begin` and `step`, as named tensors.

    Attributes:
        state: an example of the model's state, for its structure.
        memory: an example of the model's memory.
        axes: the axes of every tensor of state and memory, by its name.
        features: the axes of the encoder's features.
        logits: number of words in the vocabulary.
        weights: the axes of the attention weights [B, K, L]; None without attention.
        places: whether hard attention selects one location.
    """

    state: Any
    memory: Any
    axes: dict[str, Axes]
    features: Axes
    logits: int
    weights: Axes | None
    places: bool

    def named(self, kind: str) -> list[str]:
        """Return the names of the tensors of `state` or `memory` that a graph needs: all that are not empty."""
        return [name for name, axes in self.axes.items() if name.startswith(f"{kind}.") and not is_empty(axes)]

    def rebuilt(self, tensors: Mapping[str, Tensor], token: Tensor) -> tuple[Any, Any]:
        """Return state and memory made of the named tensors; the empty ones are made here.

        Args:
            tensors: the tensors of `named("state")` and `named("memory")`.
            token: [B, K], for the sizes of empty tensors.
        """
        sizes = {BATCH: token.shape[0], BEAMS: token.shape[1]}

        def tensor(name: str, example: Tensor) -> Tensor:
            if name in tensors:
                return tensors[name]
            shape = [sizes.get(size, 0) if isinstance(size, str) else size for size in self.axes[name]]
            return torch.zeros(shape, dtype=example.dtype)

        return _mapped(self.state, "state", tensor), _mapped(self.memory, "memory", tensor)


def is_empty(axes: Axes) -> bool:
    """Return whether a tensor never has any numbers, such as the cell state of a GRU."""
    return 0 in axes


def flat_tensors(value: Any, name: str) -> dict[str, Tensor]:
    """Return the tensors of nested tuples, by name.

    Raises:
        ConfigError: there is something else than tensors, tuples and None.
    """
    return dict(_leaves(value, name))


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Past):  # its buffer is an implementation detail
        yield name, value.known
    elif isinstance(value, tuple):
        for field, part in _fields(value):
            yield from _leaves(part, f"{name}.{field}")
    elif value is not None:
        raise ConfigError(
            f"format=onnx: {name} of this model is a {type(value).__name__}, but must consist of tensors and tuples. "
            "Set format=safetensors"
        )


def _mapped(value: Any, name: str, tensor: Callable[[str, Tensor], Tensor]) -> Any:
    """Return the same structure with other tensors."""
    if isinstance(value, Tensor):
        return tensor(name, value)
    if isinstance(value, Past):
        return Past.of(tensor(name, value.known))
    if value is None:
        return None
    parts = [_mapped(part, f"{name}.{field}", tensor) for field, part in _fields(value)]
    return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)


def _fields(value: tuple) -> list[tuple[str, Any]]:
    names = getattr(value, "_fields", [str(index) for index in range(len(value))])
    return list(zip(names, value, strict=True))


class Sizes(NamedTuple):
    """The sizes of a trial run of a model: B images, K rows, L locations, and the number of words read."""

    batch: int = 2
    beams: int = 3
    places: int | None = None
    words: int = 2


def measure(model: CaptionModel, feature_size: int, places: int | None) -> GraphLayout:
    """Run a model with different sizes, and find out which axes of its tensors change with which of them.

    Args:
        model: a captioner that takes features, in eval mode.
        feature_size: D of the features.
        places: L of the features [B, L, D]; None for features [B, D].
    """
    base = Sizes(places=places)
    others: dict[str, Sizes] = {BATCH: base._replace(batch=4), BEAMS: base._replace(beams=5)}
    others[WORDS] = base._replace(words=3)
    runs = {key: _run(model, feature_size, sizes) for key, sizes in others.items()}
    state, memory, glimpse, logits, tensors = _run(model, feature_size, base)
    if places is not None:
        with suppress(Exception):  # many a part needs the grid of its encoder, and says so in its own way
            runs[PLACES] = _run(model, feature_size, base._replace(places=places + 1))
    axes: dict[str, Axes] = {}
    for name, tensor in tensors.items():
        found: list[int | str] = list(tensor.shape)
        for key, run in runs.items():
            for axis, size in enumerate(run[-1][name].shape):
                found[axis] = key if size != tensor.shape[axis] else found[axis]
        axes[name] = tuple(found)
    features: Axes = (BATCH, feature_size)
    if places is not None:
        features = (BATCH, PLACES if PLACES in runs else places, feature_size)
    weights = axes.pop("weights")
    return GraphLayout(
        state,
        memory,
        axes,
        features,
        logits.shape[-1],
        None if is_empty(weights) else weights,
        glimpse.places is not None,
    )


def made_up_features(feature_size: int, sizes: Sizes, *, seed: int = 0) -> Tensor:
    """Return random features that are not negative, as after a ReLU."""
    shape = (sizes.batch, feature_size) if sizes.places is None else (sizes.batch, sizes.places, feature_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).abs()


@torch.no_grad()
def _run(model: CaptionModel, feature_size: int, sizes: Sizes) -> tuple[Any, ...]:
    """Return state, memory, glimpse and logits after some words, and all tensors by name."""
    state, memory = model.begin(made_up_features(feature_size, sizes))
    state = state.repeat(sizes.beams)
    token = torch.ones(sizes.batch, sizes.beams, dtype=torch.int64)
    for _ in range(sizes.words):
        logits, state, glimpse = model.step(token, state, memory)
    named = flat_tensors(state, "state") | flat_tensors(memory, "memory") | {"weights": glimpse.weights}
    return state, memory, glimpse, logits, named
