"""Write the `__init__.pyi` beside each `__init__.py` that loads its names lazily, so that type checkers see them.

python tests/helpers/stubs.py      # writes them; tests/test_public_names.py fails where one is out of date
"""

import ast
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "captioning"


def lazy_files(source: str) -> dict[str, list[str]]:
    """Return {file: names} of the `lazy_loader.attach` call or the `PARTS` and `TOOLS` lists of an `__init__.py`."""
    found: dict[str, list[str]] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Dict) and node.keys and all(isinstance(value, ast.List) for value in node.values):
            for file, names in ast.literal_eval(node).items():
                found.setdefault(file, []).extend(names)
    return found


def stub(path: Path) -> str | None:
    """Return the text of the stub of one `__init__.py`; None if it loads nothing lazily."""
    source = path.read_text(encoding="utf-8")
    files = lazy_files(source)
    if not files:
        return None
    package = ".".join(path.parent.relative_to(PACKAGE.parent).parts)
    lines = [f"from {package}.{file} import {name} as {name}" for file in sorted(files) for name in sorted(files[file])]
    lists = "PARTS: dict[str, list[str]]\nTOOLS: dict[str, list[str]]\n" if "PARTS = " in source else ""
    version = "__version__: str\n" if "__version__" in source else ""
    return "\n".join(lines) + "\n\n" + lists + version + "__all__: list[str]\n"


def write_all() -> list[Path]:
    """Write every stub and return their paths."""
    written = []
    for path in sorted(PACKAGE.rglob("__init__.py")):
        if (text := stub(path)) is not None:
            path.with_suffix(".pyi").write_text(text, encoding="utf-8")
            written.append(path.with_suffix(".pyi"))
    return written


if __name__ == "__main__":
    sys.stdout.writelines(f"{path}\n" for path in write_all())
