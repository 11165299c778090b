"""Read, check, rebuild, resume and export checkpoints, without running code from them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "hub": ["local_checkpoint"],
        "hub_address": ["hub_address_of", "is_hub_address"],
        "hub_push": ["PushTarget", "push_export", "read_push_target"],
        "model_card": ["make_card"],
        "read": [
            "FORMAT",
            "IMAGE_CAPTIONING",
            "check_shapes",
            "find_checkpoint",
            "load_state",
            "read_checkpoint",
            "without_memory",
        ],
        "rebuild": [
            "encoder_metadata",
            "grid_of",
            "looks_at_regions",
            "make_metadata",
            "named_file",
            "pick_device",
            "rebuild_encoder",
            "rebuild_model",
        ],
        "resume": ["same_answers", "same_encoder", "same_images", "same_words", "take_encoder"],
        "safetensors_format": ["DTYPES", "METADATA", "WEIGHTS", "write_exported"],
    },
)
