"""The kinds of run that captioning-train knows: each makes its parts of a configuration; what they share is in train.

A kind is a class without arguments, named by `kind._target_` (conf/kind). It has

    name     as checkpoints keep it
    schema   the dataclass (schemas.py) that its configuration is checked against
    kind(config, resumed=checkpoint or None, started=checkpoint or None) -> Parts

Nothing here knows hydra, Lightning or an entry point.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import nn


class Parts(NamedTuple):
    """What a kind gives the training entry, built and tried: all that a configuration can have wrong is told by then.

    Attributes:
        model: what is trained; `model.encoder` is what it looks through (nn.Identity for nothing).
        objective: (model, batch) -> objectives.Loss.
        observe: (model, batch, loss) -> {id: finding}, of a validation batch: a caption, an answer, a count.
        score: {id: finding} of the whole validation split -> {full name of a score: value}.
        monitor, mode: the score that best.ckpt and early stopping go by, and whether "max" or "min" of it is best.
        recipe: plain containers that travel in every checkpoint and rebuild the model.
        load: () -> the loaders, and a line about the data; what may take long (features) is done here.
        digest: of the data that are learnt from and scored against (`provenance`), by which a resumed run knows them.
        encoder: what becomes `model.encoder`, at the latest by `load`.
        encoder_lr, encoder_warmup: of its unfrozen layers, where it may have any.
    """

    model: nn.Module
    objective: Callable
    observe: Callable[..., dict[int, Any]]
    score: Callable[[dict[int, Any]], Mapping[str, float]]
    monitor: str
    mode: str
    recipe: dict[str, Any]
    load: Callable[[], tuple[Any, str]]
    digest: str
    encoder: nn.Module
    encoder_lr: float | None = None
    encoder_warmup: int = 0
