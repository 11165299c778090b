"""Draw the built-in data set on first use: colored shapes on varied backgrounds, stored as ordinary COCO files.

    root/train/000000000001.png …            pictures, 224 × 224
    root/annotations/captions_train.json     five captions a picture, from `captioning.data.grammar`
    root/annotations/instances_train.json    boxes and outlines; also "color", "size" and, by picture, "background"

Each picture depends on the seed, its split and its number in the split alone. Since the grammar is known, a caption
can be checked against what was drawn: see `truth`.
"""

import colorsys
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from captioning.data.grammar import BACKGROUNDS, SHAPES, Scene, Thing, describe_scene, is_true
from captioning.data.instances import Instances, read_instances
from captioning.data.parsing import STRICT, Handling
from captioning.data.readers import read_coco_files
from captioning.data.records import Record
from captioning.errors import ConfigError, DataError

VERSION = 4  # of the drawing and the grammar: a change of either is another data set
_SIDE = 224  # pixels of a picture
SUPERSAMPLING = 4
FIRST_ID = {"train": 1, "val": 1_000_001, "test": 2_000_001}  # ids differ between splits
CATEGORIES = {name: number for number, name in enumerate(SHAPES, start=1)}

# Chosen, like the shapes, for what frozen ImageNet features tell apart: they muddle purple with green, crosses with
# stars, and black with white.
PALETTE = {
    "red": (248, 8, 8),
    "yellow": (250, 222, 40),
    "green": (4, 104, 38),
    "blue": (40, 80, 215),
    "magenta": (246, 8, 246),
    "white": (248, 248, 248),
}
VARIATION = 12  # at most, of each of an object's red, green and blue
PIXELS = {"small": (40, 52), "large": (84, 104)}  # longer side of the box
TURN = {"circle": 0, "square": 8, "triangle": 15, "star": 15, "heart": 15}  # degrees either way
MARGIN = 4  # pixels between an object and the picture's edge
WIGGLE = 16  # pixels that an object may lie off the line of all
# Pixels at least between two boxes, along their line, by the number of things. A place of a CNN's last grid covers 32:
# what shares a place with its neighbour cannot be attended to by itself. Three things have no room for more.
GAP = {1: 0, 2: 32, 3: 20}
STRAIGHT = 3  # at least so many times further apart along the line than across it
CONTRAST = {"plain": 0, "striped": 0.16, "dotted": 0.2, "checked": 0.16, "noisy": 0.28, "shaded": 0.35}  # of brightness
APART = 85  # Euclidean RGB distance at least between an object and any tone behind it

Color = tuple[int, int, int]


def _corners(number: int) -> np.ndarray:
    """Points x + iy evenly on the unit circle, y downwards, the first at the top."""
    return -1j * np.exp(2j * np.pi * np.arange(number) / number)


_TURNS = 2 * np.pi * np.arange(48) / 48
_HEART_WAVES = sum(size * np.cos(n * _TURNS) for n, size in enumerate((13, -5, -2, -1), start=1))
# Outlines as complex corners, in any place and scale; curves as many short sides.
OUTLINES = {
    "square": _corners(4) * np.exp(0.25j * np.pi),
    "triangle": _corners(3),
    "star": _corners(10) * np.where(np.arange(10) % 2, 0.42, 1),
    "heart": 16 * np.sin(_TURNS) ** 3 - 1j * _HEART_WAVES,
    "circle": _corners(64),
}


class Piece(NamedTuple):
    """One object as it is drawn: outline [N, 2] in pixels of the picture, and its exact colour."""

    thing: Thing
    outline: np.ndarray
    colour: Color


def _outline(random: Random, *, shape: str, size: str) -> np.ndarray:
    """Corners [N, 2] in pixels, turned a little; the box begins at the origin."""
    turned = OUTLINES[shape] * np.exp(1j * math.radians(random.uniform(-TURN[shape], TURN[shape])))
    points = np.stack([turned.real, turned.imag], axis=1)
    points -= points.min(0)
    return (points * random.uniform(*PIXELS[size]) / points.max()).round(2)


