"""Build the report of a run: one HTML page with scores, curves, examples and settings."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "caption_statistics": ["choose"],
        "examples": ["make_example"],
        "page": ["make_page"],
        "rendering": ["render"],
        "run_settings": ["build_reader", "moved", "read_settings"],
    },
)
