"""Train a model: `captioning-train experiment=flickr8k_soft data.root=DIR run_dir=DIR`."""

import sys

from captioning.config import TrainConfig, entry_point
from captioning.training import train

start = entry_point("train", TrainConfig, train, plain=["experiment"])
NO_SETTINGS = (
    "no settings: training on drawn scenes (9,800 images, drawn into data/scenes) for 20 epochs, 1½ hours "
    "or more on two cores; the run is in runs/scenes/. Ctrl-C stops it. For other data: captioning-train --help"
)


def main() -> None:
    """Train a model. Without any setting, first print what is trained: drawing the scenes is silent and slow."""
    if not sys.argv[1:]:
        print(NO_SETTINGS, flush=True)
    start()


if __name__ == "__main__":
    main()
