"""What is typed for a file's name reaches the job unchanged: plainly, as KEY=NAME, as --KEY NAME, and in lists."""
# ruff: noqa: E501 - whole messages, as they are printed

import os
import re
import shlex
import subprocess
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
    config = start(monkeypatch, "evaluate", "data=csv", f"data.root={tmp_path}/José (1)/{{x}}", "epoch=3-step=100.ckpt")
    assert config["checkpoint"] == "epoch=3-step=100.ckpt" and config["data"]["root"] == f"{tmp_path}/José (1)/{{x}}"
    assert config["data"]["reader"]["root"] == config["data"]["root"]


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("caption", ["images=[null]"], "images[0] must be str, not null: type 'images=[\"null\"]' for that text"),
        ("caption", ["images=[[a]]"], "images[0] must be str, not ['a']"),
        ("caption", ["images=[a,[b,c]]"], "images[1] must be str, not ['b', 'c']"),
        ("caption", ["images=null"], "images must be list or str, not null: leave it out, or give a value"),
        ("caption", ["a", "figures=[grid,null]"], "figures[1] must be str, not null: type 'figures=[\"null\"]' for that text"),
        ("caption", ["a", "figures=grid,strip"], "figures=grid,strip is not a list: for several values, type 'figures=[grid,strip]'"),
        ("caption", ["a", "crops=[0.75,x]"], "crops[1] must be float, not 'x'"),
        ("caption", ["a", "crops=[true]"], "crops[0] must be float, not True"),
        ("caption", ["a", "decoding.checkpoints=[null]"], "decoding.checkpoints[0] must be str, not null: type 'decoding.checkpoints=[\"null\"]' for that text"),
        ("prepare", ["splits=[train,null]"], "splits[1] must be str, not null: type 'splits=[\"null\"]' for that text"),
        ("demo", ["hosts=[[a]]"], "hosts[0] must be str, not ['a']"),
        ("demo", ["examples=[null]"], "examples[0] must be str, not null: type 'examples=[\"null\"]' for that text"),
        ("compare", ["a", "b=[null]"], "b[0] must be str, not null: type 'b=[\"null\"]' for that text"),
        ("distill", ["checkpoint=[null]"], "checkpoint[0] must be str, not null: type 'checkpoint=[\"null\"]' for that text"),
        ("caption", ["a", "plugins=null"], "plugins must be list or str, not null: leave it out, or give a value"),
        ("caption", ["a", "plugins=[a"], "plugins: '[a' is not a module name: give plugins=[my_parts] for my_parts.py"),
        ("caption", ["images=a,b"], "images=a,b is not a list: for several values, type 'images=[a,b]'"),
        ("caption", ["images="], "images is empty: type a name after images=, or leave images out"),
        ("caption", [""], "images is an empty file name: set images=NAME, and check your shell's variables"),
        ("evaluate", ["c", "output=[a]"], "output must be str, not ['a']"),
        ("caption", ["images=${x}"], r"images: Interpolation key 'x' not found; for a text that contains ${, type \${"),
        ("train", ["seed=José"], "seed must be int, not 'José'"),
        ("train", ["data.reader.train=[1,é"], "data.reader.train must be int, not '[1,é'"),
        ("train", ["model=choice(José)"], "captioning-train cannot read model=choice(José): for this text as it is, type 'model='\"'\"'choice(José)'\"'\"''"),
        ("train", ["task=vqa", "data=vqa_v2", "data.reader.subsets.train=2017"], "data.reader.subsets.train must be str, not 2017: type 'data.reader.subsets.train=\"2017\"' for that text"),
        ("train", ["+model._partial_=true"], "model._partial_ must be left out: the command needs model as an object, not as a function"),
        ("train", ["+encoder._partial_=true"], "encoder._partial_ must be left out: the command needs encoder as an object, not as a function"),
        ("train", ["+transform._partial_=true"], "transform._partial_ must be left out: the command needs transform as an object, not as a function"),
        ("train", ["+data.reader._partial_=true"], "data.reader._partial_ must be left out: the command needs data.reader as an object, not as a function"),
        ("caption", ["a", "model/attention=hard"], "captioning-caption has no setting model/attention: did you mean hard_attention or annotations?"),
        ("caption", ["a", "experiment=scenes_soft"], "captioning-caption has no setting experiment. See: captioning-caption --help=all"),
        ("caption", ["a", "beem_size=3"], "captioning-caption has no setting beem_size: did you mean batch_size or decoding.beam_size?"),
        ("evaluate", ["c", "--outptu", "x"], "captioning-evaluate has no option --outptu: did you mean --output? If it is a file name, type ./--outptu"),
        *(
            ("train", given, "captioning-train has no group model/attenton: did you mean model/attention?")
            for given in (["model/attenton=hard"], ["own_soft", "model/attenton=hard"], ["model/attenton=hard", "own_soft"],
                          ["experiment=own_soft", "model/attenton=hard"], ["+model/attenton=hard", "seed=1"])
        ),
        ("train", ["seed=1", "modle/attention=hard"], "captioning-train has no group modle/attention: did you mean model/attention?"),
        ("train", ["experiment=own_soft", "--model/attenton", "hard"], "captioning-train has no setting model/attenton with model=default: did you mean model/attention or model/vector?"),
        ("score", [], "captioning-score needs results and annotations: type, for example: captioning-score results.json annotations.json"),
        ("score", ["a.json"], "captioning-score needs annotations: type, for example: captioning-score results.json annotations.json"),
        ("caption", [], "captioning-caption needs images: type, for example: captioning-caption photo.jpg"),
        ("evaluate", ["c", "--output"], "--output has no value. Type --output VALUE"),
        ("score", ["a", "b", "c"], "captioning-score takes RESULTS ANNOTATIONS; 'c' is one argument too many. Type settings as KEY=VALUE or --KEY VALUE"),
        ("caption", ["a", "images=b"], "captioning-caption takes IMAGES... (images is already set by KEY=VALUE); 'a' is one argument too many. Type settings as KEY=VALUE or --KEY VALUE"),
    ],
)  # fmt: skip
def test_what_is_refused_is_told_in_one_line_with_what_to_type(name, given, told, monkeypatch):
    assert refused(monkeypatch, name, *given) == told


