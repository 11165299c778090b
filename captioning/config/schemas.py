"""Declare the keys and types of every command's configuration: one class per YAML file. The values are in conf/.

A `PathName` is a file or folder name and keeps the text that was typed for it (`2024`, `José (1)`). A `FreeText` keeps
even its quotes. Any other `str` keeps its text too, but is not a file name.
"""

import dataclasses
from typing import Annotated, Any, ClassVar

PATH, VERBATIM = "path", "verbatim"
PathName = Annotated[str, PATH]
FreeText = Annotated[str, VERBATIM]

# Settings inside a `_target_` node that are not arguments of its target: the command removes them before it builds.
BESIDE_DECODING: dict[str, dict[str, Any]] = {"decoding": {"checkpoints": list[PathName] | None}}

# A setting that checkpoints decide, on the command line -> why it has no effect, and what to type.
_DECIDED = {
    "data.tokenizer": "the tokenizer is the checkpoint's. Remove data.tokenizer",
    "data.min_count": "the vocabulary is the checkpoint's. Remove data.min_count",
    "data.captions_per_image": "all captions of an image are used. Remove data.captions_per_image",
}
_LENGTH = {"data.max_length": "it limits training captions. Remove data.max_length"}


@dataclasses.dataclass
class DataConfig:
    """conf/data: a data set on disk, and how to read its captions."""

    name: str
    root: PathName
    layout: str | int | None
    reader: dict
    tokenizer: str
    min_count: int
    max_length: int | None
    captions_per_image: int | None
    skip_unreadable: bool
    download: dict | None
    extra_scores: dict | None
    instances: dict | None


@dataclasses.dataclass
class AnswerDataConfig:
    """conf/data: images with questions and answers."""

    name: str
    pictures: str
    root: PathName | None
    reader: dict
    min_count: int
    max_length: int
    answers: int
    targets: dict
    skip_unreadable: bool


@dataclasses.dataclass
class PrepareConfig:
    """conf/prepare.yaml."""

    data: DataConfig | AnswerDataConfig
    encoder: dict
    transform: dict
    features: dict
    splits: list[str] | None
    download: bool
    verify: bool
    plugins: list[str] | str


@dataclasses.dataclass
class LoaderConfig:
    """Batches of images in training and validation."""

    batch_size: int
    val_batch_size: int


@dataclasses.dataclass
class CaptionLoaderConfig(LoaderConfig):
    """Batches of images with captions, and the order of training."""

    order: str
    shuffle_buffer: int


@dataclasses.dataclass
class TrainConfig:
    """conf/train.yaml: the keys of every task. The target of `task` provides the complete schema (`config.check`)."""

    schema_of: ClassVar[str] = "task"
    task: dict
    data: Any
    loader: Any
    model: dict
    objective: dict
    optimizer: dict
    schedule: dict
    early_stopping: dict | None
    weight_averaging: dict | None
    trainer: dict
    seed: int
    run_dir: PathName
    start_from: PathName | None
    train_only: list[str] | None
    resume: PathName | None
    overwrite: bool
    logger: list[str] | str
    log_images: int | None
    project: str
    plugins: list[str] | str


@dataclasses.dataclass
class CaptionTrainConfig(TrainConfig):
    """conf/task/image_captioning.yaml."""

    data: DataConfig
    encoder: dict
    transform: dict
    features: dict
    loader: CaptionLoaderConfig
    reward: dict | None
    teacher: dict | None
    encoder_lr: float
    encoder_warmup: int
    decoding: dict


@dataclasses.dataclass
class AnswerTrainConfig(TrainConfig):
    """conf/task/vqa.yaml."""

    data: AnswerDataConfig
    encoder: dict
    transform: dict
    features: dict
    loader: LoaderConfig
    encoder_lr: float
    encoder_warmup: int


@dataclasses.dataclass
class TextDataConfig:
    """conf/data/text.yaml: text files, and how they become tokens."""

    name: str
    files: list[PathName] | PathName | None
    unit: str
    window: int
    min_count: int
    reader: dict


@dataclasses.dataclass
class LanguageModelTrainConfig(TrainConfig):
    """conf/task/language_model.yaml."""

    data: TextDataConfig
    loader: LoaderConfig


@dataclasses.dataclass
class EvaluateConfig:
    """conf/evaluate.yaml."""

    beside_target: ClassVar[dict[str, dict[str, Any]]] = BESIDE_DECODING
    decided: ClassVar[dict[str, str]] = {
        **_DECIDED,
        "data.tokenizer": f"{_DECIDED['data.tokenizer']}; to score with another, set metrics.tokenizer",
        "data.max_length": f"{_LENGTH['data.max_length']}; to write shorter captions, set decoding.max_length",
    }
    checkpoint: PathName
    data: DataConfig
    split: str
    features: dict
    decoding: dict
    hard_attention: str | None
    crops: float | list[float] | None
    tags: PathName | None
    guidance: dict
    batch_size: int
    device: str
    metrics: dict
    instances: PathName | None
    output: PathName
    plugins: list[str] | str


