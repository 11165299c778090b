"""Caption images and compare where each word looked with the annotated instance that it names."""

import csv
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

BLIND = "{}: a model without attention looks nowhere; train one with it"


def caption_and_ground(
    predictor, records, instances, *, search, batch_size: int, skip_unreadable: bool, source=None
) -> dict:
    """{image id: the `Grounded` mentions of its caption}, for every readable record.

    Args:
        source: of the records' features (`captioning.features.sources`); None: made of the pictures here.

    Raises:
        CheckpointError: the model has no attention.
        DataError: a picture is not of the size that its instances are for.
    """
    from tqdm import tqdm

    from captioning.data import open_picture
    from captioning.errors import CheckpointError, DataError
    from captioning.metrics import compile_phrases, ground_caption

    phrases, grounded = compile_phrases(instances.words), {}
    for at in tqdm(range(0, len(records), batch_size), desc="captions", unit="batch", disable=None):
        opened = []
        for record in records[at : at + batch_size]:
            try:
                opened.append((record, open_picture(record.path)))
            except DataError as error:
                if not skip_unreadable:
                    raise
                print(f"left out: {error}", file=sys.stderr)
        captions = []
        if opened and source:
            captions = _caption_features(predictor, source, opened, search)
        elif opened:
            captions = predictor.caption_pictures([picture for _, picture in opened], search)
        for (record, picture), made in zip(opened, captions, strict=True):
            if made.attention is None:
                raise CheckpointError(BLIND.format(predictor.path))
            annotated = instances.pictures[record.image_id]
            if picture.size != (annotated.width, annotated.height):
                size = f"{picture.width} × {picture.height}"
                raise DataError(
                    f"{record.path}: the picture has {size} pixels, but its instances are for "
                    f"{annotated.width} × {annotated.height}: fetch the original picture"
                )
            grounded[record.image_id] = ground_caption(
                made.tokens,
                made.attention,
                places=made.places,
                box=made.box,
                size=picture.size,
                things=annotated.instances,
                phrases=phrases,
            )
    return grounded


def _caption_features(predictor, source, opened: Sequence[tuple], search: Callable) -> list:
    """As `Predictor.caption_pictures`, of (record, picture) whose features a source has."""
    import torch

    from captioning.data import stack_images
    from captioning.inference import generate

    with torch.inference_mode():
        images, _ = stack_images([source.read(record) for record, _ in opened])
        features = source.encoder.to(predictor.device)(images.to(predictor.device))
        names = [record.path for record, _ in opened]
        found = generate(predictor.captioner, features, search=search, vocabulary=predictor.vocabulary, names=names)
    return [predictor.as_caption(best, picture.size) for (best, *_), (_, picture) in zip(found, opened, strict=True)]


def grounding_table(summary: Mapping[str, Any], *, title: str) -> str:
    """The summary as plain lines."""
    from captioning.metrics import MEASURES

    words, images = summary["words"], summary["images with scored words"]
    lines = [
        f"{title}: {words} words that name a thing in the picture, in {images} of {summary['images']} images; "
        f"{summary['hallucinated']} more name what is not there"
    ]
    if summary["means"] is None:
        return lines[0]
    lines += ["mean over words [95 % by bootstrap over images]", ""]
    lines.append(" " * 22 + "".join(f"{measure:<22}" for measure in MEASURES).rstrip())
    for name, measures in {**summary["means"], **summary["differences"]}.items():
        cells = [f"{cell['mean']:.3f} [{cell['low']:.3f}, {cell['high']:.3f}]" for cell in measures.values()]
        lines.append(f"  {name:<20}" + "".join(f"{cell:<22}" for cell in cells).rstrip())
    return "\n".join(lines)


def grounding_csv(grounded: Mapping[int, list]) -> str:
    """A CSV row a mention; measures are blank where the category is not in the picture."""
    every = [(image_id, each) for image_id, mentions in grounded.items() for each in mentions]
    names = next((list(each.measures) for _, each in every if each.measures), [])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image_id", "position", "words", "category", "in_picture", *(n.replace(" ", "_") for n in names)])
    for image_id, each in every:
        values = [f"{each.measures[name]:.6g}" for name in names] if each.measures else [""] * len(names)
        known = int(each.measures is not None)
        writer.writerow([image_id, each.mention.start, each.phrase, each.mention.category, known, *values])
    return text.getvalue()
