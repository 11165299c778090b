"""Check that prose is plain: documentation, docstrings, comments, messages, YAML comments, notebooks and web pages.

    python tests/test_prose.py [FILE OR FOLDER ...]     # prints the findings, one per line

`FORBIDDEN` lists phrases that were hard to understand, each with what to write instead. Code in backticks and fenced
blocks is not prose and is left out.
"""

import ast
import io
import json
import re
import sys
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
UNITS = (
    "image|word|caption|picture|row|step|batch|epoch|run|seed|core|question|file|folder|photo|second|minute|hour"
    "|character|device|process|group|split|beam|token|location|place|line|unit|gate|layer|class|category|reference"
    "|sample|job|checkpoint|part|recipe|experiment|data set|kind"
)
COUNTED = (
    "once|twice|times|\\d+|one|two|three|rows?|lines?|figures?|panels?|words?|bits?|seconds?|minutes?|columns?"
    "|vectors?|numbers?|lists?|entry|entries|places?|locations?|seeds?"
)
NUMBER_OF = "\\d+|several|many|few|two|three|four|five|all|as many"

# (pattern, what to write instead); a space stands for any white space, a line break included.
FORBIDDEN = [
    (rf"(?<!/)\b(?:{COUNTED}) an? (?:{UNITS})\b(?! (?:of|at) a time)", "per: once per image, one row per word"),
    (rf"\b(?:{NUMBER_OF}) (?:captions|samples|scores|files|steps|images|features) an? (?:{UNITS})\b", "per"),
    (r"\b(?:is|are|was|were|be|been|being|not|it|them|unless|as|than|nothing) told\b", "who says what to whom"),
    (r"\btold (?:of|by|apart|in|with|otherwise|from|which|what)\b", "reported, distinguished"),
    (r"\btells? (?:of|apart|whether|them apart|it apart)\b", "describes, distinguishes, returns whether"),
    (r"\b(?:held|holds?|holding) (?:[^\s.]+ ){0,4}against\b", "compared with"),
    (r"\b(?:lies?|lay|lying) (?:in|over|on|beside|at|within|under|there|where|ready)\b", "is in, is stored in"),
    (r"\bwhere (?:\w+ ){1,6}lies?\b", "where … is"),
    (r"\b(?:un)?heard\b", "ignored, used"),
    (r"\bknows? (?:no|of no|nothing of)\b", "does not depend on"),
    (r"\bgo(?:es|ing)? on\b|\bwent on\b", "continues, resumes"),
    (r"\b(?:made|written|drawn|read|run|makes?) (?:\w+ ){0,2}(?:anew)\b|\banew\b", "again; rewrites"),
    (r"\b(?:is|are|was|a run|runs|it|them) made again\b|\bmakes? (?:a|the) run again\b", "reproduced"),
    (r"\bleaves? (?:behind|x{3,}|[\w}]+\.(?:json|csv|html|ckpt|npz))", "writes"),
    (r"\b(?:spoken|speaks?) of\b|\bis said\b", "described"),
    (r"\b(?:None|0|1|True|False) else\b", "otherwise"),
    (r"\b(?:be|been|are|is) had\b|\bhad again\b", "obtained, downloaded"),
    (r"\b(?:ask|asks|asked) of\b", "required"),
    (r"\bwants\b", "needs, requires"),
    (r"\bin the place of\b", "instead of"),
    (r"(?<!decimal )(?<!tags=)\bplaces\b", "location"),
    (r"\b(?:one|each|every|its|any|further|same|hard|missing|grid) place\b", "location"),
    (r"\bpictures?\b", "image; photo where it is the user's own"),
    (r"(?<![\w.…*/)\]}-])[−-]?\.\d{2,}\b", "a leading zero: 0.219"),
    (r"\b(?:hitherto|thereof|wherein|whereof|thereby|therein|whence|thence|wherefore|whereby)\b", "plain words"),
    (r"\bwhat (?:is|was) (?:\w+) is (?:\w+)\b", "a noun"),
    (r"\ball (?:that|it takes)\b(?! (?:is|are|you) )", "everything … ; name the things"),
    (r"\bof (?:which|whom) (?:are|is|there)\b", "two sentences"),
    (r"\blaid (?:back|over)\b", "mapped back, drawn over"),
    (r"\b(?:whatever (?:it|they|the|a|an|ends|is|else))\b", "name the cases"),
    (r"\bbut for\b", "except for"),
    (r"\bof (?:one|its|their|your|his) own's\b", "plain words"),
    (r"\btakes? (?:its|their|the) place\b", "replaces"),
    (r"\b(?:is|are) looked at\b|\b(?:is|are) to be (?:had|found)\b|\bat hand\b", "is used, is available"),
    (r"\bgo(?:es)? by\b|\bbroke(?:n)? off\b|\bin turns\b|\bcomes? along\b", "uses, stopped"),
    (r"\b(?:written|made|spelled) otherwise\b", "differently"),
    (r"\bof some \d|\bis of the\b|\bsays? of\b|\bmakes? of\b", "plain words"),
    (r"\bof one's own\b|\beach of its own\b|\bas long can\b|\bwhose like\b", "plain words"),
    (r"\b(?:learnt|colours?|coloured|behaviours?|optimis\w+|tokenis\w+|normalis\w+|initialis\w+|grey|centres?|neighbours?"
     r"|labelled|modelling|licence|regularis\w+|summaris\w+|recognis\w+|favour\w*)\b", "American spelling"),
]  # fmt: skip
PATTERNS = [
    (re.compile(re.sub(r"(?<!decimal) ", r"\\s+", text), re.IGNORECASE), instead) for text, instead in FORBIDDEN
]
# A function's docstring begins with a verb in the imperative.
NOT_A_VERB = set(
    re.findall(
        r"\w+",
        "the a an what whether how where when all of those that which its in on by as for no names one each every whose"
        " this these it if from with and or to at into not none true false nothing",
    )
)
ENDS_IN_S = set(re.findall(r"\w+", "pass process express address compress guess miss access focus discuss dismiss"))


