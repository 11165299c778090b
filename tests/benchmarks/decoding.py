"""Beam search: images a second, against a loop over images with repeated features and against its matrix products.

    python tests/benchmarks/decoding.py [--quick] [--output bench.json]

Decoder width 512, vocabulary 9 490, beam 5, 20 tokens; random weights, with <end> forbidden before the last token, so
that every search is of full length. `beam5/196x2048/64` is a batch of 64 images with 196 places of 2 048 features;
`…/1` is the same search one image at a time. `value` counts all from features to hypotheses, without the encoder.

The rival's way: one image at a time, its features repeated for the beams, the grid projected anew at every step.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from measure import matrix_job, matrix_operations, matrix_share, peak_mebibytes, run, seconds

from captioning.decoding import beam_search
from captioning.models.captioner import Captioner, build_captioner

START, END, FORBIDDEN = 1, 2, (0, 1, 3)
GRIDS, BATCHES, BEAM, TOKENS, VOCABULARY, WIDTH = ((196, 2048), (49, 1280)), (1, 16, 64), 5, 20, 9490, 512


def search(model: Captioner, images: torch.Tensor, *, tokens: int) -> list:
    """The batched search, from features to hypotheses."""
    with torch.inference_mode():
        state, memory = model.begin(images)
        step = partial(model.step, memory=memory)
        ids = {"start": START, "end": END, "forbidden": FORBIDDEN}
        return beam_search(step, state, batch=len(images), beam_size=BEAM, max_length=tokens, min_length=tokens, **ids)


@torch.inference_mode()
def rival(model: Captioner, image: torch.Tensor, *, tokens: int) -> list[int]:
    """One image [P, D]: its beams are rows of a batch, each with a copy of the features."""
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
            totals[1:] = -torch.inf  # all beams are the same row yet
        scores, flat = totals.flatten().topk(BEAM)
        rows, words, scores = flat // VOCABULARY, (flat % VOCABULARY)[:, None], scores[:, None]
        captions = torch.cat((captions[rows], words), 1)
        state = type(state)(*(part[:, rows] for part in state))
    finished = (captions[:, -1] == END).nonzero().flatten()
    return captions[finished[0] if len(finished) else 0].tolist()


def cases(arguments) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every grid and batch; a rival's time an image is taken from a few images."""
    tokens = 4 if arguments.quick else TOKENS
    for places, features in GRIDS:
        if arguments.only not in f"beam{BEAM}/{places}x{features}/":
            continue
        torch.manual_seed(0)
        model = build_captioner(feature_size=features, grid=True, vocabulary_size=VOCABULARY, width=WIDTH).eval()
        images = torch.rand(max(BATCHES), places, features)
        few = images[:2]
        assert [rival(model, i, tokens=tokens) for i in few] == [h.tokens for (h,) in search(model, few, tokens=tokens)]
        product, operations = matrix_job()
        for batch in (1, 2) if arguments.quick else BATCHES:
            job, theirs = partial(search, model, images[:batch], tokens=tokens), partial(rival, model, images[0])
            jobs = job, partial(theirs, tokens=tokens), product
            spent, rival_spent, product_spent = seconds(*jobs, repeats=2 if arguments.quick else 4)
            rate = operations / product_spent
            yield (
                f"beam{BEAM}/{places}x{features}/{batch}",
                {
                    "value": batch / spent,
                    "unit": "images/s",
                    "rival_ratio": rival_spent * batch / spent,
                    "floor_ratio": spent * rate / matrix_operations(job),
                    "peak_MiB": peak_mebibytes(job),
                    "matrix_share": matrix_share(job),
                    "matrix_GFLOP/s": rate / 1e9,
                },
            )


if __name__ == "__main__":
    run(cases, __doc__.splitlines()[0])
