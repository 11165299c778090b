"""Try damaged and odd inputs on every reader: each must give a result, or an error of the package that names its file.

As a script, it tries the given number of inputs, with limits on memory and time, and counts the outcomes:
`python tests/robustness/fuzzing.py --inputs 50000 --seed 0`. The tests run the same targets with fewer inputs
(test_fuzz.py).
"""

import argparse
import csv
import hashlib
import io
import json
import os
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from damages import BYTES, MUTATIONS, damage, mutate
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from layouts import LAYOUT_TARGETS
from naughty import CommandLines, Identities, Tables
from omegaconf import OmegaConf
from PIL import ExifTags, Image
from pycocotools import mask

from captioning.checkpoints import write_exported
from captioning.config import CaptionConfig, EvaluateConfig, PrepareConfig, build, check, compose
from captioning.config.schemas import TrainConfig
from captioning.data import Faults, Record, Transform, open_picture, read_csv, read_instances, read_karpathy
from captioning.data.readers import read_coco_files
from captioning.errors import CaptioningError
from captioning.evaluation import read_for_server, read_references, read_results, read_samples
from captioning.features import RegionFolder
from captioning.features.store import FeatureStore, stamp_picture
from captioning.inference import load
from captioning.io import download
from captioning.metrics import from_csv
from captioning.metrics.regions import box_region, mask_region

MEMORY = 2 * 2**30  # additional bytes that one input may need
SECONDS = 20.0  # that one input may take


class Target:
    """A reader and its inputs: `strategy` generates inputs, a call tries one input; `known` are the allowed errors."""

    known: tuple[type[Exception], ...] = (CaptioningError,)
    names_file = True

    def __init__(self, folder: Path):
        self.folder = folder

    def picture(self, name: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4), (200, 10, 60)).save(path)
        return path


class Json(Target):
    """Targets for readers of JSON: documents with changed parts, or damaged bytes."""

    strategy = st.one_of(MUTATIONS, st.builds(lambda changes: ("bytes", changes), BYTES))

    def write(self, path: Path, document: Any, value: Any) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(value, tuple):
            path.write_bytes(damage(json.dumps(document).encode(), value[1]))
        else:
            path.write_text(json.dumps(mutate(document, value)), encoding="utf-8")


CAPTIONS = {
    "images": [{"id": 7, "file_name": "a.png"}, {"id": 9, "file_name": "b.png"}],
    "annotations": [
        {"id": 1, "image_id": 7, "caption": "a dog runs"},
        {"id": 2, "image_id": 9, "caption": "a cat sits"},
        {"id": 3, "image_id": 9, "caption": "“two” cats €"},
    ],
}


class Coco(Json):
    def __init__(self, folder: Path):
        super().__init__(folder)
        self.picture("train/a.png"), self.picture("train/b.png")

    def __call__(self, value: Any) -> None:
        self.write(self.folder / "annotations" / "captions_train.json", CAPTIONS, value)
        read_coco_files(self.folder, faults=Faults())  # as captioning-audit does, which does not stop at errors
        read_coco_files(self.folder)


class Karpathy(Json):
    DOCUMENT: ClassVar = {
        "images": [
            {"imgid": 0, "filename": "a.png", "filepath": "", "split": "train", "sentences": [{"raw": "a dog"}]},
            {"imgid": 1, "filename": "b.png", "split": "val", "sentences": [{"raw": "a cat"}, {"raw": "cats"}]},
        ]
    }

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.picture("images/a.png"), self.picture("images/b.png")

    def __call__(self, value: Any) -> None:
        self.write(self.folder / "dataset.json", self.DOCUMENT, value)
        read_karpathy(self.folder, annotations="dataset.json", faults=Faults())
        read_karpathy(self.folder, annotations="dataset.json")


class Csv(Target):
    CELLS = st.one_of(st.sampled_from(["a.png", "b.png", "train", "val", "a dog", '"', "", " ", "image"]), st.text())
    TABLE = 'image,caption,split\na.png,"a dog, running",train\nb.png,a cat,val\n'
    strategy = st.one_of(
        st.lists(st.lists(CELLS, max_size=4), max_size=4),
        st.builds(lambda changes: ("bytes", changes), BYTES),
        st.binary(max_size=60),
    )

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.picture("a.png"), self.picture("b.png")

    def __call__(self, value: Any) -> None:
        path = self.folder / "captions.csv"
        if isinstance(value, list):
            text = io.StringIO()
            csv.writer(text).writerows([["image", "caption", "split"], *value])
            path.write_bytes(text.getvalue().encode("utf-8", errors="surrogatepass"))
        else:
            path.write_bytes(damage(self.TABLE.encode(), value[1]) if isinstance(value, tuple) else value)
        read_csv(self.folder, faults=Faults())
        read_csv(self.folder)


