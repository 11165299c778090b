"""Measure how far gradients reach back through time: from the loss of each word to every earlier state.

This shows vanishing and exploding gradients (Bengio et al. 1994; Pascanu et al. 2013) on captions. Clipping changes the
update of the parameters; it does not change the gradients with respect to the states.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from captioning.data import CaptionBatch
from captioning.errors import DataError, must_be
from captioning.models import (
    GRU,
    LSTM,
    RNN,
    Captioner,
    Cell,
    InitialState,
    NoAttention,
    RecurrentState,
    build_captioner,
    recurrent,
)
from captioning.objectives import CrossEntropy

CELLS = (RNN, GRU, LSTM)


class Flow(NamedTuple):
    """Norms of the gradients of each word's loss with respect to each earlier state, for C captions of up to T words.

    Entry [c, s, t] is ‖∂loss_s/∂h_t‖, where loss_s = −log p(word s) and h_t is the state that predicts word t; the norm
    is over all layers. It is NaN if t > s or if caption c has no word s. h_t and c_t are the two parts of the same
    state, so the derivative with respect to c_t excludes the path through h_t; at t = s it is 0.

    Attributes:
        hidden: [C, T, T] float64, with respect to the hidden states h_t.
        cell: [C, T, T] float64, with respect to the cell states c_t; None for cells without a cell state.
    """

    hidden: np.ndarray
    cell: np.ndarray | None


Shares = dict[str, np.ndarray]  # name of a line in a figure -> [N, T], one column per distance


class Course(NamedTuple):
    """The course of a training of S steps.

    Attributes:
        loss: [S], the loss.
        norm: [S], the norm of the gradient of all parameters.
        applied: [S], this norm after clipping.
    """

    loss: np.ndarray
    norm: np.ndarray
    applied: np.ndarray


def gradient_flow(captioner: Captioner, batch: CaptionBatch) -> Flow:
    """Compute the gradient norms of a batch of captions with teacher forcing.

    This runs without dropout, in float64, on a copy of the captioner. Gradients flow through the recurrence and through
    the queries of attention; no gradient flows through the choice of hard attention.

    Args:
        captioner: the model.
        batch: images and captions.
    """
    model = copy.deepcopy(captioner).double().eval().requires_grad_(False)
    state, memory = model.begin(batch.images.double(), batch.mask)
    return state_gradients(partial(model.step, memory=memory), state, batch.tokens, pad=model.pad)


def state_gradients(step: Callable, state: RecurrentState, tokens: Tensor, *, pad: int) -> Flow:
    """Compute the gradient norms of any model with a `step`, for given tokens.

    Args:
        step: `step(token [B, K], state) -> (logits [B, K, V], state, …)`.
        state: the state before the first token.
        tokens: [B, K, 1 + T] int64, the tokens to read and to predict.
        pad: id of the padding token.

    Raises:
        ConfigError: the model is not recurrent.
    """
    state = RecurrentState(*(part.detach().requires_grad_() for part in recurrent(state)))
    if state.hidden.shape[2] != tokens.shape[1]:
        state = state.repeat(tokens.shape[1])
    states, losses = [], []
    for token, word in zip(tokens[..., :-1].unbind(-1), tokens[..., 1:].unbind(-1), strict=True):
        logits, state, *_ = step(token, state)
        log_probs = logits.log_softmax(-1).gather(-1, word[..., None]).squeeze(-1)
        losses.append(-(log_probs * (word != pad)).sum())
        states.append(state)
    real = (tokens[..., 1:] != pad).flatten(0, 1).cpu().numpy()  # [C, T]
    hidden, cell = (_norms(losses, [part[kind] for part in states], real) for kind in (0, 1))
    assert hidden is not None
    return Flow(hidden, cell)


def _norms(losses: list, states: list, real: np.ndarray) -> np.ndarray | None:
    """Return the norms [C, T, T] of `Flow`, or None for states of width 0.

    The losses are sums over all captions: a caption's loss depends on its own states only, so the gradients separate.
    """
    if not states[0].shape[-1]:
        return None
    norms = np.full((*real.shape, real.shape[1]), np.nan)
    for s, loss in enumerate(losses):
        gradients = torch.autograd.grad(
            loss, states[: s + 1], retain_graph=True, allow_unused=True, materialize_grads=True
        )
        for t, gradient in enumerate(gradients):  # [layers, B, K, H]
            norms[:, s, t] = gradient.detach().norm(dim=(0, 3)).flatten().cpu().numpy()
    norms[~real] = np.nan
    return norms


def by_distance(norms: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Divide each gradient norm by that of the word's own state, and sort the ratios by distance in time.

    Args:
        norms: `Flow.hidden` or `Flow.cell`, [C, T, T].
        own: `Flow.hidden`.

    Returns:
        [C · T, T]: one row per word, one column per distance s − t; NaN if the caption has no word that far back.
    """
    captions, length, _ = norms.shape
    shares = np.full((captions, length, length), np.nan)
    for s in range(length):
        with np.errstate(invalid="ignore", divide="ignore"):
            shares[:, s, : s + 1] = norms[:, s, s::-1] / own[:, s, s, None]
    return shares.reshape(-1, length)


