"""One page about a run: `captioning-report runs/soft`, or `captioning-report run_dir=runs/soft`."""

import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from captioning.config import ReportConfig, build, entry_point, positional
from captioning.errors import ConfigError, DataError, must_be
from captioning.evaluation import decoding_name

# What a run's own configuration may have built here: readers of data and features, and a score of the data set's own.
READERS = re.compile(r"(captioning\.(?:data\.annotations|data\.scenes|sources))\.([a-z]\w*)")
LONGEST = 30  # words of a caption that have a bar of their own
_PARTS = {
    "scores": "Scores",
    "training": "Training",
    "captions": "Captions",
    "variety": "Variety",
    "unknown": "Unknown words",
    "settings": "Settings",
    "versions": "Versions",
}


def report(config: dict[str, Any]) -> None:
    """Leaves report.html; evaluates the run's best checkpoint first where that was not done."""
    from captioning.data import select
    from captioning.evaluation import read_about, read_results, read_title
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
    crops = read_about(evaluation).get("crops") if evaluation else None  # to look where the evaluation looked
    predictor = load(run_dir / "checkpoints" / "best.ckpt", device=config["device"], crops=crops)
    everything = build_reader(data["reader"])
    records = select(everything, config["split"])
    training = [caption for record in everything if record.split == "train" for caption in record.captions]
    if evaluation:
        captions, title = read_results(evaluation / "captions.json"), read_title(evaluation)
    else:
        captions, title = _captions(config, data, features, predictor=predictor, records=records)
    records = [record for record in records if record.image_id in captions]
    scored = build(config["metrics"])(
        {record.image_id: record.captions for record in records},
        captions,
        training=training if config["split"] != "train" else None,
    )
    extra = build_reader(data["extra_scores"])(captions, split=config["split"]) if data.get("extra_scores") else {}
    if config["by"] not in scored.table.values:
        raise ConfigError(f"by={config['by']}: there are {', '.join(scored.table.values)}")
    page = _page(config, settings, features, scored=scored, extra=extra, records=records, training=training,
                 predictor=predictor, title=title, run_dir=run_dir)  # fmt: skip
    output = Path(config["output"] or run_dir / "report.html")
    make_folder(output.parent)
    write_text(output, page)
    print(f"report: {output}")


def read_settings(file: Path) -> dict[str, Any]:
    """A run's config.yaml as plain containers.

    Raises:
        DataError: it is missing, or not one.
    """
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"there is no {file}: give the run_dir of a training") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"cannot read {file} ({' '.join(str(error).split())[:200]})") from error
    for group, key in (("data", "reader"), ("data", "name"), ("features", "_target_")):
        if not isinstance(content, dict) or not isinstance(content.get(group), dict) or key not in content[group]:
            raise DataError(
                f"{file} is not the configuration of a run that captions pictures: {group}.{key} is missing"
            )
    return content


def moved(node: Any, old: Any, new: str | None) -> Any:
    """Settings with a root folder, and what lies in it, in another place; as they are where none is given."""
    if new is None or not isinstance(old, str):
        return node
    if isinstance(node, Mapping):
        return {key: moved(value, old, new) for key, value in node.items()}
    inside = isinstance(node, str) and (node == old or node.startswith(f"{old}/"))
    return new + node[len(old) :] if inside else node


def build_reader(node: Any, **late: Any) -> Any:
    """As `build`, out of a run's own configuration, which may be a stranger's.

    Raises:
        ConfigError: it names anything but a reader of data or features.
    """
    target = node.get("_target_") if isinstance(node, Mapping) else None
    named = READERS.fullmatch(target) if isinstance(target, str) else None
    # What a module imported from elsewhere is not its own.
    if not named or getattr(getattr(import_module(named[1]), named[2], None), "__module__", "") != named[1]:
        raise ConfigError(f"config.yaml asks to build {target!r:.100}: only this package's readers of data are built")
    if any(isinstance(value, dict | list) and "_target_" in str(value) for value in node.values()):
        raise ConfigError(f"config.yaml asks to build something inside {target}: a reader takes plain settings")
    return build(node, **late)