def _boxes(random: Random, extents: np.ndarray, *, axis: int) -> np.ndarray | None:
    """Boxes [N, 4] for N widths and heights, loosely in line along the axis (0 is x); None when that does not work."""
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
    centres = corners + extents / 2
    distances = np.abs(centres[:, None] - centres)  # [N, N, 2]
    straight = distances[..., axis] >= STRAIGHT * distances[..., 1 - axis]
    return np.hstack([corners, extents]) if straight.all() else None


def _layout(random: Random, *, number: int) -> list[Piece]:
    """Pieces in a loose row or column, of which no two share both colour and shape."""
    kinds = random.sample([(shape, color) for shape in SHAPES for color in PALETTE], number)
    axis, boxes = random.randrange(2), None
    while boxes is None:
        sizes = [random.choice(tuple(PIXELS)) for _ in kinds]
        outlines = [_outline(random, shape=shape, size=size) for (shape, _), size in zip(kinds, sizes, strict=True)]
        boxes = _boxes(random, np.array([outline.max(0) for outline in outlines]), axis=axis)
    return [
        Piece(Thing(shape, color, size, tuple(box.tolist())), outline + box[:2], _tint(random, color))
        for (shape, color), size, outline, box in zip(kinds, sizes, outlines, boxes, strict=True)
    ]


def _tint(random: Random, color: str) -> Color:
    """A colour of that name, a little different each time."""
    return tuple(max(0, min(255, level + random.randint(-VARIATION, VARIATION))) for level in PALETTE[color])


def _tones(random: Random, *, contrast: float, colors: Sequence[Color]) -> np.ndarray | None:
    """256 muted tones from one to another [256, 3], none close to an object's colour; None when out of luck."""
    tint = np.array(colorsys.hsv_to_rgb(random.random(), random.uniform(0, 0.15), 1.0))
    bright = random.uniform(0.2, 0.93)
    dark = bright - contrast
    tones = 255 * np.linspace(bright * tint, dark * tint, 256)
    distances = np.linalg.norm(tones[::51, None] - np.array(colors), axis=-1)
    return tones.round().astype(np.uint8) if dark >= 0.12 and distances.min() >= APART else None


def _pattern(random: Random, *, background: str) -> np.ndarray:
    """Which of the 256 tones each pixel has: [SIDE, SIDE] uint8, edges smoothed over a pixel."""
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


def draw_scene(seed: int, split: str, index: int) -> tuple[Image.Image, Scene, list[np.ndarray], tuple[str, ...]]:
    """Picture, what it holds, the outlines of its things, and five captions: a function of the arguments alone."""
    random = Random(f"{seed}/{split}/{index}")
    number = random.choices((1, 2, 3), weights=(20, 60, 20))[0]
    background = random.choice(tuple(BACKGROUNDS))
    tones = None
    while tones is None:
        pieces = _layout(random, number=number)
        tones = _tones(random, contrast=CONTRAST[background], colors=[piece.colour for piece in pieces])
    picture = Image.fromarray(tones[_pattern(random, background=background)])
    for piece in pieces:
        mask = Image.new("L", (_SIDE * SUPERSAMPLING,) * 2)
        ImageDraw.Draw(mask).polygon((piece.outline * SUPERSAMPLING).ravel().tolist(), fill=255)
        picture.paste(piece.colour, mask=mask.reduce(SUPERSAMPLING))
    scene = Scene(tuple(piece.thing for piece in pieces), background)
    return picture, scene, [piece.outline for piece in pieces], describe_scene(scene, random)


def _annotate(scene: Scene, outlines: Sequence[np.ndarray], image_id: int) -> list[dict]:
    """COCO instances of one picture, with "color" and "size" beside the usual fields; the scene's order."""
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
    """Square pixels inside a polygon (shoelace formula)."""
    x, y = outline.T
    return round(abs(float(x @ np.roll(y, 1) - y @ np.roll(x, 1))) / 2, 2)