@pytest.mark.parametrize(
    ("name", "given", "key", "value"),
    [
        ("caption", ["images=[2024]"], "images", ["2024"]),
        ("caption", ["images=2024"], "images", "2024"),
        ("caption", ["images=[1.5,true,1e3]"], "images", ["1.5", "true", "1e3"]),
        ("caption", ["images=['it',\"is\"]"], "images", ["it", "is"]),
        ("caption", ["images=[ a , b ]"], "images", ["a", "b"]),
        ("caption", ["images=[]"], "images", []),
        ("caption", ["images=[~/x.jpg]"], "images", ["HOME/x.jpg"]),
        ("caption", ["~/x.jpg"], "images", "HOME/x.jpg"),
        ("caption", ["images=IMG\\ \\(1\\).jpg"], "images", "IMG (1).jpg"),
        ("caption", ["a.jpg", "figures=grid"], "figures", ["grid"]),
        ("caption", ["a.jpg", "--skip-unreadable", "b.jpg"], "images", ["a.jpg", "b.jpg"]),
        ("caption", ["a.jpg", "--skip-unreadable"], "skip_unreadable", True),
        ("score", ["a", "b", "output=2024_01_01"], "output", "2024_01_01"),
        ("score", ["a", "b", "output=null"], "output", None),
        ("score", ["a", "--split=2014", "b"], "split", "2014"),
        ("score", ["a", "b", "output=${split}/x", "split=val"], "output", "val/x"),
        ("score", ["results=a", "b"], "annotations", "b"),
        ("evaluate", ["checkpoint=epoch=3-step=100.ckpt"], "checkpoint", "epoch=3-step=100.ckpt"),
        ("evaluate", ["runs/lr=0.1/best.ckpt"], "checkpoint", "runs/lr=0.1/best.ckpt"),
        ("prepare", ["splits=train"], "splits", ["train"]),
        ("demo", ["a.ckpt", "b.ckpt"], "checkpoint", ["a.ckpt", "b.ckpt"]),
        ("demo", ["hosts=[1,x.org]"], "hosts", ["1", "x.org"]),
        ("answer", ["a.jpg", "what is {this}: 1=1, 'x'?"], "question", "what is {this}: 1=1, 'x'?"),
        ("compare", ["a=[a0,2024]", "b0"], "b", "b0"),
        ("train", ["run_dir=007"], "run_dir", "007"),
        ("train", ["scenes_soft", "--seed", "-3"], "seed", -3),
        ("distill", ["a", "b"], "checkpoint", ["a", "b"]),
    ],
)  # fmt: skip
def test_what_is_read_of_what_is_typed(name, given, key, value, monkeypatch):
    monkeypatch.setenv("HOME", "HOME")
    monkeypatch.setenv("USERPROFILE", "HOME")
    assert start(monkeypatch, name, *given)[key] == value


