"""Letters that matplotlib's font lacks: another font has them, or one line says that none does."""

import warnings

import pytest
from matplotlib.font_manager import FontProperties
from PIL import Image

from captioning.visualise import caption_figure, fonts, save_figure

CHINESE = "\u4e00\u53ea\u72d7\u5728\u8349\u5730\u4e0a"


@pytest.fixture(autouse=True)
def _no_memory(monkeypatch):
    monkeypatch.setattr(fonts, "_warned", set())


def draw(tmp_path, caption=CHINESE):
    picture = Image.new("RGB", (64, 48), "gray")
    save_figure(caption_figure(picture, caption), tmp_path / "caption.png")


def without_fonts(monkeypatch):
    monkeypatch.setattr(fonts, "_family_with", lambda letter: None)


def test_one_line_per_process_and_no_warning_per_image(tmp_path, monkeypatch, capsys):
    without_fonts(monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            draw(tmp_path)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "warning: no installed font has Chinese or Japanese (Han) letters, so figures show boxes instead. "
        "Install a font, such as the package fonts-noto-cjk, and delete "
    )


@pytest.mark.parametrize(
    ("caption", "script", "package"),
    [
        ("\u0e2a\u0e38\u0e19\u0e31\u0e02", "Thai", "fonts-noto-core"),
        ("\uac1c\uac00", "Hangul", "fonts-noto-cjk"),
        ("\u30b9\u30b1", "Katakana", "fonts-noto-cjk"),
        ("\u0915\u0941\u0924", "Devanagari", "fonts-noto-core"),
    ],
)
def test_the_script_and_a_package_are_named(tmp_path, monkeypatch, capsys, caption, script, package):
    without_fonts(monkeypatch)
    draw(tmp_path, caption)
    (line,) = capsys.readouterr().err.splitlines()
    assert f"no installed font has {script} letters" in line and f"package {package}," in line


def test_a_sentence_in_several_scripts_of_one_package_is_told_of_once(tmp_path, monkeypatch, capsys):
    without_fonts(monkeypatch)
    draw(tmp_path, "\u8d64\u3044\u661f\u3068\u30cf\u30fc\u30c8")  # Han, Hiragana and Katakana
    (line,) = capsys.readouterr().err.splitlines()
    assert "Han" in line and "fonts-noto-cjk" in line


@pytest.mark.parametrize("caption", ["a caf\u00e9", "\u0441\u043e\u0431\u0430\u043a\u0430", "a dog \U0001f415", ""])
def test_nothing_is_told_of_what_is_there_or_of_signs(tmp_path, monkeypatch, capsys, caption):
    without_fonts(monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw(tmp_path, caption)
    assert capsys.readouterr().err == ""


def test_a_font_that_has_the_letters_is_used(monkeypatch, capsys):
    monkeypatch.setattr(fonts, "_has", lambda file, letter: file == "/some.ttf" or letter.isascii())
    monkeypatch.setattr(fonts, "_candidates", lambda: [("Other", "/other.ttf"), ("Some Sans", "/some.ttf")])
    fonts._family_with.cache_clear()
    try:
        assert fonts.families(f"a {CHINESE}") == [*FontProperties().get_family(), "Some Sans"]
        assert fonts.families("a dog") == FontProperties().get_family()
    finally:
        fonts._family_with.cache_clear()
    assert capsys.readouterr().err == ""