class Results(Json):
    RESULTS: ClassVar = [{"image_id": 7, "caption": "a dog"}, {"image_id": 9, "caption": "a cat", "file_name": "b.png"}]

    def __call__(self, value: Any) -> None:
        file, images = self.folder / "results.json", self.folder / "images.json"
        images.write_text(json.dumps(CAPTIONS))
        self.write(file, self.RESULTS, value)
        outcomes = [partial(reader, file) for reader in (read_results, read_samples)]
        outcomes.append(partial(read_for_server, file, images))
        _all(outcomes)
        self.write(file, CAPTIONS, value)
        read_references(file)


class Scores(Target):
    TABLE = b"image_id,caption,BLEU-1,BLEU:0,BLEU:1,BLEU:2,BLEU:3\n7,a dog,0.5,1,2,3,4\n9,a cat,0.25,1,2,3,4\n"
    strategy = BYTES

    def __call__(self, value: Any) -> None:
        path = self.folder / "per_image.csv"
        path.write_bytes(damage(self.TABLE, value))
        from_csv(path)


class Instances(Json):
    """Annotated objects of images, up to the masks that grounding computes from them."""

    names_file = False  # an invalid mask is reported with its entry of the file, not with the file

    def __init__(self, folder: Path):
        super().__init__(folder)
        lengths = mask.encode(np.asfortranarray(np.eye(5, 6, dtype=np.uint8)))
        size, compressed = [5, 6], {"size": [5, 6], "counts": lengths["counts"].decode()}
        masks = [[[0, 0, 4, 0, 4, 4]], {"size": size, "counts": [3, 4, 23]}, compressed]
        annotations = [
            {"id": n, "image_id": 7, "category_id": 1, "bbox": [0, 1, 2.5, 3], "segmentation": each}
            for n, each in enumerate(masks)
        ]
        self.document = {
            "images": [{"id": 7, "width": 6, "height": 5}],
            "annotations": annotations,
            "categories": [{"id": 1, "name": "dog"}],
        }
        self.records = [Record(7, folder / "train" / "a.png", "train", ("a dog",))]

    def __call__(self, value: Any) -> None:
        self.write(self.folder / "annotations" / "instances_train.json", self.document, value)
        found = read_instances(self.folder, self.records, words={"dog": ["dog"]}).pictures[7]
        size = (found.width, found.height)
        if found.width * found.height < 10**6:  # the image's real size, which grounding compares
            box_region([each.box for each in found.instances], size)
            mask_region([each.segmentation for each in found.instances], size)


class Pictures(Target):
    strategy = st.tuples(st.integers(0, 10**6), BYTES)

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.contents = [content for _, content in sorted(picture_files().items())]
        self.transform = Transform(8, fit="pad")

    def __call__(self, value: Any) -> None:
        which, changes = value
        path = self.folder / "picture"
        path.write_bytes(damage(self.contents[which % len(self.contents)], changes))
        picture = open_picture(path)
        assert picture.mode == "RGB" and self.transform(picture).shape == (3, 8, 8)


