"""Write an HTML page about a run: `captioning-report runs/soft`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioning.config import ReportConfig, build, entry_point
from captioning.errors import ConfigError, DataError, must_be
from captioning.evaluation import decoding_name
from captioning.web.report import build_reader, make_page, moved, read_settings

if TYPE_CHECKING:
    from captioning.data import Record
    from captioning.inference import Predictor


def report(config: dict[str, Any]) -> None:
    """Write report.html. Evaluate the run's best checkpoint first, unless there is a current evaluation.

    Raises:
        ConfigError: a setting is out of range.
        DataError: the run, its data or the evaluation cannot be read.
    """
    from captioning.data import select
    from captioning.evaluation import describe_tokens, read_about, read_title
    from captioning.inference import load
    from captioning.io import make_folder, write_text

    must_be("examples", config["examples"], least=1)
    must_be("most", config["most"], least=1)
    must_be("batch_size", config["batch_size"], least=1)
    run_dir = Path(config["run_dir"])
    settings = read_settings(run_dir / "config.yaml")
    data, features = settings["data"], settings["features"]
    data = moved(data, data.get("root"), config["data"]["root"])
    features = moved(features, features.get("root"), config["features"]["root"])
    evaluation = _evaluation(config, run_dir)
    crops = read_about(evaluation).get("crops") if evaluation else None  # maps need the crops of the evaluation
    predictor = load(_checkpoint(run_dir), device=config["device"], crops=crops)
    everything = build_reader(data["reader"])
    records = select(everything, config["split"])
    training = [caption for record in everything if record.split == "train" for caption in record.captions]
    if evaluation:
        captions, title = _evaluated(evaluation, records, data.get("root")), read_title(evaluation, models={})
    else:
        captions, title = _captions(config, data, features, predictor=predictor, records=records)
    records = [record for record in records if record.image_id in captions]
    scored = build(config["metrics"])(
        {record.image_id: record.captions for record in records},
        captions,
        training=training if config["split"] != "train" else None,
        tokenizer=predictor.vocabulary.tokenizer,
        images={record.image_id: record.path for record in records},
    )
    title += "".join(f", {score} of {model}" for score, model in scored.models.items())
    if not evaluation:
        title += f", {describe_tokens(scored.tokenizer)}"
    extra = build_reader(data["extra_scores"])(captions, split=config["split"]) if data.get("extra_scores") else {}
    if config["by"] not in scored.table.values:
        raise ConfigError(f"by={config['by']} is not a score: choose one of {', '.join(scored.table.values)}")
    page = make_page(config, settings, features, scored=scored, extra=extra, records=records, training=training,
                 predictor=predictor, title=title, run_dir=run_dir)  # fmt: skip
    output = Path(config["output"] or run_dir / "report.html")
    make_folder(output.parent)
    write_text(output, page)
    print(f"report: {output}")


def _evaluated(evaluation: Path, records: "Sequence[Record]", root: str | None) -> dict[Any, str]:
    """Return the captions of an evaluation by image id, for the images that were captioned."""
    from captioning.evaluation import match, of_records, read_results

    results, of_data = read_results(file := evaluation / "captions.json"), of_records(records, root)
    matched = match(results, of_data, files=(file, "the data set"), subset=True)
    if matched.unscored:
        raise DataError(
            f"{file} has captions of {matched.unscored} images that the data set does not have: run "
            "captioning-evaluate again"
        )
    return {image_id: texts[0] for image_id, texts in matched.captions.items()}


def _evaluation(config: Mapping[str, Any], run_dir: Path) -> Path | None:
    """Return the folder of the given evaluation, or of one that is not older than the checkpoint; None without one."""
    folder = Path(config["evaluation"] or run_dir / config["split"])
    file, checkpoint = folder / "captions.json", _checkpoint(run_dir)
    there = file.is_file() and checkpoint.is_file() and file.stat().st_mtime >= checkpoint.stat().st_mtime
    return folder if config["evaluation"] or there else None


def _checkpoint(run_dir: Path) -> Path:
    """Return the run's best checkpoint, or its last one if the run had no validation."""
    best, last = (run_dir / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
    return last if last.is_file() and not best.is_file() else best


def _captions(
    config: Mapping[str, Any],
    data: Mapping[str, Any],
    features: Mapping[str, Any],
    *,
    predictor: "Predictor",
    records: "Sequence[Record]",
) -> tuple[dict[Any, str], str]:
    """Caption the records now, and return the captions by image id, and the title of this evaluation."""
    from captioning.evaluation import write_captions
    from captioning.features import report_unreadable
    from captioning.inference import with_generator
    from captioning.io import counted

    search = with_generator(build(config["decoding"]))
    predictor.check_search(search)
    source = build_reader(features)(
        predictor.encoder,
        predictor.transform,
        records,
        name=data["name"],
        skip_unreadable=bool(data.get("skip_unreadable")),
    )
    report_unreadable(source)
    captions = write_captions(predictor, [source], source.records, search=search, batch_size=config["batch_size"])
    decoding = decoding_name(config["decoding"])
    if predictor.hard_attention:
        decoding += f", hard attention: {predictor.hard_attention}"
    images = counted(len(captions), "image")
    return captions, f"{data['name']} {config['split']}, decoding {decoding}, {images}, evaluated for this report"


main = entry_point("report", ReportConfig, report, plain=["run_dir"])

if __name__ == "__main__":
    main()
