"""Files are whole: a full disk, a lost permission or a kill leaves what was there, and says so in one line."""

import ast
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_world import run

from captioning.errors import ConfigError, DataError
from captioning.features.store import FeatureStore
from captioning.io import clear_temporary, write_json, write_text, write_whole

PACKAGE = Path(__file__).parents[2] / "captioning"
# Writes every kind of file twice into a folder, the second time under what the first argument asks for; prints what
# became of each: the error's text, or null.
WRITES = """
import json, os, resource, signal, sys
from pathlib import Path
import numpy as np
from PIL import Image
from captioning.features.manifest import Stamp
from captioning.features.store import FeatureStore
from captioning.errors import CaptioningError
from captioning.io import write_json, write_text
from captioning.visualise import caption_figure, save_figure

trouble, folder = sys.argv[1], Path(sys.argv[2])
random = np.random.default_rng(0)
noise = Image.fromarray(random.integers(0, 256, (90, 120, 3), dtype=np.uint8))

def features(number):
    store = FeatureStore(folder / "store", {"name": "x"}, shard_pictures=1)
    store.append(number, Stamp("a", 1, 1, "d"), random.normal(size=(200, 200)))
    store.flush()

WRITERS = {
    "captions.json": lambda n: write_json(folder / "captions.json", [{"caption": "a dog"}] * 3000 * n),
    "config.yaml": lambda n: write_text(folder / "config.yaml", "seed: 0\\n" * 9000 * n),
    "figure.png": lambda n: save_figure(caption_figure(noise, "a dog"), folder / "figure.png"),
    "store/manifest.json": features,
}
for writer in WRITERS.values():
    writer(1)
before = {name: (folder / name).read_bytes() for name in WRITERS}
if trouble == "no room":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, resource.RLIM_INFINITY))
elif trouble == "no permission":
    for path in (folder, folder / "store"):
        path.chmod(0o555)
    if os.getuid() == 0:
        os.setuid(65534)
elif trouble == "full disk":
    handle = os.open(folder / "filler", os.O_CREAT | os.O_WRONLY)
    try:
        while True:
            os.write(handle, bytes(4096))
    except OSError:
        os.close(handle)
outcomes = {}
for name, writer in WRITERS.items():
    try:
        writer(2)
        outcomes[name] = None
    except CaptioningError as error:
        outcomes[name] = str(error)
    assert (folder / name).read_bytes() == before[name] or outcomes[name] is None, name
    assert not [path for path in (folder / name).parent.iterdir() if path.name.endswith(".tmp")], name
print(json.dumps(outcomes))
"""


