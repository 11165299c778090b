"""Accept plain arguments and free text on a command line beside hydra's overrides."""

import re
import sys
from collections.abc import Callable
from pathlib import Path


def positional(main: Callable[[], None], *keys: str) -> Callable[[], None]:
    """The command with its first plain arguments taken for `key=argument`; what hydra would parse in them is quoted."""

    def run() -> None:
        left = list(keys)
        for place, argument in enumerate(sys.argv[1:], start=1):
            plain = "=" not in argument or Path(argument).exists()
            if left and plain and not argument.startswith("-"):
                quoted = argument.replace("\\", "\\\\").replace("'", "\\'")
                sys.argv[place] = f"{left.pop(0)}='{quoted}'"
        main()

    return run


def verbatim(main: Callable[[], None], *keys: str) -> Callable[[], None]:
    """The command with the values of some keys taken as they stand: free text, that hydra would parse."""

    def run() -> None:
        for place, argument in enumerate(sys.argv[1:], start=1):
            key, _, value = argument.partition("=")
            if key in keys:
                # Within quotes, hydra takes backslashes as they are but for those before a quote.
                value = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + found[2].replace("'", r"\'"), value)
                sys.argv[place] = f"{key}='{value.replace('${', chr(92) + '${')}'"
        main()

    return run
