"""The built-in data set: coloured shapes on varied backgrounds, drawn on first use, on disk as ordinary COCO files.

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

from captioning.data.annotations import Record, read_coco_files
from captioning.data.grammar import BACKGROUNDS, SHAPES, Scene, Thing, describe, is_true, relation
from captioning.errors import ConfigError, DataError

VERSION = 1  # of the drawing and the grammar: a change of either is another data set
SIDE = 224  # pixels of a picture
SUPERSAMPLING = 4
FIRST_ID = {"train": 1, "val": 1_000_001, "test": 2_000_001}  # ids differ between splits
CATEGORIES = {name: number for number, name in enumerate(SHAPES, start=1)}

PALETTE = {
    "red": (214, 32, 32),
    "orange": (245, 130, 20),
    "yellow": (250, 222, 40),
    "green": (35, 150, 60),
    "blue": (40, 80, 215),
    "purple": (130, 45, 165),
    "black": (22, 22, 22),
    "white": (248, 248, 248),
}
VARIATION = 12  # at most, of each of an object's red, green and blue
PIXELS = {"small": (40, 52), "large": (84, 104)}  # longer side of the box
TURN = {"circle": 0, "square": 8, "cross": 8}  # degrees either way; more would make another shape of them
TURN_OTHERS = 15
MARGIN = 4  # pixels between an object and the picture's edge
GAP = 16  # pixels at least between two boxes, along the axis of their relation
CONTRAST = {"plain": 0, "striped": 0.16, "dotted": 0.2, "checked": 0.16, "noisy": 0.28, "shaded": 0.35}  # of brightness
APART = 85  # Euclidean RGB distance at least between an object and any tone behind it

Colour = tuple[int, int, int]
Points = Sequence[tuple[float, float]]


class Piece(NamedTuple):
    """One object as it is drawn: its outline in pixels of the picture and its exact colour."""

    thing: Thing
    outline: Points
    colour: Colour


def _unit_outline(shape: str) -> Points:
    """Corners of a shape about the origin, y downwards; curves as many short sides."""
    if shape == "heart":
        waves = ((13, 1), (-5, 2), (-2, 3), (-1, 4))
        turns = [2 * math.pi * corner / 48 for corner in range(48)]
        return [(16 * math.sin(t) ** 3, -sum(size * math.cos(n * t) for size, n in waves)) for t in turns]
    if shape == "cross":
        arm = [(-1, -3), (1, -3), (1, -1)]
        return [point for quarter in range(4) for point in _rotate(arm, quarter * math.pi / 2)]
    # Else corners on a circle, the first at the top; every second of the star's is drawn in.
    number = {"circle": 64, "square": 4, "triangle": 3, "star": 10}[shape]
    radii = [0.42 if shape == "star" and corner % 2 else 1.0 for corner in range(number)]
    corners = [_rotate([(0, -radius)], 2 * math.pi * i / number)[0] for i, radius in enumerate(radii)]
    return _rotate(corners, math.pi / 4) if shape == "square" else corners


def _rotate(points: Points, radians: float) -> Points:
    cosine, sine = math.cos(radians), math.sin(radians)
    return [(x * cosine - y * sine, x * sine + y * cosine) for x, y in points]


def _piece(random: Random, *, shape: str, color: str) -> Piece:
    """One object of random size, turn, tint and place."""
    size = random.choice(tuple(PIXELS))
    turn = TURN.get(shape, TURN_OTHERS)
    points = np.array(_rotate(_unit_outline(shape), math.radians(random.uniform(-turn, turn))))
    points -= points.min(0)
    points *= random.uniform(*PIXELS[size]) / points.max()
    room = SIDE - 2 * MARGIN - points.max(0)
    points += MARGIN + room * (random.random(), random.random())
    points = points.round(2)
    left, top, right, bottom = (*points.min(0).tolist(), *points.max(0).tolist())
    box = (left, top, round(right - left, 2), round(bottom - top, 2))
    colour = tuple(max(0, min(255, level + random.randint(-VARIATION, VARIATION))) for level in PALETTE[color])
    return Piece(Thing(shape, color, size, box), [tuple(point) for point in points.tolist()], colour)


def _clear(first: Thing, second: Thing) -> bool:
    """Whether two things lie in one clear relation with a gap between them."""
    axis = {"left": 0, "right": 0, "above": 1, "below": 1}.get(relation(first, second))
    if axis is None:
        return False
    near, far = sorted((first.box, second.box), key=lambda box: box[axis])
    return far[axis] - near[axis] - near[axis + 2] >= GAP


def _layout(random: Random, *, number: int) -> list[Piece]:
    """Pieces of which every pair is in a clear relation and differs in colour or shape."""
    while True:
        kinds = random.sample([(shape, color) for shape in SHAPES for color in PALETTE], number)
        pieces = [_piece(random, shape=shape, color=color) for shape, color in kinds]
        if all(_clear(a.thing, b.thing) for i, a in enumerate(pieces) for b in pieces[:i]):
            return pieces


def _tones(random: Random, *, contrast: float, colours: Sequence[Colour]) -> np.ndarray | None:
    """Two muted tones [2, 3] so that no mixture of them comes close to an object's colour; None when out of luck."""
    tint = np.array(colorsys.hsv_to_rgb(random.random(), random.uniform(0, 0.25), 1.0))
    bright = random.uniform(0.2, 0.93)
    dark = bright - contrast
    tones = 255 * tint * np.array([[bright], [dark]])
    mixtures = np.linspace(tones[0], tones[1], 5)
    distances = np.linalg.norm(mixtures[:, None] - np.array(colours), axis=-1)
    return tones if dark >= 0.12 and distances.min() >= APART else None


