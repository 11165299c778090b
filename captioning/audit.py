"""List everything that is wrong with a data set: `captioning-audit data=flickr8k data.root=DIR output=DIR`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from captioning.config import AuditConfig, build, entry_point

WIDTH = 100  # of an example on the terminal; audit.json has all of all


def audit(config: dict[str, Any]) -> None:
    """Prints numbers of each split and what was found, a few examples each; leaves audit.json with all of it."""
    from captioning.data import Faults, audit_records
    from captioning.io import make_folder, write_json

    data, faults, output = config["data"], Faults(), Path(config["output"])
    records = build(data["reader"], faults=faults)
    limits = {key: data[key] for key in ("min_count", "max_length")}
    limits |= {"max_distance": config["max_distance"]}
    report = audit_records(records, faults.messages, **limits, workers=config["workers"])
    write_json(make_folder(output) / "audit.json", {"data": data["name"], "root": data["root"], **limits, **report})
    print(audit_table(report, title=f"{data['name']} in {data['root']}", examples=config["examples"], **limits))
    print(f"\nall of it: {output / 'audit.json'}")


def audit_table(
    report: Mapping[str, Any], *, title: str, examples: int, min_count: int, max_length: int, max_distance: int
) -> str:
    """The report as plain lines."""
    vocabulary = report["vocabulary"]
    words = f"{vocabulary['words']} words" if vocabulary else "no words: <unk> cannot be told"
    head = ("split", "pictures", "captions", "words", "distinct", "min", "mean", "median", "95 %", "max")
    head += (f"over {max_length}", "<unk> %", "<unk> distinct")
    rows = [head]
    for split, numbers in report["splits"].items():
        lengths = [f"{value:.1f}" if isinstance(value, float) else str(value) for value in numbers["length"].values()]
        share, distinct = numbers["unknown share"], numbers["unknown distinct words"]
        unknown = ("-", "-") if share is None else (f"{100 * share:.2f}", str(distinct))
        sizes = [str(numbers[key]) for key in ("pictures", "captions", "words", "distinct words")]
        rows.append((split, *sizes, *lengths, str(numbers["longer than max_length"]), *unknown))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [title, f"vocabulary of train, words seen {min_count} times or more: {words}", ""]
    lines += ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines += ["", f"findings (near-duplicates: at most {max_distance} of 64 bits apart)"]
    for kind, found in report["findings"].items():
        lines.append(f"  {len(found):6d}  {kind}")
        lines += [f"          {_example(item)}" for item in found[:examples]]
        lines += [f"          … {len(found) - examples} more"] if len(found) > examples > 0 else []
    return "\n".join(lines)


def _example(item: str | Mapping[str, Any]) -> str:
    if isinstance(item, str):
        return item
    if "pictures" in item:
        shown = ", ".join(f"{Path(picture['file']).name} ({picture['split']})" for picture in item["pictures"])
        return _short(f"{shown}; {item['bits']} bits apart")
    name = Path(item["file"]).name + (f" ({item['split']})" if "split" in item else "")
    said = f": {item['caption']!r}" if "caption" in item else ""
    return _short(name + said + (f": {item['reason']}" if "reason" in item else ""))


def _short(text: str) -> str:
    text = text.encode("utf-8", "backslashreplace").decode()  # a file's name may be no text
    return text if len(text) <= WIDTH else text[: WIDTH - 2] + " …"


main = entry_point("audit", AuditConfig, audit)

if __name__ == "__main__":
    main()
