"""Draw the built-in data set on first use: colored shapes on varied backgrounds, stored as ordinary COCO files.

    root/train/000000000001.png …            images, 224 × 224 pixels
    root/annotations/captions_train.json     five captions per image, from `captioning.data.grammar`, in one language
    root/annotations/instances_train.json    boxes and outlines, with "color", "size" and, for each image, "background"

Each image depends only on the seed, its split and its number in the split, not on the language of the captions. Their
grammar is known, so a caption can be compared with the drawn scene: see `truth`.
"""

import colorsys
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from captioning.data.grammar import Scene, Thing, describe_scene, is_true
from captioning.data.grammars import BACKGROUNDS, ENGLISH, LANGUAGES, SHAPES, Language, find_language
from captioning.data.instances import Instances, read_instances
from captioning.data.parsing import STRICT, Handling
from captioning.data.readers import read_coco_files
from captioning.data.records import Record
from captioning.errors import ConfigError, DataError

VERSION = 4  # of the drawing and the grammar; increase it when either changes
_SIDE = 224  # side of an image in pixels
SUPERSAMPLING = 4
FIRST_ID = {"train": 1, "val": 1_000_001, "test": 2_000_001}  # ids differ between splits
CATEGORIES = {name: number for number, name in enumerate(SHAPES, start=1)}

# Colors and shapes that frozen ImageNet features can distinguish. They confuse purple with green, crosses with stars,
# and black with white.
PALETTE = {
    "red": (248, 8, 8),
    "yellow": (250, 222, 40),
    "green": (4, 104, 38),
    "blue": (40, 80, 215),
    "magenta": (246, 8, 246),
    "white": (248, 248, 248),
}
VARIATION = 12  # largest change of an object's red, green and blue
PIXELS = {"small": (40, 52), "large": (84, 104)}  # range of the longer side of the box
TURN = {"circle": 0, "square": 8, "triangle": 15, "star": 15, "heart": 15}  # largest rotation in degrees
MARGIN = 4  # pixels between an object and the edge of the image
WIGGLE = 16  # largest distance of an object from the common line, in pixels
# Smallest distance in pixels between two boxes along the line, by the number of things. A location of a CNN's last grid
# covers 32 pixels; two things in one location cannot be attended to separately. Three things leave no room for more.
GAP = {1: 0, 2: 32, 3: 20}
STRAIGHT = 3  # smallest ratio of two things' distance along the line to that across it
CONTRAST = {"plain": 0, "striped": 0.16, "dotted": 0.2, "checked": 0.16, "noisy": 0.28, "shaded": 0.35}  # of brightness
APART = 85  # smallest Euclidean RGB distance between an object and the tones behind it

Color = tuple[int, int, int]


def _corners(number: int) -> np.ndarray:
    """Return points x + iy evenly spaced on the unit circle, y downward, the first one at the top."""
    return -1j * np.exp(2j * np.pi * np.arange(number) / number)


_TURNS = 2 * np.pi * np.arange(48) / 48
_HEART_WAVES = sum(size * np.cos(n * _TURNS) for n, size in enumerate((13, -5, -2, -1), start=1))
# Outlines as complex corners, at any position and scale; curves are approximated by many short sides.
OUTLINES = {
    "square": _corners(4) * np.exp(0.25j * np.pi),
    "triangle": _corners(3),
    "star": _corners(10) * np.where(np.arange(10) % 2, 0.42, 1),
    "heart": 16 * np.sin(_TURNS) ** 3 - 1j * _HEART_WAVES,
    "circle": _corners(64),
}


class Piece(NamedTuple):
    """One object as it is drawn: outline [N, 2] in pixels of the image, and its exact color."""

    thing: Thing
    outline: np.ndarray
    color: Color


def _outline(random: Random, *, shape: str, size: str) -> np.ndarray:
    """Return the corners [N, 2] of a slightly rotated outline in pixels; its box begins at the origin."""
    turned = OUTLINES[shape] * np.exp(1j * math.radians(random.uniform(-TURN[shape], TURN[shape])))
    points = np.stack([turned.real, turned.imag], axis=1)
    points -= points.min(0)
    return (points * random.uniform(*PIXELS[size]) / points.max()).round(2)


