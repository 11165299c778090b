"""Scores a checkpoint: `captioning-evaluate checkpoint=PATH data=flickr8k data.root=DIR split=val`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from captioning.config import build, decoding_name, entry_point
from captioning.schemas import EvaluateConfig


def evaluate(config: dict[str, Any]) -> None:
    """Writes a caption for every image of a split once, scores them; leaves captions.json and scores.json."""
    from captioning.data.annotations import select
    from captioning.files import write_json
    from captioning.metrics import score
    from captioning.predictor import load
    from captioning.sources import report_unreadable

    data, split = config["data"], config["split"]
    predictor = load(config["checkpoint"], device=config["device"], places=config["places"])
    records = select(build(data["reader"]), split)
    source = build(config["features"])(
        predictor.encoder, predictor.transform, records, name=data["name"], skip_unreadable=data["skip_unreadable"]
    )
    report_unreadable(source)
    captions = write_captions(predictor, source, search=build(config["decoding"]), batch_size=config["batch_size"])
    scores = score({record.image_id: record.captions for record in source.records}, captions)
    if data["extra_scores"]:
        scores |= build(data["extra_scores"])(captions, split=split)
    output = Path(config["output"])
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "captions.json", [{"image_id": key, "caption": text} for key, text in captions.items()])
    write_json(output / "scores.json", scores)
    decoding = decoding_name(config["decoding"])
    looked = f", hard attention at the {predictor.places} place" if predictor.places else ""
    title = f"{data['name']} {split}, {decoding}{looked}, Penn-Treebank tokens, {len(captions)} images"
    print(_table(scores, title=title))
    print(f"captions and scores: {output}")


def write_captions(predictor, source, *, search, batch_size: int) -> dict[int, str]:
    """{image id: caption} for every record of the source, in order."""
    import torch
    from torch.utils.data import DataLoader
    from tqdm import tqdm

    from captioning.data.datasets import ImageDataset, collate_images
    from captioning.predictor import write

    loader = DataLoader(
        ImageDataset(source.records, source.read),
        batch_size=batch_size,
        num_workers=source.workers,
        collate_fn=collate_images,
    )
    encoder = source.encoder.to(predictor.device)
    captions: dict[int, str] = {}
    with torch.inference_mode():
        for image_ids, images, mask in tqdm(loader, desc="captions", unit="batch"):
            features = encoder(images.to(predictor.device))
            mask = None if mask is None else mask.to(predictor.device)
            texts = write(predictor.captioner, features, mask, search=search, vocabulary=predictor.vocabulary)
            captions |= zip(image_ids.tolist(), texts, strict=True)
    return captions


def _table(scores: Mapping[str, float], *, title: str) -> str:
    rows = [f"  {name:<10}{value:8.4f}" for name, value in scores.items()]
    return "\n".join([title, *rows])


main = entry_point("evaluate", EvaluateConfig, evaluate)

if __name__ == "__main__":
    main()
