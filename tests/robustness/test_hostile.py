"""Files that a stranger made to harm: each is refused, runs nothing, and is named."""

import io
import json
import os
import pickle
import re
import stat
import zipfile
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from fuzzing import CAPTIONS, bomb, small_checkpoint, small_export, write_export
from PIL import Image

from captioning.config import build, check, compose
from captioning.config.allowlist import check_settings_file
from captioning.config.schemas import TrainConfig
from captioning.data import Record, open_picture, read_csv, read_instances, read_karpathy
from captioning.data.readers import read_coco_files
from captioning.errors import CaptioningError
from captioning.features import RegionFolder
from captioning.features.store import FeatureStore, Stamp
from captioning.inference import load
from captioning.io import download
from captioning.models import efficientnet_lite_encoder

HOSTILE: dict[str, Callable[[Path], None]] = {}


def hostile(function: Callable[[Path], None]) -> Callable[[Path], None]:
    """Lists a function that makes hostile files in a folder and has them read."""
    HOSTILE[function.__name__.replace("_", " ")] = function
    return function


def ran(folder: Path) -> Path:
    """The file that every payload leaves when it is run."""
    return folder / "ran"


class Payload:
    """Pickled, it is a command."""

    def __init__(self, folder: Path):
        self.command = f"touch '{ran(folder)}'"

    def __reduce__(self):
        return os.system, (self.command,)


def call(folder: Path, target: str = "os.system") -> dict:
    """A node that runs a command, where it is built."""
    return {"_target_": target, "_args_": [f"touch '{ran(folder)}'"]}


def checkpoint(folder: Path, **changes) -> None:
    """Loads a checkpoint whose model's settings are changed."""
    document = small_checkpoint()
    document["captioning"]["config"]["model"] |= changes
    torch.save(document, folder / "x.ckpt")
    load(folder / "x.ckpt", device="cpu")


def test_the_payloads_would_run(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path)))
    assert ran(tmp_path).exists()


def test_what_is_not_hostile_is_taken(tmp_path):
    checkpoint(tmp_path)


# Checkpoints


@hostile
def checkpoint_that_is_a_pickle(folder):
    (folder / "x.ckpt").write_bytes(pickle.dumps(Payload(folder)))
    load(folder / "x.ckpt", device="cpu")


@hostile
def checkpoint_that_holds_an_object(folder):
    torch.save(small_checkpoint() | {"callbacks": Payload(folder)}, folder / "x.ckpt")
    load(folder / "x.ckpt", device="cpu")


@hostile
def checkpoint_of_the_old_format(folder):
    torch.save(Payload(folder), folder / "x.ckpt", _use_new_zipfile_serialization=False)
    load(folder / "x.ckpt", device="cpu")


@hostile
def checkpoint_with_a_vocabulary_of_objects(folder):
    document = small_checkpoint()
    document["captioning"]["vocabulary"][4] = Payload(folder)
    torch.save(document, folder / "x.ckpt")
    load(folder / "x.ckpt", device="cpu")


@hostile
def checkpoint_with_numbers_for_words(folder):
    document = small_checkpoint()
    document["captioning"]["vocabulary"][4] = 7
    torch.save(document, folder / "x.ckpt")
    load(folder / "x.ckpt", device="cpu")


@hostile
def checkpoint_that_is_a_script_module(folder):
    torch.jit.script(torch.nn.Linear(2, 2)).save(folder / "x.ckpt")
    load(folder / "x.ckpt", device="cpu")


@hostile
def checkpoint_that_unfolds_a_thousandfold(folder):
    document = small_checkpoint() | {"more": torch.zeros(2_000_000)}
    torch.save(document, folder / "flat.ckpt")
    with zipfile.ZipFile(folder / "flat.ckpt") as flat, zipfile.ZipFile(folder / "x.ckpt", "w", 8) as packed:
        for member in flat.infolist():
            packed.writestr(member.filename, flat.read(member))
    assert (folder / "x.ckpt").stat().st_size < 10**6
    load(folder / "x.ckpt", device="cpu")


@hostile
def checkpoint_of_one_number_a_billion_times(folder):
    document = small_checkpoint()
    document["state_dict"]["captioner.more"] = torch.zeros(1).expand(10**9)
    torch.save(document, folder / "x.ckpt")
    load(folder / "x.ckpt", device="cpu")


@hostile
def checkpoint_of_weights_that_are_no_numbers(folder):
    document = small_checkpoint()
    next(iter(document["state_dict"].values())).view(-1)[0] = torch.nan
    torch.save(document, folder / "x.ckpt")
    load(folder / "x.ckpt", device="cpu")


