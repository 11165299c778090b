"""Tasks that can be trained: image captioning, visual question answering, and language models."""

import lazy_loader

# Parts that a configuration file may build (see `captioning.config.allowlist`).
PARTS = {
    "image_captioning": ["ImageCaptioningTask"],
    "language_model": ["LanguageModelTask"],
    "vqa": ["VqaTask"],
}
TOOLS = {
    "caption_files": ["record_file"],
    "vqa": ["truths_of"],
}
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={file: PARTS.get(file, []) + TOOLS.get(file, []) for file in PARTS | TOOLS}
)
