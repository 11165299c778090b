"""Build small transformer captioners in float64, with weights large enough that every word matters."""

import torch
from toys import PAD

from captioning.models import TransformerCaptioner, build_transformer


def tiny_transformer(*, std: float | None = None, **settings) -> TransformerCaptioner:
    """Build a transformer of width 8 in eval mode; `std` draws all weights anew from a normal distribution."""
    sizes = {"feature_size": 6, "grid": True, "vocabulary_size": 11, "width": 8, "heads": 2, "layers": 2, "pad": PAD}
    model = build_transformer(**{**sizes, "dropout": 0.0, **settings}).double().eval()
    for parameter in model.parameters() if std else ():
        torch.nn.init.normal_(parameter, std=std)
    return model