def _write_split(folder: Path, *, split: str, count: int, info: Mapping, progress: tqdm) -> None:
    """Pictures and both annotation files of one split."""
    images, captions, instances, square = [], [], [], {"width": _SIDE, "height": _SIDE}
    (folder / split).mkdir()
    for index in range(count):
        picture, scene, outlines, texts = draw_scene(info["seed"], split, index)
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
    """Draws the whole data set beside `root` and renames it at the end, so that `root` is never half there."""
    root.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-") as temporary,
        tqdm(
            total=sum(info["pictures"].values()), desc=f"drawing scenes into {root}", unit="picture", disable=None
        ) as progress,
    ):
        folder = Path(temporary) / root.name
        (folder / "annotations").mkdir(parents=True)
        for split, count in info["pictures"].items():
            _write_split(folder, split=split, count=count, info=info, progress=progress)
        folder.rename(root)  # over an empty folder, too


def _check(root: Path, info: Mapping) -> None:
    """DataError unless the folder holds the scenes of this info."""
    try:
        found = json.loads((root / "annotations" / "captions_train.json").read_bytes())["info"]
    except (OSError, ValueError, KeyError, TypeError):
        found = "something else"
    if found != info:
        raise DataError(f"{root} holds {found}, not the scenes of {info}: delete it, or choose another data.root")


def read_scenes(
    root: str | Path, *, train: int = 2400, val: int = 400, test: int = 400, seed: int = 0, faults: Handling = STRICT
) -> list[Record]:
    """Records of the drawn pictures, all splits together; draws them when `root` is absent or empty.

    Args:
        train, val, test: pictures of each split, 1 or more.
        seed: of the drawing; independent of any other seed.
        faults: see `captioning.data.readers`.

    Raises:
        ConfigError: a split without pictures.
        DataError: `root` holds something else, or scenes of other numbers, seed or version; or cannot be written.
    """
    root, pictures = Path(root).resolve(), {"train": train, "val": val, "test": test}
    for split, count in pictures.items():
        if count < 1:
            raise ConfigError(f"data.reader.{split} must be at least 1 picture, not {count}")
    info = {"description": "drawn scenes", "version": VERSION, "seed": seed, "pictures": pictures}
    try:
        if not root.exists() or not any(root.iterdir()):
            _draw(root, info)
    except OSError as error:
        if not (root / "annotations").is_dir():  # else another process was quicker
            raise DataError(f"cannot draw the scenes into {root} ({error}): choose another data.root") from error
    _check(root, info)
    return read_coco_files(root, faults=faults)


def read_shapes(root: str | Path, records: Sequence[Record]) -> Instances:
    """The shapes in the records' pictures, by the grammar's words for them."""
    return read_instances(root, records, words=SHAPES)


def load_scenes(root: str | Path, split: str) -> dict[int, Scene]:
    """Image id -> what was drawn, from instances_{split}.json; DataError when that file is missing or another's."""
    path = Path(root) / "annotations" / f"instances_{split}.json"
    shapes = {number: name for name, number in CATEGORIES.items()}
    try:
        content = json.loads(path.read_bytes())
        things: dict[int, list[Thing]] = {image["id"]: [] for image in content["images"]}
        for entry in content["annotations"]:
            thing = Thing(shapes[entry["category_id"]], entry["color"], entry["size"], tuple(entry["bbox"]))
            things[entry["image_id"]].append(thing)
        return {image["id"]: Scene(tuple(things[image["id"]]), image["background"]) for image in content["images"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not of drawn scenes ({error!r}): delete {root}, and they are drawn anew") from error


def truth(captions: Mapping[int, str], *, root: str | Path, split: str) -> dict[str, float]:
    """{"truth": share of the captions that are true of their scene}, by image id; a fraction.

    Raises:
        DataError: no caption at all, or one for a picture that is not in the split.
    """
    scenes = load_scenes(root, split)
    if strangers := sorted(captions.keys() - scenes.keys()):
        shown = ", ".join(map(str, strangers[:5]))
        raise DataError(f"{len(strangers)} captions of images that are not in {root}, split {split}: image ids {shown}")
    if not captions:
        raise DataError(f"no captions to check against the scenes of {root}, split {split}")
    return {"truth": sum(is_true(text, scenes[image_id]) for image_id, text in captions.items()) / len(captions)}
