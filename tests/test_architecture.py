"""The two rules of the house and its arrows, read from the source: see docs/architecture.md."""

import ast
import configparser
import functools
import importlib
import pkgutil
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

import captioning

PACKAGE = Path(captioning.__file__).parent
ROOT = Path(__file__).parents[1]
BASE = {"errors", "text", "io", "pretrained"}
# What the files of a folder may import of the others.
ARROWS = {
    "errors": set(),
    "text": {"errors"},
    "io": {"errors"},
    "pretrained": {"errors"},
    **dict.fromkeys(("config", "data", "models", "decoding", "metrics", "visualise"), BASE),
    "objectives": {*BASE, "models", "decoding"},
    "features": {*BASE, "data"},
    "tags": {*BASE, "data", "models"},
    "checkpoints": {*BASE, "config", "data", "models"},
    "training": {*BASE, "config", "data", "models", "checkpoints"},
    "inference": {*BASE, "config", "data", "models", "decoding", "metrics", "visualise", "objectives", "features"}
    | {"checkpoints", "tags"},
}
INFERENCE = {*ARROWS["inference"], "inference"}
ARROWS |= {
    "evaluation": INFERENCE,
    "analysis": INFERENCE,
    "onnx_export": INFERENCE,
    "tasks": {*INFERENCE, "evaluation", "training"},
    "web": {*INFERENCE, "evaluation", "onnx_export"},
}
FACES = sorted(
    module.name
    for module in pkgutil.walk_packages(captioning.__path__, "captioning.")
    if module.ispkg and not module.name.startswith("captioning.conf") and module.name != "captioning.pretrained"
)
# A command's function has the command's name, and these share it with what they call or with a part of a figure.
TWICE = {"main"}


def folder_of(path: Path) -> str:
    """ "models" of captioning/models/ops/packing.py; "" of a file at the top."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


def package_of(path: Path) -> str:
    """ "captioning.models.ops" of captioning/models/ops/packing.py."""
    return ".".join(("captioning", *path.relative_to(PACKAGE).parent.parts))


@functools.cache
def imports(path: Path, *, at_once: bool = False) -> list[tuple[str, str]]:
    """(module, name) of every import of a file; `at_once`: of those that importing the file makes."""
    tree, found = ast.parse(path.read_text(encoding="utf-8")), []
    for node in tree.body if at_once else ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [(node.module, alias.name) for alias in node.names]
    return found


def importers(*libraries: str) -> set[str]:
    """The folders and files at the top that import one of the libraries."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        if any(module.partition(".")[0] in libraries for module, _ in imports(path)):
            found.add(folder_of(path) or path.name)
    return found


def face_of(name: str):
    return importlib.import_module(name)


def defining_file(module: str, name: str) -> str:
    """ "captioning.models.cells" of ("captioning.models", "LSTM"), as a face knows it; a module itself otherwise."""
    if f"{module}.{name}" in MODULES:
        return f"{module}.{name}"
    if module in FACES and name in face_of(module).__all__:
        text = (PACKAGE / Path(*module.split(".")[1:]) / "__init__.py").read_text(encoding="utf-8")
        for file, names in re.findall(r'"(\w+)": \[([^\]]*)\]', text):
            if f'"{name}"' in names:
                return f"{module}.{file}"
    return module