def _boxes(random: Random, extents: np.ndarray, *, axis: int) -> np.ndarray | None:
    """Return boxes [N, 4] of N widths and heights, roughly along the axis (0 is x); None if they do not fit."""
    lengths, number = extents[:, axis], len(extents)
    gap = GAP[number]
    free = _SIDE - 2 * MARGIN - lengths.sum() - gap * (number - 1)
    if free < 0:
        return None
    line = random.uniform(0.15 * _SIDE, 0.85 * _SIDE)
    corners = np.array([[line + random.uniform(-WIGGLE, WIGGLE)] for _ in extents]) - extents / 2
    slack = np.sort([random.uniform(0, free) for _ in extents])
    corners[:, axis] = MARGIN + slack + gap * np.arange(number) + lengths.cumsum() - lengths
    corners = corners.clip(MARGIN, _SIDE - MARGIN - extents).round(2)
    centers = corners + extents / 2
    distances = np.abs(centers[:, None] - centers)  # [N, N, 2]
    straight = distances[..., axis] >= STRAIGHT * distances[..., 1 - axis]
    return np.hstack([corners, extents]) if straight.all() else None


def _layout(random: Random, *, number: int) -> list[Piece]:
    """Place objects roughly in a row or column. No two have the same color and shape."""
    kinds = random.sample([(shape, color) for shape in SHAPES for color in PALETTE], number)
    axis = random.randrange(2)
    boxes: np.ndarray | None = None
    while boxes is None:
        sizes = [random.choice(tuple(PIXELS)) for _ in kinds]
        outlines = [_outline(random, shape=shape, size=size) for (shape, _), size in zip(kinds, sizes, strict=True)]
        boxes = _boxes(random, np.array([outline.max(0) for outline in outlines]), axis=axis)
    return [
        Piece(Thing(shape, color, size, tuple(box.tolist())), outline + box[:2], _tint(random, color))
        for (shape, color), size, outline, box in zip(kinds, sizes, outlines, boxes, strict=True)
    ]


def _tint(random: Random, color: str) -> Color:
    """Return a random variation of the named color."""
    red, green, blue = (max(0, min(255, level + random.randint(-VARIATION, VARIATION))) for level in PALETTE[color])
    return red, green, blue


def _tones(random: Random, *, contrast: float, colors: Sequence[Color]) -> np.ndarray | None:
    """Return 256 muted tones [256, 3] from bright to dark; None if a tone is close to an object's color."""
    tint = np.array(colorsys.hsv_to_rgb(random.random(), random.uniform(0, 0.15), 1.0))
    bright = random.uniform(0.2, 0.93)
    dark = bright - contrast
    tones = 255 * np.linspace(bright * tint, dark * tint, 256)
    distances = np.linalg.norm(tones[::51, None] - np.array(colors), axis=-1)
    return tones.round().astype(np.uint8) if dark >= 0.12 and distances.min() >= APART else None


