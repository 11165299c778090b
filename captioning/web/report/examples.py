"""Prepare an example for the report: an image, its caption and references, and one attention map per word."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from PIL import Image, ImageDraw

from captioning.data import Record, open_picture
from captioning.decoding import forced_decoding
from captioning.errors import DataError
from captioning.features import RegionFolder, Regions
from captioning.inference import Caption, Predictor, tag_notes
from captioning.visualise import Maps, scale
from captioning.web import as_address, shrink

PICTURE, PANEL = 480, 190  # longer side of an image and of a panel, in pixels


class Word(NamedTuple):
    """A word of an example.

    Attributes:
        text: the word.
        address: the word's attention map, as a `data:` address.
        told: a description of the attention map.
    """

    text: str
    address: str
    told: str


class Example(NamedTuple):
    """An example in the report.

    Attributes:
        caption: the generated caption.
        score: its score.
        references: the reference captions.
        file: the image's file name.
        image_id: the image id.
        address: the image as a `data:` address; "" if it cannot be read.
        words: the words with their attention maps.
        note: the reason why the image cannot be read, or "".
    """

    caption: str
    score: float
    references: tuple[str, ...]
    file: str
    image_id: int
    address: str
    words: list[Word]
    note: str


def make_example(
    predictor: Predictor, record: Record, caption: str, score: float, *, regions: RegionFolder | None
) -> Example:
    """Prepare a caption of an evaluation; its attention maps are computed by forced decoding of the same words.

    Args:
        predictor: the captioner that wrote the caption.
        record: the image with its references.
        caption: the caption.
        score: the caption's score.
        regions: the reader of a detector's regions, for captioners that look at regions; None for others.
    """
    example = Example(caption, score, record.captions, record.path.name, record.image_id, "", [], "")
    try:
        picture = open_picture(record.path)
        words = predictor.vocabulary.tokenizer.split_joined(caption)
        forced = example_lead(predictor, picture if regions is None else regions[record], words)
    except DataError as error:
        return example._replace(note=str(error))
    example = example._replace(address=as_address(shrink(picture, PICTURE)))
    maps = maps_of(forced)
    return example if maps is None else example._replace(words=draw_words(picture, maps))


def example_lead(predictor: Predictor, seen: Image.Image | Regions, words: Sequence[str]) -> Caption:
    """Force the captioner to write given words of its vocabulary for an image or a detector's regions."""
    tokens = predictor.vocabulary.encode(words)[1:]
    search = partial(forced_decoding, tokens=[tokens])
    if isinstance(seen, Image.Image):
        return predictor.all_captions([seen], search)[0][0]
    return predictor.caption_regions([seen], search)[0][0]


def maps_of(caption: Caption) -> Maps | None:
    """Return the attention maps of a caption; None if there is nothing to draw."""
    if caption.attention is None or not caption.tokens:
        return None
    where: dict[str, Any]
    if caption.regions is not None and len(caption.regions):
        where = {"regions": caption.regions}
    elif caption.regions is None and caption.grid is not None:
        where = {"box": caption.box, "grid": caption.grid}
    else:
        return None
    where |= {"places": caption.places, "sentinel": caption.sentinel, "tags": tag_notes(caption)}
    return Maps(caption.tokens, caption.attention, **where)


def draw_words(picture: Image.Image, maps: Maps) -> list[Word]:
    """Draw one small panel per word; all panels share one color scale."""
    shown = shrink(picture, PANEL)
    panels, _ = maps.panels(shown, picture.size)
    ratio = (shown.width / picture.width, shown.height / picture.height)
    words = []
    for index, (word, panel) in enumerate(zip(maps.words, panels, strict=True)):
        drawn = Image.fromarray(panel.pixels)
        if panel.mark is not None:
            region = [round(edge) for edge in scale(panel.mark, *ratio)]
            pencil = ImageDraw.Draw(drawn)
            pencil.rectangle(region, outline="black", width=4)
            pencil.rectangle([region[0] + 1, region[1] + 1, region[2] - 1, region[3] - 1], outline="white", width=2)
        description = f"largest weight {maps.weights[index].max():.2f}"
        if maps.sentinel is not None:
            description += f", {maps.sentinel[index]:.0%} of the weight not on the image"
        if maps.tags is not None and maps.tags[index]:
            description += f", {maps.tags[index]}"
        words.append(Word(word, as_address(drawn, quality=80), description))
    return words
