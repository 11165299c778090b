"""What is typed for a file's name reaches the job unchanged: plainly, as KEY=NAME, as --KEY NAME, and in lists."""

import os
import re
import shlex
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from captioning.config import (
    AnswerConfig,
    CaptionConfig,
    CompareConfig,
    DemoConfig,
    DistillConfig,
    EvaluateConfig,
    ExportConfig,
    PrepareConfig,
    ReportConfig,
    SampleConfig,
    ScoreConfig,
    TrainConfig,
    entry_point,
)

COMMANDS = {
    "caption": (CaptionConfig, ["images..."], []),
    "score": (ScoreConfig, ["results", "annotations"], []),
    "compare": (CompareConfig, ["a", "b"], []),
    "demo": (DemoConfig, ["checkpoint..."], []),
    "evaluate": (EvaluateConfig, ["checkpoint"], ["data=scenes"]),
    "prepare": (PrepareConfig, ["data.root"], []),
    "answer": (AnswerConfig, ["image", "question"], ["checkpoint=c"]),
    "sample": (SampleConfig, ["checkpoint", "prime"], []),
    "export": (ExportConfig, ["checkpoint", "output"], []),
    "distill": (DistillConfig, ["checkpoint..."], ["data=scenes", "output=x"]),
    "report": (ReportConfig, ["run_dir"], []),
    "train": (TrainConfig, ["experiment"], ["run_dir=x"]),
}
NAUGHTY = [
    "photo.jpg",
    "IMG (1).jpg",
    "IMG (1, 2).jpg",
    "(.jpg",
    ").jpg",
    "smile :).jpg",
    "a b  c.jpg",
    " leading.jpg",
    "trailing.jpg ",
    "it's.jpg",
    "'quoted'.jpg",
    "'quoted'",
    '"quoted"',
    'say "hi".jpg',
    "''",
    "'",
    '"',
    "`ls`.jpg",
    "#1.jpg",
    "a#b.jpg",
    "wow!.jpg",
    "a&b.jpg",
    "a;b|c<d>e.jpg",
    "lr=0.1",
    "lr=0.1.jpg",
    "epoch=3-step=100.ckpt",
    "=.jpg",
    "a==b.jpg",
    "~",
    "~tilde.jpg",
    "tilde~.jpg",
    "$HOME.jpg",
    "$.jpg",
    "${seed}.jpg",
    "${now:%Y}.jpg",
    "\\${x}.jpg",
    "\\\\${x}.jpg",
    "${.jpg",
    "{a}.jpg",
    "{a:1}",
    "{.jpg",
    "}.jpg",
    "a,b.jpg",
    ",.jpg",
    ",",
    "[a].jpg",
    "[a]",
    "[a,b]",
    "[a",
    "a]",
    "[1] a.jpg",
    "[1] and [2]",
    "a:b.jpg",
    "C:\\photos\\new.jpg",
    "back\\slash.jpg",
    "back\\,comma.jpg",
    "end\\",
    "\\",
    "\\'.jpg",
    "a@b.jpg",
    "+plus.jpg",
    "++plus",
    "a+b.jpg",
    "%20.jpg",
    "100%.jpg",
    "*.jpg",
    "what?.jpg",
    "???",
    "^.jpg",
    "2024",
    "007",
    "1e3",
    "1_000",
    "2024_01_01",
    "0x10",
    "-1.5",
    "3.14",
    "nan",
    "inf",
    "-inf",
    "true",
    "True",
    "false",
    "yes",
    "None",
    "Null.jpg",
    "null.jpg",
    "choice(1)",
    "choice(a,b)",
    "range(1,3)",
    "glob(*)",
    "int(3)",
    "str(2024)",
    "_target_",
    "hydra",
    ".hidden",
    "...",
    "-dash.jpg",
    "--double.jpg",
    "--",
    "-",
    "-m",
    "--help",
    "josé.jpg",
    unicodedata.normalize("NFD", "josé.jpg"),
    "Ärger Öl Übung ß.jpg",
    "照片.jpg",
    "写真 (1).jpg",
    "사진.jpg",
    "ภาพ.jpg",
    "صورة.jpg",
    "\u202egpj.jpg",
    "a\u00a0b.jpg",
    "\u3000.jpg",
    "zero\u200bwidth.jpg",
    "📷 👨‍👩‍👧.jpg",
    "ﬁ.jpg",
    "tab\there.jpg",
    "new\nline.jpg",
    "carriage\rreturn.jpg",
    "bell\x07.jpg",
    "escape\x1b[31m.jpg",
    "del\x7f.jpg",
    os.fsdecode(b"latin-\xe9.jpg"),
    os.fsdecode(b"\xff\xfe"),
    "x" * 200 + ".jpg",
]
# Of a file that is not there, a list, null and quotes are read, and these are the only ways to be misunderstood.
READ = {"'quoted'", '"quoted"', "''", "[a]", "[a,b]"}
READ |= {"${seed}.jpg", "${now:%Y}.jpg", "\\${x}.jpg", "\\\\${x}.jpg", "int(3)", "str(2024)", "back\\,comma.jpg"}


