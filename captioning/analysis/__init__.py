"""Study a model: its activations, what single units react to, how gradients flow; tools for notebooks."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "activations": [
            "batches",
            "beyond_position",
            "clipping_study",
            "gradient_flow",
            "lines",
            "open_data",
            "read_captions",
            "tabulate",
            "untrained_flows",
        ],
        "gradient_flow": ["lines", "state_gradients"],
        "notebook": ["boxes_by_word", "differing", "open_data", "ranked"],
        "probing": ["held_out", "tabulate_texts"],
    },
)
