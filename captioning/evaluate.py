"""Caption a split and score it: `captioning-evaluate checkpoint=PATH data=flickr8k data.root=DIR split=val`."""

import sys
from pathlib import Path
from typing import Any

from captioning.config import EvaluateConfig, build, entry_point
from captioning.evaluation import decoding_name


def evaluate(config: dict[str, Any]) -> None:
    """Caption every image of a split once, score the captions, and write both (`captioning.evaluation.write_report`).

    Raises:
        ConfigError: a setting is out of range.
    """
    from captioning.checkpoints import hub_address_of
    from captioning.data import select
    from captioning.errors import must_be
    from captioning.evaluation import (
        describe_scores,
        file_name,
        of_records,
        read_objects,
        report_groups,
        sources_of,
        write_captions,
        write_report,
    )
    from captioning.features import crop_shares
    from captioning.inference import choose_guide, load_all, with_generator
    from captioning.io import printable

    must_be("batch_size", config["batch_size"], least=1)
    data, split = config["data"], config["split"]
    decoding = dict(config["decoding"])
    others = decoding.pop("checkpoints") or []
    options = {key: config[key] for key in ("device", "hard_attention", "crops")}
    predictor = load_all(config["checkpoint"], others, **options)
    predictor.guide_by(choose_guide(config["tags"], build(config["guidance"]), predictor))
    search = with_generator(build(decoding))
    predictor.check_search(search)
    scorer, everything = build(config["metrics"]), build(data["reader"])
    named = {"name": data["name"], "skip_unreadable": data["skip_unreadable"]}
    chosen, objects = select(everything, split), None
    if config["instances"]:
        words = (data["instances"] or {}).get("words")
        entries = of_records(chosen, data["root"])
        objects = read_objects(config["instances"], entries, source=f"data.root={data['root']}", words=words)
    sources, records = sources_of(predictor, build(config["features"]), chosen, **named)
    scorer.prepare(paths := {record.image_id: record.path for record in records})
    captions = write_captions(predictor, sources, records, search=search, batch_size=config["batch_size"])
    seen = [caption for record in everything if record.split == "train" for caption in record.captions]
    report = scorer(
        {record.image_id: record.captions for record in records},
        captions,
        training=seen if split != "train" else None,
        tokenizer=predictor.vocabulary.tokenizer,
        images=paths,
        objects=objects,
    )
    extra = build(data["extra_scores"])(captions, split=split) if data["extra_scores"] else {}
    about: dict[str, Any] = {"data": data["name"], "split": split, "decoding": decoding_name(config["decoding"])}
    if predictor.hard_attention:
        about["decoding"] += f", hard attention: {predictor.hard_attention}"
    if predictor.guide:
        about["decoding"] += f", guided by tags: {predictor.guide.describe()}"
        for note in predictor.guide.notes():
            print(printable(f"warning: {note}"), file=sys.stderr)
    if shares := crop_shares(config["crops"]):
        about["decoding"] += f", with crops of {' and '.join(map(str, shares))}"
        about["crops"] = list(shares)
    if fetched := [address for member in predictor.members if (address := hub_address_of(member.path))]:
        about["checkpoints"] = fetched  # with their commits
    output = Path(config["output"])
    names = {record.image_id: file_name(record.path, data["root"]) for record in records}
    groups = {record.image_id: record.group for record in records}
    write_report(output, report, about, extra=extra, names=names, groups=groups)
    print(describe_scores(report, about, extra=extra))
    if table := report_groups(output, report, groups, seed=config["metrics"]["seed"]):
        print(f"{table}\n  intervals of these scores: {output / 'groups.json'}")
    print(f"captions.json, scores.json, statistics.json and per_image.csv are in {output}")


main = entry_point("evaluate", EvaluateConfig, evaluate, plain=["checkpoint"])

if __name__ == "__main__":
    main()
