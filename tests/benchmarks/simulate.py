"""Compute time, memory and traffic of a data set of any size on any number of devices, from measured rates.

    python tests/benchmarks/simulate.py                        # the tables of docs/scaling.md
    python tests/benchmarks/simulate.py --set disk=1e9 words_rate=150000
    python tests/benchmarks/simulate.py --check bench.json     # predictions beside scaling.py's figures

Nothing is run. Each phase needs several resources: devices, cores, disks, network. Resources that work at the same time
take as long as the slowest, which is the bottleneck; steps that wait for each other are added. `Rates` and `Cluster`
have all numbers that are put in, with their sources. A device is a GPU, or a process with one thread if `on_cores`.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

COCO = 123_287  # images
SIZES = {"COCO": 1, "100 × COCO": 100, "10,000 × COCO": 10_000}
DEVICES = (1, 8, 64, 512)


@dataclass(frozen=True)
class Rates:
    """What one device and one core do. The defaults are measured on two cores, or assumed where it is stated."""

    encode_seconds: float = 1 / 3000  # of a device, per image; assumed for EfficientNet-Lite0 on a GPU
    decode_seconds: float = 0.0053  # of a core, to read and shrink an image; measured on 159 photos of COCO
    words_rate: float = 25_000  # of a device in a training step; of one process on an H100 that thirteen shared
    load_seconds: float = 0.00025  # of a core, to read and stack the features of an image; measured (docs/speed.md)
    beam_rate: float = 1000  # images/s of a device with beam 5; assumed
    sample_rate: float = 1000  # images/s of a device, five samples and the greedy caption each; assumed
    reward_seconds: float = 10.4e-6  # of a core, per caption; measured (`ciderd/250`)
    score_seconds: float = 142e-6  # of one core, per image; measured (`score/5000`)
    start_seconds: float = 12  # of a command, until its first batch; assumed
    reduce_core_seconds: float = 0  # per byte, if cores sum the gradients (gloo inside a machine)
    weights: float = 17.5e6  # of the model, in float32; counted for soft attention over 49 × 1280
    on_cores: bool = False  # the devices are processes with one thread


@dataclass(frozen=True)
class Cluster:
    """The machines. All are assumed, and typical of machines with eight GPUs."""

    devices: int = 1
    per_machine: int = 8
    cores: int = 128  # per machine
    memory: float = 1e12  # bytes per machine
    disk: float = 3e9  # bytes/s per machine
    storage: float = 100e9  # bytes/s of all disks together, if they are one shared file system
    within: float = 300e9  # bytes/s between devices of a machine
    network: float = 25e9  # bytes/s of a machine to the others
    latency: float = 20e-6  # seconds per message

    @property
    def machines(self) -> int:
        """How many machines the devices need."""
        return -(-self.devices // self.per_machine)

    @property
    def all_cores(self) -> int:
        """The cores of all machines."""
        return self.cores * self.machines

    @property
    def all_disks(self) -> float:
        """The bytes/s of all machines together."""
        return min(self.disk * self.machines, self.storage)


@dataclass(frozen=True)
class Work:
    """The data set, and how it is trained on."""

    images: float = COCO
    places: int = 49
    features: int = 1280
    image_bytes: float = 163e3  # COCO's mean JPEG file
    captions: int = 5
    words_per_caption: float = 11.5  # <end> included
    batch: int = 64  # images per device
    epochs: int = 20
    scst_epochs: int = 5
    samples: int = 5  # per image in self-critical training
    held_out: float = 5000 / COCO  # share of the images that is captioned in a validation
    record_bytes: float = 741  # per image: captions, ids, path (693) and the store's index (48), shared by processes

    @property
    def feature_bytes(self) -> int:
        """The bytes of an image's features in half precision."""
        return 2 * self.places * self.features


class Phase(NamedTuple):
    """What a phase needs. `disk` and `network` are bytes, of all machines and between machines per machine."""

    seconds: float
    bottleneck: str
    disk: float
    network: float


def slowest(needs: Mapping[str, float]) -> tuple[float, str]:
    """Return the seconds of resources that work at the same time, and the name of the bottleneck."""
    name = max(needs, key=lambda each: needs[each])
    return needs[name], name


def prepare(work: Work, rates: Rates, cluster: Cluster) -> Phase:
    """Compute and store all features. Each device has a process, which fills its own part of the store."""
    on_cores = rates.decode_seconds + (rates.encode_seconds if rates.on_cores else 0)
    written, read = work.images * work.feature_bytes, work.images * work.image_bytes
    needs = {
        "encoder": work.images * rates.encode_seconds / cluster.devices,
        "cores (decoding)": work.images * on_cores / cluster.all_cores,
        "disk": (read + written) / cluster.all_disks,
    }
    if rates.on_cores:  # one loader process each
        needs["cores (decoding)"] = max(needs["cores (decoding)"], work.images * rates.decode_seconds / cluster.devices)
    seconds, bottleneck = slowest(needs | {"start": 0})
    return _with_start(seconds, bottleneck, rates, read + written, 0)


