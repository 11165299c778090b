"""Declare the arguments of Lightning's trainer and callbacks, so that settings are checked without importing Lightning.

A test compares these lists with Lightning's own signatures.
"""

import importlib
import inspect
from collections.abc import Callable
from typing import Any

NUMBER = int | float | None


def _stand_in(target: str, arguments: dict[str, Any]) -> Callable:
    """Return a function that builds `target` from keyword arguments.

    The type of an argument is Any where Lightning accepts more than plain values.
    """

    def make(**given: Any) -> Any:
        module, _, name = target.rpartition(".")
        return getattr(importlib.import_module(module), name)(**given)

    keyword = inspect.Parameter.KEYWORD_ONLY
    make.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # read by inspect.signature
        [inspect.Parameter(name, keyword, default=None, annotation=kind) for name, kind in arguments.items()]
    )
    make.__doc__ = f"Build {target}."
    return make


lightning_trainer = _stand_in(
    "captioning.training.trainer.Trainer",
    {
        "skip_nonfinite": int,
        "save_every_minutes": float | None,
        "compile": bool,
        "accelerator": str,
        "strategy": str,
        "devices": list | str | int,
        "num_nodes": int,
        "precision": str | int | None,
        "logger": Any,
        "callbacks": Any,
        "fast_dev_run": int | bool,
        "max_epochs": int | None,
        "min_epochs": int | None,
        "max_steps": int,
        "min_steps": int | None,
        "max_time": Any,
        "limit_train_batches": NUMBER,
        "limit_val_batches": NUMBER,
        "limit_test_batches": NUMBER,
        "limit_predict_batches": NUMBER,
        "overfit_batches": int | float,
        "val_check_interval": NUMBER,
        "check_val_every_n_epoch": int | None,
        "num_sanity_val_steps": int | None,
        "log_every_n_steps": int | None,
        "enable_checkpointing": bool | None,
        "enable_progress_bar": bool | None,
        "enable_model_summary": bool | None,
        "accumulate_grad_batches": int,
        "gradient_clip_val": NUMBER,
        "gradient_clip_algorithm": str | None,
        "deterministic": bool | str | None,
        "benchmark": bool | None,
        "inference_mode": bool,
        "use_distributed_sampler": bool,
        "profiler": Any,
        "detect_anomaly": bool,
        "barebones": bool,
        "plugins": Any,
        "sync_batchnorm": bool,
        "reload_dataloaders_every_n_epochs": int,
        "default_root_dir": Any,
        "enable_autolog_hparams": bool,
        "model_registry": str | None,
    },
)

early_stopping = _stand_in(
    "lightning.pytorch.callbacks.EarlyStopping",
    {
        "monitor": str,
        "min_delta": float,
        "patience": int,
        "verbose": bool,
        "mode": str,
        "strict": bool,
        "check_finite": bool,
        "stopping_threshold": float | None,
        "divergence_threshold": float | None,
        "check_on_train_epoch_end": bool | None,
        "log_rank_zero_only": bool,
    },
)

moving_average = _stand_in(
    "captioning.training.callbacks.AveragedWeights",
    {
        "device": str | int | None,
        "use_buffers": bool,
        "decay": float,
        "update_every_n_steps": int,
        "update_starting_at_step": int | None,
        "update_starting_at_epoch": int | None,
    },
)
