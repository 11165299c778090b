"""Caption an image with several checkpoints for the demo, and return captions and attention weights as plain values."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from captioning.checkpoints import METADATA, WEIGHTS
from captioning.errors import CheckpointError, ConfigError
from captioning.inference import Caption, Predictor, get_search, tag_notes
from captioning.web import as_address, shrink

_SHOWN = 960  # longer side of the image that is sent back to the page, in pixels
DIGITS = 5  # digits of an attention weight after the decimal point
BEST = 3  # number of beam search captions on the page
MOST_TEXTS, LONGEST_TEXT = 32, 1000  # of one request for maps; a text's length is in characters


class DemoRequest(NamedTuple):
    """The settings that a user can choose on the page.

    Attributes:
        beam_size: number of beams.
        samples: number of sampled captions.
        temperature: of the samples.
        tags: 1: tags guide the captions of captioners that have a guide; 0: they do not.
    """

    beam_size: int = 5
    samples: int = 3
    temperature: float = 1.0
    tags: int = 1


# The smallest and the largest value of each setting.
BOUNDS = {"beam_size": (1, 10), "samples": (1, 10), "temperature": (0.1, 2.0), "tags": (0, 1)}


def read_request(given: Mapping[str, str]) -> DemoRequest:
    """Read the settings of a request from its query; missing settings have their defaults.

    Raises:
        ConfigError: a setting is unknown, or not a number within its bounds.
    """
    values: dict[str, Any] = {}
    for key, text in given.items():
        if key not in BOUNDS:
            raise ConfigError(f"setting '{key[:40]}' does not exist. Use one of {', '.join(BOUNDS)}")
        kind, (least, most) = type(getattr(DemoRequest(), key)), BOUNDS[key]
        try:
            values[key] = kind(text)
        except ValueError:
            values[key] = math.nan
        if not least <= values[key] <= most:
            raise ConfigError(f"{key} must be a number from {least} to {most}")
    return DemoRequest(**values)


def checkpoint_names(paths: Sequence[Path]) -> list[str]:
    """Return a short, distinct name per checkpoint: the run's folder, or the file's name of an exported checkpoint.

    If such names are equal, more of the path is added.
    """
    parts = [[part for part in path.with_suffix("").parts if part != "checkpoints"] for path in paths]
    parts = [[*own, ""] if path.suffix in (WEIGHTS, METADATA) else own for own, path in zip(parts, paths, strict=True)]
    for length in range(1, max(map(len, parts), default=1) + 1):
        names = [" / ".join(own[-length - 1 : -1] or own[-1:]) for own in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{number}: {path}" for number, path in enumerate(paths, start=1)]


def with_encoder(predictor: Predictor) -> Predictor:
    """Build a predictor's encoder now, so that the first photo does not have to wait for it.

    Raises:
        CheckpointError: the model looks at a detector's regions, or its encoder's weights differ from the training's.
    """
    if predictor.encoder.output == "regions":
        raise CheckpointError(
            f"{predictor.path} was trained on a detector's regions and cannot caption a photo by itself. Use a "
            "checkpoint with another encoder"
        )
    return predictor


def caption_picture(predictors: Mapping[str, Predictor], picture: Image.Image, wishes: DemoRequest) -> dict[str, Any]:
    """Caption an image with every checkpoint by greedy decoding, beam search and sampling.

    Returns:
        Plain values for the page: the image, its size, and per model the captions with their attention weights (one
        row per word, locations in row-major order) and the grid's rows and columns, the tags that guided them (null
        without a guide), and the names of the maps that `map_texts` can compute of them. Boxes are in pixels of the
        original image.
    """
    searches = {
        "greedy": get_search("greedy"),
        "beam": get_search("beam", beam_size=wishes.beam_size, n_best=min(BEST, wishes.beam_size)),
        "sample": get_search("sample", samples=wishes.samples, temperature=wishes.temperature),
    }
    models = []
    for name, predictor in predictors.items():
        guided = bool(wishes.tags) and predictor.guide is not None
        found = predictor.caption_by_each(picture, searches, guided=guided)
        box = predictor.transform.box(*picture.size)
        plain = {key: [_plain(caption) for caption in captions] for key, captions in found.items()}
        tags = _tags(found["greedy"][0]) if guided else None
        model = {"name": name, "attention": predictor.attention_kind, "box": list(box), "searches": plain, "tags": tags}
        # Words that tags let a caption borrow are not in the vocabulary, so they cannot be read again.
        models.append(model | {"maps": [] if guided else list(predictor.map_names)})
    shown = as_address(shrink(picture, _SHOWN))
    return {"width": picture.width, "height": picture.height, "picture": shown, "models": models}


def map_texts(predictor: Predictor, picture: Image.Image, texts: Sequence[str], name: str) -> dict[str, Any]:
    """Compute one map of each word of captions of an image, by forced decoding.

    Args:
        predictor: the captioner.
        picture: the image.
        texts: the captions.
        name: one of `Predictor.map_names`.

    Returns:
        Plain values for the page: the weights of each caption, one row per word, or null without a map.
    """
    found = predictor.forced_captions([picture] * len(texts), texts, map=name)
    return {"weights": [_weights(caption) for caption in found]}


def read_given_captions(content: bytes) -> list[str]:
    """Read the captions of a request for maps: a JSON list of texts.

    Raises:
        ConfigError: it is not such a list, or the list or a text is too long.
    """
    try:
        texts = json.loads(content)
    except ValueError:
        texts = None
    if not isinstance(texts, list) or not 1 <= len(texts) <= MOST_TEXTS:
        raise ConfigError(f"captions must be a JSON list of 1 to {MOST_TEXTS} texts in the first line of the request")
    if any(not isinstance(text, str) or len(text) > LONGEST_TEXT for text in texts):
        raise ConfigError(f"captions must be texts of at most {LONGEST_TEXT} characters")
    return texts


def _tags(caption: Caption) -> list[dict[str, Any]]:
    return [{"noun": tag.noun, "confidence": round(tag.confidence, DIGITS)} for tag in caption.tags]


def _plain(caption: Caption) -> dict[str, Any]:
    places = None if caption.places is None else caption.places.tolist()
    gaps, words = _spaced(caption)
    grid = caption.grid and list(caption.grid)
    where = {"weights": _weights(caption), "grid": grid, "places": places, "tags": tag_notes(caption)}
    return {"words": words, "gaps": gaps, "log_prob": caption.log_prob, **where}


def _weights(caption: Caption) -> list[list[float]] | None:
    if caption.attention is None:
        return None
    return [[round(float(weight), DIGITS) for weight in row] for row in caption.attention]


def _spaced(caption: Caption) -> tuple[list[str], list[str]]:
    """Return what stands before each word in the text of the caption, and the words.

    Between words this is a space, nothing (Chinese), or a mark (Tibetan). Single characters have nothing between them:
    there, the token of a space is the space.
    """
    gaps, words, at = [], [], 0
    for word in caption.tokens:
        found = caption.text.find(word, at)
        if found < 0 or found - at > 1:  # the tokenizer writes this token as a space
            gaps.append("")
            words.append(" ")
            at += caption.text.startswith(" ", at)
        else:
            gaps.append(caption.text[at:found])
            words.append(word)
            at = found + len(word)
    return gaps, words
