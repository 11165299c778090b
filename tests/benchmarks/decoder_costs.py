"""Measure what each decoder costs, relative to the LSTM with soft attention, and print the rows of the docs' table.

    python tests/benchmarks/decoder_costs.py [--quick] [--output bench.json]

Sizes are those of Flickr8k: 49 locations of 1 280 features (without attention: one vector), 2 543 words, and five
captions per image with Flickr8k's lengths. Batches have 16 images. Words and features are random. All steps take turns,
and so do all searches, so that every decoder meets the same conditions: the ratios may be compared also on a busy
machine.

`training_ratio` compares real words per second of a training step (forward, loss, backward, clipping, Adam), and
`beam5_ratio` images per second of beam search with 5 beams and 20 tokens. `peak_MiB` is the memory that a training step
adds to the process at its peak, without weights and Adam's averages; `beam5_peak_MiB` is the same for the search. The
LSTMs have width 512; `transformer/3x512` has three layers of width 512.

Scores in the table are of trained captioners in docs/results.md, whose sizes differ.
"""

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import torch
import training
from decoding import TOKENS, search
from measure import peak_mebibytes, run, seconds
from training import DEVICE, PAD, draw_batch
from transformer_speed import ours

from captioning.models import CaptionModel, build_transformer

IMAGES, PLACES, FEATURES, VOCABULARY = 16, 49, 1280, 2543
# Words per caption in 1 000 training captions of Flickr8k, cut to 20 words; their mean is 10.8.
LENGTHS = {3: 4, 4: 11, 5: 28, 6: 65, 7: 83, 8: 97, 9: 112, 10: 110, 11: 104, 12: 93, 13: 78, 14: 62, 15: 45, 16: 33}
LENGTHS |= {17: 23, 18: 17, 19: 12, 20: 23}
REFERENCE = "lstm/soft"
LSTMS = {"lstm/none": "fc", REFERENCE: "soft", "lstm/hard": "hard"}
TRANSFORMERS = [(layers, width) for layers in (2, 3) for width in (256, 512)]
NAMES = [*LSTMS, *(f"transformer/{layers}x{width}" for layers, width in TRANSFORMERS)]
# Share of true captions of drawn scenes, CIDEr on Flickr8k val with beam 5, and share of the nouns of drawn scenes
# whose map points at their object: scenes_fc, scenes_soft, scenes_hard and scenes_transformer (two layers of width
# 256); flickr8k_fc, flickr8k_soft and flickr8k_hard.
SCORES = {
    "lstm/none": ("0.605", "0.489", "–"),
    "lstm/soft": ("0.905", "0.542", "0.511"),
    "lstm/hard": ("0.800", "0.506", "–"),
    "transformer/2x256": ("0.952", "–", "–"),
}


def build(name: str) -> CaptionModel:
    """Create the captioner of a name, in training mode."""
    if name in LSTMS:
        return training.build(LSTMS[name], FEATURES, vocabulary=VOCABULARY)
    layers, width = map(int, name.partition("/")[2].split("x"))
    torch.manual_seed(0)
    sizes = {"feature_size": FEATURES, "vocabulary_size": VOCABULARY, "width": width, "layers": layers}
    return build_transformer(grid=True, pad=PAD, **sizes).to(DEVICE).train()


def step_of(name: str, model: CaptionModel, batch) -> Callable[[], None]:
    """Return a training step of a captioner, with the loss of its experiments."""
    if name in LSTMS:
        return training.ours(LSTMS[name], model, batch)
    return training.Training(model, ours(model, batch))


def measure_all(images: int, tokens: int, repeats: int) -> dict[str, dict[str, Any]]:
    """Measure training and beam search of all decoders, each in turns, and return {name: result}."""
    models = {name: build(name) for name in NAMES}
    draw = partial(draw_batch, images, vocabulary=VOCABULARY, lengths=LENGTHS)
    grids = draw((PLACES, FEATURES))
    batches = {name: draw((FEATURES,)) if LSTMS.get(name) == "fc" else grids for name in NAMES}
    words = int((grids.tokens[..., 1:] != PAD).sum())
    steps = {name: step_of(name, model, batches[name]) for name, model in models.items()}
    trained = dict(zip(NAMES, seconds(*steps.values(), repeats=repeats), strict=True))
    peaks = {name: peak_mebibytes(step) for name, step in steps.items()}
    jobs = {
        name: partial(search, model.eval(), batches[name].images.float(), tokens=tokens)
        for name, model in models.items()
    }
    searched = dict(zip(NAMES, seconds(*jobs.values(), repeats=repeats), strict=True))
    return {
        name: {
            "value": words / trained[name],
            "unit": "words/s",
            "beam5_images/s": images / searched[name],
            "training_ratio": trained[REFERENCE] / trained[name],
            "beam5_ratio": searched[REFERENCE] / searched[name],
            "peak_MiB": peaks[name],
            "beam5_peak_MiB": peak_mebibytes(jobs[name]),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
        }
        for name, model in models.items()
    }


def table(results: dict[str, dict[str, Any]]) -> str:
    """Return the Markdown table of the docs."""
    lines = [
        "| Decoder | Weights, millions | Training, words/s | Beam 5, images/s | Peak MiB, training | Peak MiB, beam 5 "
        "| True captions (scenes) | CIDEr (Flickr8k) | Pointing (scenes) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, result in results.items():
        kind, _, detail = name.partition("/")
        layers, _, width = detail.partition("x")
        shown = f"LSTM, {detail} attention".replace("none", "no") if kind == "lstm" else (
            f"transformer, {layers} layers, width {width}"
        )  # fmt: skip
        peaks = ("–" if result[key] is None else f"{result[key]:,.0f}" for key in ("peak_MiB", "beam5_peak_MiB"))
        ratios = (f"{result[key]:.2f}" for key in ("training_ratio", "beam5_ratio"))
        cells = [shown, f"{result['parameters'] / 1e6:.1f}", *ratios, *peaks, *SCORES.get(name, ("–",) * 3)]
        lines.append(f"| {' | '.join(cells)} |")
    reference = results[REFERENCE]
    rates = f"{reference['value']:,.0f} words/s and {reference['beam5_images/s']:.1f} images/s"
    lines.append(f"\nRates are relative to soft attention, which reached {rates} in this run.")
    return "\n".join(lines)


def cases(arguments) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Yield one case per decoder; the first one measures all of them. At the end, print the table."""
    measured = cache(partial(measure_all, *((2, 3, 1) if arguments.quick else (IMAGES, TOKENS, 3))))
    for name in NAMES:
        yield f"decoder/{name}", lambda name=name: measured()[name]
    if measured.cache_info().currsize:
        print(table(measured()))


if __name__ == "__main__":
    run(cases, __doc__.splitlines()[0])
