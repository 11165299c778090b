"""What training minimises. An objective is called with the model and a batch, and owns every part of the loss."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Loss(NamedTuple):
    """total: scalar to differentiate. parts: its terms by name, detached. words: real words in the batch."""

    total: Tensor
    parts: dict[str, Tensor]
    words: Tensor


class CrossEntropy:
    """Negative log-likelihood of the captions, with the doubly stochastic term.

    L = −log p(y | a) + α_c Σ_i (1 − Σ_t α_ti)², Show, Attend and Tell eq. 14. Reductions: the first term is summed
    over a caption's words, <end> among them; the second is summed over places; both are averaged over the captions
    of the batch. Padding is in neither.

    Args:
        doubly_stochastic: α_c; without attention weights the term is zero.
        label_smoothing: probability mass spread evenly over the vocabulary (Szegedy et al. 2016).
    """

    def __init__(self, *, doubly_stochastic: float = 1.0, label_smoothing: float = 0.0):
        self.doubly_stochastic, self.label_smoothing = doubly_stochastic, label_smoothing

    def __call__(self, model, batch) -> Loss:
        """Teacher-forces `batch` (CaptionBatch) through `model` (Captioner)."""
        targets = batch.tokens[..., 1:]
        decoded = model(batch.images, batch.tokens)
        captions = (targets != model.decoder.pad).any(-1)  # [B, K]: slots that hold a caption
        count = captions.sum()
        targets = targets.flatten()[decoded.index]
        smoothed = F.cross_entropy(
            decoded.logits.float(), targets, reduction="sum", label_smoothing=self.label_smoothing
        )
        parts = {"cross_entropy": smoothed / count}
        if decoded.weights.shape[-1]:
            seen = decoded.weights.sum(2)  # [B, K, T, P] -> [B, K, P]
            uneven = ((1 - seen) ** 2).sum(-1) * captions
            parts["doubly_stochastic"] = self.doubly_stochastic * uneven.sum() / count
        total = torch.stack(list(parts.values())).sum()
        words = torch.as_tensor(len(targets), device=total.device)
        return Loss(total, {name: part.detach() for name, part in parts.items()}, words)