def train_steps(
    captioner: Captioner,
    batches: Iterable[CaptionBatch],
    *,
    learning_rate: float = 0.1,
    clip: float | None = None,
) -> Course:
    """Train a captioner in place with cross-entropy and plain gradient descent, one step per batch.

    Training stops early if the loss or the gradient is not finite.

    Args:
        captioner: the model.
        batches: the training batches, one step each.
        learning_rate: the step size.
        clip: the largest norm of the gradient of all parameters; longer gradients are scaled down to it. None: no
            clipping.

    Raises:
        ConfigError: `clip` is not above 0.
    """
    must_be("clip", clip, above=0)
    objective = CrossEntropy(doubly_stochastic=0.0)
    course: list[tuple[float, float, float]] = []
    parameters = [parameter for parameter in captioner.parameters() if parameter.requires_grad]
    update = torch.optim.SGD(parameters, lr=learning_rate)
    captioner.train()
    for batch in batches:
        update.zero_grad()
        loss = objective(captioner, batch).total
        loss.backward()
        norm = nn.utils.clip_grad_norm_(parameters, torch.inf if clip is None else clip).item()
        course.append((loss.item(), norm, norm if clip is None else min(norm, clip)))
        if not np.isfinite(course[-1]).all():
            break
        update.step()
    captioner.eval()
    return Course(*np.array(course, dtype=np.float64).reshape(-1, 3).T)


def lines(flow: Flow, name: str = "") -> Shares:
    """Return the lines that a figure shows of a flow: for h_t, and for c_t if the cell has one.

    Args:
        flow: the gradient norms.
        name: the name of the lines.
    """
    shares = {name or "hidden": by_distance(flow.hidden, flow.hidden)}
    if flow.cell is not None:
        shares[f"{name}, cell" if name else "cell"] = by_distance(flow.cell, flow.hidden)
    return shares


def untrained_flows(
    batch: CaptionBatch, *, vocabulary_size: int, gains: Sequence[float] = (0.7, 1.0, 1.8, 3.0), **sizes: Any
) -> dict[str, Shares]:
    """Measure untrained captioners: an RNN with each gain, then RNN, GRU and LSTM with gain 1.

    Args:
        batch: images and captions.
        vocabulary_size: number of words.
        gains: of the RNN's recurrent matrices; see `plain_captioner`.
        **sizes: further arguments of `plain_captioner`.

    Returns:
        {panel: lines} for a figure.
    """

    def of(cell: Callable[..., Cell], gain: float, name: str) -> Shares:
        torch.manual_seed(0)
        captioner = plain_captioner(cell, batch, vocabulary_size=vocabulary_size, gain=gain, **sizes)
        return lines(gradient_flow(captioner, batch), name)

    by_gain = {name: shares for gain in gains for name, shares in of(RNN, gain, f"gain {gain:g}").items()}
    by_cell = {name: shares for cell in CELLS for name, shares in of(cell, 1.0, cell.__name__).items()}
    return {"RNN, untrained": by_gain, "untrained, gain 1": by_cell}


def clipping_study(
    batches: Sequence[CaptionBatch],
    *,
    vocabulary_size: int,
    clip: float = 1.0,
    gain: float = 1.8,
    learning_rate: float = 0.5,
    epochs: int = 8,
    **sizes: Any,
) -> tuple[dict[str, dict[str, Course]], dict[str, Shares]]:
    """Train each cell twice from the same weights by plain gradient descent, with and without gradient clipping.

    Gain and learning rate are deliberately too high, so that training diverges within seconds. The last batch is held
    out: the gradients with respect to its states are measured after training.

    Args:
        batches: images and captions; at least two batches.
        vocabulary_size: number of words.
        clip: the largest norm of the gradient of the clipped trainings.
        gain: of the recurrent matrices; see `plain_captioner`.
        learning_rate: the step size.
        epochs: passes over the training batches.
        **sizes: further arguments of `plain_captioner`.

    Returns:
        {cell: {"unclipped": Course, "clipped to 1": …}}, and {panel: lines} for a figure.

    Raises:
        DataError: there are fewer than two batches.
    """
    if len(batches) < 2:
        raise DataError(f"clipping_study has {len(batches)} batches, but needs at least two: the last one is held out")
    *training, held_out = batches
    courses: dict[str, dict[str, Course]] = {cell.__name__: {} for cell in CELLS}
    panels: dict[str, Shares] = {}
    for name, limit in (("unclipped", None), (f"clipped to {clip:g}", clip)):
        panel = panels.setdefault(f"trained, {name}", {})
        for cell in CELLS:
            torch.manual_seed(0)
            captioner = plain_captioner(cell, held_out, vocabulary_size=vocabulary_size, gain=gain, **sizes)
            course = train_steps(captioner, training * epochs, learning_rate=learning_rate, clip=limit)
            courses[cell.__name__][name] = course
            panel |= lines(gradient_flow(captioner, held_out), cell.__name__)
    return courses, panels


def plain_captioner(
    cell: Callable[..., Cell], batch: CaptionBatch, *, vocabulary_size: int, width: int = 64, gain: float = 1.0
) -> Captioner:
    """Build an untrained captioner without attention and dropout, for features like those of a batch.

    Args:
        cell: `RNN`, `GRU` or `LSTM`.
        batch: a batch with features of the right shape.
        vocabulary_size: number of words.
        width: size of the embeddings and states.
        gain: factor of the recurrent matrices. They are orthogonal, so they preserve the length of a state. With a
            factor below 1, gradients through the recurrent matrices alone vanish; above 1 they may explode.

    Raises:
        ConfigError: `gain` is not above 0.
    """
    must_be("gain", gain, above=0)
    captioner = build_captioner(
        feature_size=batch.images.shape[-1],
        grid=batch.images.dim() == 3,
        vocabulary_size=vocabulary_size,
        cell=cell,
        attention=NoAttention,
        conditioning=partial(InitialState, dropout=0.0),
        width=width,
        embedding_size=width,
        dropout=0.0,
    )
    with torch.no_grad():
        for name, parameter in captioner.named_parameters():
            if ".weight_hh_" in name:
                parameter.mul_(gain)
    return captioner.eval()
