"""Train a VQA model by maximum likelihood: cross-entropy of the answers, and REINFORCE for hard attention."""

from typing import Any, ClassVar

from torch import nn

from captioning.models import Answerer
from captioning.objectives.chunked_cross_entropy import wide
from captioning.objectives.loss import Loss, make_loss
from captioning.objectives.reinforce import Reinforce


class AnswerCrossEntropy(nn.Module):
    """Cross-entropy of the answers: −Σ_a t_a log p(a | question, image).

    Reduction: averaged over the questions of the batch that have a known correct answer; in training over those of all
    processes together. t_a are the shares of a QuestionBatch: the annotators' votes, or 1 for the most frequent answer.
    For hard attention, Σ_a t_a log p(a | s) is the return of the locations s of all glimpses.

    Args:
        location_loss: Gradient of the locations that hard attention samples; None: `Reinforce()`.
    """

    of_task: ClassVar = "vqa"  # the task in captioning.tasks that this objective belongs to

    def __init__(self, *, location_loss: Reinforce | None = None):
        super().__init__()
        self.location_loss = location_loss or Reinforce()

    def forward(self, model: Answerer, batch: Any) -> Loss:
        """Compute the loss of `model` (an `Answerer`) on `batch` (a `QuestionBatch`)."""
        if model.training:  # repeat each question in as many rows as the baseline needs
            repeated = {
                name: self.location_loss.repeat(getattr(batch, name)) for name in ("questions", "answers", "shares")
            }
            batch = batch._replace(**repeated)
        logits, glimpse = model(batch.images, batch.questions, batch.mask)
        log_probs = wide(logits).log_softmax(-1).gather(-1, batch.answers)  # [B, K, M]
        likelihood = (batch.shares.to(log_probs.dtype) * log_probs).sum(-1)  # [B, K]; 0 if no answer is known
        known = batch.shares.sum(-1) > 0
        sums, stats = {"cross_entropy": -likelihood.sum()}, {}
        if glimpse.log_prob is not None:
            looks = glimpse.log_prob.shape[-1]
            rewards = likelihood.new_zeros(glimpse.log_prob.shape)
            rewards[..., -1] = likelihood.detach()
            terms, stats = self.location_loss(rewards, glimpse, known[..., None].expand(-1, -1, looks))
            sums |= terms
        words = (batch.questions != model.pad).sum()
        return make_loss(sums, known.sum(), words=words, stats=stats, training=model.training)