def _pattern(random: Random, *, background: str) -> np.ndarray:
    """Return the index of each pixel's tone, [SIDE, SIDE] uint8, with edges smoothed over one pixel."""
    rows, columns = np.mgrid[:_SIDE, :_SIDE].astype(np.float32)
    angle, period = random.uniform(0, 2 * math.pi), random.uniform(26, 40)
    shift = random.uniform(0, period)
    across = columns * math.cos(angle) + rows * math.sin(angle) + shift
    along = rows * math.cos(angle) - columns * math.sin(angle) + shift
    # Distance in pixels from the nearest edge of a band half a period wide, positive inside it.
    bands, other = (np.abs(t / period % 1 - 0.5) * period - period / 4 for t in (across, along))
    if background == "noisy":
        grains = np.frombuffer(random.randbytes(_SIDE // 2 * _SIDE // 2), np.uint8).reshape(_SIDE // 2, -1)
        return grains.repeat(2, axis=0).repeat(2, axis=1)
    weight = {
        "plain": np.zeros_like(rows),
        "striped": bands + 0.5,
        "checked": np.minimum(np.abs(bands), np.abs(other)) * np.sign(bands * other) + 0.5,
        "dotted": 0.22 * period - np.hypot(period / 4 - bands, period / 4 - other) + 0.5,
        "shaded": (across - across.min()) / np.ptp(across),
    }[background]
    return (255 * weight.clip(0, 1)).round().astype(np.uint8)


def draw_scene(
    seed: int, split: str, index: int, language: Language = ENGLISH
) -> tuple[Image.Image, Scene, list[np.ndarray], tuple[str, ...]]:
    """Draw one scene; the result depends only on the arguments, and the image only on the first three.

    Args:
        seed: seed of the data set.
        split: the split.
        index: the image's number in the split.
        language: the language of the captions.

    Returns:
        The image, its scene, the outlines [N, 2] of its things in pixels, and five captions.
    """
    random = Random(f"{seed}/{split}/{index}")
    number = random.choices((1, 2, 3), weights=(20, 60, 20))[0]
    background = random.choice(BACKGROUNDS)
    tones = None
    while tones is None:
        pieces = _layout(random, number=number)
        tones = _tones(random, contrast=CONTRAST[background], colors=[piece.color for piece in pieces])
    picture = Image.fromarray(tones[_pattern(random, background=background)])
    for piece in pieces:
        mask = Image.new("L", (_SIDE * SUPERSAMPLING,) * 2)
        ImageDraw.Draw(mask).polygon((piece.outline * SUPERSAMPLING).ravel().tolist(), fill=255)
        picture.paste(piece.color, mask=mask.reduce(SUPERSAMPLING))
    scene = Scene(tuple(piece.thing for piece in pieces), background)
    return picture, scene, [piece.outline for piece in pieces], describe_scene(scene, random, language=language)


def _annotate(scene: Scene, outlines: Sequence[np.ndarray], image_id: int) -> list[dict]:
    """Return COCO instances of one image in the scene's order, with the additional fields "color" and "size"."""
    return [
        {
            "id": 10 * image_id + number,
            "image_id": image_id,
            "category_id": CATEGORIES[thing.shape],
            "bbox": list(thing.box),
            "area": _area(outline),
            "segmentation": [outline.round(2).ravel().tolist()],
            "iscrowd": 0,
            "color": thing.color,
            "size": thing.size,
        }
        for number, (thing, outline) in enumerate(zip(scene.things, outlines, strict=True))
    ]


def _area(outline: np.ndarray) -> float:
    """Return the area of a polygon in square pixels (shoelace formula)."""
    x, y = outline.T
    return round(abs(float(x @ np.roll(y, 1) - y @ np.roll(x, 1))) / 2, 2)


def _write_split(folder: Path, *, split: str, count: int, info: Mapping, progress: tqdm) -> None:
    """Write the images and both annotation files of one split."""
    images: list[dict[str, Any]] = []
    captions: list[dict[str, Any]] = []
    instances: list[dict[str, Any]] = []
    square = {"width": _SIDE, "height": _SIDE}
    language = find_language(_language_of(info))
    (folder / split).mkdir()
    for index in range(count):
        picture, scene, outlines, texts = draw_scene(info["seed"], split, index, language)
        image_id = FIRST_ID[split] + index
        name = f"{image_id:012d}.png"
        picture.save(folder / split / name)
        images.append({"id": image_id, "file_name": name, **square, "background": scene.background})
        captions += [{"id": 10 * image_id + n, "image_id": image_id, "caption": text} for n, text in enumerate(texts)]
        instances += _annotate(scene, outlines, image_id)
        progress.update()
    categories = [{"id": number, "name": name, "supercategory": "shape"} for name, number in CATEGORIES.items()]
    common = {"info": info, "licenses": [], "images": images}
    files = {"captions": {"annotations": captions}, "instances": {"annotations": instances, "categories": categories}}
    for kind, content in files.items():
        (folder / "annotations" / f"{kind}_{split}.json").write_text(json.dumps(common | content))


def _draw(root: Path, info: Mapping) -> None:
    """Draw the data set in a temporary folder next to `root` and rename it at the end, so `root` is always complete."""
    root.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-") as temporary,
        tqdm(
            total=sum(info["pictures"].values()), desc=f"drawing scenes into {root}", unit="images", disable=None
        ) as progress,
    ):
        folder = Path(temporary) / root.name
        (folder / "annotations").mkdir(parents=True)
        for split, count in info["pictures"].items():
            _write_split(folder, split=split, count=count, info=info, progress=progress)
        folder.rename(root)  # also replaces an empty folder


def _language_of(info: Any) -> str:
    """Return the code of the captions' language; English scenes have none in their info, as before other languages."""
    return info.get("language", ENGLISH.code)


def _check(root: Path, info: Mapping) -> None:
    """Raise a DataError unless the folder has the scenes of this info."""
    found: Any
    try:
        found = json.loads((root / "annotations" / "captions_train.json").read_bytes())["info"]
    except (OSError, ValueError, KeyError, TypeError):
        found = "other files"
    if isinstance(found, dict) and "pictures" in found and _language_of(found) != _language_of(info):
        raise DataError(_other_language(root, wanted=_language_of(info), found=_language_of(found)))
    if found != info:
        raise DataError(f"{root} has {found}, not the scenes of {info}: delete it, or choose another data.root")


def _other_language(root: Path, *, wanted: str, found: str) -> str:
    """Return the message for scenes whose captions are in another language, with a folder for the wanted one."""
    plain = root.name.removesuffix(f"-{found}")
    name = plain if wanted == ENGLISH.code and plain != root.name else f"{plain}-{wanted}"
    return (
        f"{root} has scenes with captions in another language: data.reader.language is {found} there, not {wanted}. "
        f"Set data.root={root.parent / name}, or data.reader.language={found}"
    )


def read_scenes(
    root: str | Path,
    *,
    train: int = 2400,
    val: int = 400,
    test: int = 400,
    seed: int = 0,
    language: str = ENGLISH.code,
    faults: Handling = STRICT,
) -> list[Record]:
    """Read the drawn scenes, all splits together. Draw them first if `root` is missing or empty.

    The images are the same in all languages.

    Args:
        root: folder of the data set.
        train: number of training images, 1 or more.
        val: number of validation images, 1 or more.
        test: number of test images, 1 or more.
        seed: seed of the drawing; independent of all other seeds.
        language: language of the captions: "en", "zh", "ja" or "th".
        faults: how to handle faults, see `captioning.data.readers`.

    Raises:
        ConfigError: a split has no images, or there are no captions in this language.
        DataError: `root` has other files, or scenes with other numbers, seed, language or version; or it cannot be
            written.
    """
    root, pictures = Path(root).resolve(), {"train": train, "val": val, "test": test}
    for split, count in pictures.items():
        if count < 1:
            raise ConfigError(f"data.reader.{split} must be at least 1 image, not {count}")
    info = {"description": "drawn scenes", "version": VERSION, "seed": seed, "pictures": pictures}
    if find_language(language) != ENGLISH:
        info["language"] = language
    try:
        if not root.exists() or not any(root.iterdir()):
            _draw(root, info)
    except OSError as error:
        if not (root / "annotations").is_dir():  # otherwise another process has drawn them
            raise DataError(f"cannot draw the scenes into {root} ({error}): choose another data.root") from error
    _check(root, info)
    return read_coco_files(root, faults=faults)


def read_shapes(root: str | Path, records: Sequence[Record]) -> Instances:
    """Return the shapes in the records' images, with the grammar's English words for them.

    Args:
        root: folder of the data set.
        records: the images.

    Raises:
        DataError: the captions are in another language.
    """
    for split in dict.fromkeys(record.split for record in records):
        if (language := _load(Path(root), split)[1]) != ENGLISH:
            raise DataError(
                f"{root} has captions in {language.name}, but the words that name shapes are English: use data=scenes "
                "with data.reader.language=en, in another data.root"
            )
    return read_instances(root, records, words=ENGLISH.shapes)


def load_scenes(root: str | Path, split: str) -> dict[int, Scene]:
    """Read the drawn scenes of a split from instances_{split}.json.

    Args:
        root: folder of the data set.
        split: the split.

    Returns:
        Image id -> scene.

    Raises:
        DataError: the file is missing, or is not one of drawn scenes.
    """
    return _load(Path(root), split)[0]


def _load(root: Path, split: str) -> tuple[dict[int, Scene], Language]:
    """Return the scenes of a split and the language of their captions."""
    path = root / "annotations" / f"instances_{split}.json"
    shapes = {number: name for name, number in CATEGORIES.items()}
    try:
        content = json.loads(path.read_bytes())
        things: dict[int, list[Thing]] = {image["id"]: [] for image in content["images"]}
        for entry in content["annotations"]:
            thing = Thing(shapes[entry["category_id"]], entry["color"], entry["size"], tuple(entry["bbox"]))
            things[entry["image_id"]].append(thing)
        scenes = {image["id"]: Scene(tuple(things[image["id"]]), image["background"]) for image in content["images"]}
        return scenes, LANGUAGES[_language_of(content["info"])]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} has no drawn scenes ({error!r}): delete {root}, so that they are drawn again"
        ) from error


def truth(captions: Mapping[int, str], *, root: str | Path, split: str) -> dict[str, float]:
    """Return {"truth": share of the captions that are true of their scene}, between 0 and 1.

    The captions are read in the language of the data set.

    Args:
        captions: image id -> caption.
        root: folder of the data set.
        split: the split.

    Raises:
        DataError: there are no captions, or a caption's image is not in the split.
    """
    scenes, language = _load(Path(root), split)
    if unknown := sorted(captions.keys() - scenes.keys()):
        shown = ", ".join(map(str, unknown[:5]))
        raise DataError(
            f"{len(unknown)} captions are of images that are not in {root}, split {split} (image ids {shown}): check "
            "data.root and split"
        )
    if not captions:
        raise DataError(f"no captions to compare with the scenes of {root}, split {split}: give one or more")
    true = sum(is_true(text, scenes[image_id], language) for image_id, text in captions.items())
    return {"truth": true / len(captions)}
