"""Write docs/gallery.md and its images: `python docs/gallery.py SOFT HARD [SCENES]`.

SOFT and HARD are checkpoints, SCENES is the folder of drawn scenes. The gallery shows every twentieth image of the
validation split, so that no image is selected by its result.
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
TOP = 1_000_028  # the image of soft_and_hard.png: both models write the same true caption
WIDTH, GAP = 900, 10  # pixels
HEAD = """# Gallery: soft and hard attention on twenty drawn scenes

| | |
|---|---|
| Upper strip | soft attention (`experiment=scenes_soft`) |
| Lower strip | hard attention (`experiment=scenes_hard`, REINFORCE): the chosen location is framed; behind it is α |
| Decoding | beam search, beam size 3 |
| Scale | one scale for all words of a strip, from 0 to its largest weight |
| Images | every twentieth image of the validation split, from the first on; none was selected by its result |
| **(false)** | The caption is not true of the scene. Every caption is compared with what was drawn. |

`python docs/gallery.py runs/scenes_soft/checkpoints/best.ckpt runs/scenes_hard/checkpoints/best.ckpt` writes this page.
"""


def stack(images: list[Image.Image]) -> Image.Image:
    """Return one image with these images below one another, on white."""
    height = sum(image.height + GAP for image in images) - GAP
    whole = Image.new("RGB", (max(image.width for image in images), height), "white")
    top = 0
    for image in images:
        whole.paste(image.convert("RGB"), (0, top))
        top += image.height + GAP
    return whole


def strip(image: Image.Image, caption: Caption) -> Image.Image:
    """Return the attention maps of a caption as a strip, as wide as the page, or narrower if there are few words."""
    figure = draw_figure(image, caption, "strip")
    return thumbnail(figure, round(WIDTH * figure.get_figwidth() / 6.75))


def save(image: Image.Image, captions: Iterable[Caption], path: Path) -> None:
    """Save the strips of one image's captions as a small PNG file."""
    whole = stack([strip(image, caption) for caption in captions])
    few_colors(whole, 128).save(path, optimize=True)


def main(soft: str, hard: str, scenes: str = "data/scenes") -> None:
    """Write docs/gallery.md, the images in docs/gallery/, and docs/figures/soft_and_hard.png."""
    models = {"soft": captioning.load(soft), "hard": captioning.load(hard)}
    FOLDER.mkdir(exist_ok=True)
    ids = [FIRST + STEP * index for index in range(COUNT)]
    images = [open_picture(Path(scenes, "val", f"{image_id:012d}.png")) for image_id in ids]
    captions = {name: model.caption(images, beam_size=3) for name, model in models.items()}
    top = open_picture(Path(scenes, "val", f"{TOP:012d}.png"))
    (FOLDER.parent / "figures").mkdir(exist_ok=True)
    found = [model.caption(top, beam_size=3)[0] for model in models.values()]
    save(top, found, FOLDER.parent / "figures" / "soft_and_hard.png")
    text = [HEAD]
    for index, (image_id, image) in enumerate(zip(ids, images, strict=True)):
        written = {kind: found[index] for kind, found in captions.items()}
        name = f"{index + 1:02d}.png"
        save(image, written.values(), FOLDER / name)
        lines = []
        for kind, caption in written.items():
            right = truth({image_id: caption.text}, root=scenes, split="val")["truth"]
            lines.append(f"{kind}: `{caption.text}`" + ("" if right else " **(false)**"))
        text.append(
            f"## {index + 1}\n\n{' · '.join(lines)}\n\n![Attention maps of scene {index + 1}](gallery/{name})\n"
        )
    Path(__file__).with_suffix(".md").write_text("\n".join(text), encoding="utf-8")
    sizes = [path.stat().st_size for path in FOLDER.glob("*.png")]
    print(f"{len(sizes)} images, {np.sum(sizes) / 1e6:.1f} MB")


if __name__ == "__main__":
    main(*sys.argv[1:])
