"""Print the results in one file, or compare those in two files: `compare.py [OLD.json] NEW.json`.

`ratio` is new / old. Names that only one file has are printed, too. For files of different machines there is a warning:
then only rival_ratio and floor_ratio can be compared, because each is measured within one run.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

COLUMNS = ("rival_ratio", "floor_ratio", "peak_MiB")


def read(path: Path) -> dict[str, Any]:
    """Read a file of results; end the program with a one-line error if it is not one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content["results"].values()
    except OSError as error:
        sys.exit(f"error: {path}: {error.strerror}. Create it with `make bench`")
    except (ValueError, KeyError, TypeError, AttributeError):
        sys.exit(f"error: {path}: this is not a file of `make bench`")
    return content


def table(new: dict[str, dict], old: dict[str, dict] | None = None) -> str:
    """Return one line per name: value and unit (old, new and their ratio), then the other entries of `new`."""
    names = list(new) if old is None else list(dict.fromkeys([*old, *new]))
    head = ["", *([] if old is None else ["old"]), "value", "unit", *([] if old is None else ["ratio"]), *COLUMNS]
    lines = [head, *(_line(name, new.get(name, {}), None if old is None else old.get(name, {})) for name in names)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    text = [head.index("unit"), 0]
    return "\n".join(
        "  ".join(cell.ljust(width) if at in text else cell.rjust(width) for at, (cell, width) in
                  enumerate(zip(line, widths, strict=True))).rstrip()
        for line in lines
    )  # fmt: skip


def _line(name: str, new: dict[str, Any], old: dict[str, Any] | None) -> list[str]:
    line = [name, _number(new.get("value")), new.get("unit") or (old or {}).get("unit") or ""]
    if old is not None:
        both = new.get("value") and old.get("value")
        line.insert(1, _number(old.get("value")))
        line.append(_number(new["value"] / old["value"] if both else None))
    return line + [_number(new.get(column)) for column in COLUMNS]


def _number(value: float | None) -> str:
    """Format a number with four digits and without an exponent."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="results of `make bench`: [OLD] NEW")
    files = parser.parse_args(arguments).files
    if len(files) > 2:
        parser.error("one file, or two to compare")
    *old, new = map(read, files)
    print(table(new["results"], old[0]["results"] if old else None))
    for name, content in zip(("old", "new") if old else ("",), [*old, new], strict=True):
        machine = ", ".join(f"{key} {value}" for key, value in content.get("machine", {}).items() if value)
        print(f"{name} {machine}; commit {str(content.get('commit'))[:12]}".strip())
    if old and old[0].get("machine") != new.get("machine"):
        print("warning: the machines or numbers of threads differ: compare only rival_ratio and floor_ratio")


if __name__ == "__main__":
    main()
