"""Check a data set for faults: `captioning-audit data=flickr8k data.root=DIR output=DIR`."""

import inspect
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from captioning.config import AuditConfig, build, entry_point
from captioning.errors import ConfigError


def read_all(reader: Mapping[str, Any], faults: AbstractContextManager) -> list[Any]:
    """Return the records of a data set, and collect its faults.

    A reader of a user's own need not have the argument `faults`. It stops at its first fault, which is collected then.

    Args:
        reader: the settings of the reader, with its `_target_`.
        faults: collects the faults, see `captioning.data.readers`.

    Raises:
        ConfigError: the reader does not return records.
    """
    from captioning.data import Record

    given = inspect.signature(build({**reader, "_partial_": True})).parameters
    found: Any = []
    if any(name == "faults" or each.kind is each.VAR_KEYWORD for name, each in given.items()):
        found = build(reader, faults=faults)
    else:
        with faults:
            found = build(reader)
    records = list(found) if hasattr(found, "__iter__") else [found]
    wrong = next((each for each in records if not isinstance(each, Record)), None)
    if wrong is not None:
        raise ConfigError(
            f"captioning-audit checks images with captions, but the reader {reader['_target_']} returns "
            f"{type(wrong).__name__}: it must return a list of captioning.data.Record, or choose another data=NAME"
        )
    return records


def audit(config: dict[str, Any]) -> None:
    """Print the size of every split and the findings, with a few examples each; write audit.json with all of them."""
    from captioning.data import Faults, audit_records, audit_table
    from captioning.io import make_folder, write_json
    from captioning.text import make_tokenizer

    data, faults, output = config["data"], Faults(), Path(config["output"])
    records = read_all(data["reader"], faults)
    tokenizer = make_tokenizer(data["tokenizer"])
    tokenizer.fit(caption for record in records if record.split == "train" for caption in record.captions)
    limits = {"min_count": data["min_count"], "max_distance": config["max_distance"]}
    options = {"workers": config["workers"], "noted": faults.noted, "tokenizer": tokenizer}
    report = audit_records(records, faults.messages, max_length=data["max_length"], **limits, **options)
    write_json(make_folder(output) / "audit.json", {"data": data["name"], "root": data["root"], **limits, **report})
    print(audit_table(report, title=f"{data['name']} in {data['root']}", examples=config["examples"], **limits))
    print(f"\nall findings: {output / 'audit.json'}")


main = entry_point("audit", AuditConfig, audit, plain=["data.root"])

if __name__ == "__main__":
    main()
