"""The languages in which drawn scenes are described, one file per language.

A language is a table of phrases, templates that write captions with them, and patterns that read captions back; see
`Language`. `captioning.data.grammar` uses it to write captions and to decide whether a caption is true.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "chinese": ["CHINESE"],
        "english": ["ENGLISH"],
        "japanese": ["JAPANESE"],
        "language": ["BACKGROUNDS", "COLOR_NAMES", "SHAPES", "Frame", "Language", "either", "letters"],
        "languages": ["LANGUAGES", "find_language"],
        "thai": ["THAI"],
    },
)
