"""Score captions in COCO format: `captioning-score results.json annotations.json [output=DIR]`."""

from pathlib import Path
from typing import Any

from captioning.config import ScoreConfig, build, entry_point, positional


def score_results(config: dict[str, Any]) -> None:
    """Prints the scores; with `output`, leaves scores.json, statistics.json, per_image.csv and captions.json there."""
    from captioning.evaluation import describe_scores, read_references, read_results, read_samples, write_report

    file = Path(config["annotations"])
    split = config["split"] or file.stem
    if config["server"]:
        _prepare_for_server(config, split)
        return
    report = build(config["metrics"])(
        read_references(file),
        read_results(Path(config["results"])),
        training=_training(config["training"]),
        samples=read_samples(Path(config["samples"])) if config["samples"] else None,
    )
    about = {"data": Path(config["results"]).name, "split": split, "decoding": config["decoded_by"]}
    print(describe_scores(report, about, extra={}))
    if config["output"]:
        write_report(Path(config["output"]), report, about, extra={})
        print(f"scores: {config['output']}")


def _prepare_for_server(config: dict[str, Any], split: str) -> None:
    """Checks the results and names them as the server wants; there is nothing here to score a test split against."""
    from captioning.errors import ConfigError
    from captioning.evaluation import read_for_server, write_server_file

    if not config["output"]:
        raise ConfigError("server=NAME needs output=DIR, where the server's file goes")
    captions, wanted = read_for_server(Path(config["results"]), Path(config["annotations"]))
    folder, name = Path(config["output"]), config["server"]
    path = write_server_file(folder, captions, name=name, split=split, wanted=wanted)
    print(f"{split}, {len(captions)} captions for the COCO server, not scored: {path}")


def _training(file: str | None) -> list[str] | None:
    from captioning.evaluation import read_references

    return [text for texts in read_references(Path(file)).values() for text in texts] if file else None


main = positional(entry_point("score", ScoreConfig, score_results), "results", "annotations")

if __name__ == "__main__":
    main()