class Manifest(Json):
    """A feature store with a changed manifest."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.records = [Record(n, self.picture(f"{n}.png"), "train", ()) for n in range(4)]
        store = FeatureStore(folder / "store", {"name": "x"}, shard_pictures=2)
        for record in self.records:
            store.append(record.image_id, stamp_picture(record.path), np.full((3, 2), record.image_id + 0.5))
        store.flush()
        self.manifest = folder / "store" / "manifest.json"
        self.document = json.loads(self.manifest.read_text())
        self.shard = folder / "store" / "shard-00000.npy"
        self.content = self.shard.read_bytes()

    def __call__(self, value: Any) -> None:
        self.write(self.manifest, self.document, value)
        self.shard.write_bytes(self.content)
        self.use()

    def use(self) -> None:
        store = FeatureStore(self.folder / "store", {"name": "x"})
        wanted = [record for record in self.records if record.image_id in store]
        missing = store.missing(wanted)
        _all([partial(store.__getitem__, record.image_id) for record in wanted if record not in missing])
        store.verify()


class Shards(Manifest):
    """A feature store with changed bytes in a shard; in half of the inputs the manifest has no checksum."""

    strategy = st.tuples(st.booleans(), BYTES)

    def __call__(self, value: Any) -> None:
        checksums, changes = value
        document = deepcopy(self.document)
        content = damage(self.content, changes)
        document["shards"][0]["size"] = len(content)
        if not checksums:
            document["shards"][0].pop("checksum")
        self.manifest.write_text(json.dumps(document))
        self.shard.write_bytes(content)
        self.use()


class Regions(Target):
    strategy = BYTES

    def __init__(self, folder: Path):
        super().__init__(folder)
        file = io.BytesIO()
        np.savez(file, x=np.ones((3, 2), np.float32), bbox=np.ones((3, 4), np.float32), num_bbox=3)
        self.content, self.reader = file.getvalue(), RegionFolder(folder, size=2)

    def __call__(self, value: Any) -> None:
        (self.folder / "7.npz").write_bytes(damage(self.content, value))
        self.reader[Record(7, Path("a.jpg"), "train", ())]


def small_checkpoint() -> dict[str, Any]:
    """Return a checkpoint as training writes it, for a model of a few numbers."""
    parts = "captioning.models."
    model = {
        "_target_": parts + "build_captioner",
        "cell": {"_target_": parts + "LSTM", "_partial_": True},
        "attention": {"_target_": parts + "HardAttention", "_partial_": True, "decode": "sample"},
        "scorer": {"_target_": parts + "Additive", "_partial_": True, "width": 3},
        "conditioning": {
            "_target_": parts + "Several",
            "_partial_": True,
            "parts": [
                {"_target_": parts + "InitialState", "_partial_": True},
                {"_target_": parts + "FirstStep", "_partial_": True},
            ],
        },
        "width": 4,
        "embedding_size": 3,
        "layers": 1,
        "dropout": 0.1,
    }
    vocabulary = ["<pad>", "<start>", "<end>", "<unk>", "dog", "cat"]
    captioner = build(model, feature_size=5, grid=True, vocabulary_size=len(vocabulary), pad=0)
    encoder = {"_target_": parts + "efficientnet_lite_encoder", "name": "efficientnet-lite0", "weights": None}
    transform = {"_target_": "captioning.data.Transform", "size": 64, "fit": "squash"}
    metadata = {
        "format": 2,
        "task": "image_captioning",
        "plugins": [],
        "config": {"encoder": encoder, "transform": transform, "model": model, "data": {}, "decoding": {}, "seed": 0},
        "vocabulary": vocabulary,
        "frequencies": None,
        "fingerprint": "0123456789abcdef",
        "features": {"size": 5, "grid": True},
        "encoder": None,
    }
    weights = {f"captioner.{name}": value for name, value in captioner.state_dict().items()}
    return {"captioning": metadata, "state_dict": weights, "global_step": 1}


class CheckpointBytes(Target):
    strategy = BYTES

    def __init__(self, folder: Path):
        super().__init__(folder)
        file = io.BytesIO()
        torch.save(small_checkpoint(), file)
        self.content = file.getvalue()

    def __call__(self, value: Any) -> None:
        path = self.folder / "x.ckpt"
        path.write_bytes(damage(self.content, value))
        load(path, device="cpu")


class CheckpointParts(Target):
    """Valid files of tensors and plain containers with some wrong values."""

    strategy = MUTATIONS

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.document = small_checkpoint()

    def __call__(self, value: Any) -> None:
        path = self.folder / "x.ckpt"
        torch.save(mutate(self.document, value), path)
        load(path, device="cpu")


def small_export(folder: Path) -> tuple[dict[str, Any], bytes]:
    """Return the two exported files of `small_checkpoint`: content of the JSON file, bytes of the weights."""
    document = write_exported(folder / "x", small_checkpoint(), dtype="float16", about={})
    return document, (folder / "x.safetensors").read_bytes()


def write_export(folder: Path, document: Any, content: bytes) -> Path:
    """Write both files; the JSON file gets the SHA-256 of the other, if it has an entry for it."""
    if isinstance(document, dict) and isinstance(document.get("weights"), dict):
        document["weights"]["sha256"] = hashlib.sha256(content).hexdigest()
    (folder / "x.safetensors").write_bytes(content)
    (folder / "x.json").write_text(json.dumps(document), encoding="utf-8")
    return folder / "x.safetensors"


class ExportBytes(Target):
    """The weights of an exported checkpoint, with their checksum in the metadata."""

    strategy = BYTES

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.document, self.content = small_export(folder)

    def __call__(self, value: Any) -> None:
        load(write_export(self.folder, self.document, damage(self.content, value)), device="cpu")


class ExportParts(Json):
    """The metadata of an exported checkpoint."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.document, self.content = small_export(folder)

    def __call__(self, value: Any) -> None:
        self.write(self.folder / "x.json", self.document, value)
        load(self.folder / "x.json", device="cpu")


