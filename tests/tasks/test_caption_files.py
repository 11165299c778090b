"""The files that a run keeps of its captions: when they are written, read, written again, and never wrong."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import captioning.data
from captioning.config import build
from captioning.data import Record, RecordTable
from captioning.errors import ConfigError, DataError
from captioning.io import printable
from captioning.tasks import caption_files as module
from captioning.tasks.caption_files import caption_files
from captioning.training import digest

CAPTIONS = {
    "1.png": ["a dog", "dogs & cats, too", "one\nline\nand two"],
    "é狗.png": ["naïve 猫 🐈", "a dog"],
    "3.png": ["a"],
}


@pytest.fixture
def world(tmp_path):
    """Settings of a table of images that was written long ago."""
    (tmp_path / "data").mkdir()
    for name in CAPTIONS:
        (tmp_path / "data" / name).write_bytes(b"")
    write(tmp_path, CAPTIONS)
    return settings(tmp_path)


def settings(tmp_path, **reader):
    return {
        "data": {
            "name": "own é",
            "root": str(tmp_path / "data"),
            "tokenizer": "ptb",
            "reader": {"_target_": "captioning.data.read_csv", "root": str(tmp_path / "data")} | reader,
        },
        "features": {"_target_": "captioning.features.stored", "root": str(tmp_path / "features")},
    }


def write(tmp_path, captions, at=1e9):
    rows = ["image,caption,split"]
    for number, (name, texts) in enumerate(captions.items()):
        quoted = [text.replace('"', '""') for text in texts]
        rows += [f'{name},"{text}",{"val" if number == 2 else "train"}' for text in quoted]
    file = tmp_path / "data" / "captions.csv"
    file.write_text("\n".join(rows), encoding="utf-8")
    for path in (file, tmp_path / "data"):
        os.utime(path, (at, at))


@pytest.fixture
def reads(monkeypatch):
    """How often the reader was called."""
    calls, original = [], module.build
    monkeypatch.setattr(module, "build", lambda *given: calls.append(given) or original(*given))
    return calls


def kept(world) -> list[Path]:
    files = Path(world["features"]["root"], "captions").iterdir()
    return sorted((path for path in files if path.suffix != ".lock"), key=lambda path: (path.suffix, path.name))


def flat(table) -> list[Record]:
    return list(table)


def test_a_second_start_reads_the_files_alone(world, reads):
    records, tokens, found = caption_files(world)
    expected = build(world["data"]["reader"])
    assert flat(records) == sorted(expected, key=lambda record: record.split) and isinstance(records, RecordTable)
    assert found == digest(sorted(expected, key=lambda record: record.split))
    vocabulary = tokens.vocabulary(1)
    written = [path.stat().st_ino for path in kept(world)]
    again, same, identical = caption_files(world)
    assert [path.stat().st_ino for path in kept(world)] == written
    assert len(reads) == 1 and flat(again) == flat(records) and identical == found
    assert same.vocabulary(1).words == vocabulary.words and list(same.pieces(0)) == list(tokens.pieces(0))
    assert [path.suffix for path in kept(world)] == [".records", ".tokens"]
    assert all(path.name.startswith("own_é-") for path in kept(world))
    caption_files(settings(Path(world["data"]["root"]).parent, val_share=0.5))  # other settings of the reader
    assert len(reads) == 2 and len(kept(world)) == 4
    world["data"]["tokenizer"] = "characters"
    assert caption_files(world)[1].vocabulary(1).words != vocabulary.words
    assert len(reads) == 2 and len(kept(world)) == 5


@pytest.mark.parametrize("change", ["text", "image", "code", "versions", "fresh"])
def test_a_change_writes_them_again(world, reads, tmp_path, monkeypatch, change):
    if change == "fresh":
        write(tmp_path, CAPTIONS, at=time.time())
    caption_files(world)
    if change == "text":  # as many bytes as before
        write(tmp_path, {**CAPTIONS, "3.png": ["b"]}, at=1e9 + 1)
    elif change == "image":
        (tmp_path / "data" / "4.png").write_bytes(b"")
        write(tmp_path, {**CAPTIONS, "4.png": ["four"]}, at=1e9 + 1)
    elif change == "code":
        monkeypatch.setattr(module, "_code", lambda *folders: "other")
    elif change == "versions":
        monkeypatch.setattr(module, "_version", lambda package: "0")
    records, tokens, found = caption_files(world)
    expected = sorted(build(world["data"]["reader"]), key=lambda record: record.split)
    assert len(reads) == (1 if change == "versions" else 2)
    assert flat(records) == expected and found == digest(expected)
    words = tokens.vocabulary(1).words
    first = [words[piece + 4] for piece in tokens.pieces(0)[0]]
    assert first == ["a", "dog"]
    assert len(kept(world)) == 2
    if change in ("text", "image", "code"):
        caption_files(world)
        assert len(reads) == 2


@pytest.mark.parametrize("suffix", [".records", ".tokens"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "header", "other", "folder"])
def test_a_damaged_file_is_written_again(world, damage, suffix):
    expected = flat(caption_files(world)[0]), caption_files(world)[1].vocabulary(1).words
    (path,) = [path for path in kept(world) if path.suffix == suffix]
    content = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[:-100])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "header":
        path.write_bytes(content[:-60] + bytes([content[-60] ^ 1]) + content[-59:])
    elif damage == "other":
        (other,) = [path for path in kept(world) if path.suffix != suffix]
        path.write_bytes(other.read_bytes())
    else:
        path.unlink()
        path.mkdir()
        with pytest.raises(ConfigError, match=rf"cannot write .*{suffix}"):
            caption_files(world)
        return
    records, tokens, _ = caption_files(world)
    assert (flat(records), tokens.vocabulary(1).words) == expected


@pytest.mark.parametrize("suffix", [".records", ".tokens"])
def test_a_flipped_bit_is_an_error_and_never_another_caption(world, suffix):
    expected = [flat(caption_files(world)[0]), [caption_files(world)[1].pieces(row) for row in range(3)]]
    (path,) = [path for path in kept(world) if path.suffix == suffix]
    content = path.read_bytes()
    refused = 0
    for at in range(18, 300, 7):
        path.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        try:
            records, tokens, _ = caption_files(world)
            assert [flat(records), [tokens.pieces(row) for row in range(3)]] == expected
        except DataError as error:
            refused += 1
            assert f"{suffix} was damaged after it was written: delete this file" in str(error)
    assert refused > 5


def test_without_a_store_each_process_has_its_own_files(world, reads, tmp_path):
    world["features"] = {"_target_": "captioning.features.online"}
    records, _, _ = caption_files(world)
    assert flat(records) == sorted(build(world["data"]["reader"]), key=lambda record: record.split)
    assert not (tmp_path / "features").exists()
    assert Path(records._file.path).parent.name.startswith("captioning-")


def test_a_folder_that_cannot_be_written_is_read_or_done_without(world, reads, tmp_path, monkeypatch, capsys):
    def refuse(*given, **named):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "access", lambda path, mode: False)  # tests may run as root
    first = flat(caption_files(world)[0])
    with monkeypatch.context() as patch:
        patch.setattr(module, "FileLock", refuse)
        assert flat(caption_files(world)[0]) == first and len(reads) == 1  # nothing has to be written
        shutil.rmtree(tmp_path / "features")
        assert flat(caption_files(world)[0]) == first and len(reads) == 2
    assert "the captions cannot be kept in" in (printed := capsys.readouterr().err) and "Permission denied" in printed
    monkeypatch.setattr(os, "access", lambda path, mode: True)
    monkeypatch.setattr(module, "FileLock", refuse)
    with pytest.raises(ConfigError, match=r"cannot keep the captions in .* \(Permission denied\): set features\.root"):
        caption_files(world)


def test_a_reader_of_a_plug_in_is_called_at_every_start(world, reads, tmp_path, monkeypatch):
    answers = iter([[Record(1, Path("a"), "train", ("one",))], [Record(1, Path("a"), "train", ("two",))]])
    monkeypatch.setattr(module, "build", lambda reader: next(answers))
    world["data"]["reader"] = {"_target_": "my_parts.read"}
    assert [flat(caption_files(world)[0])[0].captions for _ in range(2)] == [("one",), ("two",)]
    assert not (tmp_path / "features").exists()


def test_what_a_reader_prints_is_printed_at_every_start(world, tmp_path, capsys):
    write(tmp_path, {"1.PNG": ["a"], **{name: CAPTIONS[name] for name in ("é狗.png", "3.png")}})
    printed = []
    for _ in range(2):
        caption_files(world)
        printed.append(capsys.readouterr().err)
    assert printed[0] == printed[1] and "different spelling on disk: 1.PNG is 1.png" in printed[0]
    write(tmp_path, {"1.PNG": ["a"], "no.png": ["b"]})
    with pytest.raises(DataError, match=r"no\.png"):
        caption_files(world)


def test_two_processes_that_start_together_read_once(world, tmp_path):
    script = f"""
