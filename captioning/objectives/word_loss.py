"""Compute the negative log-likelihood of words, with label smoothing and soft targets."""

import torch
from torch import Tensor, nn

from captioning.models import LazyLogits
from captioning.models.ops import mixed
from captioning.objectives.chunked_cross_entropy import SoftTargets, chunked_cross_entropy, wide


def word_loss_equation(
    logits: Tensor, targets: Tensor, soft_targets: SoftTargets | None = None, *, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Compute −Σ_n Σ_v q_n(v) log p_n(v), with q_n = (1 − Σ_w s_nw) ((1 − ε) [v = y_n] + ε / V) + Σ_w s_nw [v = w].

    Args:
        logits: [N, V].
        targets: Ids y [N].
        soft_targets: The soft targets w and their shares s; None: no word has any.
        label_smoothing: ε (Szegedy et al. 2016).

    Returns:
        The loss, summed over the N words, and the loss of each word without gradient, [N].
    """
    log_probs = wide(logits).log_softmax(-1)
    of_words = log_probs.gather(-1, targets[:, None]).squeeze(-1)
    wanted = torch.lerp(of_words, log_probs.mean(-1), label_smoothing) if label_smoothing else of_words
    if soft_targets is not None:
        shares = soft_targets.shares.to(log_probs.dtype)
        wanted = (1 - shares.sum(-1)) * wanted + (log_probs.gather(-1, soft_targets.ids) * shares).sum(-1)
    return -wanted.sum(), -wanted.detach()


class WordLoss(nn.Module):
    """`word_loss_equation`, in at least float32.

    For logits that are not computed yet (`LazyLogits`) it uses a kernel that computes the logits of a few words at a
    time, together with their gradient: the full [N, V] is never in memory. For the backward pass it keeps tensors of
    the size of the output layer's input and of its matrix.

    Args:
        label_smoothing: ε, the probability mass that is spread evenly over the vocabulary.
    """

    def __init__(self, *, label_smoothing: float = 0.0):
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(
        self, scores: LazyLogits | Tensor, targets: Tensor, soft_targets: SoftTargets | None = None
    ) -> tuple[Tensor, Tensor]:
        """Compute the loss of N words.

        Args:
            scores: Logits [N, V], or `LazyLogits`.
            targets: Ids [N].
            soft_targets: A teacher's distributions, or None.

        Returns:
            The loss, summed over the words, and the loss of each word, [N]; see `word_loss_equation`.
        """
        if isinstance(scores, Tensor):
            return word_loss_equation(scores, targets, soft_targets, label_smoothing=self.label_smoothing)
        device = scores.features.device.type
        features, weight, bias = (
            part if part is None else part.to(mixed(device, part.dtype))
            for part in (scores.features, scores.output.weight, scores.output.bias)
        )
        return chunked_cross_entropy(
            features, weight, bias, targets, soft_targets, label_smoothing=self.label_smoothing
        )