def reduce_seconds(rates: Rates, cluster: Cluster) -> float:
    """Return the time to sum the gradients over all devices: in a ring, each sends the weights' bytes nearly twice."""
    bytes_, devices = 4 * rates.weights, cluster.devices
    if devices == 1:
        return 0.0
    if rates.on_cores:  # the cores that there are copy and add everything that is sent
        return rates.reduce_core_seconds * 2 * bytes_ * (devices - 1) / min(devices, cluster.all_cores)
    speed = cluster.within if cluster.machines == 1 else min(cluster.within, cluster.network)
    return 2 * bytes_ * (devices - 1) / devices / speed + 2 * cluster.latency * (devices - 1).bit_length()


def step_needs(work: Work, rates: Rates, cluster: Cluster, *, device_seconds: float) -> dict[str, float]:
    """Return what one step of all devices needs, beside summing the gradients."""
    core_seconds = work.batch * rates.load_seconds + (device_seconds if rates.on_cores else 0)
    return {
        "device": device_seconds + (work.batch * rates.load_seconds if rates.on_cores else 0),
        "cores": cluster.devices * core_seconds / cluster.all_cores,
        "disk": 0.0 if cached(work, cluster) else cluster.devices * work.batch * work.feature_bytes / cluster.all_disks,
    }


def cached(work: Work, cluster: Cluster) -> bool:
    """Return whether all features and captions fit into the page cache of each machine, beside the processes."""
    return work.images * (work.feature_bytes + work.record_bytes) < 0.9 * (cluster.memory - process_bytes(cluster))


def process_bytes(cluster: Cluster) -> float:
    """Return the memory that the processes of a machine need, a gigabyte each."""
    return min(cluster.devices, cluster.per_machine) * 1e9


def _epochs(
    work: Work, rates: Rates, cluster: Cluster, *, epochs: int, device_seconds: float, waits: float = 0
) -> Phase:
    needs = step_needs(work, rates, cluster, device_seconds=device_seconds)
    longest, bottleneck = slowest(needs)
    reduction = reduce_seconds(rates, cluster)
    parts = {bottleneck: longest, "network": reduction, "cores (reward)": waits}
    steps = max(1.0, epochs * work.images / (work.batch * cluster.devices))
    bytes_ = work.images * work.feature_bytes
    sent = 0.0 if cluster.machines == 1 else steps * 8 * rates.weights * (cluster.devices - 1) / cluster.devices
    disk = bytes_ * (cluster.machines if cached(work, cluster) else epochs)
    worst = max(parts, key=lambda each: parts[each])
    if process_bytes(cluster) > cluster.memory:
        worst = "memory: does not fit"
    return _with_start(steps * sum(parts.values()), worst, rates, disk, sent)


def train(work: Work, rates: Rates, cluster: Cluster) -> Phase:
    """Train with teacher forcing."""
    words = work.batch * work.captions * work.words_per_caption
    return _epochs(work, rates, cluster, epochs=work.epochs, device_seconds=words / rates.words_rate)


def self_critical(work: Work, rates: Rates, cluster: Cluster) -> Phase:
    """Train with SCST: sample captions, compute their rewards on a core while the device waits, and learn from them."""
    words = work.batch * work.samples * work.words_per_caption
    device_seconds = work.batch / rates.sample_rate + words / rates.words_rate
    waits = work.batch * (work.samples + 1) * rates.reward_seconds * max(1.0, cluster.devices / cluster.all_cores)
    return _epochs(work, rates, cluster, epochs=work.scst_epochs, device_seconds=device_seconds, waits=waits)


def evaluate(work: Work, rates: Rates, cluster: Cluster) -> Phase:
    """Caption the validation images with all devices, and score the captions in one process."""
    images = work.images * work.held_out
    needs = {
        "device": images / rates.beam_rate / cluster.devices,
        "cores": images * rates.load_seconds / cluster.all_cores,
        "disk": images * work.feature_bytes / cluster.all_disks,
    }
    seconds, bottleneck = slowest(needs)
    scoring = images * rates.score_seconds
    name = "scores (one core)" if scoring > seconds else bottleneck
    return _with_start(seconds + scoring, name, rates, images * work.feature_bytes, 0)


def _with_start(seconds: float, bottleneck: str, rates: Rates, disk: float, network: float) -> Phase:
    short = rates.start_seconds > seconds and "does not fit" not in bottleneck
    return Phase(seconds + rates.start_seconds, "start" if short else bottleneck, disk, network)


