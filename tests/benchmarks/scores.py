"""Measure scoring in seconds, compared with pycocoevalcap in the same run.

    python tests/benchmarks/scores.py [--quick] [--shared DIR] [--only ciderd] [--output bench.json]

`score/5000` is BLEU, ROUGE-L and CIDEr of 5 000 images, including tokenization. `ciderd/250` is the reward of 50 images
with five samples and a greedy caption each. `tokenize/67000` tokenizes 67 000 captions. Each case has its own process,
so that the peak memory is that of the case alone. The captions are real (flickr8k/captions_train.json); if more are
needed, they are mixed with one another.
"""

import json
import multiprocessing
import random
import re
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1] / "helpers"), str(Path(__file__).parents[2])]

Captions = dict[int, list[str]]


def captions_of(shared: str) -> Path:
    return Path(shared, "flickr8k", "captions_train.json")


def world(shared: str, images: int, *, seed: int = 0) -> tuple[Captions, dict[int, str]]:
    """Return five references and one caption per image; a sixth of the caption's words come from another image."""
    content = json.loads(captions_of(shared).read_text(encoding="utf-8"))
    pool: Captions = {}
    for annotation in content["annotations"]:
        pool.setdefault(annotation["image_id"], []).append(annotation["caption"])
    generator, groups = random.Random(seed), [texts for texts in pool.values() if len(texts) >= 5]
    references, captions = {}, {}
    for image_id in range(images):
        own, other = groups[image_id % len(groups)], generator.choice(groups)
        fresh = image_id < len(groups)
        references[image_id] = own[:5] if fresh else [cross(a, b) for a, b in zip(own[:5], other, strict=False)]
        captions[image_id] = cross(generator.choice(references[image_id]), generator.choice(other))
    return references, captions


def cross(a: str, b: str) -> str:
    first, second = a.split(), b.split()
    return " ".join([*first[: 2 * len(first) // 3], *second[2 * len(second) // 3 :]])


def timed(function, *arguments, repeats: int = 1) -> float:
    """Return the shortest time of several runs, in seconds."""
    times = []
    for _ in range(repeats):
        started_at = time.perf_counter()
        function(*arguments)
        times.append(time.perf_counter() - started_at)
    return min(times)


def measure_score(shared: str, images: int) -> dict[str, float]:
    from captioning.metrics import score

    return {"seconds": timed(score, *world(shared, images))} | peak()


def measure_rival(shared: str, images: int) -> dict[str, float]:
    """Measure pycocoevalcap: its Java tokenizer, then BLEU, ROUGE-L and CIDEr."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    references, captions = world(shared, images)

    def run():
        tokenizer = PTBTokenizer()
        truths = tokenizer.tokenize({key: [{"caption": text} for text in texts] for key, texts in references.items()})
        results = tokenizer.tokenize({key: [{"caption": text}] for key, text in captions.items()})
        Bleu(4).compute_score(truths, results, verbose=0)
        Rouge().compute_score(truths, results)
        Cider().compute_score(truths, results)

    return {"seconds": timed(run)} | peak()


def measure_reward(shared: str) -> dict[str, float]:
    """Measure CIDEr-D of five samples and a greedy caption for each of 50 images; document frequencies of 6 000."""
    import slow_scores

    from captioning.metrics import Reward
    from captioning.text import tokenize

    references, captions = world(shared, 6000)
    reward = Reward(references, count_end=False)
    generator = random.Random(1)
    image_ids = [image_id for image_id in generator.sample(sorted(references), 50) for _ in range(6)]
    samples = [tokenize(cross(captions[image_id], captions[generator.randrange(6000)])) for image_id in image_ids]
    ended = [True] * len(samples)
    tokens = {image_id: [tokenize(text) for text in texts] for image_id, texts in references.items()}
    frequencies = slow_scores.document_frequencies(tokens)

    def slow():
        pairs = zip(samples, image_ids, strict=True)
        return [slow_scores.cider(words, tokens[image_id], *frequencies) for words, image_id in pairs]

    assert abs(reward(image_ids, samples, ended) - slow()).max() < 1e-9
    seconds = timed(reward, image_ids, samples, ended, repeats=30)
    return {"seconds": seconds, "slow": timed(slow, repeats=5)} | peak()


def measure_tokenize(shared: str) -> dict[str, float]:
    """Measure tokenizing 67 000 captions. The floor splits them at spaces; the rival is Java, including its start."""
    from captioning.metrics.java import tokenize_all
    from captioning.text import tokenize

    references, captions = world(shared, 11_167)
    texts = [text for texts in references.values() for text in texts] + list(captions.values())
    texts = texts[:67_000]
    seconds = timed(lambda: [tokenize(text) for text in texts])  # measured once, while nothing is cached
    floor = timed(lambda: [text.lower().split() for text in texts], repeats=3)
    found = {"seconds": seconds, "floor": floor} | peak()
    return found | ({"slow": timed(tokenize_all, texts)} if shutil.which("java") else {})


def peak() -> dict[str, float]:
    """Return the peak memory of this process alone; getrusage would also count its parent's memory at the start."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return {"peak_MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    return {"peak_MiB": int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) / 1024}


def apart(function, *arguments) -> dict[str, float]:
    """Run a function in a separate process, and return its result."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def beside(
    function: Callable, shared: str, *arguments, rival: Callable | None = None, scale: float = 1.0, unit: str = "s"
) -> dict[str, Any]:
    """Return one result, with the rival's time / our time, and our time / the floor's time."""
    found = apart(function, shared, *arguments)
    slow = apart(rival, shared, *arguments)["seconds"] if rival else found.get("slow")
    seconds = found["seconds"]
    return {
        "value": seconds * scale,
        "unit": unit,
        "rival_ratio": slow / seconds if slow else None,
        "floor_ratio": seconds / found["floor"] if "floor" in found else None,
        "peak_MiB": found["peak_MiB"],
    }


def cases(arguments) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Yield the cases: scores of two sizes, a reward, and tokenization; none without the captions."""
    shared, java = arguments.shared, shutil.which("java") is not None
    if not captions_of(shared).is_file():
        print(f"left out: {captions_of(shared)} is not there: give its folder by --shared=DIR", file=sys.stderr)
        return
    for images in (100,) if arguments.quick else (5000, 40_504):
        wanted = java and (images == 5000 or arguments.rival_at_full_size)
        yield f"score/{images}", partial(beside, measure_score, shared, images, rival=measure_rival if wanted else None)
    yield "ciderd/250", partial(beside, measure_reward, shared, scale=1000, unit="ms")
    yield "tokenize/67000", partial(beside, measure_tokenize, shared)


def options(parser) -> None:
    parser.add_argument("--rival-at-full-size", action="store_true", help="also run pycocoevalcap on 40 504 images")


if __name__ == "__main__":
    from measure import run  # imported here, because it imports torch, which the measured processes must not do

    run(cases, __doc__.splitlines()[0], options=options)
