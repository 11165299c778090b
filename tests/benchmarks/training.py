"""A training step: real words a second and memory, beside a plain captioner's step and the matrix products it must do.

    python tests/benchmarks/training.py [--quick] [--only train/soft] [--output bench.json]

A step is forward, loss, backward, clipping of the gradient's norm and Adam, over features of random numbers that lie in
memory in half precision, as the store gives them. Everything is 512 wide, the vocabulary has 9 490 words, an image five
captions of COCO's lengths. `train/soft/196x2048/64` is soft attention over 196 places of 2 048 features, 64 images a
batch; `train/fc/64` has no attention, its one vector of 2 048 features joins every word. `…/bf16` is the same in mixed
precision, where there is a GPU; `…/compiled` has its small parts compiled, where there is a compiler.

`value` counts real words, <end> among them and padding not. `floor_ratio` is the step's time over that of the products
in `minimum_operations`, at the rate of a large product in the same run; `own_floor_ratio` takes the products that the
step really makes, by torch's counter (which does not see into the kernel that runs `train/fc` on a GPU).
`rival_ratio` is words/s over those of `Rival`, a captioner as it is usually written, with the same weights and the same
loss; `soft_ratio` of hard attention is its time over soft attention's; `eager_ratio` of a compiled step how often the
time of one that is not compiled is its own.
"""

from collections.abc import Callable, Iterator, Sequence
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
from captioning.training import compile_parts
from captioning.training.compile import why_not

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
GRIDS, BATCHES, WIDTH, VOCABULARY, CAPTIONS = ((49, 1280), (196, 512), (196, 2048)), (16, 64), 512, 9490, 5
PAD, START, END = range(3)
# Words a caption, in 1 000 captions: COCO's frequencies to the nearest half per cent; their mean is 10.5.
LENGTHS = {7: 10, 8: 150, 9: 215, 10: 195, 11: 150, 12: 125, 13: 65, 14: 35, 15: 20, 16: 15, 17: 10, 18: 10}

VECTOR = {"grid": False, "attention": NoAttention, "conditioning": EveryStep, "readout": LinearReadout}
MODELS = {
    "fc": VECTOR,
    "soft": {"grid": True},
    "hard": {"grid": True, "attention": HardAttention},
    "updown": {"grid": True, "recurrence": UpDown, "conditioning": EveryStep, "readout": LinearReadout},
}
ONCE = 2**24  # numbers in a batch's features from which on the rival, slow and large by then, runs a single time


def build(kind: str, features: int, *, vocabulary: int = VOCABULARY, width: int = WIDTH) -> Captioner:
    """A captioner in training mode; the same weights every time."""
    torch.manual_seed(0)
    sizes = {"feature_size": features, "vocabulary_size": vocabulary, "width": width, "embedding_size": width}
    return build_captioner(pad=PAD, **sizes, **MODELS[kind]).to(DEVICE).train()


def draw_batch(images: int, shape: Sequence[int], *, vocabulary: int = VOCABULARY, seed: int = 0) -> CaptionBatch:
    """Features of `shape` an image, and captions whose words are drawn evenly; the same ones every time."""
    random, generator = Random(seed), torch.Generator().manual_seed(seed)

    def caption() -> list[int]:
        (length,) = random.choices(list(LENGTHS), weights=list(LENGTHS.values()))
        return [START, *(random.randrange(END + 1, vocabulary) for _ in range(length)), END]

    items = [
        (image, torch.rand(*shape, generator=generator).half(), [caption() for _ in range(CAPTIONS)])
        for image in range(images)
    ]
    return CaptionBatch(*(None if part is None else part.to(DEVICE) for part in collate(items)))


class Training:
    """One step a call: `loss() -> (total, …)`, and what follows it.

    Args:
        weights: of what is trained.
        loss: without arguments.
        precision: None, or what the forward pass is in by torch's autocast.
    """

    def __init__(self, weights: nn.Module, loss: Callable[[], Any], *, precision: torch.dtype | None = None):
        self.parameters, self.loss, self.precision = list(weights.parameters()), loss, precision
        self.optimizer = torch.optim.Adam(self.parameters, lr=4e-4, fused=True)

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
    """The package's own step, with the objective of the recipes in conf/experiment."""
    objective = CrossEntropy(doubly_stochastic=1.0 if kind == "soft" else 0.0)
    if compiled:
        compile_parts(nn.ModuleList([model, objective]), DEVICE)
    return Training(model, partial(objective, model, batch), precision=precision)


class Rival(nn.Module):
    """Show, Attend and Tell as it is usually written, with the weights of one of our captioners.

    Every caption has its own copy of the features, and every step projects them anew; word and context enter an
    LSTM cell as one vector; the vocabulary layer runs over padding too, which the cross-entropy then ignores.
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
        """Loss of captions [B, K, 1 + T] about a grid [B, P, D]: our cross-entropy and doubly stochastic term."""
        grid = grid.to(self.key.weight.dtype).repeat_interleave(tokens.shape[1], 0)  # [B · K, P, D]
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
    """Floating-point operations of the products without which this captioner's step cannot be, over no padding.

    A matrix is multiplied with every row that it must see, and the backward pass makes two products as large: for the
    gradient of the matrix and for that of its input, the latter not where the input is a feature. Rows are the places
    of the batch for attention's keys, its images for the conditioning, and its N real words for all else; what joins
    every word enters the cell's sums once an image. Attention has two products more, u · tanh(…) over P × A numbers
    a word, and the weighted sum of P × D, whose features have no gradient; hard attention is held to the same.
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
            every = 0 if once else every  # of the first cell alone
            total += 6 * (words * (weight.numel() - once) + images * once)
    return total + (4 * words * places * batch.images.shape[2] if batch.images.dim() == 3 else 0)


def alike(kind: str, model: Captioner, batch: CaptionBatch) -> Rival:
    """The rival, after it had the same loss with the same weights, without dropout."""
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
    """One captioner's step over features of `shape` an image."""
    batch, model = draw_batch(images, shape), build(kind, shape[-1])
    words = int((batch.tokens[..., 1:] != PAD).sum())
    step = ours(kind, model, batch, precision=precision, compiled=compiled)
    product, operations = matrix_job(device=DEVICE, dtype=precision or torch.float32)
    # Hard attention and a compiled step are held against soft attention's plain step in turns; others are alone with
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
    """How often the rival's time is ours, in turns, and its memory; a long step of it is made only once."""
    rival = alike("soft", model, batch)
    first = Training(rival, lambda: rival(batch.images[:1], batch.tokens[:1]))
    first()  # makes Adam's moments, which are there before any other step
    first.loss = partial(rival, batch.images, batch.tokens)
    if batch.images.numel() < ONCE:
        spent, rival_spent = seconds(step, first, repeats=repeats)
        return {"rival_ratio": rival_spent / spent, "rival_peak_MiB": peak_mebibytes(first)}
    times: list[float] = []
    (spent,) = seconds(step, repeats=1)
    peak = peak_mebibytes(lambda: times.extend(seconds(first, repeats=1, warm_up=False)))
    return {"rival_ratio": times[0] / spent, "rival_peak_MiB": peak}


def cases(arguments) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Every captioner, grid and batch."""
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
