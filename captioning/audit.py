"""Check a data set for faults: `captioning-audit data=flickr8k data.root=DIR output=DIR`."""

from pathlib import Path
from typing import Any

from captioning.config import AuditConfig, build, entry_point


def audit(config: dict[str, Any]) -> None:
    """Print the size of every split and the findings, with a few examples each; write audit.json with all of them."""
    from captioning.data import Faults, audit_records, audit_table, default_length
    from captioning.io import make_folder, write_json
    from captioning.text import make_tokenizer

    data, faults, output = config["data"], Faults(), Path(config["output"])
    records = build(data["reader"], faults=faults)
    limits = {key: data[key] for key in ("min_count", "max_length")}
    training = [caption for record in records if record.split == "train" for caption in record.captions]
    tokenizer = make_tokenizer(data["tokenizer"]).fit(training)
    if limits["max_length"] is None:
        limits["max_length"] = default_length([len(tokenizer.pieces(tokenizer(caption))) for caption in training])
    limits |= {"max_distance": config["max_distance"]}
    report = audit_records(
        records, faults.messages, **limits, workers=config["workers"], noted=faults.noted, tokenizer=tokenizer
    )
    write_json(make_folder(output) / "audit.json", {"data": data["name"], "root": data["root"], **limits, **report})
    print(audit_table(report, title=f"{data['name']} in {data['root']}", examples=config["examples"], **limits))
    print(f"\nall findings: {output / 'audit.json'}")


main = entry_point("audit", AuditConfig, audit, plain=["data.root"])

if __name__ == "__main__":
    main()
