"""Serve the demo: a web page that captions photos with your checkpoints."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "examples": ["built_in_examples", "Credit", "DemoExample", "photograph_examples"],
        "server": ["Demo", "Limits", "serve"],
        "static_site": ["write_static_demo"],
        "work": ["checkpoint_names", "with_encoder"],
    },
)
