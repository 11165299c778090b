"""Download or draw a data set, and store its features: `captioning-prepare data=coco download=true`."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from captioning.config import PrepareConfig, build, build_encoder, entry_point
from captioning.errors import ConfigError

if TYPE_CHECKING:
    from captioning.data import Record


def prepare(config: dict[str, Any]) -> None:
    """Compute and store the features of a data set, or verify the stored features (`verify`).

    An interrupted run continues where it stopped when it is started again. Several processes and machines share the
    work: ranks of torchrun or srun, tasks of a job array, and separate runs. The data set may have captions or
    questions. Data sets with the same images may share one feature store (`data.pictures`).

    Raises:
        ConfigError: settings that do not fit together.
    """
    from captioning.features import launched_rank, refuse_views, report_unreadable
    from captioning.io import counted

    data, rank, started_at = config["data"], launched_rank(), time.perf_counter()
    if "pictures" in data:
        refuse_views(config["features"])
    if config["verify"]:
        _verify(config)
        return
    if config["download"]:
        if rank.world > 1:
            raise ConfigError(
                "download=true is for one process: run captioning-prepare once with it, then start several without it"
            )
        _download(data)
    _share_cores()
    records = _records(config)
    chosen = _of_splits(records, config["splits"])
    source = build(config["features"])(
        *build_encoder(config),
        chosen,
        name=_store_name(data),
        skip_unreadable=data["skip_unreadable"],
    )
    if rank.world > 1:
        spent = time.perf_counter() - started_at
        print(f"rank {rank.number} of {rank.world}: encoded {counted(source.encoded, 'image')} in {spent:.1f} s")
    if rank.number:  # the first rank reports for all: it returns when the features of all images are stored
        return
    report_unreadable(source)
    found = _counts(source.records)
    counts = ", ".join(f"{found.get(split, 0)} {split}" for split in _counts(records))
    print(f"{data['name']}: features of {counted(len(source.records), 'image')} ({counts})")


def _verify(config: dict[str, Any]) -> None:
    from captioning.features import verify

    if not config["features"]["_target_"].endswith(".stored"):
        raise ConfigError("verify=true checks stored features: set features=store")
    encoder, transform = build_encoder(config)
    print(verify(encoder, transform, name=_store_name(config["data"]), root=config["features"]["root"]))


def _records(config: dict[str, Any]) -> "Sequence[Record]":
    """Return the records. Those of captions are read by one process, into a file that all processes open."""
    from captioning.tasks import record_file

    return record_file(config) if "tokenizer" in config["data"] else build(config["data"]["reader"])


def _of_splits(records: "Sequence[Record]", splits: list[str] | None) -> "Sequence[Record]":
    """Return the records of some splits, as a list, or as a table if the records are one; None for all.

    Raises:
        DataError: a split has no records.
    """
    import numpy as np

    from captioning.data import RecordTable, image_ids_of, select

    parts = [select(records, split) for split in dict.fromkeys(splits or _counts(records))]
    if isinstance(records, RecordTable) and parts:
        return records.with_ids(np.concatenate([image_ids_of(part) for part in parts]))
    return [record for part in parts for record in part]


def _share_cores() -> None:
    """Use this process's share of the cores, if several processes run on this machine."""
    import torch

    from captioning.features import cores_per_process, launched_rank

    rank = launched_rank()
    if rank.beside > 1:
        torch.set_num_threads(cores_per_process(rank))


def _store_name(data: dict[str, Any]) -> str:
    return data.get("pictures", data["name"])


def _download(data: dict[str, Any]) -> None:
    if data.get("download") is None:
        raise ConfigError(f"data={data['name']} cannot be downloaded: leave download=true out")
    build(data["download"])


def _counts(records: "Sequence[Record]") -> Mapping[str, int]:
    """Return {split: number of records}, in the order in which the splits occur."""
    from captioning.data import RecordTable

    return records.counts() if isinstance(records, RecordTable) else Counter(record.split for record in records)


main = entry_point("prepare", PrepareConfig, prepare, plain=["data.root"])

if __name__ == "__main__":
    main()
