"""Check a data set for faults: `captioning-audit data=flickr8k data.root=DIR output=DIR`."""

from pathlib import Path
from typing import Any

from captioning.config import AuditConfig, build, entry_point


def audit(config: dict[str, Any]) -> None:
    """Print the size of every split and the findings, with a few examples each; write audit.json with all of them."""
    from captioning.data import Faults, audit_records, audit_table
    from captioning.io import make_folder, write_json
    from captioning.text import make_tokenizer

    data, faults, output = config["data"], Faults(), Path(config["output"])
    records = build(data["reader"], faults=faults)
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