class Settings(Target):
    """A configuration of a run, without hydra's grammar. If the check passes, it is built without memory."""

    names_file = False
    COMMANDS = (
        ("train", TrainConfig, ["run_dir=x"]),
        ("evaluate", EvaluateConfig, ["checkpoint=x", "data=scenes"]),
        ("caption", CaptionConfig, ["checkpoint=x", "images=[a.jpg]"]),
        ("prepare", PrepareConfig, []),
    )
    BUILT = ("transform", "decoding", "schedule", "optimizer")
    strategy = st.tuples(st.integers(0, 3), MUTATIONS)

    def __init__(self, folder: Path):
        from hydra.errors import HydraException
        from omegaconf.errors import OmegaConfBaseException

        super().__init__(folder)
        self.known = (
            CaptioningError,
            HydraException,
            OmegaConfBaseException,
        )  # errors that a command reports in one line
        self.plain = [OmegaConf.to_container(compose(name, given), resolve=True) for name, _, given in self.COMMANDS]

    def __call__(self, value: Any) -> None:
        which, mutations = value
        content = mutate(self.plain[which], mutations)
        config = check(
            OmegaConf.create(content if isinstance(content, dict) else {"a": content}), self.COMMANDS[which][1]
        )
        for key in self.BUILT:
            if config.get(key) and not (key == "decoding" and "checkpoints" in config[key]):
                build(config[key])
        if "model" in config:
            with torch.device("meta"):
                build(config["model"], feature_size=6, grid=True, vocabulary_size=9)


class Archives(Target):
    strategy = BYTES

    def __init__(self, folder: Path):
        super().__init__(folder)
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as bundle:
            for number in range(3):
                bundle.writestr(f"val/{number}.txt", "a dog and a cat " * (number + 1))
        self.content, self.archive = file.getvalue(), download.Archive("http://nowhere/a.zip", None, ("val",))

    def __call__(self, value: Any) -> None:
        root = self.folder / "root"
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        (root / "a.zip").write_bytes(damage(self.content, value))
        download.download([self.archive], root, progress=False)
        assert {path.name for path in self.folder.iterdir()} == {"root"}


TARGETS: dict[str, Callable[[Path], Target]] = {
    "coco": Coco,
    "karpathy": Karpathy,
    "csv": Csv,
    "results": Results,
    "scores": Scores,
    "instances": Instances,
    "pictures": Pictures,
    "manifest": Manifest,
    "shards": Shards,
    "regions": Regions,
    "checkpoint bytes": CheckpointBytes,
    "checkpoint parts": CheckpointParts,
    "export bytes": ExportBytes,
    "export parts": ExportParts,
    "settings": Settings,
    "archives": Archives,
    "identities": Identities,
    "tables": Tables,
    "command lines": CommandLines,
    **LAYOUT_TARGETS,
}


def _all(calls: list[Callable]) -> None:
    """Make all calls, and raise the package's first error at the end."""
    first = None
    for call in calls:
        try:
            call()
        except CaptioningError as error:
            first = first or error
    if first:
        raise first


