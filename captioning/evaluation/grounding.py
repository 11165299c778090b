"""Caption images, and compare each word's attention map with the annotated object that the word names."""

import csv
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from captioning.data import Instances, Record
    from captioning.features import Source
    from captioning.inference import Predictor

_CELL = len("-0.347 [-0.612, -0.080]") + 2  # width of a column of the printed table
BLIND = (
    "{} has no attention, so its weights cannot be compared with objects. Use map=gradient_input, or a checkpoint of a "
    "model with attention"
)
ATTENTION, GRADIENT = "attention", "gradient_input"
MAP_KINDS = (ATTENTION, GRADIENT)  # what `captioning-ground map=` accepts


def caption_and_ground(
    predictor: "Predictor",
    records: "Sequence[Record]",
    instances: "Instances",
    *,
    search: Callable,
    batch_size: int,
    skip_unreadable: bool,
    source: "Source | None" = None,
    kind: str = ATTENTION,
) -> dict:
    """Caption every readable image, and measure the map of each word that names an annotated category.

    Args:
        predictor: a captioner with attention.
        records: the images.
        instances: the annotated objects of these images.
        search: the decoding, with its arguments set.
        batch_size: images captioned together.
        skip_unreadable: whether to skip unreadable images, with a notice, instead of raising an error.
        source: the records' stored features (`captioning.features.sources`); None: the encoder computes them.
        kind: the map of a word: "attention" (its attention weights) or "gradient_input" (the positive part of
            `captioning.inference.gradient_times_input`, for models without attention too).

    Returns:
        {image id: the `Grounded` mentions of its caption}.

    Raises:
        CheckpointError: the model has no attention.
        DataError: an image's size differs from the size that its annotations are for.
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
        if opened and (source or kind != ATTENTION):
            captions = _caption_features(predictor, source, opened, search, kind)
        elif opened:
            captions = predictor.caption_pictures([picture for _, picture in opened], search)
        for (record, picture), caption in zip(opened, captions, strict=True):
            if caption.attention is None:
                raise CheckpointError(BLIND.format(predictor.path))
            annotated = instances.pictures[record.image_id]
            if picture.size != (annotated.width, annotated.height):
                size = f"{picture.width} × {picture.height}"
                raise DataError(
                    f"{record.path} has {size} pixels, but its annotations are for {annotated.width} × "
                    f"{annotated.height}. Download the original image"
                )
            grounded[record.image_id] = ground_caption(
                caption.tokens,
                caption.attention,
                places=caption.places,
                box=caption.box,
                grid=caption.grid,
                size=picture.size,
                things=annotated.instances,
                phrases=phrases,
            )
    return grounded


def _caption_features(
    predictor: "Predictor", source: "Source | None", opened: Sequence[tuple], search: Callable, kind: str
) -> list:
    """Caption pairs of (record, opened image) from features, with maps of this kind."""
    import torch

    from captioning.data import stack_images
    from captioning.inference import with_gradient_maps

    with torch.inference_mode():
        if source:
            images, _ = stack_images([source.read(record) for record, _ in opened])
            features = source.encoder.to(predictor.device)(images.to(predictor.device))
        else:
            features = predictor.encode([picture for _, picture in opened])
        found = predictor.search_features(features, search, names=[record.path for record, _ in opened])
        named = predictor.captioner.name_tags(features)
    best = [group[0] for group in found]
    if kind == GRADIENT:
        best = with_gradient_maps(predictor.captioner, features, best, start=predictor.vocabulary.start)
    return [
        predictor.as_caption(each, picture.size, nouns=nouns)
        for each, (_, picture), nouns in zip(best, opened, named, strict=True)
    ]


def grounding_table(summary: Mapping[str, Any], *, title: str, kind: str = ATTENTION) -> str:
    """Format the summary of `captioning.metrics.summarize` as a printable table.

    Args:
        summary: the summary.
        title: the title of the table.
        kind: the kind of map, which names the rows.
    """
    from captioning.metrics import MEASURES

    words, images = summary["words"], summary["images with scored words"]
    lines = [
        f"{title}: {words} words name an object in the image, in {images} of {summary['images']} images; "
        f"{summary['hallucinated']} more words name an object that is not in the image"
    ]
    if summary["means"] is None:
        return lines[0]
    lines += ["mean over words [95 % interval by bootstrap over images]", ""]
    lines.append(" " * 22 + "".join(f"{measure:<{_CELL}}" for measure in MEASURES).rstrip())
    for name, measures in {**summary["means"], **summary["differences"]}.items():
        cells = [f"{cell['mean']:.3f} [{cell['low']:.3f}, {cell['high']:.3f}]" for cell in measures.values()]
        name = name.replace("centre", "center")  # the stored keys have the British spelling
        name = name.replace(ATTENTION, "map" if kind != ATTENTION else ATTENTION)
        lines.append(f"  {name:<20}" + "".join(f"{cell:<{_CELL}}" for cell in cells).rstrip())
    return "\n".join(lines)


def grounding_csv(grounded: Mapping[int, list]) -> str:
    """Return a CSV table with one row per mention; measures are blank if the category is not in the image.

    Args:
        grounded: the result of `caption_and_ground`.
    """
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
