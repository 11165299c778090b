"""Measure how noisy the gradient of hard attention is: `python docs/gradient_noise.py CHECKPOINT data=flickr8k …`.

For a checkpoint of soft or hard attention, it takes one batch of training images with all their captions, and computes
the gradient of one optimizer step many times, with new random locations each time. The weights stay as they are, and
dropout is off, so only the locations differ. For each estimator it prints, for the parameters of the attention's scorer
and for all parameters:

- noise: the sum of the gradient's variances, divided by the squared length of its expected value. With a noise of 1,
  the error of a step's gradient is as long as the gradient. The squared length is estimated without bias: that of the
  mean of all draws, minus the part that is noise.
- cosine: between the mean of the draws and the mean of the first estimator. It is below 1 because of bias, and because
  of the noise that is left in both means.

The settings after the checkpoint are those of `captioning-distill`, for example data.root=, features.root= and
batch_size= (images in the batch).
"""

import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

import captioning
from captioning.config import DistillConfig, build, check, compose
from captioning.data import CaptionBatch, CaptionDataset, collate, encode_captions, select, tokenize_captions
from captioning.evaluation import sources_of
from captioning.inference import Predictor
from captioning.models import CaptionModel, HardAttention, ScoreFunction, SoftAttention, StraightThrough
from captioning.objectives import CrossEntropy, LeaveOneOut, MovingAverage, Reinforce

DRAWS = 24


class Estimator(NamedTuple):
    """A way to estimate the gradient. draw: how locations are drawn. baseline: that of REINFORCE."""

    name: str
    draw: Callable[[], ScoreFunction | StraightThrough]
    baseline: Callable[[], MovingAverage | LeaveOneOut]
    reward_to_go: bool = False


ESTIMATORS = (
    Estimator("REINFORCE, leave-one-out of 2", lambda: ScoreFunction(expected_share=0.0), LeaveOneOut, True),
    Estimator("REINFORCE, mean return", lambda: ScoreFunction(expected_share=0.0), MovingAverage),
    Estimator("the same, reward to go", lambda: ScoreFunction(expected_share=0.0), MovingAverage, True),
    Estimator("straight-through, noise 1", StraightThrough, MovingAverage),
)


class Moments(NamedTuple):
    """Moments of random gradients [draws, parameters].

    Attributes:
        mean: [parameters].
        variance: sum of the variances of all parameters, with draws − 1 in the denominator.
        squared_length: unbiased estimate of the squared length of the expected gradient; it may be negative.
    """

    mean: Tensor
    variance: float
    squared_length: float


def moments(gradients: Sequence[Tensor]) -> Moments:
    """Compute the moments of at least two gradients."""
    stacked = torch.stack(tuple(gradients)).double()
    mean, variance = stacked.mean(0), stacked.var(0).sum().item()
    return Moments(mean, variance, mean.square().sum().item() - variance / len(stacked))


def with_draws(model: CaptionModel, draw: ScoreFunction | StraightThrough) -> nn.Module:
    """Make a captioner's attention draw locations in training, with the weights that it has; return the attention.

    Raises:
        SystemExit: the captioner has no attention, or several.
    """
    found = [name for name, part in model.named_modules() if isinstance(part, SoftAttention | HardAttention)]
    if len(found) != 1:
        sys.exit("the checkpoint must have one soft or hard attention")
    owner, _, own = found[0].rpartition(".")
    attention = model.get_submodule(found[0])
    size, scorer = attention.context_size, attention.scorer
    hard = HardAttention(size, size, scorer=lambda feature_size, state_size: scorer, draw=draw)
    setattr(model.get_submodule(owner), own, hard)
    return hard


def without_dropout(model: nn.Module) -> None:
    """Set every rate of dropout to 0."""
    for part in model.modules():
        for name in ("p", "dropout", "word_dropout"):
            if isinstance(getattr(part, name, None), float):
                setattr(part, name, 0.0)


def gradients_of(
    model: CaptionModel, batch: CaptionBatch, estimator: Estimator, draws: int
) -> tuple[list[Tensor], list[Tensor]]:
    """Draw gradients of the scorer's parameters and of all parameters."""
    attention = with_draws(model, estimator.draw())
    model.train()
    without_dropout(model)
    baseline = estimator.baseline()
    location_loss = Reinforce(scale=1.0, entropy=0.0, baseline=baseline, reward_to_go=estimator.reward_to_go)
    objective = CrossEntropy(doubly_stochastic=0.0, location_loss=location_loss).train()
    if isinstance(baseline, MovingAverage):  # at the mean return, as after many steps
        with torch.no_grad():
            words = objective(model, batch).parts["cross_entropy"]
        baseline.value.fill_(-words)
    own = {id(parameter) for parameter in attention.parameters()}
    scorer, everything = [], []
    for _ in range(draws):
        model.zero_grad()
        objective(model, batch).total.backward()
        pairs = [(id(p) in own, p.grad.flatten().clone()) for p in model.parameters() if p.grad is not None]
        scorer.append(torch.cat([gradient for is_own, gradient in pairs if is_own]))
        everything.append(torch.cat([gradient for _, gradient in pairs]))
    return scorer, everything


def training_batch(predictor: Predictor, settings: Sequence[str]) -> CaptionBatch:
    """Read the first training images with their captions and features."""
    config = check(compose("distill", ["checkpoint=none", "output=none.npz", *settings]), DistillConfig)
    data = config["data"]
    records = select(build(data["reader"]), "train")[: config["batch_size"]]
    named = {"name": data["name"], "skip_unreadable": data["skip_unreadable"]}
    (source,), records = sources_of(predictor, build(config["features"]), records, **named)
    words = tokenize_captions(records, predictor.vocabulary.tokenizer)
    captions = encode_captions(words, predictor.vocabulary, max_length=predictor.max_length)
    data_set = CaptionDataset(records, captions, source=source.read)
    batch = collate([data_set[index, 0] for index in range(len(records))])
    return batch._replace(images=source.encoder(batch.images).float())


def main(arguments: Sequence[str]) -> None:
    """Print the table of a checkpoint."""
    checkpoint, *settings = arguments
    predictor = captioning.load(checkpoint, device="cpu")
    batch = training_batch(predictor, settings)
    model, first = predictor.captioner, None
    print(f"| {checkpoint} | Scorer: noise | Cosine | All: noise | Cosine |\n|---|---|---|---|---|")
    for estimator in ESTIMATORS:
        torch.manual_seed(0)
        found = [moments(gradients) for gradients in gradients_of(model, batch, estimator, DRAWS)]
        first = first or found
        cells = []
        for its, reference in zip(found, first, strict=True):
            cosine = torch.nn.functional.cosine_similarity(its.mean, reference.mean, 0).item()
            cells += [f"{its.variance / its.squared_length:.3g}", f"{cosine:.2f}"]
        print(f"| {estimator.name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
