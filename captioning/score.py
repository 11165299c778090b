"""Scores captions in COCO format: `captioning-score results.json annotations.json [output=DIR]`."""

from pathlib import Path
from typing import Any

from captioning.config import build, entry_point, positional
from captioning.schemas import ScoreConfig


def score(config: dict[str, Any]) -> None:
    """Prints the scores; with `output`, leaves scores.json, statistics.json, per_image.csv and captions.json there."""
    from captioning.data.parsing import read_json
    from captioning.errors import ConfigError
    from captioning.results import (
        describe,
        image_ids,
        read_references,
        read_results,
        read_samples,
        write_report,
        write_server_file,
    )

    file = Path(config["annotations"])
    captions = read_results(Path(config["results"]))
    split = config["split"] or file.stem
    if config["server"]:
        if not config["output"]:
            raise ConfigError("server=NAME needs output=DIR, where the server's file goes")
        path = write_server_file(
            Path(config["output"]), captions, name=config["server"], split=split, wanted=image_ids(file)
        )
        print(f"results for the COCO server: {path}")
        if "annotations" not in read_json(file):  # a test split: its captions are with the server
            return
    report = build(config["metrics"])(
        read_references(file),
        captions,
        training=_training(config["training"]),
        samples=read_samples(Path(config["samples"])) if config["samples"] else None,
    )
    about = {"data": Path(config["results"]).name, "split": split, "decoding": config["decoded_by"]}
    print(describe(report, about, extra={}))
    if config["output"]:
        write_report(Path(config["output"]), report, about, extra={})
        print(f"scores: {config['output']}")


def _training(file: str | None) -> list[str] | None:
    from captioning.results import read_references

    return [text for texts in read_references(Path(file)).values() for text in texts] if file else None


main = positional(entry_point("score", ScoreConfig, score), "results", "annotations")

if __name__ == "__main__":
    main()
