"""One page about a run: `captioning-report runs/soft`, or `captioning-report run_dir=runs/soft`."""

import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from math import ceil
from pathlib import Path
from typing import Any

from captioning.config import build, decoding_name, entry_point, positional
from captioning.errors import ConfigError, DataError, must_be
from captioning.schemas import ReportConfig

# What a run's own configuration may have built here: readers of data and features, and a score of the data set's own.
READERS = re.compile(r"(captioning\.(?:data\.annotations|data\.scenes|sources))\.([a-z]\w*)")
SHOWN = ("CIDEr", "truth")  # scores with a chart of their own, before one of all others
LONGEST = 30  # words of a caption that have a bar of their own
PACKAGES = ("torch", "torchvision", "lightning", "numpy", "pillow")
PARTS = {
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
    from captioning.data.annotations import select
    from captioning.files import make_folder, write_text
    from captioning.predictor import load

    must_be("examples", config["examples"], least=1)
    must_be("most", config["most"], least=1)
    must_be("batch_size", config["batch_size"], least=1)
    run_dir = Path(config["run_dir"])
    settings = read_settings(run_dir / "config.yaml")
    data, features = settings["data"], settings["features"]
    data = moved(data, data.get("root"), config["data"]["root"])
    features = moved(features, features.get("root"), config["features"]["root"])
    predictor = load(run_dir / "checkpoints" / "best.ckpt", device=config["device"])
    everything = build_reader(data["reader"])
    records = select(everything, config["split"])
    training = [caption for record in everything if record.split == "train" for caption in record.captions]
    captions, title = _captions(config, run_dir, data, features, predictor=predictor, records=records)
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
    groups = {"data": "reader", "features": "_target_"}
    for group, key in groups.items():
        if not isinstance(content, dict) or not isinstance(content.get(group), dict) or key not in content[group]:
            raise DataError(f"{file} is not the configuration of a run: {group}.{key} is missing")
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


def _captions(config, run_dir: Path, data, features, *, predictor, records) -> tuple[dict[int, str], str]:
    """The captions of an evaluation that is there and not older than the checkpoint, or else of one made now."""
    from captioning.results import read_results, read_title

    folder = Path(config["evaluation"] or run_dir / config["split"])
    file, checkpoint = folder / "captions.json", run_dir / "checkpoints" / "best.ckpt"
    if config["evaluation"] or (file.is_file() and file.stat().st_mtime >= checkpoint.stat().st_mtime):
        return read_results(file), read_title(folder)
    from captioning.searches import seeded
    from captioning.sources import report_unreadable
    from captioning.splits import write_captions

    source = build_reader(features)(
        predictor.encoder,
        predictor.transform,
        records,
        name=data["name"],
        skip_unreadable=bool(data.get("skip_unreadable")),
    )
    report_unreadable(source)
    search = seeded(build(config["decoding"]))
    made = write_captions(predictor, [source], source.records, search=search, batch_size=config["batch_size"])
    decoding = decoding_name(config["decoding"])
    if predictor.places:
        decoding += f", hard attention at the {predictor.places} place"
    return made, f"{data['name']} {config['split']}, decoding {decoding}, {len(made)} images, evaluated for this report"


def _page(config, settings, features, *, scored, extra, records, training, predictor, title: str, run_dir: Path) -> str:
    from captioning.pages import charts, findings
    from captioning.pages.render import render
    from captioning.pages.work import attention_kind
    from captioning.tokenizer import tokenize

    written = [tokenize(caption) for caption in scored.table.captions]
    references = [tokenize(caption) for record in records for caption in record.captions]
    most, kind = config["most"], attention_kind(predictor)
    known = set(predictor.vocabulary.words)
    repeats, in_all, share = findings.repeated(written, map(tokenize, training), most=most)
    drawn, fault = _charts(run_dir)
    return render(
        "report.html",
        "page.css",
        "report.css",
        name=run_dir.resolve().name,
        lead=_lead(settings, predictor, kind),
        parts=list(PARTS.items()),
        title=title,
        scores=_scores(scored, extra),
        unavailable=scored.unavailable,
        resamples=scored.resamples,
        charts=drawn,
        no_charts=fault,
        by=config["by"],
        hard=kind == "hard",
        attends=kind != "no",
        examples=_examples(config, features, scored.table, records, predictor),
        variety=_variety(scored.captions),
        repeats=repeats,
        repeats_in_all=in_all,
        repeats_share=share,
        bars=charts.bars(findings.lengths(written, references, most=LONGEST), most=LONGEST),
        vocabulary=f"{len(known):,}".replace(",", "\u202f"),
        unknown=findings.unknown_words(references, known, most=4 * most),
        written_unknown=scored.captions["with unknown words"],
        settings=_settings(settings),
        versions=_versions(run_dir, predictor),
    )


def _lead(settings: Mapping[str, Any], predictor, kind: str) -> str:
    """The run in one line."""
    model, parameters = settings.get("model", {}), sum(part.numel() for part in predictor.captioner.parameters())
    cell = str(model.get("cell", {}).get("_target_", "")).rpartition(".")[2]
    parts = [
        f"{kind} attention",
        f"{cell} of width {model.get('width', '?')}",
        f"{parameters / 1e6:.2f} million weights",
    ]
    encoder = settings.get("encoder", {}).get("name")
    return " · ".join(parts + ([str(encoder)] if encoder else []) + [f"trained on {settings['data'].get('name', '?')}"])


def _scores(scored, extra: Mapping[str, float]) -> list[dict[str, Any]]:
    """Rows of the table; `top` is where a row's line ends: 1, or more for a score that goes beyond."""
    rows = []
    for name, value in (scored.scores | extra).items():
        low, high = scored.intervals.get(name, (None, None))
        top = max(1, ceil(max(value, high or 0)))
        rows.append({"name": name, "value": value, "low": low, "high": high, "top": top})
    return rows


def _charts(run_dir: Path) -> tuple[list, str]:
    """Losses, scores and learning rates over the steps; or why there are none."""
    from captioning.pages.charts import curves
    from captioning.visualise.curves import read_curves

    try:
        lines = read_curves(run_dir).lines
    except DataError as error:
        return [], str(error)
    scores = {
        name.rpartition("/")[2]: own for name, own in lines.items() if name.startswith("val/") and name != "val/loss"
    }
    losses = {name.partition("/")[0]: lines[name] for name in ("train/loss", "val/loss") if name in lines}
    rates = {name.removeprefix("lr-"): own for name, own in lines.items() if name.startswith("lr-")}
    others = {name: own for name, own in scores.items() if name not in SHOWN}
    found = [curves("Loss", losses, robust=True)]
    found += [curves(name, {"": scores[name]}) for name in SHOWN if name in scores]
    found += [curves("Other scores of validation", others), curves("Learning rate", rates)]
    return [chart for chart in found if chart], ""


def _examples(config, features, table, records, predictor) -> dict[str, list]:
    from tqdm import tqdm

    from captioning.pages.examples import make_example
    from captioning.pages.findings import choose

    regions = None
    if features["_target_"].endswith(".regions"):
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


def _variety(facts: Mapping[str, float]) -> list[tuple[str, str]]:
    """What `metrics.diversity.describe` tells, for a reader."""
    shares = ("distinct", "novel", "with unknown words", "unknown words", "empty", "div-1", "div-2")
    return [(name, f"{value:.1%}" if name in shares else f"{value:.4g}") for name, value in facts.items()]


def _settings(settings: Mapping[str, Any]) -> list[tuple[str, Sequence[tuple[str, str]]]]:
    """Groups of settings; what stands alone comes first, under "run"."""
    from captioning.pages.findings import flatten

    alone = {key: value for key, value in settings.items() if not isinstance(value, dict) or not value}
    groups = [("run", flatten(alone))]
    for key, value in settings.items():
        if key not in alone:
            rows = flatten(value)
            groups.append((key, [("is", text) if name == "" else (name, text) for name, text in rows]))
    return groups


def _versions(run_dir: Path, predictor) -> list[tuple[str, list[tuple[str, str]]]]:
    """Of the training, where its folder tells them (the last start of a run that was resumed), and of this page."""
    from importlib.metadata import version
    from platform import platform, python_version

    import captioning
    from captioning.data.parsing import read_json
    from captioning.pages.findings import flatten

    trained = [("checkpoint", str(run_dir / "checkpoints" / "best.ckpt"))]
    trained.append(("weights of the encoder", predictor.recipe["fingerprint"]))
    file = run_dir / "provenance.json"
    try:
        starts = read_json(file) if file.is_file() else []
    except DataError as error:
        trained.append((file.name, str(error)))
        starts = []
    if isinstance(starts, list) and starts:
        trained += [("starts", str(len(starts)))] if len(starts) > 1 else []
        trained += flatten(starts[-1])
    else:
        trained.append(("versions", "not told by the run's folder"))
    now = [("captioning", captioning.__version__), ("python", python_version())]
    now += [(name, version(name)) for name in PACKAGES] + [("machine", platform())]
    return [("Of the training", trained), ("Of this page", now)]


main = positional(entry_point("report", ReportConfig, report), "run_dir")

if __name__ == "__main__":
    main()