PHASES = {"Prepare": prepare, "Train": train, "SCST": self_critical, "Validate": evaluate}


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    for unit, size, least in (("days", 86400, 2 * 86400), ("h", 3600, 2 * 3600), ("min", 60, 120)):
        if seconds >= least:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


def size(bytes_: float) -> str:
    """Return a number of bytes in the unit that suits it."""
    for unit, factor in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if bytes_ >= factor:
            return f"{bytes_ / factor:.3g} {unit}"
    return f"{bytes_:.0f} B"


def tables(work: Work, rates: Rates, cluster: Cluster) -> str:
    """Return two tables in Markdown: time with bottleneck, and memory with traffic."""
    times = ["| Data | Devices | " + " | ".join(PHASES) + " |", "|---|---|" + "---|" * len(PHASES)]
    traffic = [
        "| Data | Devices | Features | Processes, memory per machine | In memory | Prepare: disk | Train: disk |"
        " Train: network per machine |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, factor in SIZES.items():
        for devices in DEVICES:
            data, machines = replace(work, images=work.images * factor), replace(cluster, devices=devices)
            found = {phase: compute(data, rates, machines) for phase, compute in PHASES.items()}
            cells = [f"{duration(each.seconds)} ({each.bottleneck})" for each in found.values()]
            times.append(f"| {name} | {devices} | {' | '.join(cells)} |")
            disk = size(found["Train"].disk)
            cells = [size(data.images * data.feature_bytes), size(process_bytes(machines))]
            cells += ["yes" if cached(data, machines) else "no", size(found["Prepare"].disk), disk]
            traffic.append(f"| {name} | {devices} | {' | '.join(cells)} | {size(found['Train'].network)} |")
    return "\n".join([*times, "", *traffic])


def predictions(results: Mapping[str, Mapping[str, Any]], *, cores: int) -> dict[str, float]:
    """Predict what scaling.py measures for 1, 2 and 4 processes, from the parts that it measures by themselves."""
    one = {name.rpartition("/")[2]: each["value"] for name, each in results.items() if name.startswith("scale/")}
    both = min(2, cores)  # how many of the two processes that summed the gradients really worked at the same time
    rates = Rates(
        encode_seconds=1 / one["encode"],
        decode_seconds=1 / one["decode"],
        load_seconds=0.0,  # in the step
        reduce_core_seconds=one["reduce"] * both / (2 * 4 * one["weights"]),
        weights=one["weights"],
        start_seconds=0.0,
        on_cores=True,
    )
    found = {}
    for name in results:
        kind, _, processes = name.removeprefix("scale/").partition("/")
        if processes.isdecimal():
            cluster = Cluster(devices=int(processes), per_machine=int(processes), cores=cores, disk=1e18, storage=1e18)
            work = Work(images=1e6)
            if kind == "prepare":
                found[name] = work.images / prepare(work, rates, cluster).seconds
            else:
                needs = step_needs(work, rates, cluster, device_seconds=one["step"])
                found[name] = int(processes) / (slowest(needs)[0] + reduce_seconds(rates, cluster))
    return found


def check(path: Path) -> str:
    """Return a table of predicted and measured rates.

    Raises:
        SystemExit: a prediction differs from the measured rate by more than a quarter.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    lines, worst = ["| Case | Measured | Predicted | Predicted / measured |", "|---|---|---|---|"], 0.0
    for name, predicted in predictions(content["results"], cores=content["machine"]["cores"]).items():
        measured = content["results"][name]
        ratio = predicted / measured["value"]
        worst = max(worst, abs(ratio - 1))
        rate = f"{measured['value']:.3g} {measured['unit']}"
        lines.append(f"| `{name}` | {rate} | {predicted:.3g} | {ratio:.2f} |")
    if worst > 0.25:
        sys.exit("\n".join([*lines, f"error: a prediction is wrong by {worst:.0%}, which is more than 25 %"]))
    return "\n".join(lines)


def main(given: list[str] | None = None) -> None:
    """Print the tables, or the predictions beside what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", type=Path, help="bench.json with the results of scaling.py on this machine")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=NUMBER", help="a field of Work, Rates or Cluster")
    arguments = parser.parse_args(given)
    if arguments.check:
        print(check(arguments.check))
        return
    parts: list[Any] = [Work(), Rates(), Cluster()]
    for text in arguments.set:
        name, _, value = text.partition("=")
        owners = [at for at, part in enumerate(parts) if name in {each.name for each in fields(part)}]
        try:
            parts[owners[0]] = replace(parts[owners[0]], **{name: type(getattr(parts[owners[0]], name))(float(value))})
        except (IndexError, ValueError):
            known = ", ".join(each.name for part in parts for each in fields(part))
            sys.exit(f"error: --set {text}: type NAME=NUMBER with one of {known}")
    print(tables(*parts))


if __name__ == "__main__":
    main()
