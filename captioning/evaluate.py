"""Scores a checkpoint: `captioning-evaluate checkpoint=PATH data=flickr8k data.root=DIR split=val`."""

from pathlib import Path
from typing import Any

from captioning.config import build, decoding_name, entry_point
from captioning.schemas import EvaluateConfig


def evaluate(config: dict[str, Any]) -> None:
    """Writes a caption for every image of a split once and scores them; leaves what `results.write_report` does."""
    from captioning.data.annotations import select
    from captioning.predictor import load
    from captioning.results import describe, write_report
    from captioning.sources import report_unreadable

    data, split = config["data"], config["split"]
    predictor = load(config["checkpoint"], device=config["device"])
    scorer, everything = build(config["metrics"]), build(data["reader"])
    records = select(everything, split)
    source = build(config["features"])(
        predictor.encoder, predictor.transform, records, name=data["name"], skip_unreadable=data["skip_unreadable"]
    )
    report_unreadable(source)
    captions = write_captions(predictor, source, search=build(config["decoding"]), batch_size=config["batch_size"])
    seen = [caption for record in everything if record.split == "train" for caption in record.captions]
    report = scorer(
        {record.image_id: record.captions for record in source.records},
        captions,
        training=seen if split != "train" else None,
    )
    extra = build(data["extra_scores"])(captions, split=split) if data["extra_scores"] else {}
    about = {"data": data["name"], "split": split, "decoding": decoding_name(config["decoding"])}
    output = Path(config["output"])
    write_report(output, report, about, extra=extra)
    print(describe(report, about, extra=extra))
    print(f"captions and scores: {output}")


def write_captions(predictor, source, *, search, batch_size: int) -> dict[int, str]:
    """{image id: caption} for every record of the source, in order."""
    import torch
    from torch.utils.data import DataLoader
    from tqdm import tqdm

    from captioning.data.datasets import ImageDataset
    from captioning.predictor import write

    loader = DataLoader(ImageDataset(source.records, source.read), batch_size=batch_size, num_workers=source.workers)
    encoder = source.encoder.to(predictor.device)
    captions: dict[int, str] = {}
    with torch.inference_mode():
        for image_ids, images in tqdm(loader, desc="captions", unit="batch"):
            features = encoder(images.to(predictor.device))
            texts = write(predictor.captioner, features, search=search, vocabulary=predictor.vocabulary)
            captions |= zip(image_ids.tolist(), texts, strict=True)
    return captions


main = entry_point("evaluate", EvaluateConfig, evaluate)

if __name__ == "__main__":
    main()
