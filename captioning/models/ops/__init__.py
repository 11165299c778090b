"""Provide fast kernels and packed layouts, separate from the equations that they compute."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "additive_kernel": ["additive_scores"],
        "fast_dropout": ["Dropout", "dropout"],
        "packing": ["Layout"],
        "prefixes": ["Prefixes"],
        "products": ["linear", "mixed", "summed_at_once"],
    },
)
