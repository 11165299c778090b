"""What notebooks and the scripts of docs/ import from the package is public: it is on a face, and it exists."""

import ast
import importlib
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [*sorted((ROOT / "notebooks").glob("*.ipynb")), *sorted((ROOT / "docs").glob("*.py"))]


def source_of(path: Path) -> str:
    if path.suffix == ".py":
        return path.read_text(encoding="utf-8")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return re.sub(r"^[%!].*$", "", code, flags=re.MULTILINE)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_only_faces_are_imported(path):
    wrong = []
    for node in ast.walk(ast.parse(source_of(path))):
        if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] == "captioning":
            public = getattr(importlib.import_module(node.module), "__all__", ())
            wrong += [f"{node.module}.{alias.name}" for alias in node.names if alias.name not in public]
    assert not [name for name in wrong if not name.startswith("captioning.errors.")]


def test_there_are_files_to_look_at():
    assert len(FILES) > 8
