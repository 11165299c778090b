"""Read the pages of the documentation: their fenced blocks, the commands in them, and their links."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FENCE = re.compile(r"^( *)(`{3,})(\w*)[^\n]*\n(.*?)^\1\2 *$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]+)\)")
# A block whose first line is "# my_parts.py" or "# my_conf/model/scorer/mine.yaml" is the content of that file. hydra's
# "# @package _global_" must be the first line, so the name may follow it.
FILE_NAME = re.compile(r"(?:# @package \S+\n)?#\s+([\w./-]+\.(?:py|yaml|csv|json))(?:\s|$)")


class Block(NamedTuple):
    """A fenced block: its page, the line of its first line of text, its language and its text."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def file(self) -> str | None:
        """Name of the file that the block is the content of."""
        match = FILE_NAME.match(self.text)
        return match[1] if match else None


SHELLS = ("bash", "console")


class ShellCommand(NamedTuple):
    """A command line of a bash or console block: where it is, its text, and its words without assignments in front."""

    where: str
    text: str
    words: list[str]


def pages() -> list[Path]:
    """Return README.md, CONTRIBUTING.md and every page of docs/ that is on the site."""
    found = sorted(path for path in DOCS.rglob("*.md") if "cards" not in path.parts)
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *found]


def blocks(page: Path) -> list[Block]:
    """Return a page's fenced blocks in their order."""
    source = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(source):
        text = "\n".join(line.removeprefix(match[1]) for line in match[4].splitlines()) + "\n"
        found.append(Block(page, source.count("\n", 0, match.start()) + 2, match[3], text))
    return found


def commands(block: Block) -> list[ShellCommand]:
    """Return the commands of a bash block, or those after `$` of a console block; a backslash continues a line."""
    found, text, first = [], "", 0
    for number, line in enumerate(block.text.splitlines()):
        if block.language == "console" and not text:
            if not line.startswith("$ "):
                continue
            line = line.removeprefix("$ ")
        first = first if text else number
        if line.endswith("\\"):
            text += line[:-1] + " "
            continue
        text += line
        words = shlex.split(text, comments=True)
        while words and re.match(r"[A-Z_]+=", words[0]):
            words.pop(0)
        if words:
            found.append(ShellCommand(f"{block.page.relative_to(ROOT)}:{block.line + first}", text.strip(), words))
        text = ""
    assert not text, f"{block.where}: the block ends in a backslash"
    return found


def prose(page: Path) -> str:
    """Return a page without its fenced blocks and code."""
    return re.sub(r"`[^`\n]*`", "`x`", FENCE.sub("", page.read_text(encoding="utf-8")))


def links(page: Path) -> Iterator[str]:
    """Yield the targets of a page's links and images."""
    yield from (match[3] for match in LINK.finditer(FENCE.sub("", page.read_text(encoding="utf-8"))))
    yield from re.findall(r"<img[^>]* src=\"([^\"]+)\"", prose(page))
