"""Makes docs/figures/flickr8k_small.jpg: ten photographs out of Python packages, as flickr8k-small captions them.

`pip install scikit-image scikit-learn; python docs/photographs.py`. All of them that are of something, none chosen by
its caption.
"""

import importlib.util
from pathlib import Path

import captioning
from captioning.data.pictures import open_picture
from captioning.visualise.sheet import Entry, caption_sheet

PICTURES = {
    "skimage": [f"data/{name}" for name in ("astronaut.png", "camera.png", "chelsea.png", "coffee.png", "coins.png",
                                            "moon.png", "rocket.jpg")],
    "sklearn": [f"datasets/images/{name}" for name in ("china.jpg", "flower.jpg")],
    "matplotlib": ["mpl-data/sample_data/grace_hopper.jpg"],
}  # fmt: skip


def main() -> None:
    folders = {name: Path(importlib.util.find_spec(name).origin).parent for name in PICTURES}
    paths = [folders[name] / file for name, files in PICTURES.items() for file in files]
    captions = captioning.load("flickr8k-small").caption(paths)
    entries = [
        Entry(open_picture(path), made.text, title=path.stem, scores={"log p": made.log_prob})
        for path, made in zip(paths, captions, strict=True)
    ]
    file = Path(__file__).parent / "figures" / "flickr8k_small.jpg"
    caption_sheet(entries, columns=5).savefig(file, dpi=70, pil_kwargs={"quality": 85})
    print(file)


if __name__ == "__main__":
    main()
