"""Train captioners by maximum likelihood: cross-entropy, doubly stochastic attention, scheduled sampling."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from captioning.errors import must_be
from captioning.models import CaptionModel, Glimpse, LazyLogits, StepState
from captioning.objectives.chunked_cross_entropy import SoftTargets, wide
from captioning.objectives.loss import Loss, make_loss
from captioning.objectives.reinforce import Reinforce
from captioning.objectives.rollout import draw_ids, roll_out, teacher_force
from captioning.objectives.soft_targets import Teacher
from captioning.objectives.word_loss import WordLoss


class CrossEntropy(nn.Module):
    """Negative log-likelihood of the captions, with the doubly stochastic attention term.

    L = −log p(y | a) + α_c Σ_i (1 − Σ_t α_ti)², Show, Attend and Tell eq. 14. Reductions: the first term is summed over
    a caption's words, `<end>` included; the second is summed over locations. Both are averaged over the captions of the
    batch, in training over those of all processes together. Padding counts in neither.

    For hard attention, the return of a path of locations is minus the full loss of its caption. This includes label
    smoothing, soft targets and the doubly stochastic term.

    Args:
        doubly_stochastic: α_c; the term is left out if it is 0 or there are no attention weights.
        label_smoothing: Probability mass spread evenly over the vocabulary (Szegedy et al. 2016).
        location_loss: Gradient of the locations that hard attention samples; None: `Reinforce()`.
        inputs: `ScheduledSampling`, or None to read the caption's own words (teacher forcing).
        teacher: Teacher for knowledge distillation: in training, its distribution of each word is part of the target.
        teacher_share: Share of the target that is the teacher's distribution.

    Raises:
        ConfigError: An argument is out of range.
    """

    of_task: ClassVar = "image_captioning"  # the task in captioning.tasks that this objective belongs to

    def __init__(
        self,
        *,
        doubly_stochastic: float = 1.0,
        label_smoothing: float = 0.0,
        location_loss: Reinforce | None = None,
        inputs: "ScheduledSampling | None" = None,
        teacher: Teacher | None = None,
        teacher_share: float = 0.5,
    ):
        super().__init__()
        must_be("objective.teacher_share", teacher_share, least=0, most=1)
        must_be("objective.doubly_stochastic", doubly_stochastic, least=0)
        must_be("objective.label_smoothing", label_smoothing, least=0, below=1)
        self.doubly_stochastic, self.words = doubly_stochastic, WordLoss(label_smoothing=label_smoothing)
        self.location_loss, self.inputs = location_loss or Reinforce(), inputs
        self.teacher, self.teacher_share = teacher, teacher_share

    def forward(self, model: CaptionModel, batch: Any) -> Loss:
        """Compute the loss of `model` (a `CaptionModel`) on `batch` (a `CaptionBatch`)."""
        batch = batch._replace(tokens=self.location_loss.repeat(batch.tokens) if model.training else batch.tokens)
        run = self.inputs if self.inputs is not None and model.training else teacher_force
        scores, index, glimpse = run(model, batch)
        targets = batch.tokens[..., 1:]
        real = targets != model.pad
        captions = real.any(-1)  # [B, K]: slots with a caption
        soft_targets = None
        if self.teacher is not None and model.training:
            ids, probs = (part.flatten(0, 2)[index] for part in self.teacher(batch.image_ids, batch.tokens))
            soft_targets = SoftTargets(ids, self.teacher_share * probs)
        nats, of_words = self.words(scores, targets.flatten()[index], soft_targets)
        sums, uneven = {"cross_entropy": nats}, None
        if self.doubly_stochastic and glimpse.weights.shape[-1]:
            seen = glimpse.weights.sum(2)  # [B, K, T, L] -> [B, K, L]
            uneven = (1 - seen) ** 2
            if batch.mask is not None:
                uneven = uneven * batch.mask[:, None]  # padding is not a location to attend to
            uneven = uneven.sum(-1) * captions
            sums["doubly_stochastic"] = self.doubly_stochastic * uneven.sum()
        stats = {}
        if glimpse.log_prob is not None:
            rewards = of_words.new_zeros(real.numel()).index_put((index,), -of_words).view(real.shape)
            whole = None if uneven is None else -self.doubly_stochastic * uneven.detach()
            terms, stats = self.location_loss(rewards, glimpse, real, whole=whole)
            sums |= terms
        return make_loss(sums, captions.sum(), words=real.sum(), stats=stats, training=model.training)


class ScheduledSampling(StepState):
    """Scheduled sampling: each input word is the model's own sample with a growing probability (Bengio et al. 2015).

    The probability is 0 up to step `start`. Then it rises by `increase` after every `every` optimizer steps, up to
    `maximum`. Samples come from the model's distribution, with torch's global generator, and have no gradient. The
    targets remain the caption's own words, position by position.

    Args:
        start: Number of optimizer steps without sampling.
        every: Number of optimizer steps between two increases.
        increase: Increase of the probability.
        maximum: Greatest probability.

    Raises:
        ConfigError: An argument is out of range.
    """

    batches: Tensor  # number of optimizer steps taken

    def __init__(self, *, start: int = 0, every: int = 1000, increase: float = 0.05, maximum: float = 0.25):
        super().__init__()
        must_be("objective.inputs.every", every, least=1)
        must_be("objective.inputs.increase", increase, least=0)
        must_be("objective.inputs.maximum", maximum, least=0, most=1)
        self.start, self.every, self.increase, self.maximum = start, every, increase, maximum
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def probability(self) -> float:
        """Return the probability of the next step."""
        periods = (int(self.batches) - self.start) // self.every
        return min(self.maximum, max(0, periods) * self.increase)

    def take(self, sums: Tensor) -> None:
        """Count one optimizer step, for any number of processes and micro-batches."""
        self.batches += 1

    def forward(self, model: CaptionModel, batch: Any) -> tuple[LazyLogits | Tensor, Tensor, Glimpse]:
        """Score the N real words of the batch's captions, with sampled input words.

        Args:
            model: A `CaptionModel`.
            batch: A `CaptionBatch`.

        Returns:
            Logits [N, V] (or `LazyLogits`), the index of the N words, and the glimpses, as from teacher forcing.
        """
        probability = self.probability()
        self.note(torch.ones(1, device=batch.tokens.device))
        if not probability:
            return teacher_force(model, batch)
        inputs, targets = batch.tokens[..., :-1], batch.tokens[..., 1:]

        def choose(t: int, logits: Tensor) -> Tensor:
            teacher = inputs[..., min(t + 1, inputs.shape[-1] - 1)]
            own = draw_ids(wide(logits.detach()).softmax(-1))
            return torch.where(torch.rand(teacher.shape, device=teacher.device) < probability, own, teacher)

        rows, length = targets.shape[1:]
        real = targets != model.pad
        _, logits, glimpse = roll_out(
            model, batch, rows=rows, length=length, start=inputs[..., 0], choose=choose, real=real
        )
        index = real.flatten().nonzero().squeeze(1)
        return logits.flatten(0, 2)[index], index, glimpse
