"""Check that error messages are useful: each names the file or key at fault, and says what to type.

    python tests/helpers/error_messages.py [FILE OR FOLDER ...]    # prints the offenders, grouped by folder

`templates` reads the messages of the source: of every error of `captioning.errors` that is constructed. `Recorder`
collects the messages of the errors that a test run constructs. Both are checked by the rules of `offences`.
"""

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "captioning"
sys.path[:0] = [path for path in (str(ROOT), str(ROOT / "tests")) if path not in sys.path]

from test_prose import Text, findings  # noqa: E402

ERRORS = {"CaptioningError", "ConfigError", "DataError", "CheckpointError", "TrainingError", "ToolError"}
# (file, beginning of the template) -> why a rule cannot apply to it.
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("captioning/data/pictures.py", "the file "): "the demo receives an image without its name",
}

# What a message can name: a file or folder, a key, an option, or anything in quotes.
NAMES = re.compile(
    r"[\w.~-]*/[\w.{-]"  # a path
    r"|\w\.(?:json|csv|yaml|ckpt|pt|npz|npy|txt|png|jpe?g|gif|mp4|md|html|py|safetensors|zip|tsv|svg|pdf)\b"
    r"|[A-Za-z_][\w./@]*=|\b[a-z_]+\.(?:[a-z_]+\b|\*)|--[a-z]|'[^']+'|\"[^\"]+\"|`[^`]+`|“[^”]+”"
    r"|\b[a-z]+_[a-z_]+\b|^\w+(?:\[\d+\])? must\b"  # a key of two words, such as batch_size; seed must be …
)
VERBS = re.findall(
    r"\w+",
    "add ask build call change check choose close compare convert copy correct decode delete download draw drop enter"
    " evaluate export extract fix free give import increase install keep leave list load lower make move name omit"
    " open pass pick prepare put quote raise read reduce remove rename repair replace resume retrain retry run save"
    " score see select send set shorten shrink split start stop store take train try turn type unpack update upgrade"
    " use wait write",
)
REMEDY = re.compile(
    rf"(?:^|[:;,.(] |\b(?:or|and|then|first|instead|please) )(?:{'|'.join(VERBS)})\b"  # an instruction
    rf"|\b[Tt]o (?:\w+ ){{1,8}}?\w+[,:] (?:{'|'.join(VERBS)}|\S*[=`])"  # To leave it out: skip_unreadable=true
    r"|\bdid you mean\b|\bmust\b|\bone of\b|\bat (?:least|most)\b|\ballowed\b"  # the nearest name; the allowed values
    r"|\bcaptioning-[a-z]|\bpip install\b|\bneeds? (?:a |an |the |its |either )?[\w.\[\]/]*=",
    re.IGNORECASE,
)
# A placeholder of this name holds what to do, and one of an error of ours ends with it.
ADVICE = re.compile(r"advice|remedy|hint|nearest|guess|instead|what_to_do")
INTERNAL = re.compile(
    r"Traceback|\bFile \"|, line \d+, in |<class '|<function |<module '| object at 0x|PosixPath\(|\bNone\b|\bNoneType\b"
)
MOST_CHARACTERS = 420  # of a template without its placeholders, or of a message without its paths and its lists


class Message(NamedTuple):
    """A message, or its template with the placeholders `{…}`, and where it is raised."""

    path: str  # relative to the repository
    line: int
    text: str
    complete: bool = True  # False: a template, whose placeholders may hold more
    advised: bool = False  # a placeholder holds what to do
    ours: bool = False  # a placeholder holds the message of another error of ours, which names and advises

    @property
    def where(self) -> str:
        """Return file and line."""
        return f"{self.path}:{self.line}"


def offences(message: Message) -> Iterator[str]:
    """Yield what is wrong with a message."""
    text = message.text
    placeholder = not message.complete and re.search(r"\{(?!len\(|sum\(|count|number)[^{}]*\}", text)
    if not (NAMES.search(re.sub(r"\{[^{}]*\}", "", text)) or placeholder or message.ours):
        yield "names no file or key"
    if not (REMEDY.search(text) or message.advised or message.ours):
        yield "does not say what to do"
    first, *others = text.splitlines() or [""]
    if others and not all(re.match(r"\s+\S|- ", line) for line in others if line):
        yield "is more than one line, and no list"
    if INTERNAL.search(text):
        yield f"talks of Python ({INTERNAL.search(text)[0].strip()})"
    if text != text.strip() or (re.search(r"[:;,]$", text) and not others):
        yield "ends in the middle"
    if len(re.sub(r"\{[^{}]*\}|\S*/\S*|\[[^\]]*\]", "", first)) > MOST_CHARACTERS and "; " not in first:
        yield f"is longer than {MOST_CHARACTERS} characters"
    prose = text if not message.complete else re.sub(r"'[^']*'|\S*/\S*|\b[\w@]+(?:\.\w+)+|\b\w+=\S*", "x", text)
    for finding in findings(Text(ROOT / message.path, message.line, prose, "message")):
        yield finding.split(": ", 1)[1].partition(": …")[0]


# Templates of the source


