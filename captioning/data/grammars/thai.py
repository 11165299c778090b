"""Thai captions of drawn scenes, with spaces only where Thai has them: in lists, and between clauses.

caption  = [opening] body [ground], or the background first
body     = noun | list | noun ["ที่"] "อยู่" side noun | side noun "มี" noun
list     = ["รูปทรง" ("สอง" | "สาม") "รูป ได้แก่"] noun [noun] "และ" noun
noun     = shape color [("ขนาด" | classifier) size] ["หนึ่ง" classifier]
ground   = "บนพื้นหลัง" background
"""

import re

from captioning.data.grammars.language import Frame, Language, count_letters, either, letters

_SHAPES = {
    "square": ("สี่เหลี่ยม",),
    "triangle": ("สามเหลี่ยม",),
    "star": ("ดาว",),
    "heart": ("หัวใจ",),
    "circle": ("วงกลม",),
}
_COLORS = {
    "red": ("สีแดง",),
    "yellow": ("สีเหลือง",),
    "green": ("สีเขียว",),
    "blue": ("สีน้ำเงิน",),
    "magenta": ("สีบานเย็น",),
    "white": ("สีขาว",),
}
_SIZES = {"small": ("เล็ก",), "large": ("ใหญ่",)}
_RELATIONS = {
    "left": ("ทางซ้ายของ", "ด้านซ้ายของ"),
    "right": ("ทางขวาของ", "ด้านขวาของ"),
    "above": ("เหนือ", "ด้านบนของ"),
    "below": ("ใต้", "ด้านล่างของ"),
    "beside": ("ข้าง", "ถัดจาก"),
}
_BACKGROUNDS = {
    "plain": ("สีเดียว", "เรียบ"),
    "striped": ("ลายทาง",),
    "dotted": ("ลายจุด",),
    "checked": ("ลายตาราง", "ลายหมากรุก"),
    "noisy": ("ที่มีจุดรบกวน",),
    "shaded": ("ไล่สี", "ไล่เฉดสี"),
}
_COUNTS = {2: ("สอง",), 3: ("สาม",)}
_CLASSIFIERS = {"วงกลม": "วง", "ดาว": "ดวง", "หัวใจ": "ดวง"} | dict.fromkeys(("สี่เหลี่ยม", "สี่เหลี่ยมจัตุรัส", "สามเหลี่ยม"), "รูป")
_CLASSIFIER = "วง|ดวง|รูป"


def _frame(text: str, *grounded: str) -> Frame:
    return Frame(text, (*grounded, text + "บนพื้นหลัง{background}"))


_EXISTS = (_frame("มี{body}"), _frame("ในภาพมี{body}"))
_NOUNS = (
    *2 * (_frame("{body}"),),
    _frame("ภาพ{body}"),
    _frame("ภาพวาด{body}"),
    _frame("มี{body}", "บนพื้นหลัง{background}มี{body}"),
    _frame("ในภาพมี{body}"),
)

# "สี่เหลี่ยม" is the everyday word for a square; the parser also accepts the exact one, "สี่เหลี่ยมจัตุรัส".
THAI = Language(
    code="th",
    name="Thai",
    shapes=_SHAPES,
    colors=_COLORS,
    sizes=_SIZES,
    relations=_RELATIONS,
    backgrounds=_BACKGROUNDS,
    counts=_COUNTS,
    classifiers=_CLASSIFIERS,
    nouns=(*2 * ("{shape}{color}",), "{shape}{color}หนึ่ง{classifier}"),
    sized_nouns=("{shape}{color}ขนาด{size}", "{shape}{color}{classifier}{size}"),
    bodies={
        "related": {2: ("{0}ที่อยู่{where}{1}",), 3: ("{0}ที่อยู่{where}{1} และ{2}",)},
        "is": {2: ("{0}อยู่{where}{1}",), 3: ("{0}อยู่{where}{1} และยังมี{2}",)},
        "with": {2: ("{where}{0}มี{1}",), 3: ("{where}{0}มี{1} และยังมี{2}",)},
        "list": {2: ("{0}และ{1}",), 3: ("{0} {1} และ{2}",)},
        "counted": {
            2: ("รูปทรง{count}รูป ได้แก่ {0}และ{1}",),
            3: ("รูปทรง{count}รูป ได้แก่ {0} {1} และ{2}",),
        },
    },
    frames=dict.fromkeys(("one", "list", "counted", "related"), _NOUNS)
    | {"is": (*2 * (_frame("{body}"),), *_EXISTS), "with": (*2 * (_frame("{body}"),), _frame("ในภาพ {body}"))},
    stop="",
    lengths=range(10, 76),
    measure=count_letters,
    normalize=letters,
    start=re.compile(
        rf"(?:บนพื้นหลัง(?P<background>{either(_BACKGROUNDS)})(?=มี))?(?:ในภาพ(?:มี)?|มี|ภาพวาด|ภาพ)?"
        rf"(?:รูปทรง(?P<count>{either(_COUNTS)})รูปได้แก่)?"
    ),
    step=re.compile(
        rf"(?:(?P<a>และ(?:ยังมี)?)|(?P<r>(?:ที่)?อยู่(?P<forward>{either(_RELATIONS)}))"
        rf"|(?P<w>(?P<ahead>{either(_RELATIONS)}))|(?P<m>มี))?"
        rf"(?:(?P<shape>{either(_SHAPES)})(?:(?<=สี่เหลี่ยม)จัตุรัส)?|รูปทรง)(?P<color>{either(_COLORS)})?"
        rf"(?:(?:ขนาด|{_CLASSIFIER})(?P<size>{either(_SIZES)}))?(?:หนึ่ง(?:{_CLASSIFIER}))?"
    ),
    end=re.compile(rf"(?:บนพื้นหลัง(?P<background>{either(_BACKGROUNDS)}))?"),
    # a: after "and"; r: "A อยู่ทางซ้ายของ B"; w: "ทางซ้ายของ A", before m: "มี B".
    order=re.compile(r"(?:n|nwnm)(?:n*na|nr)*"),
)
