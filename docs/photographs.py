"""Draw the figures of photos with captions by flickr8k-small, in docs/figures/.

    pip install scikit-image scikit-learn
    python docs/photographs.py [COCO]

flickr8k_small.jpg has ten photos that come with Python packages: every one that shows an object or a person; none was
selected by its caption. gull.jpg has the attention maps of one photo of the demo, captioned with tags as by
captioning-caption. flickr8k_small_coco.jpg is drawn if COCO is given, the folder of COCO 2017. It has ten photos under
CC BY: five that the model captions correctly or almost correctly, and five that it does not. Both have no tags.
"""

import importlib.util
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

import captioning
from captioning.data import open_picture
from captioning.inference import TagGuide
from captioning.visualise import Entry, caption_sheet

PICTURES = {
    "skimage": [f"data/{name}" for name in ("astronaut.png", "camera.png", "chelsea.png", "coffee.png", "coins.png",
                                            "moon.png", "rocket.jpg")],
    "sklearn": [f"datasets/images/{name}" for name in ("china.jpg", "flower.jpg")],
    "matplotlib": ["mpl-data/sample_data/grace_hopper.jpg"],
}  # fmt: skip
COCO = (183709, 214753, 129648, 377575, 234748, 358083, 174375, 126107, 62554, 408805)


def main(coco: str | None = None) -> None:
    """Draw the figures of the photos in Python packages, and of COCO if its folder is given."""
    folders = {name: Path(importlib.util.find_spec(name).origin).parent for name in PICTURES}
    draw([folders[name] / file for name, files in PICTURES.items() for file in files], "flickr8k_small")
    save_strip("gull")
    if coco is not None:
        draw([next(Path(coco).glob(f"*2017/{number:012}.jpg")) for number in COCO], "flickr8k_small_coco")


def save_strip(name: str) -> None:
    """Save one attention map per word of one of the demo's photos. It is the first figure of README.md."""
    photo = Path(__file__).parents[1] / "captioning" / "web" / "demo" / "photos" / f"{name}.jpg"
    with TemporaryDirectory() as folder:
        captioner = captioning.load("flickr8k-small").guide_by(TagGuide("classifier"))
        captioner.figure(photo, "strip", path=Path(folder) / "strip.png", beam_size=5)
        with Image.open(Path(folder) / "strip.png") as figure:
            file = Path(__file__).parent / "figures" / f"{name}.jpg"
            figure.convert("RGB").resize((1600, 1600 * figure.height // figure.width)).save(file, quality=88)
    print(file)


def draw(paths: list[Path], name: str) -> None:
    """Draw photos with their captions into docs/figures/NAME.jpg."""
    captions = captioning.load("flickr8k-small").caption(paths)
    entries = [
        Entry(open_picture(path), made.text, title=path.stem, scores={"log p": made.log_prob})
        for path, made in zip(paths, captions, strict=True)
    ]
    file = Path(__file__).parent / "figures" / f"{name}.jpg"
    caption_sheet(entries, columns=5).savefig(file, dpi=70, pil_kwargs={"quality": 85})
    print(file)


if __name__ == "__main__":
    main(*sys.argv[1:])
