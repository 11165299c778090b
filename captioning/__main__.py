"""List the commands, and start one of them: `captioning train …` is `captioning-train …`."""

import difflib
import importlib
import sys

from captioning import __version__
from captioning.config import open_closed_streams, quiet_pipe, read_heading

GROUPS = {
    "Use a model": ["caption", "demo", "answer", "sample"],
    "Prepare data": ["prepare", "audit"],
    "Train a model": ["train", "distill"],
    "Evaluate a model": ["evaluate", "evaluate_answers", "score", "compare", "ground", "report"],
    "Publish a model": ["export"],
}
COMMANDS = [name for names in GROUPS.values() for name in names]


def overview() -> str:
    """Return the list of commands, with the purpose of each."""
    lines = ["usage: captioning COMMAND [ARGUMENTS]", "       captioning COMMAND --help"]
    for title, names in GROUPS.items():
        lines += ["", f"{title}:"]
        lines += [f"  {name.replace('_', '-'):<18}{read_heading(name).purpose}" for name in names]
    lines += ["", "captioning COMMAND and captioning-COMMAND are the same. captioning --version prints the version."]
    return "\n".join(lines)


def main() -> None:
    """Start the command that the first argument names, with all other arguments."""
    open_closed_streams()
    with quiet_pipe():
        first, *others = sys.argv[1:] or ["--help"]
        if first in ("-h", "--help", "help"):
            print(overview())
            return
        if first == "--version":
            print(f"captioning {__version__}")
            return
    name = first.replace("-", "_")
    if name not in COMMANDS:
        nearest = difflib.get_close_matches(name, COMMANDS, n=1)
        advice = f"did you mean {nearest[0].replace('_', '-')}?" if nearest else "captioning --help lists all commands"
        sys.exit(f"error: captioning has no command {first}: {advice}")
    sys.argv = [f"captioning-{name.replace('_', '-')}", *others]
    importlib.import_module(f"captioning.{name}").main()


if __name__ == "__main__":
    main()
