"""What is typed for a file's name reaches the job unchanged: plainly, as KEY=NAME, as --KEY NAME, and in lists."""

import os
import sys
import unicodedata
from contextlib import suppress
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

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
from captioning.config.command_line import Command, hydra_arguments, read_command_line

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


def read(name: str, *arguments: str) -> dict:
    """What hydra and omegaconf read of the arguments, without the time that composing takes: key -> value."""
    schema, plain, _ = COMMANDS[name]
    command = Command(name, schema, tuple(plain))
    overrides = hydra_arguments(read_command_line(arguments, command), command)
    parsed = [OverridesParser.create().parse_override(each) for each in overrides]
    assert not any(each.is_sweep_override() for each in parsed)
    config = OmegaConf.create({each.key_or_group: each.value() for each in parsed} | {"seed": 0})
    assert "???" not in OmegaConf.missing_keys(config)
    return OmegaConf.to_container(config, resolve=True)


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
def test_a_file_that_exists_reaches_the_job_by_its_name(name, tmp_path):
    make(tmp_path, name)
    other, wanted = "other.jpg", named(name)
    assert read("caption", other, "--", name)["images"] == [other, wanted]
    if not name.startswith("-") or name == "-":
        assert read("caption", name)["images"] == wanted
        assert read("caption", other, name, "batch_size=2")["images"] == [other, wanted]
    assert read("caption", f"images={name}")["images"] == wanted
    assert read("caption", "--images", name)["images"] == wanted
    assert read("caption", f"--images={name}", "--images", other)["images"] == [wanted, other]
    assert read("caption", f"images=[{other},{name}]")["images"] == [other, wanted]
    assert read("caption", f"images=[{name}, {other}]")["images"] == [wanted, other]
    assert read("caption", f"images=[{name}]", f"output={name}") == {"images": [wanted], "output": wanted, "seed": 0}
    assert read("caption", f"decoding.checkpoints=[{name}]")["decoding.checkpoints"] == [wanted]
    assert read("caption", f"decoding.checkpoints={name}")["decoding.checkpoints"] == [wanted]
    for key in ("run_dir", "data.root", "data.reader.root", "features.root", "data.reader.file", "start_from"):
        assert read("train", f"{key}={name}")[key] == wanted


@pytest.mark.parametrize("name", NAUGHTY, ids=ascii)
def test_a_name_of_no_file_stays_what_was_typed(name):
    wanted = named(name)
    assert read("score", "--", name, "b")["results"] == wanted
    if name not in READ:
        assert read("score", f"output={name}")["output"] == wanted
        assert read("train", "--run_dir", name)["run_dir"] == wanted
        assert read("train", "--run-dir", name, f"data.root={name}")["data.root"] == wanted
        if "," not in name:
            assert read("caption", f"images={name}")["images"] == wanted
            assert read("caption", f"images=[b,{name.strip()}]")["images"] == ["b", named(name.strip())]
    if not set(name) & {'"', "\\", "$"}:  # hydra's own way keeps working
        assert read("score", f'output="{name}"')["output"] == wanted


def test_all_these_files_at_once_reach_the_job(tmp_path, monkeypatch):
    there = []
    for name in NAUGHTY:
        with suppress(OSError, ValueError):
            (tmp_path / name).touch()
            there.append(name)
    assert len(there) > 50
    wanted = [named(name) for name in there]
    assert start(monkeypatch, "caption", "decoding.beam_size=2", "--output", "lr=0.1", "--", *there)["images"] == wanted
    config = start(monkeypatch, "caption", *(f"--images={name}" for name in there), "output=\\${x}", "crops=0.5")
    assert config["images"] == wanted and config["crops"] == 0.5
    some = [name for name in there if not set(name) & set("[](){},'\"")]
    assert start(monkeypatch, "caption", f"images=[{','.join(some)}]")["images"] == [named(name) for name in some]
    config = start(
        monkeypatch, "evaluate", "data=csv", f"data.root={tmp_path}/José (1)/{{x}}", "epoch=3-step=100.ckpt"
    )
    assert config["checkpoint"] == "epoch=3-step=100.ckpt" and config["data"]["root"] == f"{tmp_path}/José (1)/{{x}}"
    assert config["data"]["reader"]["root"] == config["data"]["root"]
