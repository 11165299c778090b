"""Download or draw a data set, and store its features: `captioning-prepare data=coco download=true`."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from captioning.config import PrepareConfig, build, entry_point
from captioning.errors import ConfigError

if TYPE_CHECKING:
    from captioning.data import Record


def prepare(config: dict[str, Any]) -> None:
    """Compute and store the features of a data set, or verify the stored features (`verify`).

    An interrupted run continues where it stopped when it is started again. The data set may have captions or questions.
    Data sets with the same images may share one feature store (`data.pictures`).

    Raises:
        ConfigError: settings that do not fit together.
    """
    from captioning.data import select
    from captioning.features import refuse_views, report_unreadable
    from captioning.io import counted

    data = config["data"]
    if "pictures" in data:
        refuse_views(config["features"])
    if config["verify"]:
        _verify(config)
        return
    if config["download"]:
        _download(data)
    records = build(data["reader"])
    chosen = [record for split in config["splits"] or _splits(records) for record in select(records, split)]
    source = build(config["features"])(
        build(config["encoder"]),
        build(config["transform"]),
        chosen,
        name=_store_name(data),
        skip_unreadable=data["skip_unreadable"],
    )
    report_unreadable(source)
    counts = ", ".join(f"{sum(r.split == split for r in source.records)} {split}" for split in _splits(records))
    print(f"{data['name']}: features of {counted(len(source.records), 'image')} ({counts})")


def _verify(config: dict[str, Any]) -> None:
    from captioning.features import verify

    if not config["features"]["_target_"].endswith(".stored"):
        raise ConfigError("verify=true checks stored features: set features=store")
    encoder, transform = build(config["encoder"]), build(config["transform"])
    print(verify(encoder, transform, name=_store_name(config["data"]), root=config["features"]["root"]))


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