def templates(path: Path) -> Iterator[Message]:
    """Yield the templates of the errors that a file constructs, except those whose text another function makes."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    yield from _in_node(tree, path, {}, frozenset())


def _in_node(node: ast.AST, path: Path, assigned: dict[str, ast.expr], ours: frozenset[str]) -> Iterator[Message]:
    """Walk a tree; `assigned`: the texts of local variables; `ours`: the variables that hold an error of ours."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        assigned = assigned | {
            each.targets[0].id: each.value
            for each in ast.walk(node)
            if isinstance(each, ast.Assign) and isinstance(each.targets[0], ast.Name)
        }
    if isinstance(node, ast.ExceptHandler) and node.name:
        names = {each.id for each in ast.walk(node.type) if isinstance(each, ast.Name)}
        ours = ours | {node.name} if names and names <= ERRORS else ours - {node.name}
    if isinstance(node, ast.Call) and node.args and _is_error(node.func):
        text = _template(node.args[0], assigned)
        if text and re.search(r"[A-Za-z]{3}", re.sub(r"\{[^{}]*\}", "", text)):
            names = {each.id for part in ast.walk(node.args[0]) for each in [part] if isinstance(each, ast.Name)}
            advised = any(ADVICE.search(each) for each in re.findall(r"\{([^{}]*)\}", text))
            yield Message(str(path.relative_to(ROOT)), node.lineno, text, False, advised, bool(names & ours))
    for child in ast.iter_child_nodes(node):
        yield from _in_node(child, path, assigned, ours)


def _is_error(function: ast.expr) -> bool:
    """Return whether a call constructs an error of ours, `type(error)(…)` included."""
    if isinstance(function, ast.Name | ast.Attribute):
        return (function.id if isinstance(function, ast.Name) else function.attr) in ERRORS
    return isinstance(function, ast.Call) and isinstance(function.func, ast.Name) and function.func.id == "type"


def _template(node: ast.expr, assigned: dict[str, ast.expr]) -> str:
    """Return the text of an expression, with `{code}` for what is only known when it runs."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_template(part, assigned) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return _template(node.value, {}) if isinstance(node.value, ast.IfExp) else _code(node.value)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _template(node.left, assigned) + _template(node.right, assigned)
    if isinstance(node, ast.IfExp):  # the longer choice stands for both
        return max(_template(node.body, assigned), _template(node.orelse, assigned), key=len)
    if isinstance(node, ast.Name) and node.id in assigned:
        return _template(assigned[node.id], {key: value for key, value in assigned.items() if key != node.id})
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
        return _constants().get(ast.unparse(node.func.value), _code(node))
    return _constants().get(ast.unparse(node), _code(node))


def _code(node: ast.expr) -> str:
    return "{" + re.sub(r"[{}]", "", ast.unparse(node)) + "}"


def _constants(found: dict[str, str] = {}) -> dict[str, str]:  # noqa: B006
    """Return the texts that are constants of the package's modules, by name."""
    if not found:
        for path in PACKAGE.rglob("*.py"):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                    text = node.value
                    if isinstance(text, ast.Constant) and isinstance(text.value, str):
                        found[node.targets[0].id] = text.value
    return found


# Messages of a test run


class Recorder:
    """Collect every error of ours that the package constructs.

    A message that becomes a part of a longer one in the same test is dropped. `start` replaces the constructor of the
    errors until `stop`; `reset` is called between tests.
    """

    def __init__(self) -> None:
        self.found: set[Message] = set()
        self.here: list[Message] = []  # of the current test

    def start(self) -> None:
        """Replace the constructor."""
        from captioning.errors import CaptioningError

        recorder = self
        self.former = CaptioningError.__init__

        def record(error: CaptioningError, *arguments: object) -> None:
            Exception.__init__(error, *arguments)
            recorder.add(str(error), sys._getframe(1))

        CaptioningError.__init__ = record  # type: ignore[method-assign]

    def stop(self) -> None:
        """Restore the constructor."""
        from captioning.errors import CaptioningError

        CaptioningError.__init__ = self.former  # type: ignore[method-assign]

    def add(self, text: str, frame: FrameType) -> None:
        """Record one message, if a file of the package constructs it."""
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(PACKAGE):
            self.here = [each for each in self.here if each.text not in text]
            self.here.append(Message(str(path.relative_to(ROOT)), frame.f_lineno, text))

    def reset(self) -> None:
        """Keep the messages of the current test, and start with the next one."""
        self.found |= set(self.here)
        self.here = []


def offenders(messages: Sequence[Message]) -> list[str]:
    """Return one line per message that breaks a rule, grouped by folder."""
    found = []
    for message in sorted(set(messages)):
        wrong = list(dict.fromkeys(offences(message)))
        if any(message.path == path and message.text.startswith(start) for path, start in EXCEPTIONS):
            continue
        if wrong:
            found.append(f"{message.where}: {'; '.join(wrong)}\n    {message.text}")
    return found


def main(arguments: Sequence[str]) -> int:
    """Print the offenders in the given files and folders, or in the whole package; return 1 if there are any."""
    chosen = [Path(each).resolve() for each in arguments] or [PACKAGE]
    paths = [path for path in sorted(PACKAGE.rglob("*.py")) if any(path.is_relative_to(one) for one in chosen)]
    found = offenders([message for path in paths for message in templates(path)])
    groups: dict[str, list[str]] = defaultdict(list)
    for each in found:
        groups[each.split(":")[0].rpartition("/")[0]].append(each)
    for folder, lines in groups.items():
        print(f"== {folder}: {len(lines)}")
        print("\n".join(lines))
    print(f"{len(found)} offenders of {sum(len(list(templates(path))) for path in paths)} messages")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
