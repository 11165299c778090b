"""Measure what simulate.py computes: preparing features and training, with 1, 2 and 4 processes on this machine.

    python tests/benchmarks/scaling.py [--quick] [--output bench.json]
    python tests/benchmarks/simulate.py --check bench.json

Four processes with one thread each are started once. In every round, one, two and four of them work at the same time,
so that all figures come from the same minutes. `scale/prepare/2` is the images/s of two processes, from drawn JPEG
files to their stores, each with a loader process. `scale/train/2` is the batches/s of all processes together (two per
step of the optimizer): loading from the store, forward, loss, backward with the gradients summed over the processes
(DistributedDataParallel, gloo), clipping and Adam, for a soft-attention model over 49 × 1280 features.

The other cases are the only figures from which simulate.py predicts these: `scale/prepare/encode` (images/s of the
encoder alone), `scale/prepare/decode` (images/s that are read and shrunk), `scale/train/step` (seconds of a step of one
process, with loading), `scale/train/reduce` (seconds in which two processes sum the gradients, without a step) and
`scale/train/weights` (how many there are). `--only scale/train` measures only training.
"""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from loading import draw_store, loader_of
from measure import run
from preparing import draw_pictures, prepare
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from training import Training

from captioning.data import CaptionBatch, Record, Transform, open_picture
from captioning.features import Source
from captioning.features.sources import StoredFeatures
from captioning.models import build_captioner, efficientnet_lite_encoder
from captioning.objectives import CrossEntropy

PROCESSES, BATCH = (1, 2, 4), 16
MODEL = {"feature_size": 1280, "vocabulary_size": 9490, "width": 256, "embedding_size": 256}


class Whole(nn.Module):
    """Model and objective in one module, because DistributedDataParallel only sees a call of the module itself."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.model, self.objective = build_captioner(grid=True, **MODEL), CrossEntropy(doubly_stochastic=1.0)

    def forward(self, batch: CaptionBatch):
        """Return the loss of a batch, and its parts."""
        return self.objective(self.model, batch)


class Worker:
    """What one process does: each method runs one job and returns what the case needs."""

    def __init__(self, kind: str, rank: int, folder: Path, *, images: int, steps: int):
        torch.set_num_threads(1)
        self.rank, self.steps, own = rank, steps, folder / str(rank)
        own.mkdir()
        if kind == "prepare":
            self.encoder = efficientnet_lite_encoder().eval()
            self.records = draw_pictures(own, images, seed=rank)
            self.pictures = torch.zeros(8, 3, self.encoder.image_size, self.encoder.image_size, dtype=torch.uint8)
        else:
            store = draw_store(own / "store", (49, 1280), BATCH * steps)
            records = [Record(number, Path(f"{number}.jpg"), "train", ()) for number in range(BATCH * steps)]
            self.loader = loader_of(Source(StoredFeatures(store), nn.Identity(), records, [], 0), batch=BATCH)

    def join(self, processes: int, rendezvous: Path) -> None:
        """Connect the first processes, create their model, and take one step to warm up.

        The connection is made again for every number of processes, because a loss is divided by the number of captions
        of all processes that are connected.
        """
        whole: nn.Module = Whole()
        if processes > 1:
            dist.init_process_group("gloo", f"file://{rendezvous}", rank=self.rank, world_size=processes)
            whole = DistributedDataParallel(whole)
        self.weights = sum(weight.numel() for weight in whole.parameters())
        self.current: list[CaptionBatch] = [next(iter(self.loader))]
        self.step = Training(whole, lambda: whole(self.current[0]))
        self.step()

    def leave(self) -> None:
        """Undo `join`."""
        if dist.is_initialized():
            dist.destroy_process_group()

    def encode(self) -> float:
        """Return the images/s of the encoder."""
        started_at = time.perf_counter()
        with torch.inference_mode():
            for _ in range(0, len(self.records), 8):
                self.encoder(self.pictures)
        return -(-len(self.records) // 8) * 8 / (time.perf_counter() - started_at)

    def decode(self) -> float:
        """Return the images/s that are read and shrunk."""
        transform, started_at = Transform(self.encoder.image_size), time.perf_counter()
        for record in self.records:
            transform(open_picture(record.path))
        return len(self.records) / (time.perf_counter() - started_at)

    def prepare(self) -> int:
        """Prepare this process's images, and return their number."""
        prepare(self.encoder, self.records)
        return len(self.records)

    def train(self) -> float:
        """Take a step per batch of the loader together with the other processes. Return the seconds per step."""
        started_at = time.perf_counter()
        for batch in self.loader:
            self.current[:] = [batch]
            self.step()
        return (time.perf_counter() - started_at) / self.steps

    def reduce(self) -> float:
        """Return the seconds to sum the gradients of all connected processes."""
        numbers = torch.zeros(self.weights)
        dist.all_reduce(numbers)
        started_at = time.perf_counter()
        for _ in range(self.steps):
            dist.all_reduce(numbers)
        return (time.perf_counter() - started_at) / self.steps

    def count(self) -> int:
        """Return the number of weights."""
        return self.weights


