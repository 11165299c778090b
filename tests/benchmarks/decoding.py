"""Measure beam search in images per second, compared with a simple loop over images and with its matrix products.

    python tests/benchmarks/decoding.py [--quick] [--output bench.json]

Decoder width 512, vocabulary 9 490, beam 5, 20 tokens. The weights are random, and <end> is forbidden before the last
token, so every search runs to full length. `beam5/196x2048/64` is a batch of 64 images with 196 locations of 2 048
features; `…/1` is the same search for one image at a time. `value` includes everything from features to hypotheses, but
not the encoder.

The rival decodes one image at a time, repeats its features for the beams, and projects the grid again at every step.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from measure import matrix_job, matrix_operations, matrix_share, peak_mebibytes, run, seconds

from captioning.decoding import WordGroup, beam_search, diverse_beam_search, sample
from captioning.models import Captioner, build_captioner

START, END, FORBIDDEN = 1, 2, (0, 1, 3)
GRIDS, BATCHES, BEAM, TOKENS, VOCABULARY, WIDTH = ((196, 2048), (49, 1280)), (1, 16, 64), 5, 20, 9490, 512


IDS = {"start": START, "end": END, "forbidden": FORBIDDEN}
# As captions guided by tags have them: two required nouns in two forms, and twenty categories that should not be named.
GUIDE = [
    *(WordGroup((word, word + 1), required=True) for word in (100, 200)),
    *(WordGroup(tuple(range(word, word + 6)), bonus=-6.0) for word in range(300, 500, 10)),
]
# Further beam sizes and searches on the last grid with the largest batch; the searches have five or six rows per image.
OTHERS = {
    "beam1": {"beam_size": 1},
    "beam3": {"beam_size": 3},
    "beam10": {"beam_size": 10},
    "beam5_rules": {"beam_size": 5, "no_repeat_ngram": 3, "avoid_endings": tuple(range(50, 60))},
    "beam5_require2": {"beam_size": 5, "require": (100, 200)},
    "beam5_guides": {"beam_size": 5, "guide": GUIDE},
    "diverse6x3": {"method": diverse_beam_search, "beam_size": 6, "groups": 3},
    "sample5": {"method": sample, "samples": 5, "seed": 0},
    "sample5_k50_p0.9": {"method": sample, "samples": 5, "seed": 0, "top_k": 50, "top_p": 0.9},
}


def search(
    model: Captioner, images: torch.Tensor, *, tokens: int, method=beam_search, guide: Sequence = (), **options
) -> list:
    """Run a batched search to full length, from features to hypotheses; each image has the same groups of words."""
    options = options or {"beam_size": BEAM}
    if guide:
        options["guides"] = [guide] * len(images)
    with torch.inference_mode():
        state, memory = model.begin(images)
        step = partial(model.step, memory=memory)
        return method(step, state, batch=len(images), max_length=tokens, min_length=tokens, **IDS, **options)


@torch.inference_mode()
def rival(model: Captioner, image: torch.Tensor, *, tokens: int) -> list[int]:
    """Search one image [L, D] in the rival's way: the beams are rows of a batch, each with a copy of the features."""
    beams = image.expand(BEAM, *image.shape).contiguous()
    state, memory = model.begin(beams)
    words, scores, captions = torch.full((BEAM, 1), START), torch.zeros(BEAM, 1), torch.empty(BEAM, 0, dtype=torch.long)
    for t in range(tokens):
        memory = memory._replace(keys=model.decoder.attention.project(memory.grid))
        logits, state, _ = model.step(words, state, memory=memory)
        log_probs = logits[:, 0].log_softmax(-1)
        log_probs[:, list(FORBIDDEN)] = -torch.inf
        if t + 1 < tokens:
            log_probs[:, END] = -torch.inf
        totals = scores + log_probs
        if t == 0:
            totals[1:] = -torch.inf  # all beams are still the same row
        scores, flat = totals.flatten().topk(BEAM)
        rows, words, scores = flat // VOCABULARY, (flat % VOCABULARY)[:, None], scores[:, None]
        captions = torch.cat((captions[rows], words), 1)
        state = type(state)(*(part[:, rows] for part in state))
    finished = (captions[:, -1] == END).nonzero().flatten()
    return captions[finished[0] if len(finished) else 0].tolist()


def beside_rival(model: Captioner, images: torch.Tensor, *, tokens: int, repeats: int) -> dict[str, Any]:
    """Compare the batched search with the rival on one image, after checking that both write the same caption."""
    job, theirs = partial(search, model, images, tokens=tokens), partial(rival, model, images[0], tokens=tokens)
    assert theirs() == job()[0][0].tokens
    product, operations = matrix_job()
    spent, rival_spent, product_spent = seconds(job, theirs, product, repeats=repeats)
    rate = operations / product_spent
    return {
        "value": len(images) / spent,
        "unit": "images/s",
        "rival_ratio": rival_spent * len(images) / spent,
        "floor_ratio": spent * rate / matrix_operations(job),
        "peak_MiB": peak_mebibytes(job),
        "matrix_share": matrix_share(job),
        "matrix_GFLOP/s": rate / 1e9,
    }


def alone(model: Captioner, images: torch.Tensor, *, repeats: int, **options) -> dict[str, Any]:
    """Measure a search without a rival."""
    (spent,) = seconds(partial(search, model, images, **options), repeats=repeats)
    return {"value": len(images) / spent, "unit": "images/s"}


def cases(arguments) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Yield the cases: every grid and batch size, and further searches on the last grid."""
    tokens, repeats = (4, 1) if arguments.quick else (TOKENS, 4)
    batches = (1, 2) if arguments.quick else BATCHES
    for places, features in GRIDS:
        torch.manual_seed(0)
        model = build_captioner(feature_size=features, grid=True, vocabulary_size=VOCABULARY, width=WIDTH).eval()
        images, sizes = torch.rand(batches[-1], places, features), f"{places}x{features}"
        for batch in batches:
            job = partial(beside_rival, model, images[:batch], tokens=tokens, repeats=repeats)
            yield f"beam{BEAM}/{sizes}/{batch}", job
    for name, options in OTHERS.items():
        yield f"{name}/{sizes}/{batch}", partial(alone, model, images, tokens=tokens, repeats=repeats, **options)


if __name__ == "__main__":
    run(cases, __doc__.splitlines()[0])
