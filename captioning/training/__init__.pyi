from captioning.training.callbacks import Checkpoint as Checkpoint
from captioning.training.callbacks import SaveBetweenSteps as SaveBetweenSteps
from captioning.training.compile import compile_parts as compile_parts
from captioning.training.csv_logger import RunLog as RunLog
from captioning.training.datamodule import CaptionModule as CaptionModule
from captioning.training.freed_memory import keep_freed_memory as keep_freed_memory
from captioning.training.lightning_arguments import early_stopping as early_stopping
from captioning.training.lightning_arguments import lightning_trainer as lightning_trainer
from captioning.training.lightning_arguments import moving_average as moving_average
from captioning.training.lightning_module import CaptioningTask as CaptioningTask
from captioning.training.loggers import LOGGERS as LOGGERS
from captioning.training.loggers import check_loggers as check_loggers
from captioning.training.loggers import make_loggers as make_loggers
from captioning.training.lr_schedules import constant as constant
from captioning.training.lr_schedules import cosine as cosine
from captioning.training.lr_schedules import decay as decay
from captioning.training.provenance import describe_run as describe_run
from captioning.training.provenance import digest as digest
from captioning.training.provenance import digest_of as digest_of
from captioning.training.provenance import record as record
from captioning.training.run import train as train
from captioning.training.trackers import Service as Service
from captioning.training.trackers import Tracker as Tracker
from captioning.training.trainer import ProgressBar as ProgressBar
from captioning.training.trainer import clear_run as clear_run
from captioning.training.validation_images import LogValidation as LogValidation

PARTS: dict[str, list[str]]
TOOLS: dict[str, list[str]]
__all__: list[str]
