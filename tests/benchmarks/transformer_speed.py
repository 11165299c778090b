"""Compare the transformer decoder with torch.nn.TransformerDecoder used the usual way, in training and beam search.

    python tests/benchmarks/transformer_speed.py --shared FOLDER [--quick] [--only beam5] [--output bench.json]

`coco/49x2048` and `coco/196x2048` have the sizes of conf/experiment/coco_transformer.yaml and 10 000 words.
`flickr8k/49x1280` has those of flickr8k_transformer.yaml and 2 543 words. Captions are those of training images of
Flickr8k (`--shared` is the folder with flickr8k/dataset_flickr8k.json), five per image, cut to 20 words. The last
number of a name is the images per batch. Features are random.

`transformer/train/…` is a training step (see `training.py`), in real words per second. The usual way is `Usual`, with
the same weights: every caption has a copy of the features, the decoder reads padded captions, and the output layer also
runs on padding. torch's decoder also has dropout on attention weights; `same_dropout_ratio` is the ratio for a rival
without it, which does the same work as ours. Before anything is timed, both losses are compared, without dropout.

`transformer/beam5/…` is beam search with 5 beams to full length, in images per second. The usual way has no cache:
every step reads the whole prefix, and every beam has a copy of the features. Its output layer scores the last word
only, and it searches all images of the batch together, as ours does. Before anything is timed, the captions are
compared.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch
from decoding import BEAM, END, FORBIDDEN, START, TOKENS, search
from measure import matrix_job, matrix_operations, peak_mebibytes, run, seconds
from torch import Tensor, nn
from torch.nn import functional as F
from training import DEVICE, PAD, Training

from captioning.data import CaptionBatch, collate
from captioning.models import TransformerCaptioner, build_transformer
from captioning.objectives import CrossEntropy


class Size(NamedTuple):
    """The sizes of a model and its data.

    Attributes:
        shape: Locations and features per image.
        vocabulary: Number of words.
        model: Arguments of `build_transformer`.
    """

    shape: tuple[int, int]
    vocabulary: int
    model: dict[str, Any]


SIZES = {
    "coco/49x2048": Size((49, 2048), 10_000, {}),
    "coco/196x2048": Size((196, 2048), 10_000, {}),
    "flickr8k/49x1280": Size((49, 1280), 2543, {"width": 384, "layers": 2, "feed_forward": 1024, "dropout": 0.3}),
}
BATCHES, MOST_WORDS, UNKNOWN = (16, 64), 20, 3


def read_batch(shared: Path, images: int, size: Size) -> CaptionBatch:
    """Return random features with the captions of randomly chosen images; the same batch every time."""
    content = json.loads((shared / "flickr8k" / "dataset_flickr8k.json").read_text(encoding="utf-8"))
    captions = [
        [sentence["tokens"][:MOST_WORDS] for sentence in image["sentences"]]
        for image in content["images"]
        if image["split"] == "train"
    ]
    counts = Counter(word for group in captions for words in group for word in words)
    ids = {word: number for number, (word, _) in enumerate(counts.most_common(size.vocabulary - 4), start=4)}
    generator = torch.Generator().manual_seed(0)
    items = [
        (
            number,
            torch.rand(*size.shape, generator=generator).half(),
            [[START, *(ids.get(word, UNKNOWN) for word in words), END] for words in group],
        )
        for number, group in enumerate(Random(0).sample(captions, images))
    ]
    return CaptionBatch(*(None if part is None else part.to(DEVICE) for part in collate(items)))


def build(size: Size) -> TransformerCaptioner:
    """Create our captioner, with the same weights every time."""
    torch.manual_seed(0)
    model = build_transformer(
        feature_size=size.shape[1], grid=True, vocabulary_size=size.vocabulary, pad=PAD, **size.model
    )
    return model.to(DEVICE)


class Usual(nn.Module):
    """A captioner around torch.nn.TransformerDecoder as it is usually written, with the weights of one of ours.

    Args:
        model: Ours, without blocks over the locations and with tied words.
        attention_dropout: Whether attention weights have dropout, as torch's layers have it.
    """

    def __init__(self, model: TransformerCaptioner, *, attention_dropout: bool = True):
        super().__init__()
        block, share = model.blocks[0], model.dropout.p
        self.width, like = block.self_output.out_features, {"device": DEVICE, "dtype": model.output.weight.dtype}
        layer = nn.TransformerDecoderLayer(
            self.width, model.heads, block.feed_forward[0].out_features, share, batch_first=True, norm_first=True
        )
        self.decoder = nn.TransformerDecoder(layer, len(model.blocks), norm=nn.LayerNorm(self.width)).to(**like)
        for ours, theirs in zip(model.blocks, self.decoder.layers, strict=True):
            copy_block(ours, theirs, looks=True)
            if not attention_dropout:
                theirs.self_attn.dropout = theirs.multihead_attn.dropout = 0.0
        self.project = nn.Linear(model.adapter[1].in_features, self.width, **like)
        self.grid_norm, self.dropout = nn.LayerNorm(self.width, **like), nn.Dropout(share)
        self.output = nn.Linear(self.width, model.output.out_features, **like)
        self.embedding = nn.Embedding(model.output.out_features, self.width, **like)
        self.embedding.weight = self.output.weight
        pairs = [(self.project, model.adapter[1]), (self.grid_norm, model.grid_norm), (self.output, model.output)]
        for theirs, ours in [*pairs, (self.decoder.norm, model.norm)]:
            theirs.load_state_dict(ours.state_dict())
        self.register_buffer("code", model.word_positions(0, 64, like=self.output.weight))

    def encode(self, grid: Tensor) -> Tensor:
        """Project features [N, L, D] to the decoder's width, [N, L, W]."""
        return self.grid_norm(self.dropout(self.project(grid.to(self.output.weight.dtype)).relu()))

    def decode(self, tokens: Tensor, memory: Tensor, padding: Tensor | None = None) -> Tensor:
        """Read captions [N, T] with one row of `memory` each: -> [N, T, W]."""
        length = tokens.shape[1]
        words = self.dropout(self.embedding(tokens) * self.width**0.5 + self.code[:length])
        causal = torch.ones(length, length, dtype=torch.bool, device=tokens.device).triu(1)
        return self.decoder(words, memory, tgt_mask=causal, tgt_key_padding_mask=padding, tgt_is_causal=True)

    def forward(self, grid: Tensor, tokens: Tensor) -> tuple[Tensor]:
        """Compute the cross-entropy of captions [B, K, 1 + T] for a grid [B, L, D], summed over a caption's words."""
        grid = grid.repeat_interleave(tokens.shape[1], 0)  # [B · K, L, D]
        inputs, targets = tokens[..., :-1].flatten(0, 1), tokens[..., 1:].flatten(0, 1)
        logits = self.output(self.decode(inputs, self.encode(grid), inputs == PAD))
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=PAD, reduction="sum")
        return (loss / len(targets),)

    @torch.inference_mode()
    def search(self, grid: Tensor, *, tokens: int) -> list[list[int]]:
        """Search with `BEAM` beams to full length for images [B, L, D], reading the whole prefix at every step."""
        batch, vocabulary = len(grid), self.output.out_features
        memory = self.encode(grid).repeat_interleave(BEAM, 0)  # [B · K, L, W]
        prefix = torch.full((batch * BEAM, 1), START, device=grid.device)
        scores = torch.full((batch, BEAM), -torch.inf, device=grid.device)
        scores[:, 0] = 0.0  # all beams are still the same row
        first = torch.arange(batch, device=grid.device)[:, None] * BEAM
        for t in range(tokens):
            log_probs = self.output(self.decode(prefix, memory)[:, -1]).log_softmax(-1)
            log_probs[:, list(FORBIDDEN) + [END] * (t + 1 < tokens)] = -torch.inf
            totals = scores[..., None] + log_probs.view(batch, BEAM, vocabulary)
            scores, flat = totals.flatten(1).topk(BEAM)
            prefix = prefix[(first + flat // vocabulary).flatten()]
            prefix = torch.cat((prefix, (flat % vocabulary).view(-1, 1)), 1)
        captions = prefix[:, 1:].view(batch, BEAM, tokens).tolist()
        return [next((caption for caption in beams if caption[-1] == END), beams[0]) for beams in captions]


def copy_block(block: nn.Module, layer: nn.Module, *, looks: bool) -> None:
    """Copy the weights of one of our blocks to a layer of torch's transformer.

    Args:
        block: Ours.
        layer: torch's.
        looks: Whether the block has cross-attention: it is a layer of torch's decoder, not of its encoder.
    """
    pairs = [(layer.norm1, block.self_norm), (layer.self_attn.out_proj, block.self_output)]
    pairs += [(layer.linear1, block.feed_forward[0]), (layer.linear2, block.feed_forward[3])]
    pairs += [(layer.norm3 if looks else layer.norm2, block.feed_norm)]
    if looks:
        pairs += [(layer.norm2, block.image_norm), (layer.multihead_attn.out_proj, block.image_output)]
        for part in ("weight", "bias"):
            joined = torch.cat((getattr(block.query, part), getattr(block.key_value, part)))
            getattr(layer.multihead_attn, f"in_proj_{part}").data.copy_(joined)
    for theirs, ours in pairs:
        theirs.load_state_dict(ours.state_dict())
    layer.self_attn.in_proj_weight.data.copy_(block.self_input.weight)
    layer.self_attn.in_proj_bias.data.copy_(block.self_input.bias)


def ours(model: TransformerCaptioner, batch: CaptionBatch) -> Callable[[], Any]:
    """Return a function that computes this package's loss, without label smoothing."""
    return partial(CrossEntropy(doubly_stochastic=0.0), model, batch)


def alike(model: TransformerCaptioner, batch: CaptionBatch) -> None:
    """Compare our loss with that of the usual way, without dropout."""
    with torch.no_grad():
        own, other = ours(model.eval(), batch)()[0], Usual(model).eval()(batch.images, batch.tokens)[0]
    assert abs(own - other) < 1e-4 * own, f"the usual way's loss is {other}, ours {own}"


def training_case(size: Size, images: int, *, shared: Path, repeats: int) -> dict[str, Any]:
    """Measure a training step, and the usual way with and without dropout on attention weights."""
    batch, model = read_batch(shared, images, size), build(size)
    alike(model, batch)
    rivals = [Usual(model, attention_dropout=drops).train() for drops in (True, False)]
    jobs = [Training(rival, partial(rival, batch.images, batch.tokens)) for rival in rivals]
    step = Training(model.train(), ours(model, batch))
    product, operations = matrix_job(device=DEVICE)
    spent, usual, same_dropout, product_spent = seconds(step, *jobs, product, repeats=repeats)
    rate, words = operations / product_spent, int((batch.tokens[..., 1:] != PAD).sum())
    return {
        "value": words / spent,
        "unit": "words/s",
        "rival_ratio": usual / spent,
        "same_dropout_ratio": same_dropout / spent,
        "own_floor_ratio": spent * rate / matrix_operations(step),
        "peak_MiB": peak_mebibytes(step),
        "rival_peak_MiB": peak_mebibytes(jobs[0]),
        "matrix_GFLOP/s": rate / 1e9,
    }


def search_case(size: Size, images: int, *, tokens: int, repeats: int) -> dict[str, Any]:
    """Measure beam search, and the usual way without a cache."""
    model = build(size).eval()
    grids = torch.rand(images, *size.shape, device=DEVICE)
    job, rival = partial(search, model, grids, tokens=tokens), partial(Usual(model).eval().search, grids, tokens=tokens)
    assert [hypotheses[0].tokens for hypotheses in job()] == rival()
    product, operations = matrix_job(device=DEVICE)
    spent, usual, product_spent = seconds(job, rival, product, repeats=repeats, warm_up=False)
    rate = operations / product_spent
    return {
        "value": images / spent,
        "unit": "images/s",
        "rival_ratio": usual / spent,
        "floor_ratio": spent * rate / matrix_operations(job),
        "peak_MiB": peak_mebibytes(job),
        "rival_peak_MiB": peak_mebibytes(rival),
        "matrix_GFLOP/s": rate / 1e9,
    }


def cases(arguments) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Yield the cases: training and beam search for every size and batch."""
    tokens, repeats, batches = (3, 1, (2,)) if arguments.quick else (TOKENS, 3, BATCHES)
    for name, size in SIZES.items():
        for images in batches:
            yield (
                f"transformer/train/{name}/{images}",
                partial(training_case, size, images, shared=Path(arguments.shared), repeats=repeats),
            )
    for name, size in SIZES.items():
        for images in batches:
            job = partial(search_case, size, images, tokens=tokens, repeats=repeats)
            yield f"transformer/beam5/{name}/{images}", job


if __name__ == "__main__":
    run(cases, __doc__.splitlines()[0])
