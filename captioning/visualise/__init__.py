"""Draw figures of captions, data and runs from images, words and numbers; nothing here depends on a model.

| File            | Draws                                                              |
|-----------------|--------------------------------------------------------------------|
| `attention`     | one panel with an attention map per word                           |
| `strip`         | the same panels in one row, for a paper                            |
| `heads`         | one word's maps of all layers and heads                            |
| `animation`     | the same as an animation                                           |
| `contact_sheet` | many images with captions and scores                               |
| `curves`        | losses and scores of runs                                          |
| `bars`          | counts                                                             |
| `cells`         | states and gates of recurrent cells                                |
| `geometry`      | (helper) computes where attention weights belong on an image       |
| `maps`          | (helper) colors attention maps                                     |
| `drawing`       | (helper) has what all figures share                                |
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
        "heads": ["heads_figure"],
        "maps": ["BRIGHTEST", "COLORS", "FAINTEST", "Maps"],
        "strip": ["strip_figure"],
    },
)
