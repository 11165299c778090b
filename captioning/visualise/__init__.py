"""Draw figures of captions, data and runs; it knows pictures, words and numbers, and no model.

`attention` draws one panel per word, `strip` the same in one row, `animation` as a moving picture, `contact_sheet` many
pictures with captions and scores, `curves` the losses and scores of a run, `bars` counts, `cells` states and gates.
`geometry` knows where weights belong on a picture, `maps` how they are lit, `drawing` what all figures share.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "animation": ["find_ffmpeg", "save_gaze"],
        "attention": ["attention_figure", "caption_figure"],
        "bars": ["bars_figure"],
        "cells": [
            "chance_figure",
            "colored_text",
            "compact",
            "course_figure",
            "flow_figure",
            "states_figure",
            "units_figure",
        ],
        "contact_sheet": ["Entry", "caption_sheet"],
        "curves": ["curves_figure", "read_curves"],
        "drawing": ["few_colors", "save_figure", "thumbnail"],
        "geometry": ["cell_overlay", "overlay", "region_overlay", "scale"],
        "maps": ["BRIGHTEST", "COLORS", "FAINTEST", "Maps"],
        "strip": ["strip_figure"],
    },
)
