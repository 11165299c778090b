"""--help is short and true, --version, shell completion, and the command `captioning` that starts the others."""

import contextlib
import importlib
import io
import os
import re
import shlex
import subprocess
import sys
from functools import reduce
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import captioning
from captioning import __main__ as umbrella
from captioning.config import check, compose, conf_dir, read_heading
from captioning.config.command_line import Command, hydra_arguments, read_command_line
from captioning.config.commands import _arguments, _without_plain

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in conf_dir().glob("*.yaml"))
# Words that a newcomer cannot know, or that promise nothing.
VAGUE = re.compile(r"\b(?:something|anything|stuff|various|etc|thing)\b")


def console(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def main(monkeypatch, capsys):
    """main("train", "--help") -> (exit status, what was printed)."""

    def start(name: str, *arguments: str) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", [f"captioning-{name.replace('_', '-')}", *arguments])
        status: object = 0
        try:
            importlib.import_module(f"captioning.{name}").main()
        except SystemExit as ending:
            status = ending.code
        return status, capsys.readouterr().out

    return start


def command_of(name: str, monkeypatch) -> Command:
    """Return the command that a module's `main` starts."""
    found = []
    monkeypatch.setattr("captioning.config.commands.Command", lambda *given: found.append(Command(*given)) or found[0])
    module = importlib.reload(importlib.import_module(f"captioning.{name}"))
    monkeypatch.undo()
    importlib.reload(module)
    return found[0]


def test_there_are_15_commands():
    assert len(NAMES) == 15 and sorted(umbrella.COMMANDS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_help_fits_on_a_screen_and_gives_the_composed_defaults(name, main):
    status, text = main(name, "--help")
    assert (status, text) == main(name, "-h")
    lines = text.splitlines()
    assert status == 0 and len(lines) <= 30 and max(map(len, lines)) <= 100
    heading, program = read_heading(name), f"captioning-{name.replace('_', '-')}"
    assert lines[0] == heading.purpose and re.match(r"[A-Z].{20,}[.;:]$", lines[0])
    assert lines[1].startswith(f"usage: {program} ")
    assert [line.strip() for line in lines if line.startswith(f"  {program}")] == list(heading.examples)
    assert len(heading.examples) == 3 and len(set(heading.examples)) == 3
    assert f"{program} --help=all" in text and "-sc install=bash" in text
    assert (ROOT / heading.page).is_file() and heading.page in text

    composed, example = compose(name, [], return_hydra_config=True), []
    if composed.hydra.runtime.choices.get("data", "") is None:  # its keys are those of the first example
        example = [each for each in heading.examples[0].split() if each.startswith("data=")]
        composed = compose(name, example, return_hydra_config=True)
    choices, settings = composed.hydra.runtime.choices, OmegaConf.to_container(composed)
    for key, explanation in heading.settings.items():
        (row,) = (line for line in lines if re.match(rf"  {re.escape(key)}[= ]", line))
        assert row.endswith(f"  {explanation}") and len(explanation) > 10 and not VAGUE.search(explanation)
        value = choices[key] if key in choices else reduce(lambda node, part: node[part], key.split("."), settings)
        if value == "???" or (key == "data" and example):
            assert row.startswith(f"  {key} (required)  ")
        else:
            assert row.startswith(f"  {key}={plainly(value)}  ")


def plainly(value: object) -> str:
    """Return a composed value as a command line takes it; a reference in capitals."""
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text.replace("${now:%Y-%m-%d_%H-%M-%S}", "DATE_TIME").replace("${data.name}", "NAME") or '""'


@pytest.mark.parametrize("name", NAMES)
def test_every_example_of_help_composes(name, monkeypatch):
    command = command_of(name, monkeypatch)
    for example in read_heading(name).examples:
        program, *arguments = shlex.split(example)
        assert program == command.program
        given = _arguments(hydra_arguments(read_command_line(arguments, command), command))
        sweeping = "--multirun" in given
        overrides = [
            each.partition(",")[0] if sweeping else each for each in given if not each.startswith(("-", "hydra."))
        ]
        assert check(compose(name, overrides), command.schema)


@pytest.mark.parametrize("name", NAMES)
def test_help_of_everything_lists_every_setting(name, main):
    status, text = main(name, "--help=all")
    assert status == 0 and read_heading(name).purpose in text
    composed = compose(name, [])
    for key in composed:
        assert re.search(rf"^  {key}:", text, re.MULTILINE)
    for key in re.findall(r"^(\w+):.*#", (conf_dir() / f"{name}.yaml").read_text(), re.MULTILINE):
        assert re.search(rf"^  {key}:.*# ", text, re.MULTILINE)  # with its explanation


def test_help_shows_the_values_of_the_settings_beside_it(main):
    assert "  trainer.max_epochs=12 " in main("train", "experiment=flickr8k_soft", "--help")[1]
    assert "  data.root=data/mine " in main("evaluate", "data=coco", "data.root=data/mine", "--help")[1]
    status, _ = main("train", "--help=everything")
    assert status == "error: --help=everything is not known: type --help, or --help=all for every setting"


@pytest.mark.parametrize("name", NAMES)
def test_version(name, main):
    assert main(name, "--version") == (0, f"captioning {captioning.__version__}\n")


def test_the_version_is_written_once():
    setup = (ROOT / "setup.cfg").read_text()
    assert "version = attr: captioning.__version__\n" in setup
    assert re.search(
        r'^__version__ = "\d+\.\d+\.\d+"$', (ROOT / "captioning" / "__init__.py").read_text(), re.MULTILINE
    )


@pytest.mark.parametrize(
    ("given", "printed"),
    [(["--cfg", "job", "seed=3"], "seed: 3\n"), (["--hydra-help"], "Hydra"), (["--info", "defaults"], "Defaults List")],
)
def test_other_options_of_hydra_work(given, printed, main):
    status, text = main("train", *given)
    assert status == 0 and printed in text


# `captioning`


@pytest.fixture
def captioning_command(monkeypatch, capsys):
    """captioning_command("train", …) -> exit status, stdout."""

    def start(*arguments: str) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", ["captioning", *arguments])
        status: object = 0
        try:
            umbrella.main()
        except SystemExit as ending:
            status = ending.code
        return status, capsys.readouterr().out

    return start


def test_captioning_lists_the_commands(captioning_command):
    status, text = captioning_command()
    assert status == 0 and text == captioning_command("--help")[1] == captioning_command("help")[1]
    for name in NAMES:
        assert re.search(rf"^  {name.replace('_', '-')} +{re.escape(read_heading(name).purpose)}$", text, re.MULTILINE)
    assert max(map(len, text.splitlines())) <= 120 and len(text.splitlines()) <= 40
    assert captioning_command("--version") == (0, f"captioning {captioning.__version__}\n")


@pytest.mark.parametrize("name", ["evaluate-answers", "evaluate_answers"])
def test_captioning_starts_a_command(captioning_command, main, name):
    assert captioning_command(name, "--help") == main("evaluate_answers", "--help")


def test_captioning_forwards_errors_and_their_status(captioning_command, main, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    given = ["data=csv", "data.root=nowhere"]
    status, _ = captioning_command("train", *given)
    assert status == main("train", *given)[0] and str(status).startswith("error: ") and "nowhere" in status


@pytest.mark.parametrize(
    ("typed", "advice"),
    [
        ("trian", "did you mean train?"),
        ("evaluate_answer", "did you mean evaluate-answers?"),
        ("xyz", "captioning --help lists all commands"),
    ],
)
def test_captioning_suggests_the_nearest_command(captioning_command, typed, advice):
    assert captioning_command(typed) == (f"error: captioning has no command {typed}: {advice}", "")


def test_captioning_starts_without_torch_and_hydra():
    code = "import sys; sys.argv[1:] = []; from captioning.__main__ import main; main(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert not {"torch", "hydra", "omegaconf", "numpy"} & set(done.stdout.split("\n")[-2].split())
    assert console("captioning", "--version").stdout == f"captioning {captioning.__version__}\n"


# Shell completion


@pytest.mark.parametrize(
    ("name", "line", "expected"),
    [
        ("train", "captioning-train experiment=flickr8k_s", {"experiment=flickr8k_soft", "experiment=flickr8k_scst"}),
        ("train", "captioning-train model.wid", {"model.width="}),
        ("train", "captioning-train model/attention=", {"model/attention=soft", "model/attention=hard"}),
        ("train", "captioning-train data=csv data.roo", {"data.root="}),
        ("train", "captioning-train runs/soft/config.yaml optimizer.l", {"optimizer.lr="}),
        ("caption", "captioning-caption photo.jpg --output captions decoding.be", {"decoding.beam_size="}),
        ("caption", "captioning-caption photo.jpg --dev", {"--device", "--help"}),
        ("evaluate_answers", "captioning-evaluate-answers best.ckpt data=ea", {"data=easy_vqa"}),
    ],
)
def test_completion_of_groups_and_keys(name, line, expected, main, monkeypatch):
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line)))
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        status, text = main(name, "-sc", "query=bash")
    assert (status, errors.getvalue()) == (0, "") and expected <= set(text.split())


