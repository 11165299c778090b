"""Find an installed font for letters that matplotlib's own lacks, and say once where there is none.

Matplotlib itself warns per figure and letter, and draws a box.
"""

import sys
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.text import Text

# Without letters of other scripts, or in colours that matplotlib cannot draw.
_LEFT_OUT = ("last resort", "dejavu", "stix", "cm", "emoji")
_EAST_ASIAN = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC", "HALFWIDTH", "FULLWIDTH", "YI")
_NAMES = {"CJK": "Chinese or Japanese (Han)", "IDEOGRAPHIC": "Chinese or Japanese (Han)"}
_told: set[str] = set()


class ReadableFigure(Figure):
    """A figure whose texts are drawn in fonts that have their letters."""

    def draw(self, renderer) -> None:
        """As a Figure is, without matplotlib's warnings of missing letters."""
        for text in self.findobj(Text):
            if not (said := text.get_text()).isascii():
                text.set_family(families(said, text.get_family()))
        with without_glyph_warnings():
            super().draw(renderer)


@contextmanager
def without_glyph_warnings() -> Iterator[None]:
    """Mutes matplotlib's warnings of single missing letters; `families` has told of the script."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"(?s)Glyph \d+ .*missing from")
        warnings.filterwarnings("ignore", message=r"Matplotlib currently does not support .* natively")
        yield


def families(text: str, usual: list[str] | None = None) -> list[str]:
    """The font families to draw a text in, matplotlib's first: its letters are looked for in one after the other.

    What no font has is told on stderr, once per script.
    """
    usual = FontProperties().get_family() if usual is None else usual
    if text.isascii():
        return usual
    found = dict.fromkeys(usual)
    for letter in dict.fromkeys(text):
        if letter.isspace() or unicodedata.category(letter) in ("Cf", "Cc", "Mn") or _has(_usual_font(), letter):
            continue
        if family := _family_with(letter):
            found[family] = None
        else:
            _tell(letter)
    return list(found)


@cache
def _usual_font() -> str:
    return findfont(FontProperties())


def _has(file: str, letter: str) -> bool:
    try:
        font = get_font(file)
        return bool(font.scalable and font.get_char_index(ord(letter)))
    except (OSError, RuntimeError):  # a damaged font, or one that is gone
        return False


@cache
def _family_with(letter: str) -> str | None:
    return next((name for name, file in _candidates() if _has(file, letter)), None)


@cache
def _candidates() -> list[tuple[str, str]]:
    """(family, file) of upright fonts of usual weight, each family once, those without serifs first."""
    fonts = [
        font for font in fontManager.ttflist if font.style == "normal" and font.weight in (400, "normal", "regular")
    ]
    fonts = [font for font in fonts if not font.name.lower().startswith(_LEFT_OUT) and "emoji" not in font.name.lower()]
    fonts.sort(key=lambda font: ("serif" in font.name.lower(), "mono" in font.name.lower(), font.name))
    return list({font.name: font.fname for font in reversed(fonts)}.items())[::-1]


def _tell(letter: str) -> None:
    word = unicodedata.name(letter, "").split(" ")[0].split("-")[0]
    if not letter.isalpha() or word in _told:
        return  # a sign, such as an emoji
    _told.add(word)
    script, package = _NAMES.get(word, word.title()), "fonts-noto-cjk" if word in _EAST_ASIAN else "fonts-noto-core"
    print(
        f"warning: no installed font has {script} letters, and figures show boxes in their place. Install one, such as "
        f"the package {package}, and delete {Path(matplotlib.get_cachedir()) / 'fontlist-*.json'}",
        file=sys.stderr,
    )
