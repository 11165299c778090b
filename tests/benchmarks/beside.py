"""Compare the speed with Att2in2 of ImageCaptioning.pytorch: training words and beam-search images per second.

    git clone https://github.com/ruotianluo/ImageCaptioning.pytorch DIR; pip install six
    python tests/benchmarks/beside.py --checkout DIR [--only train] [--output bench.json]

Both do the same work: 16 images with 49 locations of 1 280 features, and five captions per image with COCO's lengths,
cut to 16 words as in that project. The vocabulary has 9 490 words, all layers have width 512, and features are
projected to 512 before attention, as in Att2in2. Beam search has 5 beams and 20 words, and every search runs to full
length. Their code runs in a separate process, once before ours and once after it; the faster of the two counts. Without
a checkout nothing is measured.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import torch

IMAGES, PLACES, FEATURES, WIDTH, VOCABULARY, WORDS, TOKENS, BEAM = 16, 49, 1280, 512, 9490, 16, 20, 5


def fastest(job: Callable[[], Any], *, repeats: int) -> float:
    """Return the seconds of the fastest of several runs, after one run that is not counted."""
    job()
    times = []
    for _ in range(repeats):
        started_at = perf_counter()
        job()
        times.append(perf_counter() - started_at)
    return min(times)


def theirs(checkout: str, repeats: int, tokens: list) -> dict[str, float]:
    """Measure the seconds of their training step on captions [B, K, 1 + T] (0: padding, ends) and beam search."""
    sys.path.insert(0, checkout)
    from captioning.models.AttModel import Att2in2Model
    from captioning.modules.losses import LanguageModelCriterion

    options = {"input_encoding_size": WIDTH, "rnn_size": WIDTH, "att_hid_size": WIDTH, "num_layers": 1}
    options |= {"fc_feat_size": FEATURES, "att_feat_size": FEATURES, "drop_prob_lm": 0.5, "seq_length": WORDS}
    vocabulary = {str(word): f"word{word}" for word in range(1, VOCABULARY)}
    torch.manual_seed(0)
    model = Att2in2Model(SimpleNamespace(vocab_size=VOCABULARY - 1, vocab=vocabulary, max_length=TOKENS, **options))
    captions, vector, grid = torch.tensor(tokens), torch.rand(IMAGES, FEATURES), torch.rand(IMAGES, PLACES, FEATURES)
    lengths = (captions != 0).sum(-1, keepdim=True) + 2
    mask = (torch.arange(captions.shape[-1]) < lengths).float()
    criterion, optimizer = LanguageModelCriterion(), torch.optim.Adam(model.parameters(), lr=4e-4)

    def step() -> None:
        optimizer.zero_grad()
        criterion(model(vector, grid, captions[..., :-1], None), captions[..., 1:], mask[..., 1:]).backward()
        for parameter in model.parameters():
            parameter.grad.clamp_(-0.1, 0.1)
        optimizer.step()

    search = {"beam_size": BEAM, "sample_method": "greedy", "sample_n": 1}

    @torch.no_grad()
    def beams() -> None:
        model(vector, grid, None, opt=search, mode="sample")

    spent = {"train": fastest(step, repeats=repeats)}
    model.eval()
    return spent | {"beam5": fastest(beams, repeats=max(1, repeats // 2))}


def captions_of(batch) -> list:
    """Convert our captions to their layout: a zero, up to 16 words, zeros. Words keep their ids."""
    words = batch.tokens[..., 1 : 1 + WORDS].clone()
    words[words < 3] = 0  # ids of padding, <start> and <end>
    zero = torch.zeros_like(words[..., :1])
    return torch.cat((zero, words, zero), -1).tolist()


def ours(kind: str, batch) -> Callable[[], Any]:
    """Measure the same work in this package, with features projected to the same width first."""
    from decoding import search
    from training import Training

    from captioning.models import build_captioner
    from captioning.objectives import CrossEntropy

    torch.manual_seed(0)
    sizes = {"width": WIDTH, "embedding_size": WIDTH, "feature_width": WIDTH}
    model = build_captioner(feature_size=FEATURES, grid=True, pad=0, vocabulary_size=VOCABULARY, **sizes)
    if kind == "train":
        return Training(model.train(), partial(CrossEntropy(doubly_stochastic=0.0), model, batch))
    return partial(search, model.eval(), batch.images.float(), tokens=TOKENS)


def checkout_option(parser) -> None:
    parser.add_argument("--checkout", type=Path, help="of ImageCaptioning.pytorch")


def cases(arguments) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Yield the cases: training and beam search."""
    if arguments.checkout is None:
        print("beside.py: nothing measured. Give a clone of ImageCaptioning.pytorch with --checkout=DIR")
        return
    from training import draw_batch

    batch = draw_batch(IMAGES, (PLACES, FEATURES))
    batch = batch._replace(tokens=batch.tokens[..., : WORDS + 2])
    words = int((batch.tokens[..., 1:] != 0).sum())
    repeats = 1 if arguments.quick else 4

    def child() -> dict[str, float]:
        command = [sys.executable, __file__, "--theirs", str(arguments.checkout), str(repeats), str(arguments.threads)]
        made = subprocess.run(command, input=json.dumps(captions_of(batch)), text=True, capture_output=True, check=True)
        return json.loads(made.stdout.splitlines()[-1])

    before = child()
    for kind, amount, unit in (("train", words, "words/s"), ("beam5", IMAGES, "images/s")):
        job = partial(_case, kind, amount, unit, batch, before, child, repeats)
        yield f"beside/att2in2/{kind}/{PLACES}x{FEATURES}/{IMAGES}", job


def _case(kind, amount, unit, batch, before, child, repeats) -> dict[str, Any]:
    spent = fastest(ours(kind, batch), repeats=repeats)
    rival = min(before[kind], child()[kind])
    return {"value": amount / spent, "unit": unit, "rival_ratio": rival / spent, "rival_value": amount / rival}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--theirs"]:
        folder, repeats, threads = sys.argv[2:]
        torch.set_num_threads(int(threads))
        print(json.dumps(theirs(folder, int(repeats), json.load(sys.stdin))))
    else:
        from measure import run

        run(cases, __doc__.splitlines()[0], options=checkout_option)
