"""Run every command and every Python block of README.md and docs/, page by page, on miniature data.

Each page runs in its own copy of the workspace (`workspace.py`), its blocks in their order, with the settings of
`small.py` added, and with a stand-in for the Hugging Face Hub. `NOT_RUN` lists the commands that are not run, and why.
"""

import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fork_server import ForkServer
from hub_stand_in import StandIn
from pages import ROOT, SHELLS, ShellCommand, blocks, commands, pages
from small import composed, small
from workspace import draw_workspace

pytestmark = pytest.mark.pages
# (pattern of the command's text, why it is not run here). A pattern that matches no command fails a test.
NOT_RUN = [
    (r"^make ", "takes minutes, and .ci/run runs it or the tests do"),
    (r"pip install|-m venv|^source ", "changes the environment that the tests run in; setup.cfg's extras are checked"),
    (r"download=true", "downloads 20 GB"),
    (r"^npm |^tar |runtime=", "needs the files of an npm package"),
    (r"^torchrun |^srun |submitit", "needs several machines; its settings are checked"),
    (r"^(\.venv/bin/)?(python|pytest|ruff|mypy|mkdocs|pre-commit) ", "a script for maintainers, not of the package"),
]
PHOTOS = "captioning/web/demo/photos"  # README's photos, which a checkout has; the workspace has them in photos/
FROM_THE_START = ".from_the_start"  # a file in the runs that every workspace has
RUNS = {
    "soft": ["experiment=flickr8k_soft"],
    "hard": ["experiment=flickr8k_hard", "start_from=runs/soft/checkpoints/best.ckpt"],
}


def reason_not_to_run(command: ShellCommand) -> str | None:
    """Return why a command is not run; None if it is run."""
    return next((reason for pattern, reason in NOT_RUN if re.search(pattern, command.text)), None)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Run commands in an environment whose Hugging Face Hub is a stand-in on this machine."""
    with StandIn() as hub, pytest.MonkeyPatch.context() as patch:
        for key, value in hub.environment(tmp_path_factory.mktemp("hub")).items():
            patch.setenv(key, value)
        with ForkServer() as running:
            yield running


@pytest.fixture(scope="module")
def trained(server, tmp_path_factory) -> Path:
    """The workspace with two runs that have been trained and evaluated."""
    folder = draw_workspace(tmp_path_factory.mktemp("docs") / "workspace")
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    for name, given in RUNS.items():
        data = ["data.root=data/flickr8k"]
        run(server, "train", [*given, *data, f"run_dir=runs/{name}"], folder)
        best = f"checkpoint=runs/{name}/checkpoints/best.ckpt"
        run(server, "evaluate", [best, "data=flickr8k", *data, "split=val", f"output=runs/{name}/val"], folder)
        (folder / "runs" / name / FROM_THE_START).touch()
        for seed in (0, 1):
            shutil.copytree(folder / "runs" / name, folder / "runs" / f"{name}_{seed}")
    patch.undo()
    return folder


def replaced(arguments: list[str], folder: Path) -> list[str]:
    """Return the setting that lets a page train a run that the workspace has from the start, for the first time."""
    run_dir = next((each.partition("=")[2] for each in arguments if each.startswith("run_dir=")), "")
    first = (folder / run_dir / FROM_THE_START).exists()
    if not run_dir or not first or any(each.startswith(("resume=", "overwrite=")) for each in arguments):
        return []
    (folder / run_dir / FROM_THE_START).unlink()
    return ["overwrite=true"]


def run(server: ForkServer, name: str, arguments: list[str], folder: Path) -> str:
    """Run one of the package's commands small, in a folder that is the current one, and return its output."""
    jobs = composed(name, arguments) if name else []
    extra = small(name, jobs[0]) if jobs else []
    at = arguments.index("--") if "--" in arguments else len(arguments)
    extra += replaced(arguments, folder) if name == "train" else []
    arguments = [*arguments[:at], *extra, *arguments[at:]]
    status, output = server.command(name, arguments, folder)
    assert status == 0, f"captioning-{name} {' '.join(arguments)}\nexit status {status}\n{output[-3000:]}"
    return output


def run_demo(arguments: list[str], folder: Path) -> None:
    """Start the demo as a user does, wait until it answers, and end it."""
    command = [sys.executable, "-m", "captioning.demo", *arguments, "port=0", "device=cpu"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        lines = []
        while not (found := re.search(r"http://(127\.0\.0\.1|0\.0\.0\.0):(\d+)/", "".join(lines[-1:]))):
            lines.append(process.stdout.readline())
            assert lines[-1], f"captioning-demo {' '.join(arguments)}\n{''.join(lines)}"
        socket.create_connection(("127.0.0.1", int(found[2])), timeout=10).close()
    finally:
        process.terminate()
        process.wait(30)


def run_command(server: ForkServer, command: ShellCommand, folder: Path) -> str:
    """Run one command of a page, and return its output."""
    program, *arguments = [word.replace(PHOTOS, "photos") for word in command.words]
    if program == "captioning" and arguments and not arguments[0].startswith("-"):
        program, *arguments = f"captioning-{arguments[0]}", *arguments[1:]
    if program == "captioning-demo" and "--help" not in arguments:
        run_demo(arguments, folder)
    elif program.startswith("captioning"):
        return run(server, program.partition("-")[2].replace("-", "_"), arguments, folder)
    else:
        done = subprocess.run(["bash", "-euc", command.text], cwd=folder, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{command.text}\n{done.stderr}"
    return ""


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_page_runs(page, server, trained, tmp_path, monkeypatch):
    folder = tmp_path / "workspace"
    shutil.copytree(trained, folder)
    monkeypatch.chdir(folder)
    faults, code, output = [], "", ""
    for block in blocks(page):
        if block.file:
            (folder / block.file).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.file).write_text(block.text, encoding="utf-8")
        elif block.language == "text":  # a page that shows captions shows those of the commands before
            shown = re.findall(r"^\S+\.jpg: .+$", block.text.replace(PHOTOS, "photos"), re.MULTILINE)
            faults += [f"{block.where}: the commands do not print: {line}" for line in shown if line not in output]
        elif block.language in SHELLS:
            output = ""
            for command in commands(block):
                try:
                    if reason_not_to_run(command) is None:
                        output += run_command(server, command, folder)
                except Exception as error:
                    faults.append(f"{command.where}: {command.text}\n    {error}")
        elif block.language == "python":
            code += block.text + "\n"  # a block may use the names of the page's earlier blocks
            status, printed = server.python(code, folder)
            if status:
                faults.append(f"{block.where}: exit status {status}\n{printed[-3000:]}")
    assert not faults, "\n" + "\n\n".join(faults)


def test_every_command_that_is_not_run_is_on_a_page():
    texts = [command.text for page in pages() for block in blocks(page) if block.language in SHELLS
             for command in commands(block)]  # fmt: skip
    unused = [pattern for pattern, _ in NOT_RUN if not any(re.search(pattern, text) for text in texts)]
    assert not unused, f"no page has a command like {unused}: take it off the list"


def test_a_failing_command_and_failing_code_are_noticed(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, output = server.command("score", ["nothing.json", "annotations.json"], tmp_path)
    assert status == 1 and output.startswith("error: ")
    assert server.python("raise SystemExit(3)", tmp_path)[0] == 3
    assert server.python("1 / 0", tmp_path)[0] == 1
    assert server.python("print('a' + chr(98))", tmp_path) == (0, "ab\n")
    start = time.monotonic()
    assert server.python("import time; time.sleep(60)", tmp_path, seconds=1)[0] != 0
    assert time.monotonic() - start < 30