@hostile
def metadata_that_names_a_command(folder):
    checkpoint(folder, cell=call(folder))


@hostile
def metadata_with_a_command_for_a_model(folder):
    checkpoint(folder, **call(folder))


@hostile
def metadata_with_a_command_in_a_list_of_parts(folder):
    several = {"_target_": "captioning.models.Several", "_partial_": True}
    checkpoint(folder, conditioning=several | {"parts": [call(folder)]})


@hostile
def metadata_with_a_command_in_a_tuple(folder):
    several = {"_target_": "captioning.models.Several", "_partial_": True}
    checkpoint(folder, conditioning=several | {"parts": (call(folder),)})


@hostile
def metadata_with_a_command_in_a_text(folder):
    text = f"${{oc.create:'{{_target_: os.system, _args_: [touch {ran(folder)}]}}'}}"
    checkpoint(folder, scorer=text)


@hostile
def metadata_with_a_command_in_an_argument(folder):
    checkpoint(folder, width=call(folder))


@hostile
def metadata_that_asks_for_the_environment(folder):
    checkpoint(folder, width="${oc.env:HOME}")


@hostile
def metadata_that_evaluates(folder):
    checkpoint(folder, cell={"_target_": "builtins.eval", "_args_": [f"open({str(ran(folder))!r}, 'w')"]})


@hostile
def metadata_that_goes_through_an_imported_module(folder):
    checkpoint(folder, cell=call(folder, "captioning.io.atomic_files.os.system"))


@hostile
def metadata_that_writes_by_this_package(folder):
    target = {"_target_": "captioning.io.atomic_files.write_text", "_args_": [str(ran(folder)), "x"]}
    checkpoint(folder, cell=target)


@hostile
def metadata_that_loads_by_this_package(folder):
    checkpoint(folder, cell={"_target_": "captioning.inference.loading.load", "path": str(folder / "y.ckpt")})


@hostile
def metadata_that_names_a_private_function(folder):
    checkpoint(folder, cell={"_target_": "captioning.models.efficientnet_lite._wheel_weights", "name": "os"})


@hostile
def metadata_with_a_command_for_a_transform(folder):
    document = small_checkpoint()
    document["captioning"]["config"]["transform"] = call(folder)
    torch.save(document, folder / "x.ckpt")
    load(folder / "x.ckpt", device="cpu")


@hostile
def metadata_with_a_command_for_an_encoder(folder):
    document = small_checkpoint()
    document["captioning"]["config"]["encoder"] = call(folder) | {"name": "x", "weights": None}
    torch.save(document, folder / "x.ckpt")
    _ = load(folder / "x.ckpt", device="cpu").encoder


@hostile
def metadata_of_a_model_that_fills_the_memory(folder):
    checkpoint(folder, width=10**6, embedding_size=10**6)


@hostile
def metadata_of_a_million_layers(folder):
    checkpoint(folder, layers=10**6)


@hostile
def metadata_of_a_picture_that_fills_the_memory(folder):
    document = small_checkpoint()
    document["captioning"]["config"]["transform"]["size"] = 10**6
    torch.save(document, folder / "x.ckpt")
    load(folder / "x.ckpt", device="cpu")


@hostile
def metadata_nested_a_hundred_deep(folder):
    node: dict = {}
    for _ in range(100):
        node = {"parts": [node]}
    checkpoint(folder, cell=node)


@hostile
def encoder_weights_that_are_a_pickle(folder):
    (folder / "x.pth").write_bytes(pickle.dumps(Payload(folder)))
    efficientnet_lite_encoder(weights=str(folder / "x.pth"), image_size=32)


# Exported checkpoints


def exported(folder: Path, change: Callable[[dict], object] = dict, weights: Callable[[bytes], bytes] = bytes):
    """Loads an exported checkpoint whose files are changed, and tell of no damage."""
    document, content = small_export(folder)
    change(document)
    return load(write_export(folder, document, weights(content)), device="cpu")


def tensors(**more: torch.Tensor) -> Callable[[bytes], bytes]:
    """Weights with further tensors, or others in their places."""
    return lambda content: safetensors.torch.save(safetensors.torch.load(content) | more)


def test_an_exported_one_that_is_not_hostile_is_taken(tmp_path):
    assert exported(tmp_path).vocabulary.words[4:] == ("dog", "cat")


@hostile
def exported_metadata_that_names_a_command(folder):
    exported(folder, lambda document: document["config"]["model"].update(cell=call(folder)))


@hostile
def exported_metadata_with_a_command_for_a_transform(folder):
    exported(folder, lambda document: document["config"].update(transform=call(folder)))


