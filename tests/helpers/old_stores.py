"""Write the manifest of a feature store as older versions of the package did."""

import json
from collections.abc import Sequence
from pathlib import Path

from captioning.data import Record
from captioning.features.store import FeatureStore, stamp_picture


def make_old(store: FeatureStore, records: Sequence[Record], *, format: int, in_journal: int = 0) -> None:
    """Replace the manifest and the index of a store by a manifest of an old format.

    Args:
        store: a complete store.
        records: its images.
        format: 1 or 2.
        in_journal: number of shards that only the journal lists, as after a kill.
    """
    content = json.loads((store.folder / "manifest.json").read_text())
    shards = content["shards"]
    for shard in shards:
        shard["pictures"] = [None] * shard.pop("images")
        if format == 1:
            shard.pop("checksum")
    located = store.locations([record.image_id for record in records]).tolist()
    for record, (shard, row) in zip(records, located, strict=True):
        shards[shard]["pictures"][row] = [record.image_id, *stamp_picture(record.path)]
    listed, others = shards[: len(shards) - in_journal], shards[len(shards) - in_journal :]
    kept = {key: content[key] for key in ("key", "shape", "dtype")}
    (store.folder / "manifest.json").write_text(json.dumps({"format": format} | kept | {"shards": listed}))
    if others:
        (store.folder / "journal.jsonl").write_text("".join(json.dumps(shard) + "\n" for shard in others) + '{"file')
    for path in [*store.folder.glob("index-*"), store.folder / "claims.lock"]:
        Path(path).unlink()