def _evaluation(config, run_dir: Path) -> Path | None:
    """The folder of an evaluation that is given, or is there and not older than the checkpoint; None else."""
    folder = Path(config["evaluation"] or run_dir / config["split"])
    file, checkpoint = folder / "captions.json", run_dir / "checkpoints" / "best.ckpt"
    there = file.is_file() and checkpoint.is_file() and file.stat().st_mtime >= checkpoint.stat().st_mtime
    return folder if config["evaluation"] or there else None


def _captions(config, data, features, *, predictor, records) -> tuple[dict[int, str], str]:
    """The captions of an evaluation that is made now."""
    from captioning.evaluation import write_captions
    from captioning.features import report_unreadable
    from captioning.inference import with_generator

    source = build_reader(features)(
        predictor.encoder,
        predictor.transform,
        records,
        name=data["name"],
        skip_unreadable=bool(data.get("skip_unreadable")),
    )
    report_unreadable(source)
    search = with_generator(build(config["decoding"]))
    made = write_captions(predictor, [source], source.records, search=search, batch_size=config["batch_size"])
    decoding = decoding_name(config["decoding"])
    if predictor.hard_attention:
        decoding += f", hard attention at the {predictor.hard_attention} place"
    return made, f"{data['name']} {config['split']}, decoding {decoding}, {len(made)} images, evaluated for this report"


def _page(config, settings, features, *, scored, extra, records, training, predictor, title: str, run_dir: Path) -> str:
    from captioning.text import tokenize
    from captioning.web.demo import attention_kind
    from captioning.web.report import caption_statistics, charts, content, render

    written = [tokenize(caption) for caption in scored.table.captions]
    references = [tokenize(caption) for record in records for caption in record.captions]
    most, kind = config["most"], attention_kind(predictor)
    known = set(predictor.vocabulary.words)
    parameters = sum(part.numel() for part in predictor.captioner.parameters())
    repeats, in_all, share = caption_statistics.repeated(written, map(tokenize, training), most=most)
    drawn, fault = content.panels(run_dir)
    return render(
        "report.html",
        "page.css",
        "report.css",
        name=run_dir.resolve().name,
        lead=content.lead(settings, parameters=parameters, kind=kind),
        parts=list(_PARTS.items()),
        title=title,
        scores=content.score_rows(scored, extra),
        unavailable=scored.unavailable,
        resamples=scored.resamples,
        charts=drawn,
        no_charts=fault,
        by=config["by"],
        hard=kind == "hard",
        attends=kind != "no",
        examples=_examples(config, features, scored.table, records, predictor),
        variety=content.variety(scored.captions),
        repeats=repeats,
        repeats_in_all=in_all,
        repeats_share=share,
        bars=charts.bars(caption_statistics.lengths(written, references, most=LONGEST), most=LONGEST),
        vocabulary=f"{len(known):,}".replace(",", "\u202f"),
        unknown=caption_statistics.unknown_words(references, known, most=4 * most),
        written_unknown=scored.captions["with unknown words"],
        settings=content.settings_groups(settings),
        versions=content.versions(run_dir, fingerprint=predictor.metadata["fingerprint"]),
    )


def _examples(config, features, table, records, predictor) -> dict[str, list]:
    from tqdm import tqdm

    from captioning.web.report import choose, make_example

    regions = None
    if features["_target_"].endswith(".detector_regions"):
        regions = build_reader(features)(
            predictor.encoder, predictor.transform, records, name="", skip_unreadable=True
        ).read.folder
    by_id, row_of = {record.image_id: record for record in records}, {k: row for row, k in enumerate(table.image_ids)}
    chosen = choose(table, config["by"], config["examples"])
    with tqdm(total=sum(map(len, chosen.values())), desc="examples", unit="picture", disable=None) as bar:
        found: dict[str, list] = {}
        for kind, image_ids in chosen.items():
            found[kind] = []
            for image_id in image_ids:
                row = row_of[image_id]
                score, caption = float(table.values[config["by"]][row]), table.captions[row]
                found[kind].append(make_example(predictor, by_id[image_id], caption, score, regions=regions))
                bar.update()
    return found


main = positional(entry_point("report", ReportConfig, report), "run_dir")

if __name__ == "__main__":
    main()
