"""Train a model: `captioning-train experiment=flickr8k_soft data.root=DIR run_dir=DIR`."""

from captioning.config import TrainConfig, entry_point
from captioning.training import train

# Drawing the scenes is silent and slow, so this line comes first.
_NO_SETTINGS = (
    "no settings: training on drawn scenes (9,800 images, drawn into data/scenes) for 20 epochs, 1½ hours "
    "or more on two cores; the run is in runs/scenes/. Ctrl-C stops it. For other data: captioning-train --help"
)

main = entry_point("train", TrainConfig, train, plain=["experiment"], bare=_NO_SETTINGS)

if __name__ == "__main__":
    main()