@hostile
def exported_metadata_with_a_command_for_an_encoder(folder):
    encoder = call(folder) | {"name": "x", "weights": None}
    _ = exported(folder, lambda document: document["config"].update(encoder=encoder)).encoder


@hostile
def exported_metadata_of_a_model_that_fills_the_memory(folder):
    exported(folder, lambda document: document["config"]["model"].update(width=10**6, embedding_size=10**6))


@hostile
def exported_metadata_with_numbers_for_an_encoder(folder):
    exported(folder, lambda document: document.update(encoder={"network.weight": [1.0, 2.0]}))


@hostile
def exported_metadata_with_numbers_for_words(folder):
    exported(folder, lambda document: document["vocabulary"].__setitem__(4, 7))


@hostile
def exported_metadata_nested_beyond_all_depth(folder):
    small_export(folder)
    (folder / "x.json").write_text("[" * 10**6)
    load(folder / "x.json", device="cpu")


@hostile
def exported_weights_that_are_a_pickle(folder):
    exported(folder, weights=lambda content: pickle.dumps(Payload(folder)))


@hostile
def exported_weights_that_are_a_checkpoint_of_torch(folder):
    torch.save(Payload(folder), folder / "y.ckpt")
    exported(folder, weights=lambda content: (folder / "y.ckpt").read_bytes())


@hostile
def exported_weights_that_say_they_are_a_terabyte(folder):
    header = json.dumps({"captioner.x": {"dtype": "F32", "shape": [2**38], "data_offsets": [0, 2**40]}}).encode()
    exported(folder, weights=lambda content: len(header).to_bytes(8, "little") + header + bytes(64))


@hostile
def exported_weights_with_a_header_beyond_the_file(folder):
    exported(folder, weights=lambda content: (2**40).to_bytes(8, "little") + content[8:])


@hostile
def exported_weights_that_are_no_numbers(folder):
    name = "captioner.decoder.embedding.weight"
    exported(folder, weights=tensors(**{name: torch.full((6, 3), torch.inf)}))


@hostile
def exported_weights_of_eight_bits(folder):
    name = "captioner.decoder.embedding.weight"
    exported(folder, weights=tensors(**{name: torch.zeros(6, 3).to(torch.float8_e4m3fn)}))


@hostile
def exported_weights_that_no_model_asked_for(folder):
    exported(folder, weights=tensors(**{"captioner.more": torch.zeros(10**6)}))


# Stores and region files


def store(folder: Path) -> Path:
    made = FeatureStore(folder / "store", {"name": "x"})
    made.append(5, Stamp("5.jpg", 1, 1, "d"), np.ones((2, 3)))
    made.flush()
    return made.folder


def read_store(folder: Path, **changes) -> None:
    """Reads a store whose manifest says what fits its shard, but for the changes."""
    manifest, shard = folder / "manifest.json", folder / "shard-00000.npy"
    content = json.loads(manifest.read_text())
    content["shards"][0] |= {"size": shard.stat().st_size, "checksum": None} | changes
    manifest.write_text(json.dumps(content))
    assert FeatureStore(folder, {"name": "x"})[5] is not None


@hostile
def store_whose_shard_is_an_array_of_objects(folder):
    place = store(folder)
    np.save(place / "shard-00000.npy", np.array([Payload(folder)], dtype=object), allow_pickle=True)
    read_store(place)


@hostile
def store_whose_shard_is_a_pickle(folder):
    place = store(folder)
    (place / "shard-00000.npy").write_bytes(pickle.dumps(Payload(folder)))
    read_store(place)


@hostile
def store_whose_manifest_is_a_pickle(folder):
    place = store(folder)
    (place / "manifest.json").write_bytes(pickle.dumps(Payload(folder)))
    FeatureStore(place, {"name": "x"})


@hostile
def store_with_a_shard_elsewhere(folder):
    place = store(folder)
    (folder / "secret.npy").write_bytes((place / "shard-00000.npy").read_bytes())
    read_store(place, file="../secret.npy")


@hostile
def store_with_a_shard_by_its_absolute_name(folder):
    place = store(folder)
    read_store(place, file=str(place / "shard-00000.npy"))


@hostile
def regions_of_objects(folder):
    np.savez(folder / "7.npz", x=np.array([[Payload(folder)]], dtype=object), bbox=np.ones((1, 4)))
    RegionFolder(folder, size=1)[Record(7, Path("a.jpg"), "train", ())]


