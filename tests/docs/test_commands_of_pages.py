"""Check every command and every Python block of README.md and docs/: names, settings, files. Runs none of them.

`test_pages_run.py` runs them.
"""

import ast
import importlib
import re
from pathlib import Path

import pytest
from pages import FENCE, ROOT, SHELLS, Block, ShellCommand, blocks, commands, pages
from small import composed, settings_file
from workspace import draw_workspace

SHELL = {
    "cd",
    "source",
    "git",
    "mkdir",
    "cp",
    "mv",
    "rm",
    "ls",
    "cat",
    "echo",
    "eval",
    "export",
    "tensorboard",
    "npm",
    "tar",
}
LAUNCHERS = {"torchrun", "srun"}
FROM_THE_CHECKOUT = (".venv/bin/",)
LANGUAGES = {"bash", "python", "yaml", "text", "console", "toml", "json", "csv", "mermaid"}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    """The workspace, with a run folder that has settings and no model."""
    folder = draw_workspace(tmp_path_factory.mktemp("docs") / "workspace")
    for run in ("soft", "hard"):
        given = ["experiment=flickr8k_soft", "data.root=data/flickr8k", f"model/attention={run}", f"run_dir=runs/{run}"]
        config = folder / "runs" / run / "config.yaml"
        config.parent.mkdir(parents=True)
        config.write_text(settings_file("train", given), encoding="utf-8")
    return folder


def entry_points() -> set[str]:
    """Return the names of the programs that setup.cfg installs."""
    text = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    return set(re.findall(r"^ +(captioning\S*) = ", text.partition("console_scripts =")[2], re.MULTILINE))


def extras() -> set[str]:
    """Return the names of the extras in setup.cfg."""
    text = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    section = text.partition("[options.extras_require]")[2].partition("\n[")[0]
    return set(re.findall(r"^(\w+) =", section, re.MULTILINE))


def targets() -> set[str]:
    """Return the targets of the Makefile."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    found = re.findall(r"^([a-z][\w -]*):(?!=)", text, re.MULTILINE)
    return {name for names in found for name in names.split()}


def without_launcher(words: list[str]) -> list[str]:
    """Return the words of a command without the program that starts it on several machines, which is not installed."""
    if words[0] in LAUNCHERS:
        first = next(at for at, word in enumerate(words) if word.startswith("captioning"))
        words = [words[first].replace("captioning.", "captioning-"), *words[first + 1 :]]
    if any(word.startswith("hydra/launcher=") for word in words):
        words = [word for word in words if not word.startswith(("hydra/launcher=", "hydra.launcher."))]
    return words


def check_command(command: ShellCommand) -> None:
    """Check one command line without running it."""
    program, *arguments = without_launcher(command.words)
    for prefix in FROM_THE_CHECKOUT:
        program = program.removeprefix(prefix)
    assert not {"…", "DIR", "PATH"} & set(arguments) and "…" not in command.text, "a placeholder in a runnable command"
    if program == "captioning" and arguments and not arguments[0].startswith("-"):
        program, *arguments = f"captioning-{arguments[0]}", *arguments[1:]
    if program.startswith("captioning"):
        assert program in entry_points(), f"setup.cfg installs no program {program}"
        if program != "captioning":
            composed(program.removeprefix("captioning-"), arguments)
    elif program == "make":
        missing = {each for each in arguments if "=" not in each and each != "-n"} - targets()
        assert not missing, f"the Makefile has no target {missing}"
    elif "pip" in (program, *arguments) and "install" in arguments:
        named = {name for group in re.findall(r"\.\[([\w,]+)\]", command.text) for name in group.split(",")}
        named |= {name for group in re.findall(r"captioning\[([\w,]+)\]", command.text) for name in group.split(",")}
        assert named <= extras(), f"setup.cfg has no extra {named - extras()}"
    elif program in ("python", "python3", "pytest", "ruff", "mypy", "mkdocs", "pre-commit"):
        for argument in arguments:
            if argument.endswith(".py") or argument.startswith(("tests/", "docs/", "notebooks/")):
                path = argument.partition("::")[0]
                assert (ROOT / path).exists(), f"there is no {path}"
    else:
        assert program in SHELL, f"unknown program {program}"


def check_python(block: Block, own: set[str]) -> None:
    """Compile a Python block and resolve its imports, and the names that it takes from imported modules."""
    tree = ast.parse(block.text, block.where)
    modules: dict[str, object] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                if name.name.partition(".")[0] not in own:
                    module = importlib.import_module(name.name)
                    modules[name.asname or name.name.partition(".")[0]] = (
                        module if name.asname else importlib.import_module(name.name.partition(".")[0])
                    )
        elif isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] not in own:
            module = importlib.import_module(node.module)
            for name in node.names:
                assert hasattr(module, name.name), f"{block.where}: {node.module} has no {name.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            module = modules[node.value.id]
            assert hasattr(module, node.attr), f"{block.where}: {node.value.id} has no {node.attr}"


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_code_are_right(page, drawn, monkeypatch, tmp_path):
    monkeypatch.chdir(drawn)
    faults = []
    own = {Path(block.file).stem for block in blocks(page) if block.file}
    for block in blocks(page):
        if block.file:
            (drawn / block.file).parent.mkdir(parents=True, exist_ok=True)
            (drawn / block.file).write_text(block.text, encoding="utf-8")
        if block.language not in LANGUAGES:
            faults.append(f"{block.where}: a block of an unknown language '{block.language}'")
        elif block.language in SHELLS:
            for command in commands(block):
                try:
                    check_command(command)
                except Exception as error:
                    faults.append(f"{command.where}: {command.text}\n    {error}")
        elif block.language == "python":
            try:
                check_python(block, own)
            except Exception as error:
                faults.append(f"{block.where}: {error}")
    assert not faults, "\n" + "\n".join(faults)


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_are_in_fenced_blocks(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    assert not re.findall(r"^ {4,}(?:captioning-\S+|make|pip|python) .*$", text, re.MULTILINE)


def test_the_checks_find_faults(drawn, monkeypatch):
    monkeypatch.chdir(drawn)
    text = """
captioning-train experiment=flickr8k_soft data.rot=data/flickr8k
captioning-train experiment=flickr8k_soft data.root=data/flickr8k model/cell=gur
captioning-evaluate data=flickr8k
captioning-trian experiment=flickr8k_soft
captioning-train experiment=flickr8k_soft data.root=DIR … run_dir=x
captioning-train -m experiment=flickr8k_soft data.root=data/flickr8k model/cell=lstm,gur run_dir=runs/sweep
make trian
pip install '.[dmeo]'
python docs/resluts.py
"""
    found = commands(Block(ROOT / "README.md", 1, "bash", text))
    assert len(found) == 9
    for command in found:
        with pytest.raises(Exception, match=r"."):
            check_command(command)
    for code in ("import captioning\ncaptioning.laod('x')", "from captioning.models import Sfot", "x = ("):
        with pytest.raises((AssertionError, SyntaxError)):
            check_python(Block(ROOT / "README.md", 1, "python", code), set())
