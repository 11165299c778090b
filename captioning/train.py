"""Train a model: `captioning-train experiment=flickr8k_soft data.root=DIR run_dir=DIR`."""

from captioning.config import TrainConfig, entry_point
from captioning.training import train

main = entry_point("train", TrainConfig, train, plain=["experiment"])

if __name__ == "__main__":
    main()