@dataclasses.dataclass
class ScoreConfig:
    """conf/score.yaml."""

    results: PathName
    annotations: PathName
    samples: PathName | None
    training: PathName | None
    instances: PathName | None
    images: PathName | None
    split: str | None
    subset: bool
    decoded_by: str
    metrics: dict
    server: str | None
    output: PathName | None
    plugins: list[str] | str


@dataclasses.dataclass
class CompareConfig:
    """conf/compare.yaml."""

    a: PathName | list[PathName]
    b: PathName | list[PathName]
    annotations: PathName | None
    images: PathName | None
    split: str | None
    subset: bool
    metrics: dict
    by: str
    show: int
    output: PathName | None
    plugins: list[str] | str


@dataclasses.dataclass
class CaptionConfig:
    """conf/caption.yaml."""

    beside_target: ClassVar[dict[str, dict[str, Any]]] = BESIDE_DECODING
    checkpoint: PathName
    images: list[PathName] | PathName
    annotations: PathName | None
    decoding: dict
    hard_attention: str | None
    crops: float | list[float] | None
    tags: PathName | None
    guidance: dict
    regions: PathName | None
    figures: list[str]
    format: str
    batch_size: int
    device: str
    output: PathName
    skip_unreadable: bool
    plugins: list[str] | str


@dataclasses.dataclass
class EvaluateAnswersConfig:
    """conf/evaluate_answers.yaml."""

    checkpoint: PathName
    data: AnswerDataConfig
    split: str
    features: dict
    hard_attention: str | None
    batch_size: int
    device: str
    server: str | None
    output: PathName
    plugins: list[str] | str


@dataclasses.dataclass
class AnswerConfig:
    """conf/answer.yaml."""

    checkpoint: PathName
    image: PathName
    question: FreeText
    top: int
    hard_attention: str | None
    device: str
    output: PathName
    plugins: list[str] | str


@dataclasses.dataclass
class SampleConfig:
    """conf/sample.yaml."""

    checkpoint: PathName
    prime: FreeText
    length: int
    temperature: float
    top_k: int | None
    top_p: float | None
    seed: int | None
    device: str
    plugins: list[str] | str


@dataclasses.dataclass
class DistillConfig:
    """conf/distill.yaml."""

    decided: ClassVar[dict[str, str]] = _DECIDED
    checkpoint: PathName | list[PathName]
    data: DataConfig
    features: dict
    words: int
    batch_size: int
    device: str
    output: PathName
    plugins: list[str] | str


@dataclasses.dataclass
class ExportConfig:
    """conf/export.yaml."""

    checkpoint: PathName
    output: PathName | None
    format: str
    dtype: str | None
    hard_attention: str | None
    scores: PathName | None
    card: PathName | None
    overwrite: bool
    push: str | None
    license: str | None
    private: bool
    plugins: list[str] | str


@dataclasses.dataclass
class AuditConfig:
    """conf/audit.yaml."""

    data: DataConfig
    max_distance: int
    workers: int | None
    examples: int
    output: PathName
    plugins: list[str] | str


@dataclasses.dataclass
class GroundConfig:
    """conf/ground.yaml."""

    decided: ClassVar[dict[str, str]] = _DECIDED | _LENGTH
    checkpoint: PathName
    data: DataConfig
    split: str
    map: list[str] | str
    features: dict
    decoding: dict
    batch_size: int
    device: str
    samples: int
    seed: int
    output: PathName
    plugins: list[str] | str


@dataclasses.dataclass
class DemoLimits:
    """Limits of the demo's requests."""

    upload_megabytes: float
    upload_seconds: float
    megapixels: float
    waiting: int


@dataclasses.dataclass
class DemoConfig:
    """conf/demo.yaml."""

    checkpoint: PathName | list[PathName]
    examples: list[PathName] | PathName | None
    tags: str | None
    guidance: dict
    host: str
    port: int
    hosts: list[str]
    device: str
    static: PathName | None
    runtime: PathName | None
    dtype: str
    limits: DemoLimits
    plugins: list[str] | str


@dataclasses.dataclass
class Root:
    """A folder that may have moved since the run; null: it has not."""

    root: PathName | None


@dataclasses.dataclass
class ReportConfig:
    """conf/report.yaml."""

    run_dir: PathName
    evaluation: PathName | None
    split: str
    data: Root
    features: Root
    decoding: dict
    metrics: dict
    examples: int
    by: str
    most: int
    batch_size: int
    device: str
    output: PathName | None
    plugins: list[str] | str
