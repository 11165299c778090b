"""Measure a training step in real words per second and memory, compared with a plain captioner and its matrix products.

    python tests/benchmarks/training.py [--quick] [--only train/soft] [--output bench.json]

A step is forward, loss, backward, clipping of the gradient's norm, and Adam. The features are random numbers in memory,
in half precision as in the feature store. All layers have width 512, the vocabulary has 9 490 words, and an image has
five captions of COCO's lengths. `train/soft/196x2048/64` is soft attention over 196 locations of 2 048 features, with
64 images per batch. `train/fc/64` has no attention; its one vector of 2 048 features is part of the input at every
word. `…/bf16` is the same in mixed precision, if there is a GPU. `…/compiled` has its small parts compiled, if there is
a compiler.

`value` counts real words, including <end> but not padding. `floor_ratio` is the step's time divided by that of the
products in `minimum_operations`, at the rate of a large product in the same run. `own_floor_ratio` uses the products
that the step really computes, by torch's counter (which does not see into the kernel that runs `train/fc` on a GPU).
`rival_ratio` is words per second divided by those of `Rival`, a captioner as it is usually written, with the same
weights and the same loss. `soft_ratio` is the time of hard attention divided by that of soft attention. `eager_ratio`
is the time of an uncompiled step divided by that of the compiled step.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from random import Random
from typing import Any

import torch
from measure import matrix_job, matrix_operations, peak_mebibytes, run, seconds
from torch import Tensor, nn
from torch.nn import functional as F

from captioning.data import CaptionBatch, collate
from captioning.models import Captioner, EveryStep, HardAttention, LinearReadout, NoAttention, UpDown, build_captioner
from captioning.objectives import CrossEntropy
from captioning.training import compile_parts, keep_freed_memory
from captioning.training.compile import why_not

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
GRIDS, BATCHES, WIDTH, VOCABULARY, CAPTIONS = ((49, 1280), (196, 512), (196, 2048)), (16, 64), 512, 9490, 5
PAD, START, END = range(3)
# Words per caption in 1 000 captions: COCO's frequencies, rounded to half a percent; their mean is 10.5.
LENGTHS = {7: 10, 8: 150, 9: 215, 10: 195, 11: 150, 12: 125, 13: 65, 14: 35, 15: 20, 16: 15, 17: 10, 18: 10}

VECTOR = {"grid": False, "attention": NoAttention, "conditioning": EveryStep, "readout": LinearReadout}
MODELS = {
    "fc": VECTOR,
    "soft": {"grid": True},
    "hard": {"grid": True, "attention": HardAttention},
    "updown": {"grid": True, "recurrence": UpDown, "conditioning": EveryStep, "readout": LinearReadout},
}
ONCE = 2**24  # from this many numbers in a batch's features, the rival is slow and large, and runs only once


def build(kind: str, features: int, *, vocabulary: int = VOCABULARY, width: int = WIDTH) -> Captioner:
    """Create a captioner in training mode, with the same weights every time."""
    torch.manual_seed(0)
    sizes = {"feature_size": features, "vocabulary_size": vocabulary, "width": width, "embedding_size": width}
    return build_captioner(pad=PAD, **sizes, **MODELS[kind]).to(DEVICE).train()


def draw_batch(
    images: int,
    shape: Sequence[int],
    *,
    vocabulary: int = VOCABULARY,
    lengths: Mapping[int, int] = LENGTHS,
    seed: int = 0,
) -> CaptionBatch:
    """Draw a batch: features of `shape` per image, and captions of uniformly drawn words; the same batch every time."""
    random, generator = Random(seed), torch.Generator().manual_seed(seed)

    def caption() -> list[int]:
        (length,) = random.choices(list(lengths), weights=list(lengths.values()))
        return [START, *(random.randrange(END + 1, vocabulary) for _ in range(length)), END]

    items = [
        (image, torch.rand(*shape, generator=generator).half(), [caption() for _ in range(CAPTIONS)])
        for image in range(images)
    ]
    return CaptionBatch(*(None if part is None else part.to(DEVICE) for part in collate(items)))


class Training:
    """Return a function that takes one training step: `loss() -> (total, …)`, backward, clipping and Adam.

    Args:
        weights: the trained weights.
        loss: function without arguments.
        precision: type of torch's autocast for the forward pass; None for none.
    """

    def __init__(self, weights: nn.Module, loss: Callable[[], Any], *, precision: torch.dtype | None = None):
        self.parameters, self.loss, self.precision = list(weights.parameters()), loss, precision
        self.optimizer = torch.optim.Adam(self.parameters, lr=4e-4, fused=True)
        keep_freed_memory()  # as in `captioning.training.train`

    def __call__(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(DEVICE, self.precision, enabled=self.precision is not None):
            total = self.loss()[0]
        total.backward()
        nn.utils.clip_grad_norm_(self.parameters, 5.0)
        self.optimizer.step()


def ours(
    kind: str, model: Captioner, batch: CaptionBatch, *, precision: torch.dtype | None = None, compiled: bool = False
) -> Training:
    """Return this package's training step, with the objective of the experiments in conf/experiment."""
    objective = CrossEntropy(doubly_stochastic=1.0 if kind == "soft" else 0.0)
    if compiled:
        compile_parts(nn.ModuleList([model, objective]), DEVICE)
    return Training(model, partial(objective, model, batch), precision=precision)