class Text(NamedTuple):
    """A piece of prose and where it begins; kind: "docstring", "comment", "message" or "page"."""

    path: Path
    line: int
    text: str
    kind: str = "page"


def python_texts(path: Path, source: str) -> Iterator[Text]:
    """Yield the docstrings, comments and messages of a Python file."""
    docstrings, nodes = set(), list(ast.walk(ast.parse(source)))
    for node in nodes:
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                docstrings.add(id(first.value))
                yield Text(path, first.lineno, first.value.value, "docstring")
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
            yield from _message(path, node.lineno, "".join(parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from _message(path, node.lineno, node.value)
    yield from _comments(path, source)


def _message(path: Path, line: int, text: str) -> Iterator[Text]:
    """Yield a string that reads like a sentence: three words, no markup or code of another language."""
    if len(re.findall(r"[A-Za-z]{2,}", text)) >= 3 and " " in text:
        yield Text(path, line, text, "message")


def _comments(path: Path, source: str) -> Iterator[Text]:
    """Yield comments; consecutive lines of comment are one text."""
    block: list[str] = []
    start = last = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if block and token.start[0] != last + 1:
                yield Text(path, start, "\n".join(block), "comment")
                block = []
            start = start if block else token.start[0]
            last = token.start[0]
            block.append(token.string.lstrip("# "))
    if block:
        yield Text(path, start, "\n".join(block), "comment")


def _page(path: Path, source: str) -> Iterator[Text]:
    """Yield a Markdown page without its fenced and indented code."""
    source = re.sub(r"^( *)(```|~~~).*?^\1\2", lambda block: "\n" * block[0].count("\n"), source, flags=re.M | re.S)
    yield Text(path, 1, re.sub(r"^ {4,}[^\s*\-\d].*$", "", source, flags=re.MULTILINE))


def texts(path: Path) -> Iterator[Text]:
    """Yield the prose of one file."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        yield from python_texts(path, source)
    elif path.suffix == ".ipynb":
        for cell in json.loads(source)["cells"]:
            text = "".join(cell["source"])
            yield from (
                _page(path, text)
                if cell["cell_type"] == "markdown"
                else _comments(path, re.sub("(?m)^[%!].*", "", text))
            )
    elif path.suffix in (".yaml", ".cfg", ".toml") or path.name == "Makefile":
        for number, line in enumerate(source.splitlines(), 1):
            if match := re.search(r"(?:^|\s)#\s?(.+)$", line):
                yield Text(path, number, match[1], "comment")
    elif path.suffix == ".html":
        yield Text(
            path,
            1,
            re.sub(r"\{[{%#].*?[}%#]\}|<(?:script|style).*?</(?:script|style)>|<[^>]*>", " ", source, flags=re.S),
        )
    else:
        yield from _page(path, source)


def findings(text: Text) -> Iterator[str]:
    """Yield one line per forbidden phrase in a text: where it is, the phrase, and what to write instead."""
    prose = re.sub(r"`[^`\n]*`|https?://\S+", lambda code: "x" * len(code[0]), text.text)
    prose = re.sub(r"\b\w*(?:_\w+)+\b|\b\w+(?:\.\w+)*\(", lambda name: "x" * len(name[0]), prose)  # names of the code
    prose = re.sub(r"(?m)^ +\w+(?:, \w+)*: ", lambda names: "x" * len(names[0]), prose)  # arguments and fields
    for pattern, instead in PATTERNS:
        for match in pattern.finditer(prose):
            line = text.line + text.text.count("\n", 0, match.start())
            phrase = " ".join(text.text[max(0, match.start() - 25) : match.end() + 25].split())
            yield f"{text.path.relative_to(ROOT)}:{line}: {match[0].split()!r:.60}: {instead}: …{phrase}…"


def first_words(path: Path) -> Iterator[str]:
    """Yield functions of a Python file whose docstring does not begin with a verb in the imperative."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.FunctionDef) or (doc := ast.get_docstring(node)) is None:
            continue
        if any("property" in ast.unparse(decorator) for decorator in node.decorator_list):
            continue
        word = re.match(r"[^\s,.:]*", doc)[0]
        third_person = word.endswith("s") and word.lower() not in ENDS_IN_S
        if word.lower() in NOT_A_VERB or third_person or not re.match(r"[A-Z][a-z-]+$", word):
            where = f"{path.relative_to(ROOT)}:{node.lineno}: {node.name}"
            yield f"{where}: begin with a verb (Return …): {doc.splitlines()[0][:70]}"


def pages() -> list[Path]:
    """Return every file whose prose is checked."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "Makefile", ROOT / "setup.cfg"]
    for folder, patterns in {
        "captioning": ["*.py", "*.html", "*.md", "*.yaml"],
        "conf": ["*.yaml"],
        "data": ["README.md"],
        "docs": ["*.md", "*.py"],
        "notebooks": ["*.ipynb", "*.py"],
    }.items():
        for pattern in patterns:
            found += sorted(path for path in (ROOT / folder).rglob(pattern) if ".ipynb_checkpoints" not in path.parts)
    return [path for path in dict.fromkeys(found) if not re.match(r"data/(?!README)", str(path.relative_to(ROOT)))]


def check(path: Path) -> list[str]:
    """Return the findings of one file."""
    found = [finding for text in texts(path) for finding in findings(text)]
    if path.suffix == ".py" and path.is_relative_to(ROOT / "captioning"):
        found += first_words(path)
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("path", pages(), ids=lambda path: str(path.relative_to(ROOT)))
def test_prose_is_plain(path):
    assert not check(path)


RIDDLES = """
a panel a word | once an image | a row a word | bits a character | 12 words a caption | settings are told | it tells of
a run | held against the best |
holds stored features against their sums | it lies in the folder | where its captions lie | a
rate would not be heard | it knows no model | the run goes on | leaves `scores.json` | the lengths; None else | the
mean is .219 | the picture | the places of the grid | all that a file has
"""
PLAIN = """
one panel per word | It captions a photo. | `open_picture` opens it | Version 0.2.0 | three decimal places | a value in
`[0, .5]` | held-out images | Wait a second.
"""


@pytest.mark.parametrize("phrase", RIDDLES.split("|"))
def test_riddles_are_found(phrase):
    assert list(findings(Text(ROOT / "README.md", 1, phrase)))


@pytest.mark.parametrize("phrase", PLAIN.split("|"))
def test_plain_sentences_are_not_found(phrase):
    assert not list(findings(Text(ROOT / "README.md", 1, phrase)))


def main(arguments: Sequence[str]) -> int:
    """Print the findings in the given files and folders, or in everything; return 1 if there are any."""
    chosen = [Path(argument).resolve() for argument in arguments] or [ROOT]
    found = [each for path in pages() if any(path.is_relative_to(one) for one in chosen) for each in check(path)]
    sys.stdout.writelines(f"{each}\n" for each in found)
    print(f"{len(found)} findings")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
