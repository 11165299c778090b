"""Build captioning models in plain PyTorch: encoder, conditioning, attention, recurrence, readout and their interface.

`interface.CaptionModel` declares what the rest of the package may use of a model. The equations are in these files;
fast kernels are in `ops`.
"""

import lazy_loader

# The parts that a configuration file may build (see `captioning.config.allowlist`).
PARTS = {
    "answerer": ["build_answerer"],
    "attention": ["HardAttention", "NoAttention", "SoftAttention"],
    "captioner": ["build_captioner"],
    "cells": ["GRU", "LSTM", "RNN"],
    "conditioning": ["EveryStep", "FirstStep", "InitialState", "NoConditioning", "Several"],
    "embeddings": ["learned", "one_hot"],
    "efficientnet_lite": ["efficientnet_lite_encoder"],
    "gradient_estimators": ["ScoreFunction", "StraightThrough"],
    "positions": ["Coordinates", "NoPositions"],
    "region_encoder": ["RegionEncoder"],
    "readout": ["DeepReadout", "LinearReadout", "SumReadout"],
    "recurrence": ["LookAfter", "LookFirst", "UpDown"],
    "scorers": ["Additive", "DotProduct"],
    "side_by_side": ["SideBySide"],
    "tag_places": ["NoTags", "TagPlaces"],
    "timm_networks": ["timm_encoder"],
    "torchvision_networks": ["torchvision_encoder"],
    "transformer": ["build_transformer"],
    "vector": ["Raw", "Standardized"],
    "word_positions": ["LearnedPositions", "SinusoidalPositions"],
}
TOOLS = {
    "answerer": ["Answerer"],
    "captioner": ["Captioner"],
    "cells": ["Cell"],
    "classifier_heads": [
        "Classifier",
        "VectorHead",
        "efficientnet_lite_classifier",
        "timm_classifier",
        "torchvision_classifier",
    ],
    "decoder": ["Memory"],
    "encoder": ["Encoder"],
    "interface": [
        "CaptionModel",
        "Decoded",
        "Glimpse",
        "LongestCaption",
        "State",
        "Step",
        "head_name",
        "layer_name",
        "stack_glimpses",
    ],
    "key_value_cache": ["KeyValueCache", "Past"],
    "multi_crop": ["MultiCrop"],
    "readout": ["LazyLogits"],
    "state": ["RecurrentState", "recurrent"],
    "step_state": ["StepState", "defer", "drop_batch", "drop_step", "end_step", "keep_batch"],
    "tracing": ["trace"],
    "transformer": ["TransformerCaptioner"],
    "transformer_maps": ["AttentionMaps", "attention_rollout"],
    "weights": ["nearest"],
}
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={file: PARTS.get(file, []) + TOOLS.get(file, []) for file in PARTS | TOOLS}
)