class Rival(nn.Module):
    """Show, Attend and Tell as it is usually written, with the weights of one of our captioners.

    Every caption has its own copy of the features, and every step projects them again. Word and context vector enter an
    LSTM cell as one vector. The output layer also runs on padding, which the cross-entropy then ignores.
    """

    def __init__(self, model: Captioner):
        super().__init__()
        decoder = model.decoder
        cell, attention = decoder.recurrence.cell, decoder.attention.scorer
        self.embedding, self.readout, self.initial = decoder.embedding, decoder.readout, model.conditioning
        self.key, self.query, self.score = attention.key, attention.query, attention.score
        self.gate = decoder.recurrence.gate
        features, words = self.key.in_features, self.embedding.embedding_dim
        weight = self.key.weight
        self.cell = nn.LSTMCell(words + features, cell.state_size, device=weight.device, dtype=weight.dtype)
        rnn = cell.rnn
        joined = torch.cat((rnn.weight_ih_l0, cell.feedback.weight), 1)
        values = zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"),
                     (joined, rnn.weight_hh_l0, rnn.bias_ih_l0, rnn.bias_hh_l0), strict=True)  # fmt: skip
        self.cell.load_state_dict({name: value.detach() for name, value in values})
        self.dropout = decoder.dropout

    def forward(self, grid: Tensor, tokens: Tensor) -> tuple[Tensor]:
        """Compute the loss of captions [B, K, 1 + T] for a grid [B, L, D]: cross-entropy and doubly stochastic term."""
        grid = grid.to(self.key.weight.dtype).repeat_interleave(tokens.shape[1], 0)  # [B · K, L, D]
        inputs, targets = tokens[..., :-1].flatten(0, 1), tokens[..., 1:].flatten(0, 1)
        words, shared = self.dropout(self.embedding(inputs)), self.initial.shared(grid.mean(1))
        hidden, cell = torch.tanh(self.initial.hidden(shared)), torch.tanh(self.initial.cell(shared))
        logits, weights = [], []
        for t in range(inputs.shape[1]):
            scores = self.score(torch.tanh(self.key(grid) + self.query(hidden)[:, None])).squeeze(-1)
            alpha = scores.softmax(-1)
            context = torch.sigmoid(self.gate(hidden)) * (grid * alpha[..., None]).sum(1)
            hidden, cell = self.cell(torch.cat((words[:, t], context), -1), (hidden, cell))
            logits.append(self.readout(words[:, t], hidden, context))
            weights.append(alpha)
        logits, real = torch.stack(logits, 1), (targets != PAD)[..., None]
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=PAD, reduction="sum")
        uneven = (1 - (torch.stack(weights, 1) * real).sum(1)) ** 2
        return ((loss + uneven.sum()) / len(targets),)


def minimum_operations(model: Captioner, batch: CaptionBatch) -> int:
    """Count the floating-point operations of the matrix products that a step of this captioner needs, without padding.

    A matrix is multiplied with each of its rows once. The backward pass has two products of the same size: for the
    gradient of the matrix, and for that of its input, unless the input is a feature. The rows are the locations of the
    batch for attention's keys, its images for the conditioning, and its N real words for everything else. The part of a
    cell's input that is the same for every word is computed once per image. Attention has two more products: u ·
    tanh(…) over L × A numbers per word, and the weighted sum over L × D, whose features have no gradient. Hard
    attention is counted in the same way.
    """
    images, words = len(batch.images), int((batch.tokens[..., 1:] != PAD).sum())
    places = batch.images.shape[1] if batch.images.dim() == 3 else 1
    every, total = model.conditioning.input_size, 0
    for name, weight in model.named_parameters():
        if weight.dim() != 2 or name.endswith("embedding.weight"):
            continue
        outputs, inputs = weight.shape
        if name.endswith("scorer.score.weight"):
            total += 6 * words * places * inputs
        elif name.endswith("scorer.key.weight"):
            total += 4 * images * places * weight.numel()
        elif name.startswith("conditioning."):
            of_features = name.startswith(("conditioning.shared.0", "conditioning.image"))
            total += (4 if of_features else 6) * images * weight.numel()
        else:
            once = every * outputs if name.endswith("weight_ih_l0") else 0
            every = 0 if once else every  # only of the first cell
            total += 6 * (words * (weight.numel() - once) + images * once)
    return total + (4 * words * places * batch.images.shape[2] if batch.images.dim() == 3 else 0)


