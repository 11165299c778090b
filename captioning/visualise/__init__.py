"""Figures of captions, data and runs; they know pictures, words and numbers, and no model.

    attention_figure   a panel a word: where it looked                      attention.py
    strip_figure       the same in one row, for a paper                     strip.py
    save_gaze          the same as a moving picture                         gaze.py
    caption_sheet      many pictures with captions, references and scores   sheet.py
    curves_figure      a run's losses and scores                            curves.py
    bars_figure        counts, such as of lengths and words                 bars.py
    cells              states and gates over words, gradients by distance   cells.py

`geometry` has where weights lie on a picture, `maps` how they are lit, `drawing` what all figures share.
"""

from captioning.visualise.animation import save_gaze
from captioning.visualise.attention import attention_figure, caption_figure
from captioning.visualise.bars import bars_figure
from captioning.visualise.contact_sheet import Entry, caption_sheet
from captioning.visualise.curves import curves_figure
from captioning.visualise.drawing import save_figure, thumbnail
from captioning.visualise.geometry import cell_overlay, overlay, region_overlay
from captioning.visualise.maps import Maps
from captioning.visualise.strip import strip_figure

__all__ = [
    "Entry",
    "Maps",
    "attention_figure",
    "bars_figure",
    "caption_figure",
    "caption_sheet",
    "cell_overlay",
    "curves_figure",
    "overlay",
    "region_overlay",
    "save_figure",
    "save_gaze",
    "strip_figure",
    "thumbnail",
]
