"""Declare the keys and types of every command's configuration: one class per YAML file; the values are in conf/.

Only names and types; the values are in conf/. A `PathName` keeps the text that was typed for it (`2024`, `José (1)`),
and a `FreeText` even its quotes; any other `str` keeps it too, but is no name of a file."""

import dataclasses
from typing import Annotated, ClassVar

PATH, VERBATIM = "path", "verbatim"
PathName = Annotated[str, PATH]
FreeText = Annotated[str, VERBATIM]

# Settings that stand inside a `_target_` node without being arguments of its target: the command takes them out.
BESIDE_DECODING = {"decoding": {"checkpoints": list[PathName] | None}}


@dataclasses.dataclass
class DataConfig:
    """conf/data: a data set on disk and how its captions are read."""

    name: str
    root: PathName
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
class AnswerDataConfig:
    """conf/data: pictures with questions and answers."""

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
class TrainConfig:
    """conf/train.yaml: what all tasks have. Its `task` brings the schema of the whole (`config.check`)."""

    schema_of: ClassVar = "task"
    task: dict
    data: dict
    loader: dict
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
    resume: PathName | None
    overwrite: bool
    plugins: list[str] | str


@dataclasses.dataclass
class CaptionTrainConfig(TrainConfig):
    """conf/task/image_captioning.yaml."""

    data: DataConfig
    encoder: dict
    transform: dict
    features: dict
    loader: LoaderConfig
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
    """conf/data/text.yaml: running text and how it becomes tokens."""

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

    beside_target: ClassVar = BESIDE_DECODING
    checkpoint: PathName
    data: DataConfig
    split: str
    features: dict
    decoding: dict
    hard_attention: str | None
    crops: float | list[float] | None
    batch_size: int
    device: str
    metrics: dict
    output: PathName
    plugins: list[str] | str


@dataclasses.dataclass
class ScoreConfig:
    """conf/score.yaml."""

    results: PathName
    annotations: PathName
    samples: PathName | None
    training: PathName | None
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

    beside_target: ClassVar = BESIDE_DECODING
    checkpoint: PathName
    images: list[PathName] | PathName
    annotations: PathName | None
    decoding: dict
    hard_attention: str | None
    crops: float | list[float] | None
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
    output: PathName
    dtype: str
    scores: PathName | None
    card: PathName | None
    overwrite: bool
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

    checkpoint: PathName
    data: DataConfig
    split: str
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
    """What the demo takes from whoever calls it."""

    upload_megabytes: float
    upload_seconds: float
    megapixels: float
    waiting: int


@dataclasses.dataclass
class DemoConfig:
    """conf/demo.yaml."""

    checkpoint: PathName | list[PathName]
    examples: list[PathName] | PathName | None
    host: str
    port: int
    hosts: list[str]
    device: str
    limits: DemoLimits
    plugins: list[str] | str


@dataclasses.dataclass
class Root:
    """Where a folder is now; null: where it was."""

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