MODULES = {
    ".".join(("captioning", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
}


def test_a_file_at_the_top_is_a_command():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    scripts = setup["options.entry_points"]["console_scripts"].split("\n")
    commands = {line.partition("= captioning.")[2].removesuffix(":main") for line in scripts if line}
    assert len(commands) == 16
    assert {path.stem for path in PACKAGE.glob("*.py")} == commands | {"__init__", "errors"}
    for command in commands - {"__main__"}:
        assert (ROOT / "conf" / f"{command}.yaml").is_file()


def test_folders_import_downward_only():
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        folder = folder_of(path)
        for module, name in imports(path) if folder else ():
            parts = module.split(".")
            if parts[0] == "captioning" and (len(parts) > 1 or name not in ("", "__version__")):
                other = parts[1] if len(parts) > 1 else name
                if other != folder and other not in ARROWS[folder]:
                    wrong.append(f"{path.relative_to(PACKAGE)}: {module}")
    assert not wrong
    assert set(ARROWS) - {"errors"} == {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}


def test_other_folders_import_the_face():
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        for module, _ in imports(path):
            if module.startswith("captioning.") and module in MODULES:
                package = module if module in FACES else module.rpartition(".")[0]
                if package in FACES and module not in FACES and package != package_of(path):
                    wrong.append(f"{path.relative_to(PACKAGE)}: {module}")
    assert not wrong


def test_only_config_knows_hydra():
    assert importers("hydra", "omegaconf") == {"config"}


def test_only_training_knows_lightning():
    assert importers("lightning", "pytorch_lightning") <= {"training", "train.py"}
    assert "training" in importers("lightning")  # this reads imports at all


def test_there_is_no_import_circle():
    graph = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        own = ".".join(("captioning", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for module, name in imports(path):  # those within functions too
            if module.startswith("captioning") and own not in FACES:
                graph[own].add(defining_file(module, name))
    order: list[str] = []
    on_path: list[str] = []

    def visit(module: str) -> None:
        assert module not in on_path, " -> ".join([*on_path, module])
        if module not in order:
            on_path.append(module)
            for other in sorted(graph[module] - {module}):
                visit(other)
            on_path.pop()
            order.append(module)

    for module in sorted(graph):
        visit(module)
    assert len(order) > 100


@pytest.mark.parametrize("name", FACES)
def test_a_face_says_what_it_is_for_and_exports_what_there_is(name):
    face = face_of(name)
    assert re.match(r"[A-Z][^\n]{20,}[.:]", face.__doc__)
    files = {module.name for module in pkgutil.iter_modules(face.__path__)}
    assert not files & set(face.__all__)  # importing a file would put it in the place of the name
    for public in face.__all__:
        assert not public.startswith("_")
        assert getattr(face, public) is not None
    for names in getattr(face, "PARTS", {}).values():
        assert set(names) <= set(face.__all__)


def test_configurations_name_parts_of_faces():
    named = set()
    for path in (ROOT / "conf").rglob("*.yaml"):
        named |= set(re.findall(r"_target_: *(captioning\.[\w.]+)", path.read_text(encoding="utf-8")))
    parts = set()
    for name in FACES:
        for listed in getattr(face_of(name), "PARTS", {}).values():
            parts |= {f"{name}.{part}" for part in listed}
    assert named == parts


def test_the_parts_of_a_model_are_private_to_models():
    inside = {"decoder", "recurrence", "conditioning", "adapter", "readout"}
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if folder_of(path) != "models" else ():
            if isinstance(node, ast.Attribute) and node.attr in inside:
                wrong.append(f"{path.relative_to(PACKAGE)}:{node.lineno} .{node.attr}")
    assert not wrong


def test_a_public_name_is_defined_once():
    defined = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = []
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names = [node.name]
            elif isinstance(node, ast.Assign):
                names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            for name in names:
                if not name.startswith("_") and name not in TWICE and name not in ("PARTS", "TOOLS"):
                    defined[name].add(str(path.relative_to(PACKAGE)))
    assert not {name: files for name, files in defined.items() if len(files) > 1}


def test_scores_need_no_torch():
    code = (
        "import sys; import captioning.metrics as m; [getattr(m, name) for name in m.__all__]; "
        "import captioning.score, captioning.compare; "
        "assert not {'torch', 'lightning'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_configuration_is_checked_without_lightning():
    code = (
        "import sys; from captioning.config import TrainConfig, check, compose; import captioning.train; "
        "check(compose('train', []), TrainConfig); "
        "assert 'lightning' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_no_two_test_files_have_one_name():
    """pytest would import the first for both, and stop."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