def alike(kind: str, model: Captioner, batch: CaptionBatch) -> Rival:
    """Return the rival, after checking that it has the same loss with the same weights, without dropout."""
    rival = Rival(model)
    with torch.no_grad():
        own, other = (
            ours(kind, model.eval(), batch).loss()[0],
            rival.eval()(batch.images, batch.tokens)[0],
        )
    assert abs(own - other) < 1e-4 * own, f"the rival's loss is {other}, ours {own}"
    model.train()
    return rival.train()


def case(
    kind: str,
    shape: Sequence[int],
    images: int,
    *,
    repeats: int,
    precision: torch.dtype | None = None,
    compiled: bool = False,
) -> dict[str, Any]:
    """Measure one captioner's step on features of `shape` per image."""
    batch, model = draw_batch(images, shape), build(kind, shape[-1])
    words = int((batch.tokens[..., 1:] != PAD).sum())
    step = ours(kind, model, batch, precision=precision, compiled=compiled)
    product, operations = matrix_job(device=DEVICE, dtype=precision or torch.float32)
    # Hard attention and a compiled step take turns with the plain step of soft attention; others take turns only with
    # the product.
    against = kind == "hard" or compiled
    others = [ours("soft", build("soft", shape[-1]), batch, precision=precision)] if against else []
    spent, product_spent, *soft_spent = seconds(step, product, *others, repeats=repeats)
    rate = operations / product_spent
    result = {
        "value": words / spent,
        "unit": "words/s",
        "floor_ratio": spent * rate / minimum_operations(model, batch),
        "own_floor_ratio": spent * rate / matrix_operations(step),
        "peak_MiB": peak_mebibytes(step),
        "matrix_GFLOP/s": rate / 1e9,
    }
    result |= {"soft_ratio": spent / soft_spent[0]} if kind == "hard" else {}
    if compiled:
        return result | {"eager_ratio": soft_spent[0] / spent, "eager_peak_MiB": peak_mebibytes(others[0])}
    return result | (beside_rival(model, batch, step, repeats=repeats) if kind == "soft" and precision is None else {})


def beside_rival(model: Captioner, batch: CaptionBatch, step: Training, *, repeats: int) -> dict[str, Any]:
    """Return the rival's time / our time, measured in turns, and its memory; a long step runs only once."""
    rival = alike("soft", model, batch)
    first = Training(rival, lambda: rival(batch.images[:1], batch.tokens[:1]))
    first()  # creates Adam's moments, which exist before all later steps
    first.loss = partial(rival, batch.images, batch.tokens)
    if batch.images.numel() < ONCE:
        spent, rival_spent = seconds(step, first, repeats=repeats)
        return {"rival_ratio": rival_spent / spent, "rival_peak_MiB": peak_mebibytes(first)}
    times: list[float] = []
    (spent,) = seconds(step, repeats=1)
    peak = peak_mebibytes(lambda: times.extend(seconds(first, repeats=1, warm_up=False)))
    return {"rival_ratio": times[0] / spent, "rival_peak_MiB": peak}


def cases(arguments) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Yield the cases: every captioner, grid and batch size."""
    repeats, batches = (1, (2,)) if arguments.quick else (3, BATCHES)
    grids = GRIDS[:1] if arguments.quick else GRIDS
    shapes = [("fc", (2048,), "fc"), *((kind, grid, f"{kind}/{grid[0]}x{grid[1]}") for grid in grids
                                       for kind in ("soft", "hard", "updown"))]  # fmt: skip
    for kind, shape, name in shapes:
        for images in batches:
            job = partial(case, kind, shape, images, repeats=repeats)
            yield f"train/{name}/{images}", job
            if arguments.quick or DEVICE == "cuda":
                yield f"train/{name}/{images}/bf16", partial(job, precision=torch.bfloat16)
            if kind == "soft" and not why_not(DEVICE):
                yield f"train/{name}/{images}/compiled", partial(job, compiled=True)


if __name__ == "__main__":
    run(cases, __doc__.splitlines()[0])