def start(monkeypatch, name: str, *arguments: str) -> dict:
    """What a command's job gets."""
    schema, plain, beside = COMMANDS[name]
    given: list[dict] = []
    monkeypatch.setattr(sys, "argv", [f"captioning-{name}", *beside, *arguments])
    entry_point(name, schema, given.append, plain=plain)()
    (config,) = given
    return config


def refused(monkeypatch, name: str, *arguments: str) -> str:
    """The one line with which a command ends, with exit status 1."""
    with pytest.raises(SystemExit) as ending:
        start(monkeypatch, name, *arguments)
    assert isinstance(ending.value.code, str) and ending.value.code.startswith("error: "), ending.value.code
    assert "\n" not in ending.value.code
    return ending.value.code.removeprefix("error: ")


def named(name: str) -> str:
    return "./???" if name == "???" else name  # the same file; omegaconf takes ??? for a value that is missing


def make(folder: Path, name: str) -> None:
    try:
        (folder / name).touch()
    except (OSError, ValueError, UnicodeError) as error:
        pytest.skip(f"this system has no files of such a name: {error}")


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", NAUGHTY, ids=ascii)
def test_a_file_that_exists_reaches_the_job_by_its_name(name, tmp_path, monkeypatch):
    make(tmp_path, name)
    other = "other.jpg"
    wanted = named(name)
    assert start(monkeypatch, "caption", other, "--", name)["images"] == [other, wanted]
    if not name.startswith("-") or name == "-":
        assert start(monkeypatch, "caption", name)["images"] == wanted
        assert start(monkeypatch, "caption", other, name, "decoding.beam_size=2")["images"] == [other, wanted]
    assert start(monkeypatch, "caption", f"images={name}")["images"] == wanted
    assert start(monkeypatch, "caption", "--images", name)["images"] == wanted
    assert start(monkeypatch, "caption", f"--images={name}")["images"] == wanted
    assert start(monkeypatch, "caption", f"images=[{other},{name}]")["images"] == [other, wanted]
    assert start(monkeypatch, "caption", f"images=[{name}]", "output=o")["images"] == [wanted]
    beside = start(monkeypatch, "caption", "images=a", f"decoding.checkpoints=[{name}]", f"output={name}")
    assert (beside["decoding"]["checkpoints"], beside["output"]) == ([wanted], wanted)
    assert start(monkeypatch, "evaluate", f"checkpoint={name}", f"data.root={name}")["data"]["reader"]["root"] == wanted
    assert start(monkeypatch, "export", f"checkpoint={name}", f"output={name}")["output"] == wanted


@pytest.mark.parametrize("name", NAUGHTY, ids=ascii)
def test_a_name_of_no_file_stays_what_was_typed(name, monkeypatch):
    wanted = named(name)
    assert start(monkeypatch, "score", "--", name, "b")["results"] == wanted
    if name not in READ:
        for key in ("output", "samples"):
            if re.fullmatch(r"\[.*\]", name) is None:
                assert start(monkeypatch, "score", "a", "b", f"{key}={name}")[key] == wanted
        assert start(monkeypatch, "train", f"run_dir={name}")["run_dir"] == wanted
    quoted = shlex.split(shlex.quote(f'output="{name}"'))[0]
    if not set(name) & {'"', "\\", "$"}:  # hydra's own way keeps working
        assert start(monkeypatch, "score", "a", "b", quoted)["output"] == wanted
