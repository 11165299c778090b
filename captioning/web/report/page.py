"""Build the report's page from scores, curves, examples and settings."""

from pathlib import Path

from captioning.web.report.run_settings import build_reader

LONGEST = 30  # words; longer captions share one bar
_PARTS = {
    "scores": "Scores",
    "training": "Training",
    "captions": "Captions",
    "variety": "Variety",
    "unknown": "Unknown words",
    "settings": "Settings",
    "versions": "Versions",
}


def make_page(
    config, settings, features, *, scored, extra, records, training, predictor, title: str, run_dir: Path
) -> str:
    """Build the report of a run as one HTML page.

    Args:
        config: the settings of `captioning-report`.
        settings: the run's configuration.
        features: the configuration of the features.
        scored: the scores (`captioning.metrics.Report`).
        extra: further scores that are specific to the data set.
        records: the images of the split.
        training: the training captions.
        predictor: the run's captioner.
        title: the title of the scores.
        run_dir: the folder of the run.
    """
    from captioning.evaluation import FEWEST, score_groups
    from captioning.web.report import caption_statistics, charts, content
    from captioning.web.report.rendering import render

    tokenize = predictor.vocabulary.tokenizer
    written = [tokenize(caption) for caption in scored.table.captions]
    references = [tokenize(caption) for record in records for caption in record.captions]
    most, kind = config["most"], predictor.attention_kind
    known = set(predictor.vocabulary.words)
    parameters = sum(part.numel() for part in predictor.captioner.parameters())
    repeats, in_all, share = caption_statistics.repeated(
        written, map(tokenize, training), join=tokenize.join, most=most
    )
    drawn, fault = content.panels(run_dir)
    groups = score_groups(scored, {record.image_id: record.group for record in records}, seed=config["metrics"]["seed"])
    return render(
        "report.html",
        "page.css",
        "report.css",
        name=run_dir.resolve().name,
        lead=content.lead(settings, parameters=parameters, kind=kind),
        parts=list(_PARTS.items()),
        title=title,
        scores=content.score_rows(scored, extra),
        groups=[(name, group.images) for name, group in groups.items()],
        of_groups=content.group_rows(groups, scored),
        few=[name for name, group in groups.items() if group.images < FEWEST],
        fewest=FEWEST,
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
        unknown=caption_statistics.unknown_words(map(tokenize.pieces, references), known, most=4 * most),
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
    with tqdm(total=sum(map(len, chosen.values())), desc="examples", unit="image", disable=None) as bar:
        found: dict[str, list] = {}
        for kind, image_ids in chosen.items():
            found[kind] = []
            for image_id in image_ids:
                row = row_of[image_id]
                score, caption = float(table.values[config["by"]][row]), table.captions[row]
                found[kind].append(make_example(predictor, by_id[image_id], caption, score, regions=regions))
                bar.update()
    return found
