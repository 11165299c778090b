"""Record the states and gates of recurrent cells while the model reads given words with its own `step`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from captioning.models.cells import Cell, Layer
from captioning.models.state import RecurrentState, recurrent


@torch.no_grad()
def trace(step: Callable, state: RecurrentState, tokens: Tensor, *, model: nn.Module) -> dict[str, Tensor]:
    """Record every layer's state after each word, and the gates of the step that led to it.

    Args:
        step: (token [B, K], state) -> a result with the next `state`: a model's step with its memory bound.
        state: The state before the first word, one row per image or K rows.
        tokens: [B, K, T] int64, the words to read. Rows that end earlier may be filled with any ids; the caller must
            leave out the results for them.
        model: The model whose cells `step` runs. It must be in eval mode, because dropout between layers would be
            sampled again.

    Returns:
        A dictionary {"hidden": [B, K, T, H], "cell": …} with the names in the cell's `gates` as further keys; with
            several layers {"hidden 1": …, "hidden 2": …}, where 1 is the layer next to the words.

    Raises:
        ConfigError: The model is not recurrent.
    """
    if recurrent(state).hidden.shape[2] != tokens.shape[1]:
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
    """Yield a list to which every layer of every cell of the model appends (names of gates, Layer) at each step.

    The fused kernel, which runs a full sequence at once, appends nothing.
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
    """Name the decoder's state, layer by layer, and the gates that led to it: each [B, K, H]."""
    seen = {}
    for index, (gates, layer) in enumerate(layers):
        suffix = f" {index + 1}" if len(layers) > 1 else ""
        seen[f"hidden{suffix}"] = state.hidden[index]
        if state.cell.shape[-1]:
            seen[f"cell{suffix}"] = state.cell[index]
        seen |= {f"{name}{suffix}": gate for name, gate in zip(gates, layer.gates, strict=True)}
    return seen
