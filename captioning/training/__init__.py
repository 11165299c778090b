"""Train a model with Lightning: the Lightning module, the trainer, its callbacks, and the files of a run.

Only this folder and the training command import Lightning.
"""

import lazy_loader

# Parts that a configuration file may build (see `captioning.config.allowlist`).
PARTS = {
    "lightning_arguments": ["early_stopping", "lightning_trainer", "moving_average"],
    "lr_schedules": ["constant", "cosine", "decay"],
}
TOOLS = {
    "callbacks": ["Checkpoint", "SaveBetweenSteps"],
    "compile": ["compile_parts"],
    "csv_logger": ["RunLog"],
    "datamodule": ["CaptionModule"],
    "freed_memory": ["keep_freed_memory"],
    "lightning_module": ["CaptioningTask"],
    "loggers": ["LOGGERS", "check_loggers", "make_loggers"],
    "run": ["train"],
    "provenance": ["describe_run", "digest", "digest_of", "record"],
    "trackers": ["Service", "Tracker"],
    "trainer": ["ProgressBar", "clear_run"],
    "validation_images": ["LogValidation"],
}
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={file: PARTS.get(file, []) + TOOLS.get(file, []) for file in PARTS | TOOLS}
)
