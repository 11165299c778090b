"""Train captions by maximum likelihood: cross-entropy, doubly stochastic attention, scheduled sampling."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from captioning.errors import must_be
from captioning.models import StepState
from captioning.objectives.chunked_cross_entropy import SoftTargets, wide
from captioning.objectives.loss import Loss, make_loss
from captioning.objectives.reinforce import Reinforce
from captioning.objectives.rollout import draw_ids, roll_out, teacher_force
from captioning.objectives.soft_targets import Teacher
from captioning.objectives.word_loss import WordLoss


class CrossEntropy(nn.Module):
    """Negative log-likelihood of the captions, with the doubly stochastic term.

    L = −log p(y | a) + α_c Σ_i (1 − Σ_t α_ti)², Show, Attend and Tell eq. 14. Reductions: the first term is summed
    over a caption's words, <end> among them; the second is summed over locations; both are averaged over the captions
    of the batch, in training over those of all processes together. Padding is in neither.

    For hard attention the return of a path of locations is minus the whole loss of its caption: smoothed words and soft
    targets as they are minimized, and the doubly stochastic term.

    Args:
        doubly_stochastic: α_c; the term is left out where it is 0, or there are no attention weights.
        label_smoothing: probability mass spread evenly over the vocabulary (Szegedy et al. 2016).
        location_loss: Reinforce, for hard attention that draws places.
        inputs: ScheduledSampling, or None for the captions' own words (teacher forcing).
        teacher: Teacher, whose distribution of each word the model learns beside the word itself, in training.
        teacher_share: of the target that the teacher's distribution is.
    """

    of_task: ClassVar = "image_captioning"  # see captioning.tasks

    def __init__(
        self,
        *,
        doubly_stochastic: float = 1.0,
        label_smoothing: float = 0.0,
        location_loss: Reinforce | None = None,
        inputs: "ScheduledSampling | None" = None,
        teacher: "Teacher | None" = None,
        teacher_share: float = 0.5,
    ):
        super().__init__()
        must_be("objective.teacher_share", teacher_share, least=0, most=1)
        must_be("objective.doubly_stochastic", doubly_stochastic, least=0)
        must_be("objective.label_smoothing", label_smoothing, least=0, below=1)
        self.doubly_stochastic, self.words = doubly_stochastic, WordLoss(label_smoothing=label_smoothing)
        self.location_loss, self.inputs = location_loss or Reinforce(), inputs
        self.teacher, self.teacher_share = teacher, teacher_share

    def forward(self, model, batch) -> Loss:
        """Loss of `model` (a `CaptionModel`) on `batch` (CaptionBatch)."""
        batch = batch._replace(tokens=self.location_loss.repeat(batch.tokens) if model.training else batch.tokens)
        run = self.inputs if self.inputs is not None and model.training else teacher_force
        scores, index, glimpse = run(model, batch)
        targets = batch.tokens[..., 1:]
        real = targets != model.pad
        captions = real.any(-1)  # [B, K]: slots that hold a caption
        soft_targets = None
        if self.teacher is not None and model.training:
            ids, probs = (part.flatten(0, 2)[index] for part in self.teacher(batch.image_ids, batch.tokens))
            soft_targets = SoftTargets(ids, self.teacher_share * probs)
        nats, of_words = self.words(scores, targets.flatten()[index], soft_targets)
        sums, uneven = {"cross_entropy": nats}, None
        if self.doubly_stochastic and glimpse.weights.shape[-1]:
            seen = glimpse.weights.sum(2)  # [B, K, T, P] -> [B, K, P]
            uneven = (1 - seen) ** 2
            if batch.mask is not None:
                uneven = uneven * batch.mask[:, None]  # a place that is padding is not there to be looked at
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
    """Each input word is, with a probability that grows, the model's own sample (Bengio et al. 2015).

    The probability is 0 up to step `start`, then rises by `increase` after every `every` optimizer steps, to at most
    `maximum`. Samples are drawn from the model's distribution, with torch's global generator, and carry no
    gradient. The targets stay the caption's own words, position by position.

    Args:
        start, every: optimizer steps.
        increase, maximum: probabilities.
    """

    def __init__(self, *, start: int = 0, every: int = 1000, increase: float = 0.05, maximum: float = 0.25):
        super().__init__()
        must_be("objective.inputs.every", every, least=1)
        must_be("objective.inputs.increase", increase, least=0)
        must_be("objective.inputs.maximum", maximum, least=0, most=1)
        self.start, self.every, self.increase, self.maximum = start, every, increase, maximum
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))  # optimizer steps taken

    def probability(self) -> float:
        """That of the next step."""
        periods = (int(self.batches) - self.start) // self.every
        return min(self.maximum, max(0, periods) * self.increase)

    def take(self, sums: Tensor) -> None:
        """A step is one, however many processes and micro-batches it has."""
        self.batches += 1

    def forward(self, model, batch):
        """Scores at the N real words (logits [N, V]), their index, and the glimpses, as teacher forcing gives them."""
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