def _pattern(random: Random, *, background: str) -> np.ndarray:
    """How much of the second tone each pixel has: [SIDE, SIDE] from 0 to 1, edges smoothed over a pixel."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    angle, period = random.uniform(0, 2 * math.pi), random.uniform(26, 40)
    shift = random.uniform(0, period)
    across = columns * math.cos(angle) + rows * math.sin(angle) + shift
    along = rows * math.cos(angle) - columns * math.sin(angle) + shift
    # Distance in pixels from the nearest edge of a band half a period wide, positive inside it.
    bands, other = (np.abs(t / period % 1 - 0.5) * period - period / 4 for t in (across, along))
    if background == "striped":
        distance = bands
    elif background == "checked":
        distance = np.minimum(np.abs(bands), np.abs(other)) * np.sign(bands * other)
    elif background == "dotted":
        distance = 0.22 * period - np.hypot(period / 4 - bands, period / 4 - other)
    elif background == "noisy":
        grains = np.frombuffer(random.randbytes(SIDE // 2 * SIDE // 2), np.uint8).reshape(SIDE // 2, -1)
        return grains.repeat(2, axis=0).repeat(2, axis=1) / 255
    elif background == "shaded":
        return (across - across.min()) / (across.max() - across.min())
    else:
        return np.zeros((SIDE, SIDE))
    return np.clip(distance + 0.5, 0, 1)


def draw_scene(seed: int, split: str, index: int) -> tuple[Image.Image, Scene, list[Points], tuple[str, ...]]:
    """Picture, what it holds, the outlines of its things, and five captions: a function of the arguments alone."""
    random = Random(f"{seed}/{split}/{index}")
    number = random.choices((1, 2, 3), weights=(15, 60, 25))[0]
    background = random.choice(tuple(BACKGROUNDS))
    tones = None
    while tones is None:
        pieces = _layout(random, number=number)
        tones = _tones(random, contrast=CONTRAST[background], colours=[piece.colour for piece in pieces])
    weight = _pattern(random, background=background)[..., None]
    picture = Image.fromarray((tones[0] * (1 - weight) + tones[1] * weight).round().astype(np.uint8))
    for piece in pieces:
        mask = Image.new("L", (SIDE * SUPERSAMPLING,) * 2)
        ImageDraw.Draw(mask).polygon([(x * SUPERSAMPLING, y * SUPERSAMPLING) for x, y in piece.outline], fill=255)
        picture.paste(piece.colour, mask=mask.reduce(SUPERSAMPLING))
    scene = Scene(tuple(piece.thing for piece in pieces), background)
    return picture, scene, [piece.outline for piece in pieces], describe(scene, random)


def _annotate(scene: Scene, outlines: Sequence[Points], image_id: int) -> list[dict]:
    """COCO instances of one picture, with "color" and "size" beside the usual fields; the scene's order."""
    return [
        {
            "id": 10 * image_id + number,
            "image_id": image_id,
            "category_id": CATEGORIES[thing.shape],
            "bbox": list(thing.box),
            "area": _area(outline),
            "segmentation": [[value for point in outline for value in point]],
            "iscrowd": 0,
            "color": thing.color,
            "size": thing.size,
        }
        for number, (thing, outline) in enumerate(zip(scene.things, outlines, strict=True))
    ]


