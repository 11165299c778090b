"""What a run's configuration holds: one class a YAML file of conf/. Only names and types; the values are in conf/."""

import dataclasses
from typing import ClassVar

# Settings that stand inside a `_target_` node without being arguments of its target: the command takes them out.
BESIDE_DECODING = {"decoding": {"checkpoints": list[str] | None}}


@dataclasses.dataclass
class DataConfig:
    """conf/data: a data set on disk and how its captions are read."""

    name: str
    root: str
    layout: str | int | None
    reader: dict
    min_count: int
    max_length: int
    captions_per_image: int | None
    skip_unreadable: bool
    download: dict | None
    extra_scores: dict | None
    instances: dict | None


@dataclasses.dataclass
class PrepareConfig:
    """conf/prepare.yaml."""

    data: DataConfig
    encoder: dict
    transform: dict
    features: dict
    splits: list[str] | None
    download: bool
    verify: bool


@dataclasses.dataclass
class LoaderConfig:
    """Batches of images in training and validation."""

    batch_size: int
    val_batch_size: int


@dataclasses.dataclass
class TrainConfig:
    """conf/train.yaml."""

    data: DataConfig
    encoder: dict
    transform: dict
    features: dict
    loader: LoaderConfig
    model: dict
    objective: dict
    reward: dict | None
    optimizer: dict
    schedule: dict
    encoder_lr: float
    encoder_warmup: int
    decoding: dict
    early_stopping: dict | None
    weight_averaging: dict | None
    trainer: dict
    seed: int
    run_dir: str
    start_from: str | None
    resume: str | None
    overwrite: bool


@dataclasses.dataclass
class EvaluateConfig:
    """conf/evaluate.yaml."""

    beside_target: ClassVar = BESIDE_DECODING
    checkpoint: str
    data: DataConfig
    split: str
    features: dict
    decoding: dict
    places: str | None
    batch_size: int
    device: str
    metrics: dict
    output: str


@dataclasses.dataclass
class ScoreConfig:
    """conf/score.yaml."""

    results: str
    annotations: str
    samples: str | None
    training: str | None
    split: str | None
    decoded_by: str
    metrics: dict
    server: str | None
    output: str | None


@dataclasses.dataclass
class CompareConfig:
    """conf/compare.yaml."""

    a: str | list[str]
    b: str | list[str]
    annotations: str | None
    metrics: dict
    by: str
    show: int
    output: str | None


@dataclasses.dataclass
class CaptionConfig:
    """conf/caption.yaml."""

    beside_target: ClassVar = BESIDE_DECODING
    checkpoint: str
    images: list[str] | str
    decoding: dict
    places: str | None
    batch_size: int
    device: str
    output: str
    figures: bool
    skip_unreadable: bool


@dataclasses.dataclass
class AuditConfig:
    """conf/audit.yaml."""

    data: DataConfig
    max_distance: int
    workers: int | None
    examples: int
    output: str


@dataclasses.dataclass
class GroundConfig:
    """conf/ground.yaml."""

    checkpoint: str
    data: DataConfig
    split: str
    decoding: dict
    batch_size: int
    device: str
    samples: int
    seed: int
    output: str
