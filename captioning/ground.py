"""Measure whether maps show the objects that words name: `captioning-ground checkpoint=PATH data=coco`."""

from pathlib import Path
from typing import Any

from captioning.config import GroundConfig, build, entry_point
from captioning.evaluation import caption_and_ground, decoding_name, grounding_csv, grounding_table


def ground(config: dict[str, Any]) -> None:
    """Caption a split, and compare the maps of each noun with the annotated objects that it names.

    Writes grounding.json and words.csv.

    Raises:
        ConfigError: the data set has no annotated objects, or a setting is out of range.
        CheckpointError: the model has no grid, or not the maps that `map` names.
    """
    from captioning.checkpoints import hub_address_of
    from captioning.data import select
    from captioning.errors import CheckpointError, ConfigError, must_be
    from captioning.features import report_unreadable
    from captioning.inference import check_maps, load, with_generator
    from captioning.io import make_folder, write_json, write_text
    from captioning.metrics import summarize

    data, split = config["data"], config["split"]
    if data["instances"] is None:
        raise ConfigError(
            f"data={data['name']} has no annotated objects to compare attention with: use data=coco or data=scenes"
        )
    maps = (config["map"],) if isinstance(config["map"], str) else tuple(config["map"])
    must_be("samples", config["samples"], least=1)
    must_be("batch_size", config["batch_size"], least=1)
    records = select(build(data["reader"]), split)
    instances = build(data["instances"])(records=records)
    predictor, search = load(config["checkpoint"], device=config["device"]), with_generator(build(config["decoding"]))
    check_maps(maps, predictor)
    predictor.check_search(search)
    if predictor.encoder.output == "regions":
        raise CheckpointError(
            f"{predictor.path} was trained on a detector's regions, but captioning-ground needs a grid: use a "
            "checkpoint with another encoder"
        )
    source = build(config["features"])(
        predictor.encoder, predictor.transform, records, name=data["name"], skip_unreadable=data["skip_unreadable"]
    )
    report_unreadable(source)
    grounded = caption_and_ground(
        predictor,
        source.records,
        instances,
        search=search,
        batch_size=config["batch_size"],
        skip_unreadable=data["skip_unreadable"],
        source=source,
        maps=maps,
    )
    summary = summarize(grounded, samples=config["samples"], seed=config["seed"])
    output, decoding = make_folder(Path(config["output"])), decoding_name(config["decoding"])
    about = {
        "data": data["name"],
        "split": split,
        "decoding": decoding,
        "map": config["map"],
        "checkpoint": hub_address_of(predictor.path) or config["checkpoint"],
    }
    write_json(output / "grounding.json", about | summary)
    write_text(output / "words.csv", grounding_csv(grounded))
    print(grounding_table(summary, title=f"{data['name']} {split}, {decoding}, map={','.join(maps)}"))
    print(f"means: {output / 'grounding.json'}; one row per word: {output / 'words.csv'}")


main = entry_point("ground", GroundConfig, ground, plain=["checkpoint"])

if __name__ == "__main__":
    main()
