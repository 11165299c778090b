"""Chinese captions of drawn scenes, in simplified characters.

caption  = [opening] body [ground] "。", or the background first
body     = noun | list | relation ["，还有" noun]
relation = noun ("在" | "位于") noun side | noun side "有" noun
list     = [("两" | "三") "个图形："] noun ["、" noun] "和" noun
noun     = "一" measure-word color ["的"] [size] shape
"""

import re

from captioning.data.grammars.language import Frame, Language, count_letters, either, letters

_SHAPES = {
    "square": ("正方形", "方形"),
    "triangle": ("三角形",),
    "star": ("五角星", "星星"),
    "heart": ("爱心", "心形"),
    "circle": ("圆形",),
}
_COLORS = {
    "red": ("红色", "红色的"),
    "yellow": ("黄色", "黄色的"),
    "green": ("绿色", "绿色的"),
    "blue": ("蓝色", "蓝色的"),
    "magenta": ("品红色", "品红色的"),
    "white": ("白色", "白色的"),
}
_SIZES = {"small": ("小",), "large": ("大",)}
_RELATIONS = {
    "left": ("左边", "左侧"),
    "right": ("右边", "右侧"),
    "above": ("上方", "上面"),
    "below": ("下方", "下面"),
    "beside": ("旁边",),
}
_BACKGROUNDS = {
    "plain": ("纯色",),
    "striped": ("条纹",),
    "dotted": ("圆点", "波点"),
    "checked": ("格子", "方格"),
    "noisy": ("噪点",),
    "shaded": ("渐变",),
}
_COUNTS = {2: ("两",), 3: ("三",)}
_PLACES = ("图中", "画面中", "图片里")
_MEASURES = dict.fromkeys(("五角星", "星星", "爱心"), "颗") | dict.fromkeys(
    ("正方形", "方形", "三角形", "心形", "圆形"), "个"
)

_ON = "{background}背景上有{body}"
_NOUNS = (
    *2 * (Frame("{body}", ("{background}背景上的{body}", "{body}，{background}背景")),),
    *(
        Frame(f"{at}有{{body}}", ("{background}背景上有{body}", f"{at}有{{body}}，{{background}}背景"))
        for at in _PLACES
    ),
)
_CLAUSES = (
    *3 * (Frame("{body}", ("{background}背景上，{body}", "{body}，{background}背景")),),
    *(Frame(f"{at}，{{body}}", (f"{at}，{{body}}，{{background}}背景",)) for at in _PLACES[:2]),
)

# The generator writes no "的" before a side, because many nouns have one; the parser accepts it.
CHINESE = Language(
    code="zh",
    name="Chinese",
    shapes=_SHAPES,
    colors=_COLORS,
    sizes=_SIZES,
    relations=_RELATIONS,
    backgrounds=_BACKGROUNDS,
    counts=_COUNTS,
    classifiers=_MEASURES,
    nouns=("一{classifier}{color}{shape}",),
    sized_nouns=("一{classifier}{color}{size}{shape}",),
    bodies={
        "related": {2: ("{0}在{1}{where}",), 3: ("{0}在{1}{where}，还有{2}",)},
        "is": {2: ("{0}位于{1}{where}",), 3: ("{0}位于{1}{where}，还有{2}",)},
        "with": {2: ("{0}{where}有{1}",), 3: ("{0}{where}有{1}，还有{2}",)},
        "list": {2: ("{0}和{1}",), 3: ("{0}、{1}和{2}",)},
        "counted": {2: ("{count}个图形：{0}和{1}",), 3: ("{count}个图形：{0}、{1}和{2}",)},
    },
    frames=dict.fromkeys(("one", "list", "counted"), _NOUNS) | dict.fromkeys(("related", "is", "with"), _CLAUSES),
    stop="。",
    lengths=range(8, 41),
    measure=count_letters,
    normalize=letters,
    start=re.compile(
        rf"(?:{'|'.join(_PLACES)})?(?:(?P<background>{either(_BACKGROUNDS)})背景上的?)?有?"
        rf"(?:(?P<count>{either(_COUNTS)})个图形)?"
    ),
    step=re.compile(
        rf"(?:(?P<a>还有|和)|(?P<r>在|位于)|(?P<e>的?(?P<backward>{either(_RELATIONS)})有))?"
        rf"(?:一[个颗])?(?P<color>{either(_COLORS)})?(?:(?P<size>{either(_SIZES)})的?)?(?P<shape>{either(_SHAPES)}|图形)"
        rf"(?(r)的?(?P<forward>{either(_RELATIONS)}))"
    ),
    end=re.compile(rf"(?:(?P<background>{either(_BACKGROUNDS)})背景)?"),
    # a: after "and"; r: "A 在 B 左边"; e: "A 左边有 B".
    order=re.compile(r"n(?:n*na|nr|ne)*"),
)
