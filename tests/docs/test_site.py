"""Build the documentation site strictly, and check what is in it: every public name, no request to the network."""

import importlib
import inspect
import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from pages import DOCS, ROOT

PACKAGE = ROOT / "captioning"
FACES = sorted(".".join(path.parent.relative_to(ROOT).parts) for path in PACKAGE.rglob("__init__.py"))


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built as `make docs` builds it."""
    if not find_spec("material") or not find_spec("mkdocstrings_handlers"):
        pytest.skip("MkDocs is not installed: pip install '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=300)
    (folder / "log.txt").write_text(f"{done.returncode}\n{done.stderr}", encoding="utf-8")
    return folder


def public_names(face: str) -> list[str]:
    """Return the public names of a folder of the package."""
    module = importlib.import_module(face)
    listed = getattr(module, "__all__", None)
    if listed is None:
        listed = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == face]
    return [name for name in listed if not name.startswith("_")]


@pytest.mark.slow
def test_the_site_builds_without_a_warning(site):
    status, *lines = (site / "log.txt").read_text(encoding="utf-8").splitlines()
    faults = [line for line in lines if not line.startswith("INFO")]
    assert status == "0" and not faults, "\n".join(faults)
    assert (site / "index.html").is_file() and (site / "search" / "search_index.js").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("face", [*FACES, "captioning.errors"])
def test_every_public_name_is_in_the_api_reference(face, site):
    pages = {path.name: path.read_text(encoding="utf-8") for path in (site / "api").glob("*.html")}
    anchors = {anchor for page in pages.values() for anchor in re.findall(r'id="(captioning[\w.]*)"', page)}
    missing = [name for name in public_names(face) if f"{face}.{name}" not in anchors]
    assert not missing, f"docs/api/ does not show {face}: {missing}"


@pytest.mark.slow
def test_functions_are_shown_with_signature_and_docstring(site):
    page = (site / "api" / "models.html").read_text(encoding="utf-8")
    text = re.sub(r"<[^>]+>", "", page[page.index('id="captioning.models.SoftAttention"') :])
    text = text[: text.index("NoAttention")] if "NoAttention" in text else text
    assert re.search(r"SoftAttention\(\s*feature_size", text) and "Parameters:" in text


@pytest.mark.slow
def test_the_site_loads_nothing_from_the_network(site):
    loaded = re.compile(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"?(https?:)?//", re.IGNORECASE)
    written = {path.relative_to(site): path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    assert not [path for path, text in written.items() if loaded.search(text)]
    styles = [path for path in site.rglob("*.css") if re.search(r"url\(\"?https?:", path.read_text(encoding="utf-8"))]
    assert not styles


@pytest.mark.slow
def test_the_search_index_has_every_page(site):
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    indexed = {entry["location"].partition("#")[0] for entry in index["docs"]}
    written = {str(path.relative_to(site)) for path in site.rglob("*.html")} - {"404.html"}
    assert written == indexed


def documented_functions() -> list[tuple[str, object]]:
    """Return every public function and class of the package, by its name."""
    found = {}
    for face in FACES:
        for name in public_names(face):
            value = getattr(importlib.import_module(face), name)
            if inspect.isroutine(value) or inspect.isclass(value):
                found[f"{face}.{name}"] = value
            if inspect.isclass(value) and value.__module__.startswith("captioning"):
                for member, function in vars(value).items():
                    if inspect.isfunction(function) and not member.startswith("_"):
                        found[f"{face}.{name}.{member}"] = function
    return list(found.items())


def test_docstrings_describe_only_arguments_that_exist():
    faults = []
    for name, value in documented_functions():
        docstring = inspect.cleandoc(value.__doc__ or "") + "\n"
        section = re.search(r"^ *Args:\n((?:[ \t]+\S.*\n|\n)*)", docstring, re.MULTILINE)
        if not section:
            continue
        taken = set(inspect.signature(value).parameters)
        taken |= {"rules"} if "max_length" in taken else set()  # `takes_rules` replaces it by the arguments of `Rules`
        indent = re.match(r" *", section[1])[0]
        for line in re.findall(rf"^{indent}(\S[^:\n]*):(?=\s|$)", section[1], re.MULTILINE):
            named = {word.strip(" *`") for word in line.split(",")}
            faults += [f"{name}: {word}" for word in named if word not in taken]
    assert not faults


def test_the_api_reference_has_a_page_per_folder():
    named = {directive for page in (DOCS / "api").glob("*.md") for directive in
             re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE)}  # fmt: skip
    assert {*FACES, "captioning.errors"} - {"captioning.pretrained"} <= named
