"""Check that every relative link and image of README.md, CONTRIBUTING.md and docs/ leads to a file and a heading."""

import re
from pathlib import Path

import pytest
from markdown import Markdown
from pages import DOCS, FENCE, ROOT, links, pages

SITE = re.compile(r"(\.\./)*api/[\w.]+\.md#captioning")  # anchors that mkdocstrings writes: test_site.py checks them


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and the site both write them."""
    markdown = Markdown(extensions=["toc", "attr_list"])
    markdown.convert(FENCE.sub("", text))
    found, tokens = set(), list(markdown.toc_tokens)
    while tokens:
        token = tokens.pop()
        found.add(token["id"])
        tokens += token["children"]
    return found


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    faults = []
    for target in links(page):
        if re.match(r"[a-z]+:", target) or SITE.match(target):
            continue
        name, _, anchor = target.partition("#")
        path = page if not name else (page.parent / name).resolve()
        if not path.exists():
            faults.append(f"no file {target}")
        elif anchor and path.suffix == ".md" and anchor not in anchors(path.read_text(encoding="utf-8")):
            faults.append(f"no heading {target}")
    assert not faults


def test_a_page_of_the_site_is_reached_from_its_menu():
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    named = set(re.findall(r"[\w./-]+\.md", menu))
    assert named == {str(page.relative_to(DOCS)) for page in pages() if page.is_relative_to(DOCS)}


def test_pages_that_the_source_names_exist():
    files = [ROOT / "Makefile", ROOT / "setup.cfg", ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    for folder, endings in {"captioning": ("py", "html", "md", "yaml"), "conf": ("yaml",), "notebooks": ("ipynb", "py"),
                            "docs": ("md", "py"), "tests": ("py",)}.items():  # fmt: skip
        files += [path for ending in endings for path in (ROOT / folder).rglob(f"*.{ending}")]
    named = {(path, name) for path in files if path != Path(__file__)
             for name in re.findall(r"\bdocs/[\w./-]+\.md\b", path.read_text(encoding="utf-8"))}  # fmt: skip
    assert named and not [(str(path), name) for path, name in named if not (ROOT / name).is_file()]


def test_the_test_finds_headings():
    assert anchors("# A b\n\n## Hard attention (`hard`)\n\n```\n# no\n```\n") == {"a-b", "hard-attention-hard"}
