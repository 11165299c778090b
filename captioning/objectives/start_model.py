"""Keep the model that a run started from, to penalize captions that it would not have written."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from captioning.models import CaptionModel
from captioning.objectives.chunked_cross_entropy import wide


class StartModel(nn.Module):
    """A frozen copy of a captioner without its encoder, always in eval mode. Its weights are part of the checkpoint.

    Args:
        model: the captioner, with the weights that the run starts from. Its encoder must be frozen.
    """

    def __init__(self, model: CaptionModel):
        super().__init__()
        encoder, model.encoder = model.encoder, nn.Identity()
        self.model = copy.deepcopy(model).requires_grad_(False)
        model.encoder = encoder
        self.eval()

    def train(self, mode: bool = True) -> "StartModel":
        """Stay in eval mode: the captions are scored without dropout."""
        return super().train(False)

    @torch.no_grad()
    def log_probs(
        self, features: Tensor, mask: Tensor | None, tokens: Tensor, *, start: int, forbidden: Tensor
    ) -> Tensor:
        """Compute log p(y) of captions, [B, n], with the probabilities of the other words normalized.

        Args:
            features: Output of the encoder, [B, L, D] or [B, D].
            mask: [B, L] bool, True at real locations; None if all are real.
            tokens: [B, n, T] int64: captions without `<start>`; `<pad>` after their last word.
            start: Id of `<start>`.
            forbidden: Ids that are never generated.
        """
        first, memory = self.model.begin(features, mask)
        state: Any = first.repeat(tokens.shape[1])
        token = torch.full_like(tokens[..., 0], start)
        found = []
        for word in tokens.unbind(-1):
            out = self.model.step(token, state, memory)
            scores = wide(out.logits).index_fill(-1, forbidden, -torch.inf).log_softmax(-1)
            found.append(scores.gather(-1, word[..., None]).squeeze(-1).where(word != self.model.pad, 0.0))
            token, state = word, out.state
        return torch.stack(found, -1).sum(-1)