def outcomes(trouble: str, folder: Path, root: Path) -> dict[str, str | None]:
    environment = {**os.environ, "PYTHONPATH": str(root), "MPLCONFIGDIR": str(folder)}
    command = [sys.executable, "-c", WRITES, trouble, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def public_folder():
    """A folder that another user may look into, as pytest's own may not be."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in (folder, folder / "store"):
        path.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.parametrize(("trouble", "reason"), [("no room", "File too large"), ("no permission", "Permission denied")])
def test_trouble_is_one_line_and_leaves_what_was_there(public_folder, pytestconfig, trouble, reason):
    found = outcomes(trouble, public_folder, pytestconfig.rootpath)
    for name, told in found.items():
        assert told is not None and reason in told and str(public_folder) in told and "\n" not in told, (name, told)
        if name != "store/manifest.json":  # there the new shard is what cannot be written
            remedy = "check the free space and the permissions of its folder; the old file is unchanged"
            assert told == f"cannot write {public_folder / name} ({reason}): {remedy}"
    assert len(found) == 4 and len(FeatureStore(public_folder / "store", {"name": "x"})) == 1


@pytest.mark.slow
def test_a_full_disk(tmp_path, pytestconfig):
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        found = outcomes("full disk", folder, pytestconfig.rootpath)
        assert all(told and "No space left on device" in told for told in found.values()), found
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("at", ["write", "fsync", "replace"])
def test_a_kill_at_any_moment_leaves_the_old_file(tmp_path, monkeypatch, at):
    path = tmp_path / "scores.json"
    write_json(path, {"CIDEr": 1.0})
    before = path.read_bytes()

    def killed(*_):
        raise KeyboardInterrupt

    if at != "write":
        monkeypatch.setattr(os, at, killed)
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, killed if at == "write" else lambda file: file.write(b"{}"))
    assert path.read_bytes() == before and [each.name for each in tmp_path.iterdir()] == ["scores.json"]


def test_the_bytes_are_synced_before_the_name_is_theirs(tmp_path, monkeypatch):
    calls, sync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: calls.append(os.fstat(handle).st_size) or sync(handle))
    monkeypatch.setattr(os, "replace", lambda *names: calls.append("renamed") or replace(*names))
    assert write_whole(tmp_path / "a", lambda file: file.write(b"12345")) == 5
    assert calls[:2] == [5, "renamed"] and len(calls) == 3  # and the folder after it


def test_names_of_any_length_and_what_kills_left(tmp_path):
    longest = "é" * 127  # 254 bytes
    write_text(tmp_path / longest, "whole")
    assert (tmp_path / longest).read_text() == "whole"
    (tmp_path / ".scores.json.7.tmp").touch()
    clear_temporary(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [longest]


def test_what_runtime_errors_of_torch_become(tmp_path):
    def full(file):
        raise RuntimeError("PytorchStreamWriter failed writing file\nat somewhere")

    with pytest.raises(
        ConfigError, match=r"cannot write .*x\.ckpt \(PytorchStreamWriter failed writing file\): check the free space"
    ):
        write_whole(tmp_path / "x.ckpt", full)


# What else may write: an archive that grows as it comes, a data set in a folder that is renamed when it is whole, texts
# for a Java program that are gone with it, and the run's own files, which the training keeps whole. The images of a
# Parquet file are in a folder that is renamed when it is whole, too.
OTHERS = {"io/download.py", "data/scenes.py", "metrics/java.py", "io/atomic_files.py"}
OTHERS |= {"data/readers/parquet_images.py"}


def test_no_file_is_written_otherwise():
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            texts = [value.value for value in node.args if isinstance(value, ast.Constant)]
            opens = name == "open" and any(isinstance(text, str) and set(text) & set("wax") for text in texts)
            if opens or (name in ("write_text", "write_bytes") and isinstance(node.func, ast.Attribute)):
                found.add(path.relative_to(PACKAGE).as_posix())
    assert "io/atomic_files.py" in found and found <= OTHERS


# Checksums of stored features


@pytest.fixture
def prepared(data, tmp_path, capsys):
    """Overrides of a prepared data set of 8 pictures in two shards, and its store's folder."""
    settings = [item for item in data if not item.startswith("features.root")]
    settings += [f"features.root={tmp_path}/features", "encoder.image_size=64", "splits=[val]"]
    run("prepare", *settings)
    (folder,) = [path.parent for path in (tmp_path / "features").glob("*/manifest.json")]
    capsys.readouterr()
    return settings, folder


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_a_flipped_bit_is_found_named_and_made_again(prepared, capsys):
    settings, folder = prepared
    run("prepare", *settings, "verify=true")
    assert "features of 8 images, no damage found" in capsys.readouterr().out
    shard = folder / "shard-00000.npy"
    whole = shard.read_bytes()
    flip(shard, len(whole) // 2)
    with pytest.raises(DataError, match=r"shard-00000\.npy was damaged.*\(8 images\)\. Run captioning-prepa"):
        run("prepare", *settings, "verify=true")
    run("prepare", *settings)
    assert (folder / "shard-00001.npy").read_bytes() == whole and not shard.exists()
    run("prepare", *settings, "verify=true")


def test_a_cut_shard_is_made_again(prepared):
    settings, folder = prepared
    shard = folder / "shard-00000.npy"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    run("prepare", *settings)
    assert (folder / "shard-00001.npy").read_bytes() == whole and not shard.exists()


def test_there_must_be_something_to_verify(prepared, tmp_path):
    settings, _ = prepared
    with pytest.raises(DataError, match="has no stored features"):
        run("prepare", *settings, "verify=true", "encoder.output=fc")
    with pytest.raises(ConfigError, match="set features=store"):
        run("prepare", *settings[:2], "features=online", "verify=true")


def test_every_bit_of_a_shard_counts(tmp_path):
    for place in (3, 60, 129, 135):  # of NumPy's mark, of its header, of the numbers
        store = filled(tmp_path / str(place))
        flip(store.folder / "shard-00000.npy", place)
        again = FeatureStore(store.folder, {"name": "x"}, shard_pictures=2)
        (damage,) = again.verify()
        assert damage.file.name == "shard-00000.npy" and damage.pictures == 2 and len(again) == 1
        assert len(FeatureStore(store.folder, {"name": "x"})) == 1  # and on the disk


def filled(folder: Path) -> FeatureStore:
    from captioning.features.store import Stamp

    store = FeatureStore(folder, {"name": "x"}, shard_pictures=2)
    for image_id in (5, 6, 7):
        store.append(image_id, Stamp(f"{image_id}.jpg", 1, 1, "d"), np.full((2, 3), image_id))
    store.flush()
    return store


@pytest.mark.parametrize(
    ("array", "fault"),
    [
        (np.full((2, 2, 3), np.nan, np.float16), "features of image 5 are not finite"),
        (np.full((2, 2, 3), np.inf, np.float16), "features of image 5 are not finite"),
        (np.zeros((2, 3, 3), np.float16), r"is not a float16 array of shape \[2, 2, 3\]"),
        (np.zeros((2, 2, 3), np.float32), r"is not a float16 array of shape \[2, 2, 3\]"),
    ],
)
def test_damaged_features_are_told_when_they_are_read(tmp_path, array, fault):
    """With a manifest that fits the file's size: only what is in it is wrong."""
    store = filled(tmp_path / "store")
    np.save(store.folder / "shard-00000.npy", array)
    manifest = json.loads((store.folder / "manifest.json").read_text())
    manifest["shards"][0]["size"] = (store.folder / "shard-00000.npy").stat().st_size
    (store.folder / "manifest.json").write_text(json.dumps(manifest))
    again = FeatureStore(store.folder, {"name": "x"})
    with pytest.raises(DataError, match=rf"shard-00000\.npy: {fault}: run captioning-prepare verify=true"):
        again[5]
    assert again[7].tolist() == [[7] * 3] * 2


def test_figures_are_written_whole(tmp_path, monkeypatch):
    from captioning.visualise import caption_figure, save_figure

    path = tmp_path / "a.svg"
    save_figure(caption_figure(Image.new("RGB", (9, 9)), "a dog"), path)
    before = path.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(ConfigError, match="No space left on device"):
        save_figure(caption_figure(Image.new("RGB", (9, 9)), "a cat"), path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1
