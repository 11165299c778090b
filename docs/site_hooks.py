"""Adapt pages for the site: include the changelog and the contributing guide, and drop links to files outside docs/.

MkDocs calls `on_startup` and `on_page_markdown`, because `mkdocs.yml` lists this file under `hooks`.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
# The site shows a file of the repository's root on these pages.
INCLUDED = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
CODE = re.compile(r"^( *)(`{3,}).*?^\1\2[ ]*$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]+)\)")


def on_startup(**_: Any) -> None:
    """Keep jieba quiet: the search of the site uses it where it is installed, and it writes its progress to stderr."""
    try:
        import jieba
    except ImportError:
        return
    jieba.setLogLevel("WARNING")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Return the Markdown that the site shows for a page."""
    included = INCLUDED.get(page.file.src_uri)
    if included:
        markdown = (ROOT / included).read_text(encoding="utf-8")
    folder = "" if included else posixpath.dirname(f"docs/{page.file.src_uri}")
    shown_from = posixpath.dirname(f"docs/{page.file.src_uri}")
    return rewrite_links(markdown, folder, shown_from)


def rewrite_links(markdown: str, folder: str, shown_from: str) -> str:
    """Return Markdown whose links work on the site; a link to a file outside docs/ becomes the file's name.

    Args:
        folder: that the links are relative to, from the repository's root, such as "docs/parts".
        shown_from: folder of the page that shows them.
    """

    def new(link: re.Match) -> str:
        text, target = link.groups()
        path, hash_, anchor = target.partition("#")
        if not path or re.match(r"[a-z]+:", target):
            return link[0]
        path = posixpath.normpath(posixpath.join(folder, path))
        if path.startswith("docs/"):
            return f"[{text}]({posixpath.relpath(path, shown_from)}{hash_}{anchor})"
        return text if path in text else f"{text} (`{path}`)"

    parts, at = [], 0
    for code in CODE.finditer(markdown):  # a link's text may have code in it, but no link is inside code
        if code[0].startswith("`") and not code[0].startswith("```"):
            continue
        parts += [LINK.sub(new, markdown[at : code.start()]), code[0]]
        at = code.end()
    return "".join(parts) + LINK.sub(new, markdown[at:])
