"""Measure how far gradients reach back through time: from the loss of each word to every state before it.

Vanishing and exploding gradients (Bengio et al. 1994; Pascanu et al. 2013), seen on captions. Clipping changes what a
step does to the parameters; the gradients to the states it leaves as they are.
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
)
from captioning.objectives import CrossEntropy

CELLS = (RNN, GRU, LSTM)


class Flow(NamedTuple):
    """Norms of the gradients of each word's loss to each state before it, for C captions of at most T words.

    hidden: [C, T, T] float64; [c, s, t] is ‖∂loss_s/∂h_t‖, loss_s = −log p of word s, h_t the state from which word t
    is read; all layers together. cell: likewise for c_t; None where cells have none. NaN where t > s, or caption c has
    no word s. h_t and c_t are the two parts of one state: the derivative to c_t is that past h_t, at t = s it is 0.
    """

    hidden: np.ndarray
    cell: np.ndarray | None


Shares = dict[str, np.ndarray]  # name of a line -> [N, D] by distance


class Course(NamedTuple):
    """A training step by step: loss, norm of the gradient of all parameters, and its norm after clipping; [S] each."""

    loss: np.ndarray
    norm: np.ndarray
    applied: np.ndarray


def gradient_flow(captioner: Captioner, batch: CaptionBatch) -> Flow:
    """Of the captions of a batch, teacher-forced, without dropout, in float64 on a copy of the captioner.

    All paths count, through the recurrence and through attention's queries; hard attention's choice has none.
    """
    model = copy.deepcopy(captioner).double().eval().requires_grad_(False)
    state, memory = model.begin(batch.images.double(), batch.mask)
    return state_gradients(partial(model.step, memory=memory), state, batch.tokens, pad=model.pad)


def state_gradients(step: Callable, state: RecurrentState, tokens: Tensor, *, pad: int) -> Flow:
    """Of any tokens [B, K, 1 + T] that `step(token [B, K], state) -> (logits, state, …)` reads and foretells."""
    state = RecurrentState(*(part.detach().requires_grad_() for part in state))
    if state.hidden.shape[2] != tokens.shape[1]:
        state = state.repeat(tokens.shape[1])
    states, losses = [], []
    for token, word in zip(tokens[..., :-1].unbind(-1), tokens[..., 1:].unbind(-1), strict=True):
        logits, state, *_ = step(token, state)
        log_probs = logits.log_softmax(-1).gather(-1, word[..., None]).squeeze(-1)
        losses.append(-(log_probs * (word != pad)).sum())
        states.append(state)
    real = (tokens[..., 1:] != pad).flatten(0, 1).cpu().numpy()  # [C, T]
    return Flow(*(_norms(losses, [part[kind] for part in states], real) for kind in (0, 1)))


def _norms(losses: list, states: list, real: np.ndarray) -> np.ndarray | None:
    """[C, T, T] of `Flow`. A caption's loss depends on its own states alone, so one sum serves all captions."""
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
    """Each gradient as a share of the one to the word's own state, by how many steps it went back.

    Args:
        norms: `Flow.hidden` or `Flow.cell`. own: `Flow.hidden`.

    Returns:
        [C · T, T]: a row a word, a column a distance s − t; NaN where the caption does not reach so far back.
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
    """One step of gradient descent a batch by cross-entropy, in place; ends where loss or gradient are not finite.

    Args:
        clip: norm to which the gradient of all parameters together is shortened where it is longer; None: never.
    """
    must_be("clip", clip, above=0)
    objective, course = CrossEntropy(doubly_stochastic=0.0), []
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
    """What a figure shows of a flow, by distance: of h_t under the name, and of c_t where there is one."""
    shares = {name or "hidden": by_distance(flow.hidden, flow.hidden)}
    if flow.cell is not None:
        shares[f"{name}, cell" if name else "cell"] = by_distance(flow.cell, flow.hidden)
    return shares


def untrained_flows(
    batch: CaptionBatch, *, vocabulary_size: int, gains: Sequence[float] = (0.7, 1.0, 1.8, 3.0), **sizes: Any
) -> dict[str, Shares]:
    """{panel: lines}: the plain RNN with each gain, then the three cells with this package's own initialisation."""

    def of(cell: Callable[..., Cell], gain: float, name: str) -> Shares:
        torch.manual_seed(0)
        made = plain_captioner(cell, batch, vocabulary_size=vocabulary_size, gain=gain, **sizes)
        return lines(gradient_flow(made, batch), name)

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
    """Each cell trained twice from the same weights by plain gradient descent, with clipping and without.

    Gain and rate are higher than anybody would choose, so that what goes wrong does so within seconds. The last batch
    is not trained on; gradients to its states are told after the training.

    Returns:
        {cell: {"unclipped": Course, "clipped to 1": …}}, and {panel: lines}.

    Raises:
        DataError: there is one batch only.
    """
    if len(batches) < 2:
        raise DataError(f"{len(batches)} batch of pictures: at least two are needed, one of them to look at afterwards")
    *training, held_out = batches
    courses, panels = {cell.__name__: {} for cell in CELLS}, {}
    for name, limit in (("unclipped", None), (f"clipped to {clip:g}", clip)):
        panel = panels.setdefault(f"trained, {name}", {})
        for cell in CELLS:
            torch.manual_seed(0)
            made = plain_captioner(cell, held_out, vocabulary_size=vocabulary_size, gain=gain, **sizes)
            course = train_steps(made, training * epochs, learning_rate=learning_rate, clip=limit)
            courses[cell.__name__][name] = course
            panel |= lines(gradient_flow(made, held_out), cell.__name__)
    return courses, panels


def plain_captioner(
    cell: Callable[..., Cell], batch: CaptionBatch, *, vocabulary_size: int, width: int = 64, gain: float = 1.0
) -> Captioner:
    """An untrained captioner without attention and dropout, for features like those of a batch.

    Args:
        cell: RNN, GRU or LSTM.
        gain: recurrent matrices are orthogonal, so multiply a state's length by 1; this times 1. Below it gradients
            that go back through them alone must vanish, above it they may explode.
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
