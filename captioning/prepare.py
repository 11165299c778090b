"""Download or draw a data set, and store its features: `captioning-prepare data=coco download=true`."""

import time
from collections.abc import Iterable
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
    from captioning.data import select
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
    records = build(data["reader"])
    chosen = [record for split in config["splits"] or _splits(records) for record in select(records, split)]
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
    counts = ", ".join(f"{sum(r.split == split for r in source.records)} {split}" for split in _splits(records))
    print(f"{data['name']}: features of {counted(len(source.records), 'image')} ({counts})")


def _verify(config: dict[str, Any]) -> None:
    from captioning.features import verify

    if not config["features"]["_target_"].endswith(".stored"):
        raise ConfigError("verify=true checks stored features: set features=store")
    encoder, transform = build_encoder(config)
    print(verify(encoder, transform, name=_store_name(config["data"]), root=config["features"]["root"]))


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


def _splits(records: "Iterable[Record]") -> list[str]:
    return list(dict.fromkeys(record.split for record in records))


main = entry_point("prepare", PrepareConfig, prepare, plain=["data.root"])

if __name__ == "__main__":
    main()
