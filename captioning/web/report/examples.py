"""Prepare a caption for the report: its image, its references, and an attention map per word."""

from collections.abc import Sequence
from functools import partial
from math import isqrt
from typing import NamedTuple

from PIL import Image, ImageDraw

from captioning.data import Record, open_picture
from captioning.decoding import forced_decoding
from captioning.errors import DataError
from captioning.features import RegionFolder
from captioning.inference import Caption, Predictor
from captioning.visualise import Maps, scale
from captioning.web import as_address, shrink

PICTURE, PANEL = 480, 190  # pixels of the longer side


class Word(NamedTuple):
    """text: the word. address: of its panel. told: what the panel shows, in words."""

    text: str
    address: str
    told: str


class Example(NamedTuple):
    """address: of the picture, "" where it cannot be read, for the reason in `note`."""

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
    """One caption that an evaluation wrote; its attention is the model's as it writes these very words."""
    example = Example(caption, score, record.captions, record.path.name, record.image_id, "", [], "")
    try:
        picture = open_picture(record.path)
        made = example_lead(predictor, picture if regions is None else regions[record], caption.split())
    except DataError as error:
        return example._replace(note=str(error))
    example = example._replace(address=as_address(shrink(picture, PICTURE)))
    maps = maps_of(made)
    return example if maps is None else example._replace(words=draw_words(picture, maps))


def example_lead(predictor: Predictor, seen, words: Sequence[str]) -> Caption:
    """The caption of given words of the vocabulary, for a picture or a detector's regions."""
    tokens = predictor.vocabulary.encode(words, max_length=len(words))[1:]
    look = predictor.all_captions if isinstance(seen, Image.Image) else predictor.caption_regions
    return look([seen], partial(forced_decoding, tokens=[tokens]))[0][0]


def maps_of(made: Caption) -> Maps | None:
    """Where the caption's words looked; None where there is nothing to draw."""
    if made.attention is None or not made.tokens:
        return None
    if made.regions is not None:
        where = {"regions": made.regions} if len(made.regions) else None
    else:
        where = {"box": made.box} if isqrt(made.attention.shape[1]) ** 2 == made.attention.shape[1] else None
    if where is None:
        return None
    return Maps(made.tokens, made.attention, places=made.places, sentinel=made.sentinel, **where)


def draw_words(picture: Image.Image, maps: Maps) -> list[Word]:
    """A small panel a word, all on one scale of colours."""
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
        told = f"largest weight {maps.weights[index].max():.2f}"
        if maps.sentinel is not None:
            told += f", {maps.sentinel[index]:.0%} not on the picture"
        words.append(Word(word, as_address(drawn, quality=80), told))
    return words
