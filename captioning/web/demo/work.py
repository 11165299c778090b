"""Caption an image with several checkpoints for the demo, and return captions and attention as plain values."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from captioning.checkpoints import METADATA, WEIGHTS
from captioning.errors import CheckpointError, ConfigError
from captioning.inference import Caption, Predictor, get_search
from captioning.web import as_address, shrink

_SHOWN = 960  # pixels of the longer side of the picture that goes back to the page
DIGITS = 5  # of an attention weight
BEST = 3  # captions that are shown of a beam search


class DemoRequest(NamedTuple):
    """What the page lets its reader choose."""

    beam_size: int = 3
    samples: int = 3
    temperature: float = 1.0


# Of each wish: the least, the most.
BOUNDS = {"beam_size": (1, 10), "samples": (1, 10), "temperature": (0.1, 2.0)}


def read_request(given: Mapping[str, str]) -> DemoRequest:
    """Wishes out of an address's query; what is not there is as by default.

    Raises:
        ConfigError: an unknown one, or one that is no number within its bounds.
    """
    values = {}
    for key, text in given.items():
        if key not in BOUNDS:
            raise ConfigError(f"there is no setting '{key[:40]}': there are {', '.join(BOUNDS)}")
        kind, (least, most) = type(getattr(DemoRequest(), key)), BOUNDS[key]
        try:
            values[key] = kind(text)
        except ValueError:
            values[key] = math.nan
        if not least <= values[key] <= most:
            raise ConfigError(f"{key} must be a number from {least} to {most}")
    return DemoRequest(**values)


def checkpoint_names(paths: Sequence[Path]) -> list[str]:
    """A short name for each: its run's folder, an exported one's own, or as much of the path as tells them apart."""
    parts = [[part for part in path.with_suffix("").parts if part != "checkpoints"] for path in paths]
    parts = [[*own, ""] if path.suffix in (WEIGHTS, METADATA) else own for own, path in zip(parts, paths, strict=True)]
    for length in range(1, max(map(len, parts), default=1) + 1):
        names = [" / ".join(own[-length - 1 : -1] or own[-1:]) for own in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{number}: {path}" for number, path in enumerate(paths, start=1)]


def with_encoder(predictor: Predictor) -> Predictor:
    """The predictor with its encoder built, so that the first picture need not wait for it.

    Raises:
        CheckpointError: it cannot look at pictures, or its encoder's weights are others now.
    """
    if predictor.encoder.output == "regions":
        raise CheckpointError(
            f"{predictor.path} was trained on a detector's regions: it cannot caption a picture by itself; "
            "give a checkpoint of another encoder"
        )
    return predictor


def caption_picture(predictors: Mapping[str, Predictor], picture: Image.Image, wishes: DemoRequest) -> dict[str, Any]:
    """The picture as it is shown, and what every checkpoint writes of it by greedy, beam and sampled decoding.

    Boxes are in pixels of the whole picture, (width, height); weights are a row a word, places row by row.
    """
    searches = {
        "greedy": get_search("greedy"),
        "beam": get_search("beam", beam_size=wishes.beam_size, n_best=min(BEST, wishes.beam_size)),
        "sample": get_search("sample", samples=wishes.samples, temperature=wishes.temperature),
    }
    models = []
    for name, predictor in predictors.items():
        found = predictor.caption_by_each(picture, searches)
        box = predictor.transform.box(*picture.size)
        told = {key: [_told(made) for made in captions] for key, captions in found.items()}
        models.append({"name": name, "attention": predictor.attention_kind, "box": list(box), "searches": told})
    shown = as_address(shrink(picture, _SHOWN))
    return {"width": picture.width, "height": picture.height, "picture": shown, "models": models}


def _told(made: Caption) -> dict[str, Any]:
    weights = None if made.attention is None else [[round(float(w), DIGITS) for w in row] for row in made.attention]
    places = None if made.places is None else made.places.tolist()
    return {"words": made.tokens, "log_prob": made.log_prob, "weights": weights, "places": places}
