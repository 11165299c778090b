"""Score captions in COCO format: `captioning-score results.json annotations.json [output=DIR]`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioning.config import ScoreConfig, build, entry_point

if TYPE_CHECKING:
    from captioning.evaluation import Matched, ReferenceFile


def score_results(config: dict[str, Any]) -> None:
    """Print the scores; with `output`, write scores.json, statistics.json, per_image.csv and captions.json there.

    Raises:
        ConfigError: `server` without `output`, or `images` without a score that looks at them.
        DataError: a file cannot be read, or its images are not those of the annotations.
    """
    from captioning.evaluation import (
        ImageTexts,
        describe_scores,
        find_scored_images,
        match,
        read_objects,
        read_references,
        read_results,
        report_groups,
        write_report,
    )

    results, annotations = Path(config["results"]), Path(config["annotations"])
    if config["server"]:
        _prepare_for_server(config, config["split"] or annotations.stem)
        return
    references = read_references(annotations, config["split"])
    options = {"unscored": references.unscored, "subset": config["subset"]}
    found = match(read_results(results), references.images, files=(results, annotations), **options)
    samples = _samples(config["samples"], references, annotations, found) if config["samples"] else None
    scorer = build(config["metrics"])
    images = find_scored_images(found, config["images"], needed=scorer.looks_at_images, files=(results, annotations))
    entries = [ImageTexts(image_id, found.names.get(image_id), []) for image_id in found.references]
    objects = read_objects(config["instances"], entries, source=annotations) if config["instances"] else None
    report = scorer(
        found.references,
        {image_id: texts[0] for image_id, texts in found.captions.items()},
        training=_training(config["training"]),
        samples=samples,
        images=images,
        objects=objects,
    )
    if references.notice:
        report = report._replace(notes=report.notes | {"NOTE": references.notice})
    about = {"data": results.name, "annotations": annotations.name, "split": references.split}
    about |= {"decoding": config["decoded_by"], **found.about}
    print(describe_scores(report, about, extra={}))
    output = Path(config["output"]) if config["output"] else None
    if table := report_groups(output, report, references.groups, seed=config["metrics"]["seed"]):
        print(table)
    if output:
        write_report(output, report, about, extra={}, names=found.names, groups=references.groups)
        print(f"scores.json, statistics.json, per_image.csv and captions.json are in {output}")


def _samples(file: str, references: "ReferenceFile", annotations: Path, found: "Matched") -> dict[Any, list[str]]:
    """Return the samples of the images that are scored."""
    from captioning.evaluation import match, read_samples

    scored = [entry for entry in references.images if entry.image_id in found.references]
    subset = len(scored) < len(references.images)  # then samples of further images are not an error
    samples = read_samples(Path(file))
    return match(samples, scored, files=(file, annotations), unscored=references.unscored, subset=subset).captions


def _prepare_for_server(config: dict[str, Any], split: str) -> None:
    """Check the results and write them under the name that the server requires. A test split has no references."""
    from captioning.errors import ConfigError
    from captioning.evaluation import read_for_server, server_of, write_server_file
    from captioning.io import counted

    if not config["output"]:
        raise ConfigError("server=NAME needs output=DIR: give a folder for the server's file")
    server = server_of(split, Path(config["annotations"]))
    captions, wanted = read_for_server(Path(config["results"]), Path(config["annotations"]))
    folder, name = Path(config["output"]), config["server"]
    path = write_server_file(folder, captions, name=name, split=split, wanted=wanted)
    print(f"{split}: {counted(len(captions), 'caption')} for the {server} server, not scored: {path}")


def _training(file: str | None) -> list[str] | None:
    from captioning.evaluation import read_references

    return [text for entry in read_references(Path(file), "train").images for text in entry.texts] if file else None


main = entry_point("score", ScoreConfig, score_results, plain=["results", "annotations"])

if __name__ == "__main__":
    main()
