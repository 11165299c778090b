"""Find an installed font for letters that matplotlib's own font lacks, and warn once per script if there is none.

Matplotlib itself would warn for every figure and letter.
"""

import sys
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.text import Text

# Fonts without letters of other scripts, or with colors that matplotlib cannot draw.
_LEFT_OUT = ("last resort", "dejavu", "stix", "cm", "emoji")
_EAST_ASIAN = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC", "HALFWIDTH", "FULLWIDTH", "YI")
_NAMES = {"CJK": "Chinese or Japanese (Han)", "IDEOGRAPHIC": "Chinese or Japanese (Han)"}
_warned: set[str] = set()  # scripts; all East Asian ones are one


class ReadableFigure(Figure):
    """A figure whose texts are drawn in fonts that have their letters."""

    def draw(self, renderer: Any) -> None:
        """Draw the figure without matplotlib's warnings about missing letters."""
        for text in self.findobj(Text):
            if not (content := text.get_text()).isascii():
                text.set_fontfamily(families(content, text.get_fontfamily()))
        with without_glyph_warnings():
            super().draw(renderer)


@contextmanager
def without_glyph_warnings() -> Iterator[None]:
    """Mute matplotlib's warnings about single missing letters, because `families` warns once per script."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"(?s)Glyph \d+ .*missing from")
        warnings.filterwarnings("ignore", message=r"Matplotlib currently does not support .* natively")
        yield


def families(text: str, usual: list[str] | None = None) -> list[str]:
    """Return the font families that together have the letters of a text, matplotlib's own first.

    Letters that no installed font has are reported on stderr, once per script.

    Args:
        text: the text to draw.
        usual: the families to try first; None: matplotlib's default.
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
    except (OSError, RuntimeError):  # the font is damaged or was removed
        return False


@cache
def _family_with(letter: str) -> str | None:
    return next((name for name, file in _candidates() if _has(file, letter)), None)


@cache
def _candidates() -> list[tuple[str, str]]:
    """Return (family, file) of upright fonts of regular weight, once per family, sans-serif fonts first."""
    fonts = [
        font for font in fontManager.ttflist if font.style == "normal" and font.weight in (400, "normal", "regular")
    ]
    fonts = [font for font in fonts if not font.name.lower().startswith(_LEFT_OUT) and "emoji" not in font.name.lower()]
    fonts.sort(key=lambda font: ("serif" in font.name.lower(), "mono" in font.name.lower(), font.name))
    return list({font.name: font.fname for font in reversed(fonts)}.items())[::-1]


def _tell(letter: str) -> None:
    word = unicodedata.name(letter, "").split(" ")[0].split("-")[0]
    # One package has all East Asian scripts: Japanese alone would otherwise be reported three times.
    known = "East Asian" if word in _EAST_ASIAN else word
    if not letter.isalpha() or known in _warned:  # symbols such as emoji are not reported
        return
    _warned.add(known)
    script, package = _NAMES.get(word, word.title()), "fonts-noto-cjk" if word in _EAST_ASIAN else "fonts-noto-core"
    print(
        f"warning: no installed font has {script} letters, so figures show boxes instead. Install a font, such as the "
        f"package {package}, and delete {Path(matplotlib.get_cachedir()) / 'fontlist-*.json'}",
        file=sys.stderr,
    )
