"""What notebooks and the scripts of docs/ use of the package is public: it is on a face, and it exists."""

import ast
import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import stubs

ROOT = Path(__file__).parents[1]
FILES = [*sorted((ROOT / "notebooks").glob("*.ipynb")), *sorted((ROOT / "docs").glob("*.py"))]


def source_of(path: Path) -> str:
    if path.suffix == ".py":
        return path.read_text(encoding="utf-8")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return re.sub(r"^[%!].*$", "", code, flags=re.MULTILINE)


def used(source: str) -> Iterator[tuple[str, str]]:
    """(module, name) of all that is taken of the package; a module that is imported whole has the name "*"."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] == "captioning":
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            yield from ((name, "*") for name in names if name.startswith("captioning."))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "captioning":
            yield "captioning", node.attr


def is_public(module: str, name: str) -> bool:
    """Whether a face, the `__init__.py` of a folder, or the module of errors has the name."""
    face = importlib.import_module(module)
    if module == "captioning.errors":
        return hasattr(face, name)
    return hasattr(face, "__path__") and name in getattr(face, "__all__", ()) and hasattr(face, name)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_only_faces_are_used(path):
    assert not [f"{module}.{name}" for module, name in used(source_of(path)) if not is_public(module, name)]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from captioning.analysis import tabulate", []),
        ("from captioning.errors import DataError", []),
        ("import captioning; captioning.load('a').caption('b')", []),
        ("from captioning.analysis.probing import correlate_units", ["correlate_units"]),  # by no face
        ("from captioning.audit import audit_table", ["audit_table"]),  # by a command
        ("from captioning.analysis import no_such_name", ["no_such_name"]),
        ("from captioning.errors import NoSuchError", ["NoSuchError"]),
        ("import captioning.analysis", ["*"]),
        ("import captioning\ndef f(a: captioning.inference.Caption): ...", ["inference"]),
    ],
)
def test_what_is_not_public_is_found(source, found):
    assert [name for module, name in used(source) if not is_public(module, name)] == found


def test_there_are_files_to_look_at():
    assert len(FILES) > 8


def test_type_checkers_see_what_each_face_loads_lazily():
    """`python tests/helpers/stubs.py` writes them."""
    wanted = {path.with_suffix(".pyi"): stubs.stub(path) for path in stubs.PACKAGE.rglob("__init__.py")}
    wanted = {path: text for path, text in wanted.items() if text is not None}
    assert set(wanted) == set(stubs.PACKAGE.rglob("*.pyi"))
    assert not [path for path, text in wanted.items() if path.read_text(encoding="utf-8") != text]
    for path in wanted:
        face = importlib.import_module(".".join(path.parent.relative_to(stubs.PACKAGE.parent).parts))
        listed = {
            name for names in stubs.lazy_files(path.with_suffix(".py").read_text("utf-8")).values() for name in names
        }
        assert listed == set(face.__all__)