import json, sys
from captioning.tasks import caption_files as module
count, original = [], module.build
module.build = lambda reader: count.append(1) or original(reader)
records, tokens, digest = module.caption_files(json.loads({json.dumps(json.dumps(world))}))
print(len(count), [record.captions for record in records] == {[tuple(CAPTIONS[n]) for n in CAPTIONS]!r}, digest)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(captioning.data.__file__).parents[2])}
    command = [sys.executable, "-c", script]
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    found = [process.communicate(timeout=100) for process in processes]
    assert [error for _, error in found] == ["", ""]
    lines = [out.split() for out, _ in found]
    assert sorted(line[0] for line in lines) == ["0", "1"] and {line[1] for line in lines} == {"True"}
    assert len({line[2] for line in lines}) == 1


def test_names_that_are_not_utf8_are_kept(tmp_path):
    (tmp_path / "data").mkdir()
    name = os.fsdecode(b"\xe9.png")
    try:
        (tmp_path / "data" / name).write_bytes(b"")
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    record = Record(1, tmp_path / "data" / name, "train", ("a",))
    path = tmp_path / "a.records"
    captioning.data.write_records(path, [record], dict)
    (again,) = RecordTable(captioning.data.RowFile(path))
    assert again == record and again.path.is_file() and printable(str(again.path)) == printable(str(record.path))
