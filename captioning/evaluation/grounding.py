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
_NAME = len("attention - uniform ")  # least width of the column with the names
_ATTENTION = ("attention",)


def caption_and_ground(
    predictor: "Predictor",
    records: "Sequence[Record]",
    instances: "Instances",
    *,
    search: Callable,
    batch_size: int,
    skip_unreadable: bool,
    source: "Source | None" = None,
    maps: Sequence[str] = _ATTENTION,
) -> dict:
    """Caption every readable image, and measure the maps of each word that names an annotated category.

    Args:
        predictor: a captioner.
        records: the images.
        instances: the annotated objects of these images.
        search: the decoding, with its arguments set.
        batch_size: images captioned together.
        skip_unreadable: whether to skip unreadable images, with a notice, instead of raising an error.
        source: the records' stored features (`captioning.features.sources`); None: the encoder computes them.
        maps: the maps of a word, some of `Predictor.map_names`; each is measured under its name.

    Returns:
        {image id: the `Grounded` mentions of its caption}.

    Raises:
        CheckpointError: the model does not have one of these maps.
        DataError: an image's size differs from the size that its annotations are for.
    """
    from tqdm import tqdm

    from captioning.data import open_picture
    from captioning.errors import CheckpointError, DataError
    from captioning.inference import BLIND
    from captioning.metrics import compile_phrases, ground_caption, looked_at

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
        captions: Sequence[dict] = []
        if opened and (source or tuple(maps) != _ATTENTION):
            captions = _caption_features(predictor, source, opened, search, maps)
        elif opened:
            found = predictor.caption_pictures([picture for _, picture in opened], search)
            captions = [{maps[0]: caption} for caption in found]
        for (record, picture), named in zip(opened, captions, strict=True):
            if any(each.attention is None for each in named.values()):
                raise CheckpointError(BLIND.format(predictor.path))
            (name, caption), *others = named.items()
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
                name=name,
                others={other: looked_at(each.attention, each.places) for other, each in others},
            )
    return grounded


def _caption_features(
    predictor: "Predictor", source: "Source | None", opened: Sequence[tuple], search: Callable, maps: Sequence[str]
) -> list[dict]:
    """Caption pairs of (record, opened image) from features: {map: caption with this map} for each of them."""
    import torch

    from captioning.data import stack_images
    from captioning.inference import with_maps

    with torch.inference_mode():
        if source:
            images, _ = stack_images([source.read(record) for record, _ in opened])
            features = source.encoder.to(predictor.device)(images.to(predictor.device))
        else:
            features = predictor.encode([picture for _, picture in opened])
        found = predictor.search_features(features, search, names=[record.path for record, _ in opened])
        named = predictor.captioner.name_tags(features)
    best = {maps[0]: [group[0] for group in found]}
    if tuple(maps) != _ATTENTION:
        best = with_maps(predictor.captioner, features, best[maps[0]], maps, start=predictor.vocabulary.start)
    return [
        {name: predictor.as_caption(best[name][image], picture.size, nouns=nouns) for name in maps}
        for image, ((_, picture), nouns) in enumerate(zip(opened, named, strict=True))
    ]


def grounding_table(summary: Mapping[str, Any], *, title: str) -> str:
    """Format the summary of `captioning.metrics.summarize` as a printable table.

    Args:
        summary: the summary. For several maps, the table has their differences from the first one only.
        title: the title of the table.
    """
    from captioning.metrics import MEASURES, RIVALS

    words, images = summary["words"], summary["images with scored words"]
    lines = [
        f"{title}: {words} words name an object in the image, in {images} of {summary['images']} images; "
        f"{summary['hallucinated']} more words name an object that is not in the image"
    ]
    if summary["means"] is None:
        return lines[0]
    lines += ["mean over words [95 % interval by bootstrap over images]", ""]
    maps, differences = [name for name in summary["means"] if name not in (*RIVALS, "chance")], summary["differences"]
    if len(maps) > 1:
        differences = {f"{name} - {maps[0]}": differences[f"{name} - {maps[0]}"] for name in maps[1:]}
    rows = {**summary["means"], **differences}
    width = max(_NAME, *(len(name) + 1 for name in rows))
    lines.append(" " * (width + 2) + "".join(f"{measure:<{_CELL}}" for measure in MEASURES).rstrip())
    for name, measures in rows.items():
        cells = [f"{cell['mean']:.3f} [{cell['low']:.3f}, {cell['high']:.3f}]" for cell in measures.values()]
        name = name.replace("centre", "center")  # the stored keys have the British spelling
        lines.append(f"  {name:<{width}}" + "".join(f"{cell:<{_CELL}}" for cell in cells).rstrip())
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