@pytest.mark.slow
def test_a_sweep_over_names(monkeypatch, tmp_path):
    schema, plain, _ = COMMANDS["train"]
    jobs: list[dict] = []
    given = ["-m", "data.root=José (1),2024,'a,b'", "run_dir=lr=0.1", "seed=1,2"]
    monkeypatch.setattr(sys, "argv", ["captioning-train", *given])
    entry_point("train", schema, jobs.append, plain=plain)()
    assert [(job["data"]["root"], job["seed"]) for job in jobs] == [
        (root, seed) for root in ("José (1)", "2024", "a,b") for seed in (1, 2)
    ]
    assert {Path(job["run_dir"]).parent.name for job in jobs} == {"lr=0.1"}
    (tmp_path / "c,d").mkdir()  # a name of a folder, and no sweep over two
    jobs.clear()
    monkeypatch.setattr(sys, "argv", ["captioning-train", "-m", "data.root=c,d", "run_dir=x"])
    entry_point("train", schema, jobs.append, plain=plain)()
    assert [job["data"]["root"] for job in jobs] == ["c,d"]


@pytest.mark.parametrize("name", ["caption", "train", "score", "evaluate"])
def test_help_lists_what_a_command_takes_and_nothing_else(name, monkeypatch, capsys):
    schema, plain, _ = COMMANDS[name]
    monkeypatch.setattr(sys, "argv", [f"captioning-{name}", "--help=all"])
    entry_point(name, schema, None, plain=plain)()
    text = capsys.readouterr().out
    usage = next(line for line in text.splitlines() if line.startswith("usage: "))
    assert all(key.upper().rstrip(".") in usage for key in plain)
    groups = set(re.findall(r"^  ([a-z_/]+)=\S*$", text, re.MULTILINE))
    assert groups == {
        "caption": {"decoding"},
        "score": set(),
        "evaluate": {"data", "features", "decoding"},
    }.get(name, groups)
    assert ("model/attention" in groups) == (name == "train")
    assert name != "caption" or re.search(
        r"^  images: \(required\) +# photos and folders; subfolders are included", text, re.MULTILINE
    )


@pytest.mark.slow
def test_an_output_that_is_closed_early_ends_quietly(tmp_path):
    job = "lambda config: [print('x' * 99) for _ in range(9999)]"
    code = f"from captioning.config import CaptionConfig, entry_point; entry_point('caption', CaptionConfig, {job})()"
    for argument in ("--help", "images=a", "--hydra-help"):
        command = [sys.executable, "-c", code, argument]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path) as process:
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait() in (0, 141)


@pytest.mark.skipif(os.name == "nt", reason="closes outputs as a Unix shell does")
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(("given", "written"), [("--help", ""), ("images=a output=o", "a"), ("-m images=a,b", "b")])
@pytest.mark.slow
def test_an_output_that_is_closed_at_the_start_is_written_nowhere(tmp_path, closed, given, written):
    job = "lambda config: (print('told'), os.system('echo told'), open('done', 'w').write(config['images'][0]))[:0]"
    code = "import os; from captioning.config import CaptionConfig, entry_point; "
    code += f"entry_point('caption', CaptionConfig, {job}, plain=['images...'])()"
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} checkpoint=c {given} {closed}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert not written or (tmp_path / "done").read_text() == written


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_told_in_one_line():
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "captioning.score", "--help"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == "error: cannot write the output: No space left on device. Free some space, then retry\n"