def serve(connection, *given, **options) -> None:
    """Run the methods of a worker that are asked for."""
    # This process was spawned, and would spawn its loader process too, which then imports torch for seconds. A command
    # starts its loader processes in the platform's way.
    multiprocessing.set_start_method(multiprocessing.get_all_start_methods()[0], force=True)
    worker = Worker(*given, **options)
    connection.send(None)
    while message := connection.recv():
        connection.send(getattr(worker, message[0])(*message[1:]))


class Workers:
    """The processes, as this program sees them."""

    def __init__(self, kind: str, folder: Path, **sizes: int):
        context = multiprocessing.get_context("spawn")
        self.connections, self.processes = [], []
        for rank in range(PROCESSES[-1]):
            own, other = context.Pipe()
            self.processes.append(context.Process(target=serve, args=(other, kind, rank, folder), kwargs=sizes))
            self.processes[-1].start()
            self.connections.append(own)
        for each in self.connections:
            each.recv()

    def all(self, processes: int, *message: Any) -> tuple[list[Any], float]:
        """Run a method in the first processes at the same time. Return the results, and the seconds."""
        started_at = time.perf_counter()
        for each in self.connections[:processes]:
            each.send(message)
        results = [each.recv() for each in self.connections[:processes]]
        return results, time.perf_counter() - started_at

    def close(self) -> None:
        """End the processes."""
        for each, process in zip(self.connections, self.processes, strict=True):
            each.send(None)
            process.join(10)
            process.kill()


def prepare_round(workers: Workers) -> Iterator[tuple[str, float]]:
    """Measure every case of preparing once."""
    for name in ("encode", "decode"):
        yield name, workers.all(1, name)[0][0]
    for number in PROCESSES:
        done, spent = workers.all(number, "prepare")
        yield str(number), sum(done) / spent


def train_round(workers: Workers) -> Iterator[tuple[str, float]]:
    """Measure every case of training once."""
    for number in PROCESSES:
        with TemporaryDirectory() as folder:
            workers.all(number, "join", number, Path(folder) / "rendezvous")
            spent = max(workers.all(number, "train")[0])
            yield str(number), number / spent
            if number == 1:
                yield "step", spent
                yield "weights", workers.all(1, "count")[0][0]
            if number == 2:
                yield "reduce", max(workers.all(2, "reduce")[0])
            workers.all(number, "leave")


ROUNDS: dict[str, Callable[[Workers], Iterator[tuple[str, float]]]] = {"prepare": prepare_round, "train": train_round}
UNITS = {"encode": "images/s", "decode": "images/s", "step": "s", "reduce": "s", "weights": "weights"}
NAMES = {"prepare": ("encode", "decode", "1", "2", "4"), "train": ("step", "reduce", "weights", "1", "2", "4")}


def measure_all(kind: str, *, rounds: int, **sizes: int) -> dict[str, dict[str, Any]]:
    """Measure all cases of a kind in turns, after a round to warm up, and return the median of each."""
    found: dict[str, list[float]] = {}
    with TemporaryDirectory() as folder:
        workers = Workers(kind, Path(folder), **sizes)
        try:
            for turn in range(-1, rounds):
                for name, value in ROUNDS[kind](workers):
                    found.setdefault(name, []).append(value)
                if turn < 0 and rounds > 1:
                    found = {}
        finally:
            workers.close()
    whole = "images/s" if kind == "prepare" else "batches/s"
    return {
        name: {
            "value": float(median(values)),
            "unit": UNITS.get(name, whole),
            "lowest": float(min(values)),
            "highest": float(max(values)),
        }
        for name, values in found.items()
    }


def cases(arguments) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Yield the cases. All of a kind are measured when the first one is needed."""
    sizes = {"images": 8, "steps": 2, "rounds": 1} if arguments.quick else {"images": 96, "steps": 5, "rounds": 2}
    for kind, names in NAMES.items():
        measured = cache(partial(measure_all, kind, **sizes))
        for name in names:
            yield f"scale/{kind}/{name}", lambda name=name, measured=measured: measured()[name]


if __name__ == "__main__":
    run(cases, __doc__.splitlines()[0])
