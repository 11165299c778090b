"""Makes docs/gallery.md and its pictures: `python docs/gallery.py SOFT HARD [SCENES]`, checkpoints and drawn scenes.

Every twentieth picture of the validation split, so that none is chosen by its looks.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

import captioning
from captioning.data import open_picture, truth
from captioning.inference import Caption, draw_figure
from captioning.visualise import few_colors, thumbnail

FOLDER = Path(__file__).parent / "gallery"
COUNT, STEP, FIRST = 20, 20, 1_000_001
TOP = 1_000_028  # the picture at the head of the README: both write the same true caption
WIDTH, GAP = 900, 10  # pixels
HEAD = """# Twenty drawn scenes, seen by soft and by hard attention

Above, soft attention (`experiment=scenes_soft`); below, hard attention (`experiment=scenes_hard`, REINFORCE), whose one
place a word is framed, with α behind it. Beam 3. Each strip has one scale for all of its words, from 0 to its largest
weight. The pictures are every twentieth of the validation split, from the first on: none was chosen. False captions
are marked; a caption is checked against what was drawn.

Made by `python docs/gallery.py runs/scenes_soft/checkpoints/best.ckpt runs/scenes_hard/checkpoints/best.ckpt`.
"""


def stack(pictures: list[Image.Image]) -> Image.Image:
    """One above the other, on white."""
    height = sum(picture.height + GAP for picture in pictures) - GAP
    whole = Image.new("RGB", (max(picture.width for picture in pictures), height), "white")
    top = 0
    for picture in pictures:
        whole.paste(picture.convert("RGB"), (0, top))
        top += picture.height + GAP
    return whole


def strip(picture: Image.Image, caption: Caption) -> Image.Image:
    """As small as the page is wide, or smaller where the words are few."""
    figure = draw_figure(picture, caption, "strip")
    return thumbnail(figure, round(WIDTH * figure.get_figwidth() / 6.75))


def save(picture: Image.Image, made: Iterable[Caption], path: Path) -> None:
    """The strips of one picture, small."""
    whole = stack([strip(picture, caption) for caption in made])
    few_colors(whole, 128).save(path, optimize=True)


def main(soft: str, hard: str, scenes: str = "data/scenes") -> None:
    """Writes both."""
    models = {"soft": captioning.load(soft), "hard": captioning.load(hard)}
    FOLDER.mkdir(exist_ok=True)
    ids = [FIRST + STEP * index for index in range(COUNT)]
    pictures = [open_picture(Path(scenes, "val", f"{image_id:012d}.png")) for image_id in ids]
    captions = {name: model.caption(pictures, beam_size=3) for name, model in models.items()}
    top = open_picture(Path(scenes, "val", f"{TOP:012d}.png"))
    (FOLDER.parent / "figures").mkdir(exist_ok=True)
    found = [model.caption(top, beam_size=3)[0] for model in models.values()]
    save(top, found, FOLDER.parent / "figures" / "soft_and_hard.png")
    text = [HEAD]
    for index, (image_id, picture) in enumerate(zip(ids, pictures, strict=True)):
        made = {name: found[index] for name, found in captions.items()}
        name = f"{index + 1:02d}.png"
        save(picture, made.values(), FOLDER / name)
        told = []
        for kind, caption in made.items():
            right = truth({image_id: caption.text}, root=scenes, split="val")["truth"]
            told.append(f"{kind}: {caption.text}" + ("" if right else " **(false)**"))
        text.append(f"## {index + 1}\n\n{' · '.join(told)}\n\n![{name}](gallery/{name})\n")
    Path(__file__).with_suffix(".md").write_text("\n".join(text), encoding="utf-8")
    sizes = [path.stat().st_size for path in FOLDER.glob("*.png")]
    print(f"{len(sizes)} pictures, {np.sum(sizes) / 1e6:.1f} MB")


if __name__ == "__main__":
    main(*sys.argv[1:])