def test_completion_leaves_out_what_hydra_cannot_read():
    line = "captioning-caption photo.jpg --output captions decoding=greedy 'a b.jpg' dec"
    assert _without_plain(line) == "captioning-caption decoding=greedy dec"


@pytest.mark.skipif(not Path("/bin/bash").exists(), reason="no bash")
def test_completion_in_bash(tmp_path):
    """The script that `-sc install=bash` prints, in a real bash, with a command on the PATH."""
    script = tmp_path / "captioning-caption"
    start = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom captioning.caption import main\nmain()\n"
    script.write_text(f"#!{sys.executable}\n{start}")
    script.chmod(0o755)
    bash = """
        eval "$(captioning-caption -sc install=bash)"
        complete -p captioning-caption
        COMP_LINE="captioning-caption photo.jpg decoding=gr"
        COMP_CWORD=2 COMP_POINT=${#COMP_LINE}
        hydra_bash_completion
        echo "reply: ${COMPREPLY[*]}"
    """
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["/bin/bash", "--norc", "-c", bash], env=environment, capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    assert done.stderr == "" and "-F hydra_bash_completion captioning-caption" in done.stdout
    assert "reply: decoding=greedy\n" in done.stdout


def test_training_without_settings_first_says_what_it_does(monkeypatch, capsys):
    """Drawing the scenes and computing their features takes minutes, in which nothing else may be printed."""
    from captioning import train

    monkeypatch.setattr("captioning.config.commands.hydra.main", lambda **_: lambda task: lambda: print("started"))
    monkeypatch.setattr(sys, "argv", ["captioning-train"])
    train.main()
    first, second = capsys.readouterr().out.splitlines()
    assert second == "started" and all(
        word in first for word in ("drawn scenes", "data/scenes", "runs/scenes/", "hours", "Ctrl-C", "--help")
    )
    monkeypatch.setattr(sys, "argv", ["captioning-train", "seed=1"])
    train.main()
    assert capsys.readouterr().out == "started\n"
    composed = compose("train", [])
    reader = composed.data.reader
    assert reader.train + reader.val + reader.test == 9800 and composed.trainer.max_epochs == 20
    assert composed.data.root == "data/scenes" and "9,800" in first and "20 epochs" in first
