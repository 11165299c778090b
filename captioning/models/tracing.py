"""Record the states and gates of recurrent cells while the model reads given words by its own `step`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from captioning.models.cells import Cell, Layer
from captioning.models.state import RecurrentState


@torch.no_grad()
def trace(step: Callable, state: RecurrentState, tokens: Tensor, *, model: nn.Module) -> dict[str, Tensor]:
    """What every layer holds after each word that is read, and what its gates let through on the way there.

    Args:
        step: (token [B, K], state) -> anything with the next `state`: a model's step with its memory bound.
        state: before the first word; one row an image, or K.
        tokens: [B, K, T] int64, what is read. Rows that end earlier are filled up with anything; what is told of those
            words is to be left out by the caller.
        model: whose cells `step` runs; in eval mode, since dropout between layers would be drawn anew.

    Returns:
        {"hidden": [B, K, T, H], "cell": …, and the names in the cell's `gates`}; with several layers
        {"hidden 1": …, "hidden 2": …}, 1 next to the words.
    """
    if state.hidden.shape[2] != tokens.shape[1]:
        state = state.repeat(tokens.shape[1])
    steps = []
    with watched(model) as layers:
        for token in tokens.unbind(-1):
            layers.clear()
            state = step(token, state).state
            steps.append(_named(state, layers))
    return {name: torch.stack([seen[name] for seen in steps], 2) for name in steps[0]}


@contextmanager
def watched(model: nn.Module) -> Iterator[list[tuple[tuple[str, ...], Layer]]]:
    """Within it, a list that every layer of every cell in the model appends (names of gates, Layer) to as it steps.

    The fused kernel, that runs a whole sequence at once, tells nothing.
    """
    layers: list[tuple[tuple[str, ...], Layer]] = []

    def append(cell: Cell, _, layer: Layer) -> None:
        layers.append((cell.gates, layer))

    hooks = [module.register_forward_hook(append) for module in model.modules() if isinstance(module, Cell)]
    try:
        yield layers
    finally:
        for hook in hooks:
            hook.remove()


def _named(state: RecurrentState, layers: list[tuple[tuple[str, ...], Layer]]) -> dict[str, Tensor]:
    """The decoder's own state, layer by layer, and the gates that led to it: each [B, K, H]."""
    seen = {}
    for index, (gates, layer) in enumerate(layers):
        suffix = f" {index + 1}" if len(layers) > 1 else ""
        seen[f"hidden{suffix}"] = state.hidden[index]
        if state.cell.shape[-1]:
            seen[f"cell{suffix}"] = state.cell[index]
        seen |= {f"{name}{suffix}": gate for name, gate in zip(gates, layer.gates, strict=True)}
    return seen