def picture_files() -> dict[str, bytes]:
    """Return valid and broken images by kind; all files are small."""
    random = np.random.default_rng(0)
    noise = Image.fromarray(random.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    files: dict[str, bytes] = {}

    def save(name: str, picture: Image.Image, kind: str, **options) -> None:
        file = io.BytesIO()
        picture.save(file, format=kind, **options)
        files[name] = file.getvalue()

    for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"):
        save(f"rgb {kind}", noise, kind)
        save(f"1x1 {kind}", noise.crop((0, 0, 1, 1)), kind)
    for mode, kind in (("CMYK", "JPEG"), ("CMYK", "TIFF"), ("L", "PNG"), ("LA", "PNG"), ("RGBA", "PNG"), ("1", "TIFF")):
        save(f"{mode} {kind}", noise.convert(mode), kind)
    save("RGBA WEBP", noise.convert("RGBA"), "WEBP", lossless=True)
    save("progressive", noise, "JPEG", progressive=True)
    save("deflated TIFF", noise, "TIFF", compression="tiff_adobe_deflate")
    palette = noise.convert("P", palette=Image.Palette.ADAPTIVE)
    save("palette", palette, "PNG")
    save("palette with transparency", palette, "PNG", transparency=3)
    deep = Image.fromarray(random.integers(0, 65536, (9, 12)).astype(np.uint16))
    save("16 bits PNG", deep, "PNG"), save("16 bits TIFF", deep, "TIFF")
    save("floats", Image.fromarray(np.ones((3, 4), np.float32)), "TIFF")
    for kind in ("GIF", "PNG", "WEBP"):
        save(f"moving {kind}", noise, kind, save_all=True, append_images=[noise.rotate(90)])
    for orientation in (0, 3, 6, 8, 9, 65535):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        save(f"turned {orientation}", noise, "JPEG", exif=exif)
    save("wide", Image.new("L", (30_000, 2), 90), "PNG")
    save("wide JPEG", Image.new("RGB", (30_000, 3), (9, 90, 200)), "JPEG")
    whole = files["rgb PNG"]
    files |= {"nothing": b"", "text": b"a caption, not a picture", "cut": whole[: len(whole) // 2]}
    files |= {f"bomb {side}": bomb(side) for side in (12_000, 40_000, 2**31 - 1)}
    return files


def bomb(side: int) -> bytes:
    """Return a PNG that declares side × side pixels and has a few kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(10**5)))
        + chunk(b"IEND", b"")
    )


class Hang(BaseException):
    """Raised if an input takes too long; not an Exception, so that no reader's `except Exception` can catch it."""


@contextmanager
def bounded() -> Iterator[None]:
    """Limit the process to MEMORY bytes more than now; inside, an alarm raises Hang (set it with `alarm`)."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    handler = signal.signal(signal.SIGALRM, _late)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


def _late(*_) -> None:
    raise Hang(f"an input needed more than {SECONDS} s")


def attempt(target: Target, value: Any) -> str:
    """Try one input, and return "result" or "refused"; any other outcome is raised."""
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        target(value)
    except target.known as error:
        told = str(error)
        assert told and (not target.names_file or str(target.folder) in told), f"no file is named: {told!r:.300}"
        return "refused"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return "result"


def fuzz(name: str, count: int, *, seed: int, folder: Path, keep_on: bool = False) -> Counter:
    """Count the outcomes of `count` inputs for one target; with `keep_on`, also count failures by kind."""
    target, outcomes = TARGETS[name](folder), Counter()

    @seeded(seed)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate] if keep_on else [Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(target.strategy)
    def run(value: Any) -> None:
        try:
            outcomes[attempt(target, value)] += 1
        except (Exception, Hang) as error:
            if not keep_on:
                raise
            outcomes[f"FAILED {type(error).__name__}: {str(error)[:200]}"] += 1
            print(f"{name}: {type(error).__name__}: {error!s:.300} on {value!r:.300}", file=sys.stderr)

    with bounded():
        run()
    return outcomes


def main() -> None:
    """Print the counts, one line per target, and their sum; exit with status 1 after any failure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", nargs="*", default=list(TARGETS))
    arguments = parser.parse_args()
    total, failures = Counter(), 0
    for name in arguments.targets:
        share, started_at = -(-arguments.inputs // len(arguments.targets)), time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            outcomes = fuzz(name, share, seed=arguments.seed, folder=Path(folder), keep_on=True)
        failed = sum(number for kind, number in outcomes.items() if kind.startswith("FAILED"))
        total += Counter({kind: number for kind, number in outcomes.items() if not kind.startswith("FAILED")})
        failures += failed
        seconds = time.perf_counter() - started_at
        print(
            f"{name:<21}{sum(outcomes.values()):>7} inputs  {outcomes['result']:>6} results  {outcomes['refused']:>6} "
            f"refused  {failed:>4} failed  {seconds:6.1f} s",
            flush=True,
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{sum(total.values()) + failures} inputs, {failures} failures, peak {peak:.0f} MiB, seed {arguments.seed}")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