@hostile
def regions_that_are_a_pickle(folder):
    (folder / "7.npz").write_bytes(pickle.dumps(Payload(folder)))
    RegionFolder(folder, size=1)[Record(7, Path("a.jpg"), "train", ())]


# Settings


@hostile
def settings_that_name_a_command(folder):
    check(compose("train", ["run_dir=x", "optimizer._target_=os.system"]), TrainConfig)


@hostile
def settings_with_a_command_in_a_part(folder):
    check(compose("train", ["run_dir=x", "model.cell._target_=subprocess.Popen"]), TrainConfig)


@hostile
def settings_with_a_command_in_a_list(folder):
    override = f"+trainer.plugins=[{{_target_: os.system, command: \"touch '{ran(folder)}'\"}}]"
    check(compose("train", ["run_dir=x", override]), TrainConfig)


@hostile
def settings_that_import_a_module_of_theirs(folder):
    (folder / "theirs.py").write_text(f"open({str(ran(folder))!r}, 'w')\nclass Part: pass\n")
    os.sys.path.insert(0, str(folder))
    try:
        check(compose("train", ["run_dir=x", "optimizer._target_=theirs.Part"]), TrainConfig)
    finally:
        os.sys.path.remove(str(folder))


@hostile
def settings_that_delete_a_run(folder):
    check(compose("train", ["run_dir=x", "schedule._target_=captioning.training.trainer.clear_run"]), TrainConfig)


@hostile
def settings_with_a_hidden_text(folder):
    text = f"${{oc.create:'{{_target_: os.system, _args_: [touch {ran(folder)}]}}'}}"
    build({"_target_": "captioning.models.Several", "parts": text, "_partial_": True})


@hostile
def settings_file_with_hydras_own_section(folder):
    (folder / "config.yaml").write_text(
        "hydra:\n  job_logging:\n    handlers:\n      x: {(): os.system, command: 'touch ran'}\n"
    )
    check_settings_file(folder / "config.yaml")


@hostile
def settings_file_with_a_command(folder):
    (folder / "config.yaml").write_text(json.dumps({"model": {"parts": [call(folder)]}}))
    check_settings_file(folder / "config.yaml")


@hostile
def settings_file_with_a_python_object(folder):
    (folder / "config.yaml").write_text(f"a: !!python/object/apply:os.system [touch '{ran(folder)}']\n")
    check_settings_file(folder / "config.yaml")


@hostile
def words_with_a_python_object(folder):
    (folder / "annotations").mkdir()
    content = {"images": [], "annotations": [], "categories": []}
    (folder / "annotations" / "instances_train.json").write_text(json.dumps(content))
    (folder / "words.yaml").write_text(f"dog: !!python/object/apply:os.system [touch '{ran(folder)}']\n")
    read_instances(folder, [], words=str(folder / "words.yaml"))


# Names of files


def coco(folder: Path, name: str) -> None:
    (folder / "data" / "annotations").mkdir(parents=True)
    (folder / "data" / "train").mkdir()
    Image.new("RGB", (4, 4)).save(folder / "secret.png")
    Image.new("RGB", (4, 4)).save(folder / "data" / "train" / "b.png")
    content = deepcopy(CAPTIONS)
    content["images"][0]["file_name"] = name
    (folder / "data" / "annotations" / "captions_train.json").write_text(json.dumps(content))


@hostile
def captions_of_a_file_above_the_folder(folder):
    coco(folder, "../../secret.png")
    read_coco_files(folder / "data")


@hostile
def captions_of_a_file_by_its_absolute_name(folder):
    coco(folder, str(folder / "secret.png"))
    read_coco_files(folder / "data")


@hostile
def captions_of_a_file_by_a_way_round(folder):
    coco(folder, "x/../../../secret.png")
    read_coco_files(folder / "data")


@hostile
def captions_of_a_link_out_of_the_folder(folder):
    coco(folder, "a.png")
    (folder / "data" / "train" / "a.png").symlink_to(folder / "secret.png")
    read_coco_files(folder / "data")


@hostile
def captions_of_a_link_over_a_link(folder):
    coco(folder, "a.png")
    (folder / "data" / "train" / "c.png").symlink_to("../../secret.png")
    (folder / "data" / "train" / "a.png").symlink_to("c.png")
    read_coco_files(folder / "data")


@hostile
def karpathys_file_of_a_folder_above(folder):
    (folder / "data" / "images").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(folder / "secret.png")
    entry = {"imgid": 0, "filepath": "../..", "filename": "secret.png", "split": "train", "sentences": [{"raw": "a"}]}
    (folder / "data" / "dataset.json").write_text(json.dumps({"images": [entry]}))
    read_karpathy(folder / "data", annotations="dataset.json")