def _area(outline: Points) -> float:
    """Square pixels inside a polygon (shoelace formula)."""
    pairs = zip(outline, [*outline[1:], outline[0]], strict=True)
    return round(abs(sum(x * y2 - x2 * y for (x, y), (x2, y2) in pairs)) / 2, 2)


def _write_split(folder: Path, *, split: str, count: int, info: Mapping, progress: tqdm) -> None:
    """Pictures and both annotation files of one split."""
    images, captions, instances = [], [], []
    (folder / split).mkdir()
    for index in range(count):
        picture, scene, outlines, texts = draw_scene(info["seed"], split, index)
        image_id = FIRST_ID[split] + index
        name = f"{image_id:012d}.png"
        picture.save(folder / split / name)
        images.append(
            {"id": image_id, "file_name": name, "width": SIDE, "height": SIDE, "background": scene.background}
        )
        captions += [{"id": 10 * image_id + n, "image_id": image_id, "caption": text} for n, text in enumerate(texts)]
        instances += _annotate(scene, outlines, image_id)
        progress.update()
    common = {"info": info, "licenses": [], "images": images}
    categories = [{"id": number, "name": name, "supercategory": "shape"} for name, number in CATEGORIES.items()]
    for kind, content in (
        ("captions", {"annotations": captions}),
        ("instances", {"annotations": instances, "categories": categories}),
    ):
        (folder / "annotations" / f"{kind}_{split}.json").write_text(json.dumps(common | content))


def _draw(root: Path, info: Mapping) -> None:
    """Draws the whole data set beside `root` and renames it at the end, so that `root` is never half there."""
    root.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-") as temporary,
        tqdm(total=sum(info["pictures"].values()), desc=f"drawing scenes into {root}", unit="picture") as progress,
    ):
        folder = Path(temporary) / root.name
        (folder / "annotations").mkdir(parents=True)
        for split, count in info["pictures"].items():
            _write_split(folder, split=split, count=count, info=info, progress=progress)
        folder.rename(root)  # over an empty folder, too


def _check(root: Path, info: Mapping) -> None:
    try:
        found = json.loads((root / "annotations" / "captions_train.json").read_bytes())["info"]
    except (OSError, ValueError, KeyError, TypeError):
        found = "something else"
    if found != info:
        raise DataError(f"{root} holds {found}, not the scenes of {info}: delete it, or choose another data.root")


def read_scenes(root: str | Path, *, train: int = 2400, val: int = 400, test: int = 400, seed: int = 0) -> list[Record]:
    """Records of the drawn pictures, all splits together; draws them when `root` is absent or empty.

    Args:
        train, val, test: pictures of each split.
        seed: of the drawing; independent of any other seed.

    Raises:
        ConfigError: a split without pictures.
        DataError: `root` holds something else, or scenes of other numbers, seed or version; or cannot be written.
    """
    root, pictures = Path(root).resolve(), {"train": train, "val": val, "test": test}
    for split, count in pictures.items():
        if count < 1:
            raise ConfigError(f"data.{split} must be at least 1 picture, not {count}")
    info = {"description": "drawn scenes", "version": VERSION, "seed": seed, "pictures": pictures}
    try:
        if not root.exists() or not any(root.iterdir()):
            _draw(root, info)
    except OSError as error:
        raise DataError(f"cannot draw the scenes into {root} ({error}): choose another data.root") from error
    _check(root, info)
    return read_coco_files(root)


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
        raise DataError(
            f"{path} does not describe drawn scenes ({error!r}): delete {root}, and it is drawn anew"
        ) from error


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
