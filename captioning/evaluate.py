"""Scores a checkpoint: `captioning-evaluate checkpoint=PATH data=flickr8k data.root=DIR split=val`."""

from pathlib import Path
from typing import Any

from captioning.config import build, decoding_name, entry_point
from captioning.schemas import EvaluateConfig


def evaluate(config: dict[str, Any]) -> None:
    """Writes a caption for every image of a split once and scores them; leaves what `results.write_report` does."""
    from captioning.data.annotations import select
    from captioning.ensemble import load_all
    from captioning.errors import must_be
    from captioning.results import describe, write_report
    from captioning.searches import seeded
    from captioning.sources import report_unreadable

    must_be("batch_size", config["batch_size"], least=1)
    data, split = config["data"], config["split"]
    decoding = dict(config["decoding"])
    others = decoding.pop("checkpoints") or []
    predictor = load_all(config["checkpoint"], others, device=config["device"], places=config["places"])
    scorer, everything = build(config["metrics"]), build(data["reader"])
    records, sources = select(everything, split), []
    for member in predictor.members:
        made = build(config["features"])(
            member.encoder, member.transform, records, name=data["name"], skip_unreadable=data["skip_unreadable"]
        )
        report_unreadable(made)
        sources.append(made)
        records = made.records  # what one member cannot read is left out for all
    search = seeded(build(decoding))
    captions = write_captions(predictor, sources, records, search=search, batch_size=config["batch_size"])
    seen = [caption for record in everything if record.split == "train" for caption in record.captions]
    report = scorer(
        {record.image_id: record.captions for record in records}, captions, training=seen if split != "train" else None
    )
    extra = build(data["extra_scores"])(captions, split=split) if data["extra_scores"] else {}
    about = {"data": data["name"], "split": split, "decoding": decoding_name(config["decoding"])}
    if predictor.places:
        about["decoding"] += f", hard attention at the {predictor.places} place"
    output = Path(config["output"])
    write_report(output, report, about, extra=extra)
    print(describe(report, about, extra=extra))
    print(f"captions and scores: {output}")


def write_captions(predictor, sources, records, *, search, batch_size: int) -> dict[int, str]:
    """{image id: caption} for every record, in order; each member of an ensemble reads its own source."""
    import torch
    from torch.utils.data import DataLoader
    from tqdm import tqdm

    from captioning.data.datasets import ImageDataset, collate_images
    from captioning.predictor import write

    loaders = [
        DataLoader(
            ImageDataset(records, source.read),
            batch_size=batch_size,
            num_workers=source.workers,
            collate_fn=collate_images,
        )
        for source in sources
    ]
    encoders = [source.encoder.to(predictor.device) for source in sources]
    captions: dict[int, str] = {}
    with torch.inference_mode():
        for parts in tqdm(
            zip(*loaders, strict=True), desc="captions", unit="batch", total=len(loaders[0]), disable=None
        ):
            image_ids, images, masks = zip(*parts, strict=True)
            features = tuple(e(i.to(predictor.device)) for e, i in zip(encoders, images, strict=True))
            masks = tuple(None if mask is None else mask.to(predictor.device) for mask in masks)
            if len(sources) == 1:
                features, masks = features[0], masks[0]
            named = image_ids[0].tolist()
            told = [f"image {image_id}" for image_id in named]
            texts = write(
                predictor.captioner, features, masks, search=search, vocabulary=predictor.vocabulary, names=told
            )
            captions |= zip(named, texts, strict=True)
    return captions


main = entry_point("evaluate", EvaluateConfig, evaluate)

if __name__ == "__main__":
    main()