@hostile
def table_of_a_file_above_the_folder(folder):
    (folder / "data").mkdir()
    Image.new("RGB", (4, 4)).save(folder / "secret.png")
    (folder / "data" / "captions.csv").write_text("image,caption\n../secret.png,a dog\n")
    read_csv(folder / "data")


@hostile
def table_of_a_link_out_of_the_folder(folder):
    (folder / "data").mkdir()
    Image.new("RGB", (4, 4)).save(folder / "secret.png")
    (folder / "data" / "a.png").symlink_to(folder / "secret.png")
    (folder / "data" / "captions.csv").write_text("image,caption\na.png,a dog\n")
    read_csv(folder / "data")


# Archives


def unpack(
    folder: Path, *members: tuple[zipfile.ZipInfo | str, bytes], patch: tuple[bytes, bytes] = (b"", b"")
) -> None:
    """Unpacks an archive of these members; `patch` replaces bytes of it."""
    file, root = io.BytesIO(), folder / "root"
    root.mkdir()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr("val/good.txt", b"good")
        for member, content in members:
            bundle.writestr(member, content)
    content = file.getvalue()
    (root / "a.zip").write_bytes(content.replace(*patch) if patch[0] else content)
    download.download([download.Archive("http://nowhere/a.zip", None, ("val",))], root, progress=False)


@hostile
def archive_with_a_member_above(folder):
    unpack(folder, ("../ran", b"evil"))


@hostile
def archive_with_an_absolute_member(folder):
    unpack(folder, (str(ran(folder)), b"evil"))


@hostile
def archive_with_a_member_above_by_backslashes(folder):
    unpack(folder, ("..\\ran", b"evil"))


@hostile
def archive_with_a_link(folder):
    link = zipfile.ZipInfo("val/link")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    unpack(folder, (link, b"/etc/passwd"))


@hostile
def archive_that_unfolds_a_thousandfold(folder):
    unpack(folder, ("val/zeros", bytes(30_000_000)))


@hostile
def archive_that_hides_its_size(folder):
    size = 5_000_000
    unpack(folder, ("val/zeros", os.urandom(1000) * (size // 1000)), patch=(size.to_bytes(4, "little"), b"\x09\0\0\0"))


@hostile
def archive_with_a_password(folder):
    unpack(folder, patch=(b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00"))


@hostile
def archive_of_an_unknown_method(folder):
    unpack(folder, patch=(b"\x14\x00\x00\x00\x08\x00", b"\x14\x00\x00\x00\x63\x00"))


# Pictures


@hostile
def picture_of_more_pixels_than_memory(folder):
    (folder / "x.png").write_bytes(bomb(40_000))
    open_picture(folder / "x.png")


@hostile
def picture_just_beyond_the_bound(folder):
    (folder / "x.png").write_bytes(bomb(10_600))
    open_picture(folder / "x.png")


@hostile
def picture_that_is_a_program(folder):
    (folder / "x.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")
    open_picture(folder / "x.jpg")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused(tmp_path, name):
    with pytest.raises(CaptioningError) as caught:
        HOSTILE[name](tmp_path)
    told = str(caught.value)
    assert told and not ran(tmp_path).exists()
    if not name.startswith(("settings that", "settings with")):  # these have no file
        assert str(tmp_path) in told, told


def test_links_within_the_data_and_linked_folders_are_the_users_own(tmp_path):
    coco(tmp_path, "a.png")
    place = tmp_path / "data" / "train"
    (place / "real").mkdir()
    (place / "b.png").rename(place / "real" / "b.png")
    (place / "b.png").symlink_to("real/b.png")
    (place / "a.png").symlink_to(place / "real" / "b.png")
    assert len(read_coco_files(tmp_path / "data")) == 2
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "a.png").unlink()
    (tmp_path / "elsewhere" / "a.png").symlink_to("real/b.png")
    assert len(read_coco_files(tmp_path / "data")) == 2


def test_nothing_in_the_package_reads_pickles():
    """What loads files does it by the one safe way there is."""
    package = Path(__file__).parents[2] / "captioning"
    text = "\n".join(path.read_text(encoding="utf-8") for path in package.rglob("*.py"))
    assert not re.search(
        r"import pickle|pickle\.load|allow_pickle=True|weights_only=False|yaml\.(unsafe_|full_)?load\(", text
    )
    for function, safely in ((r"torch\.load\(", "weights_only=True"), (r"np\.load\(", "allow_pickle=False")):
        found = re.findall(rf"{function}[^\n]*", text)
        assert found and all(safely in line for line in found)
