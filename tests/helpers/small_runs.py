"""Checkpoints and run folders made in a moment, untrained: for tests of what is done with them."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image

from captioning.checkpoints import make_metadata
from captioning.config import build, check, compose
from captioning.config.schemas import TrainConfig
from captioning.data import Answers, Vocabulary
from captioning.inference import language_model as language
from captioning.inference import vqa as answering
from captioning.io import write_json

WORDS = ["a", "dog", "cat", "runs", "sits", "on", "the", "red", "blue", "grass", "under", "big", "small", "and", "two"]
SMALL = ["model.width=16", "model.embedding_size=8"]
PICTURES = ["encoder.image_size=96"]
SENTENCES = ["a red dog runs on grass", "two blue cats sit", "a big cat on the red grass", "the small dog sits"]


def save_checkpoint(path: Path, *overrides: str, seed: int = 0, size: Sequence[str] = PICTURES) -> dict:
    """An untrained checkpoint of 9 places that `load` takes; returns its run's configuration."""
    torch.manual_seed(seed)
    size = [] if "encoder=regions" in overrides else size
    given = [*SMALL, *size, "data=scenes", f"run_dir={path.parents[1]}", *overrides]
    config = check(compose("train", given), TrainConfig)
    encoder, vocabulary = build(config["encoder"]), Vocabulary(WORDS)
    captioner = build(
        config["model"],
        feature_size=encoder.size,
        grid=encoder.grid_shape or encoder.output != "fc",
        regions=encoder.output == "regions",
        vocabulary_size=len(vocabulary),
        pad=vocabulary.pad,
    )
    weights = {f"captioner.{name}": value for name, value in captioner.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"captioning": make_metadata(config, vocabulary, encoder), "state_dict": weights}, path)
    return config


def small_model(kind: str, path: Path, *overrides: str) -> None:
    """An untrained checkpoint of another kind of run."""
    config = check(
        compose("train", [f"task={kind}", "model.width=8", f"run_dir={path.parent}", *overrides]), TrainConfig
    )
    vocabulary = Vocabulary(list("abc"))
    if kind == "language_model":
        model, metadata = (
            language.build_model(config["model"], vocabulary),
            language.make_language_model_metadata(config, vocabulary),
        )
    else:
        encoder, answers = build(config["encoder"]), Answers(["yes", "no"])
        sizes = {"feature_size": encoder.size, "grid": True, "vocabulary_size": len(vocabulary), "answers": 2}
        model, metadata = (
            build(config["model"], **sizes),
            answering.make_answerer_metadata(config, vocabulary, answers, encoder),
        )
    weights = {f"captioner.{name}": value for name, value in model.state_dict().items()}
    torch.save({"captioning": metadata, "state_dict": weights}, path)


def draw_pictures(root: Path, *, names=("one.png", "two.png", "three.png", "four.png"), captions=SENTENCES) -> None:
    """Pictures of noise with two captions each, for train and val, as data=csv reads them."""
    root.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    with (root / "captions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "caption", "split"])
        for index, name in enumerate(names):
            for split in ("train", "val"):
                noise = random.integers(0, 256, (4, 6, 3), np.uint8)
                Image.fromarray(noise).resize((96, 64), Image.NEAREST).save(root / f"{split} {name}")
                for shift in (0, 1):
                    writer.writerow([f"{split} {name}", captions[(index + shift) % len(captions)], split])


def make_run(folder: Path, *overrides: str, **pictures) -> Path:
    """A run's folder with pictures in it: config.yaml, metrics.csv and checkpoints/best.ckpt."""
    draw_pictures(folder / "data", **pictures)
    run = folder / "run"
    given = ["data=csv", f"data.root={folder / 'data'}", f"features.root={folder / 'features'}", *overrides]
    config = save_checkpoint(run / "checkpoints" / "best.ckpt", *given)
    (run / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    rows = [["step", "epoch", "lr-Adam", "train/loss", "val/loss", "val/greedy/CIDEr", "val/greedy/BLEU-4"]]
    rows += [[9, 0, 0.1, 5.0, "", "", ""], [19, 0, 0.05, 4.0, 4.5, 0.25, 0.1], [29, 1, 0.01, 3.0, 3.5, 0.75, 0.2]]
    with (run / "metrics.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return run


def leave_evaluation(folder: Path, captions: dict[int, str]) -> None:
    """As much of what captioning-evaluate leaves as a report reads."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "captions.json", [{"image_id": key, "caption": text} for key, text in captions.items()])
    about = {"data": "csv", "split": "val", "decoding": "beam7", "tokenizer": "ptb", "images": len(captions)}
    write_json(folder / "statistics.json", {"about": about})
