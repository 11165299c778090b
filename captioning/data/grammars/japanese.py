"""Japanese captions of drawn scenes.

caption  = body [ending] ["。背景は" background] "。", or the background first
body     = noun | list | clause | phrase
clause   = noun "が" noun "の" side "にある" | noun "の" side "に" noun "がある", with a third: "…あり、" noun "もある"
phrase   = noun "の" side "にある" noun ["と、" noun]
list     = noun "と" noun ["と" noun] ["の" ("二つ" | "三つ") "の図形"]
noun     = [size] color shape
"""

import re

from captioning.data.grammars.language import Frame, Language, count_letters, either, letters

_SHAPES = {
    "square": ("四角形", "正方形"),
    "triangle": ("三角形",),
    "star": ("星", "星形"),
    "heart": ("ハート",),
    "circle": ("円", "丸"),
}
_COLORS = {
    "red": ("赤い",),
    "yellow": ("黄色い", "黄色の"),
    "green": ("緑の", "緑色の"),
    "blue": ("青い",),
    "magenta": ("マゼンタの",),
    "white": ("白い",),
}
_SIZES = {"small": ("小さな", "小さい"), "large": ("大きな", "大きい")}
_RELATIONS = {
    "left": ("左", "左側"),
    "right": ("右", "右側"),
    "above": ("上", "上側"),
    "below": ("下", "下側"),
    "beside": ("横", "隣"),
}
_BACKGROUNDS = {
    "plain": ("無地",),
    "striped": ("縞模様", "ストライプ"),
    "dotted": ("水玉模様", "ドット柄"),
    "checked": ("市松模様", "チェック柄"),
    "noisy": ("ノイズ",),
    "shaded": ("グラデーション",),
}
_COUNTS = {2: ("二つ",), 3: ("三つ",)}

_AFTER = "。背景は{background}"


def _frame(text: str, *grounded: str) -> Frame:
    return Frame(text, (*grounded, text + _AFTER))


_BARE = _frame("{body}", "{background}の背景に{body}")
_DRAWN = _frame("{body}が描かれている", "{background}の背景に{body}が描かれている")
_KINDS = (_frame("{body}の絵"), _frame("{body}の画像"))
_NOUNS = (
    *2 * (_BARE,),
    *_KINDS,
    _DRAWN,
    _frame("{body}がある", "{background}の背景に{body}がある"),
    _frame("画像の中に{body}がある"),
)
_PHRASES = (*2 * (_frame("{body}"),), *_KINDS, _frame("{body}が描かれている"))
_CLAUSES = (*3 * (_frame("{body}", "背景は{background}で、{body}"),), _frame("画像では、{body}"))

JAPANESE = Language(
    code="ja",
    name="Japanese",
    shapes=_SHAPES,
    colors=_COLORS,
    sizes=_SIZES,
    relations=_RELATIONS,
    backgrounds=_BACKGROUNDS,
    counts=_COUNTS,
    classifiers={},
    nouns=("{color}{shape}",),
    sized_nouns=("{size}{color}{shape}",),
    bodies={
        "related": {2: ("{1}の{where}にある{0}",), 3: ("{1}の{where}にある{0}と、{2}",)},
        "is": {2: ("{0}が{1}の{where}にある",), 3: ("{0}が{1}の{where}にあり、{2}もある",)},
        "with": {2: ("{0}の{where}に{1}がある",), 3: ("{0}の{where}に{1}があり、{2}もある",)},
        "list": {2: ("{0}と{1}",), 3: ("{0}と{1}と{2}",)},
        "counted": {2: ("{0}と{1}の{count}の図形",), 3: ("{0}と{1}と{2}の{count}の図形",)},
    },
    frames=dict.fromkeys(("one", "list", "counted"), _NOUNS)
    | {"related": _PHRASES}
    | dict.fromkeys(("is", "with"), _CLAUSES),
    stop="。",
    lengths=range(5, 41),
    measure=count_letters,
    normalize=letters,
    start=re.compile(
        rf"(?:(?P<background>{either(_BACKGROUNDS)})の背景に|背景は(?P<background2>{either(_BACKGROUNDS)})で)?"
        r"(?:画像の中に|画像では)?"
    ),
    step=re.compile(
        rf"(?:(?P<a>があり|と)|(?P<b>あり)|(?P<r>[がは])|(?P<e>の(?P<backward>{either(_RELATIONS)})に(?:ある)?))?"
        rf"(?P<size>{either(_SIZES)})?(?P<color>{either(_COLORS)})?(?P<shape>{either(_SHAPES)}|図形)"
        rf"(?(r)の(?P<forward>{either(_RELATIONS)})に)"
    ),
    end=re.compile(
        rf"(?:の(?P<count>{either(_COUNTS)})の図形)?(?:の絵|の画像|が描かれている|[がも]ある|(?P<x>ある))?"
        rf"(?:背景は(?P<background>{either(_BACKGROUNDS)}))?"
    ),
    # a: after "and"; e: "A の左にある B", "A の左に B が"; r: "A が B の左に", followed by "ある" (x) or "あり" (b).
    order=re.compile(r"n(?:n[ae]|nrnb|nr(?=x))*(?:(?<=r)x)?"),
)
