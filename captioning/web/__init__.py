"""Build web pages: the report of a run, and the demo. The pages load nothing from other addresses."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "assets": ["as_address", "as_jpeg", "palette", "read_asset", "shrink"],
    },
)
