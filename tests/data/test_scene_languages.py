"""Captions of drawn scenes in other languages: true, varied, read back from raw text, and false once falsified."""

import json
import re
from collections import Counter
from hashlib import sha256
from random import Random

import pytest

from captioning.data import draw_scene, grammar, read_scenes, read_shapes, truth
from captioning.data.grammar import Claims, Phrase, Scene, Thing, describe_scene, is_true, parse
from captioning.data.grammars import BACKGROUNDS, COLOR_NAMES, LANGUAGES, SHAPES, either
from captioning.errors import ConfigError, DataError
from captioning.text import make_tokenizer, unsplit_share

OTHERS = ["zh", "ja", "th"]
SMALL = {"train": 2, "val": 2, "test": 1}
SCRIPTS = {"zh": "[一-鿿]+", "ja": "[一-鿿ぁ-んァ-ヴー]+", "th": "[ก-ฺเ-๎]+"}
MARKS = {"zh": "，、：。", "ja": "、。", "th": " "}
ENGLISH_CAPTIONS = "ff9a4e41809ca5bf70296c320fc4ca976504eaaa1881e762a03eb6b971130e24"  # SHA-256 of 300 scenes' captions
COUNTED = {"zh": "{}个图形", "ja": "{}の図形", "th": "รูปทรง{}รูป"}


@pytest.fixture(scope="module")
def scenes():
    """Language -> (scene, captions) of 300 scenes."""
    drawn = [draw_scene(0, "train", index)[1::2] for index in range(300)]
    return {"en": drawn} | {
        code: [
            (scene, describe_scene(scene, Random(at), language=LANGUAGES[code])) for at, (scene, _) in enumerate(drawn)
        ]
        for code in OTHERS
    }


@pytest.fixture(scope="module", params=OTHERS)
def root(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / f"scenes-{request.param}"
    read_scenes(folder, **SMALL, language=request.param)
    return folder


def other_meanings(table, match, allowed):
    """The meanings of a table that are allowed instead of the matched phrase."""
    (found,) = (meaning for meaning, phrases in table.items() if match in phrases)
    return [meaning for meaning in allowed if meaning != found]


def replaced(caption, table, allowed):
    """The caption with one phrase of the table replaced by each phrase of another meaning, at each place in turn."""
    for match in re.finditer(either(table), caption):
        for meaning in other_meanings(table, match[0], allowed):
            for phrase in table[meaning]:
                yield caption[: match.start()] + phrase + caption[match.end() :]


def falsified(caption, scene, language):
    """(kind of fault, the caption with that one fault)."""
    colors, shapes = ({getattr(item, kind) for item in scene.things} for kind in ("color", "shape"))
    faults = {
        "color": (language.colors, [color for color in COLOR_NAMES if color not in colors]),
        "shape": (language.shapes, [shape for shape in SHAPES if shape not in shapes]),
        "size": (language.sizes, ["small", "large"]),
        "background": (language.backgrounds, BACKGROUNDS),
    }
    for kind, (table, allowed) in faults.items():
        yield from ((kind, wrong) for wrong in replaced(caption, table, allowed))
    claimed = [where for _, where, _ in parse(caption, language).relations]
    away = {"beside": ["above", "below"]}.get(claimed[0] if claimed else "", ["left", "right", "above", "below"])
    yield from (("relation", wrong) for wrong in replaced(caption, language.relations, away))
    for number, (phrase,) in language.counts.items():
        stated = COUNTED[language.code].format(phrase)
        if stated in caption:
            yield "count", caption.replace(stated, COUNTED[language.code].format(language.counts[5 - number][0]))


@pytest.mark.parametrize("code", OTHERS)
def test_captions_are_true_different_and_in_their_script(scenes, code):
    language = LANGUAGES[code]
    shown = re.compile(f"({SCRIPTS[code]}[{MARKS[code]}]*)+")
    for scene, captions in scenes[code]:
        assert len(set(captions)) == 5
        for caption in captions:
            assert is_true(caption, scene, language), (caption, scene)
            assert language.measure(caption) in language.lengths
            assert shown.fullmatch(caption), caption
            assert caption.endswith(language.stop) and "  " not in caption


@pytest.mark.parametrize("code", OTHERS)
def test_every_falsified_fact_parses_and_is_false(scenes, code, monkeypatch):
    tried, parsed = Counter(), {}
    monkeypatch.setattr(grammar, "parse", lambda text, language: parsed[text, language.code])  # again by is_true
    for scene, captions in scenes[code]:
        for caption in captions:
            for kind, wrong in falsified(caption, scene, LANGUAGES[code]):
                claims = parse(wrong, LANGUAGES[code])
                parsed = {(wrong, code): claims}
                assert claims is not None, wrong
                assert not is_true(wrong, scene, LANGUAGES[code]), (kind, wrong, scene)
                tried[kind] += 1
    assert set(tried) == {"color", "shape", "size", "relation", "background", "count"}
    assert min(tried.values()) > 50


@pytest.mark.parametrize("code", OTHERS)
def test_spaces_and_punctuation_make_no_difference(scenes, code):
    language = LANGUAGES[code]
    for _, captions in scenes[code]:
        for caption in captions:
            claims = parse(caption, language)
            assert claims == parse(" ".join(caption), language)
            assert claims == parse(re.sub(f"[{MARKS[code]}]", "", caption), language)
            assert claims == parse(f"\u3000{caption.rstrip('。')} .", language)


@pytest.mark.parametrize(
    ("code", "name"),
    [(code, name) for code in OTHERS for name in ("unicode", "characters")]
    + [("zh", "unicode:jieba"), ("ja", "unicode:fugashi"), ("th", "unicode:pythainlp"), ("zh", "bpe:400:unicode")],
)
def test_tokens_joined_by_the_tokenizer_or_by_spaces_say_the_same(scenes, code, name):
    if ":" in name:
        pytest.importorskip(name.split(":")[1] if name[0] == "u" else "tokenizers")
    tokenizer, language = make_tokenizer(name), LANGUAGES[code]
    tokenizer.fit(caption for _, captions in scenes[code] for caption in captions)
    for scene, captions in scenes[code][:100]:
        for caption in captions:
            pieces = tokenizer.pieces(tokenizer(caption))
            words = tokenizer.words(pieces)
            assert is_true(tokenizer.join(words), scene, language), caption
            assert (
                parse(tokenizer.join(words), language) == parse(" ".join(words), language) == parse(caption, language)
            )


@pytest.mark.parametrize("code", OTHERS)
def test_the_english_tokenizer_cannot_split_them(scenes, code):
    assert unsplit_share(caption for _, captions in scenes[code] for caption in captions) > 0.95


@pytest.mark.parametrize("code", OTHERS)
def test_all_phrases_occur_and_the_vocabulary_is_small(scenes, code):
    language, together = LANGUAGES[code], "".join(text for _, captions in scenes[code] for text in captions)
    tables = (language.shapes, language.colors, language.sizes, language.relations, language.backgrounds)
    for table in tables:
        assert not [phrase for phrases in table.values() for phrase in phrases if together.count(phrase) < 5]
        phrases = [phrase for phrases in table.values() for phrase in phrases]
        assert len(set(phrases)) == len(phrases)  # no phrase has two meanings
    assert len(set(make_tokenizer("unicode")(together))) < 120


@pytest.mark.parametrize("code", [*OTHERS, "en"])
def test_a_language_has_phrases_for_every_meaning(code):
    language = LANGUAGES[code]
    assert language.code == code
    assert set(language.shapes) == set(SHAPES)
    assert set(language.colors) == set(COLOR_NAMES) and set(language.backgrounds) == set(BACKGROUNDS)
    assert set(language.sizes) == {"small", "large"} and set(language.counts) == {2, 3}
    assert set(language.relations) == {"left", "right", "above", "below", "beside"}
    assert set(language.frames) == {*language.bodies, "one"}
    assert all(set(templates) == {2, 3} for templates in language.bodies.values())


def test_english_captions_have_not_changed(scenes):
    text = "\n".join(caption for _, captions in scenes["en"] for caption in captions)
    assert sha256(text.encode()).hexdigest() == ENGLISH_CAPTIONS


def test_every_language_describes_the_same_images():
    for index in range(5):
        english, *others = [draw_scene(3, "val", index, language) for language in LANGUAGES.values()]
        for picture, scene, outlines, captions in others:
            assert picture.tobytes() == english[0].tobytes() and scene == english[1]
            assert [points.tolist() for points in outlines] == [points.tolist() for points in english[2]]
            assert captions != english[3]


RED, BLUE, STAR = Phrase("circle", "red", "small"), Phrase("square", "blue", "large"), Phrase("star", "white", None)
PINNED = [
    # A small red circle left of, above or beside a large blue square; a white star.
    ("zh", "一个红色的小圆形在一个蓝色大正方形左边。", Claims((RED, BLUE), ((0, "left", 1),))),
    ("zh", "图中，一个红色小圆形位于一个蓝色的大方形的上方，条纹背景。",
     Claims((RED, BLUE), ((0, "above", 1),), None, "striped")),
    ("zh", "波点背景上，一个蓝色大正方形旁边有一个红色小圆形，还有一颗白色五角星。",
     Claims((BLUE, RED, STAR), ((1, "beside", 0),), None, "dotted")),
    ("zh", "图片里有三个图形：一个红色小圆形、一颗白色的星星和一个蓝色的大正方形。", Claims((RED, STAR, BLUE), (), 3)),
    ("zh", "格子背景上的一颗白色五角星。", Claims((STAR,), (), None, "checked")),
    ("ja", "小さな赤い円が大きな青い四角形の左にある。", Claims((RED, BLUE), ((0, "left", 1),))),
    ("ja", "大きい青い正方形の上側にある小さい赤い丸の絵。背景は縞模様。",
     Claims((BLUE, RED), ((1, "above", 0),), None, "striped")),
    ("ja", "背景は水玉模様で、大きな青い四角形の隣に小さな赤い円があり、白い星もある。",
     Claims((BLUE, RED, STAR), ((1, "beside", 0),), None, "dotted")),
    ("ja", "小さな赤い円と白い星形と大きな青い四角形の三つの図形が描かれている。", Claims((RED, STAR, BLUE), (), 3)),
    ("ja", "市松模様の背景に白い星。", Claims((STAR,), (), None, "checked")),
    ("th", "วงกลมสีแดงขนาดเล็กอยู่ทางซ้ายของสี่เหลี่ยมสีน้ำเงินรูปใหญ่", Claims((RED, BLUE), ((0, "left", 1),))),
    ("th", "ในภาพมีวงกลมสีแดงวงเล็กอยู่เหนือสี่เหลี่ยมจัตุรัสสีน้ำเงินขนาดใหญ่บนพื้นหลังลายทาง",
     Claims((RED, BLUE), ((0, "above", 1),), None, "striped")),
    ("th", "ถัดจากสี่เหลี่ยมสีน้ำเงินรูปใหญ่มีวงกลมสีแดงวงเล็ก และยังมีดาวสีขาวหนึ่งดวงบนพื้นหลังลายจุด",
     Claims((BLUE, RED, STAR), ((1, "beside", 0),), None, "dotted")),
    ("th", "มีรูปทรงสามรูป ได้แก่ วงกลมสีแดงขนาดเล็ก ดาวสีขาวหนึ่งดวง และสี่เหลี่ยมสีน้ำเงินรูปใหญ่", Claims((RED, STAR, BLUE), (), 3)),
    ("th", "บนพื้นหลังลายตารางมีดาวสีขาว", Claims((STAR,), (), None, "checked")),
]  # fmt: skip


@pytest.mark.parametrize(("code", "caption", "claims"), PINNED)
def test_parsing_reads_every_claim(code, caption, claims):
    assert parse(caption, LANGUAGES[code]) == claims


ROW = Scene(
    (
        Thing("circle", "red", "small", (20.0, 80.0, 40.0, 40.0)),
        Thing("square", "blue", "large", (90.0, 90.0, 40.0, 40.0)),
        Thing("star", "red", "small", (170.0, 80.0, 40.0, 40.0)),
    ),
    "striped",
)


@pytest.mark.parametrize(
    ("code", "caption", "expected"),
    [
        ("zh", "一个红色圆形在一个蓝色正方形左边", True),
        ("zh", "一个蓝色正方形左边有一个红色圆形", True),
        ("zh", "一个红色圆形左边有一个蓝色正方形", False),
        ("zh", "一个红色圆形在一颗红色星星旁边", False),  # the square is between them
        ("zh", "三个图形：一个红色圆形、一颗红色星星和一个蓝色正方形", True),
        ("zh", "条纹背景上的一个图形", True),
        ("ja", "赤い円が青い四角形の左にある", True),
        ("ja", "青い四角形の左に赤い円がある", True),
        ("ja", "青い四角形の左にある赤い円", True),
        ("ja", "赤い円の左にある青い四角形", False),
        ("ja", "赤い円が赤い星の隣にある", False),
        ("ja", "赤い星と赤い円の二つの図形", False),  # there are three
        ("th", "วงกลมสีแดงอยู่ทางซ้ายของสี่เหลี่ยมสีน้ำเงิน", True),
        ("th", "ทางซ้ายของสี่เหลี่ยมสีน้ำเงินมีวงกลมสีแดง", True),
        ("th", "ทางซ้ายของวงกลมสีแดงมีสี่เหลี่ยมสีน้ำเงิน", False),
        ("th", "วงกลมสีแดงที่อยู่ข้างดาวสีแดง", False),
        ("th", "ดาวสีแดงและดาวสีแดง", False),  # there is one
    ],
)
def test_truth_of_a_scene_made_by_hand(code, caption, expected):
    assert parse(caption, LANGUAGES[code]) is not None
    assert is_true(caption, ROW, LANGUAGES[code]) is expected


@pytest.mark.parametrize(
    ("code", "caption"),
    [
        ("zh", ""),
        ("zh", "。"),
        ("zh", "一只狗在沙发上。"),
        ("zh", "a red circle and a red star"),
        ("zh", "一个红色圆形在一个蓝色正方形"),  # where?
        ("zh", "一个红色圆形一个蓝色正方形"),
        ("zh", "一个红色圆形和"),
        ("zh", "和一个红色圆形"),
        ("zh", "在一个红色圆形左边"),
        ("zh", "一个红色圆形和一个<unk>色正方形"),
        ("zh", "条纹背景上的一个红色圆形，条纹背景"),  # twice
        ("zh", "两个图形"),
        ("ja", "犬がソファの上にいる。"),
        ("ja", "赤い円が青い四角形の左に"),
        ("ja", "赤い円と"),
        ("ja", "赤い円青い四角形"),
        ("ja", "赤い円が青い四角形がある"),
        ("ja", "赤い円ある"),
        ("ja", "青い四角形の左に"),
        ("ja", "縞模様の背景に赤い円。背景は縞模様。"),
        ("ja", "二つの図形"),
        ("th", "สุนัขบนโซฟา"),
        ("th", "วงกลมสีแดงอยู่สี่เหลี่ยมสีน้ำเงิน"),
        ("th", "ทางซ้ายของสี่เหลี่ยมสีน้ำเงิน"),
        ("th", "ทางซ้ายของสี่เหลี่ยมสีน้ำเงินและวงกลมสีแดง"),
        ("th", "วงกลมสีแดงและ"),
        ("th", "วงกลมสีแดงสี่เหลี่ยมสีน้ำเงิน"),
        ("th", "บนพื้นหลังลายทางมีดาวสีแดงบนพื้นหลังลายทาง"),
        ("th", "รูปทรงสองรูป"),
    ],
)
def test_what_the_grammar_does_not_have_is_false(code, caption):
    assert parse(caption, LANGUAGES[code]) is None
    assert not is_true(caption, ROW, LANGUAGES[code])


@pytest.mark.parametrize("code", LANGUAGES)
def test_captions_of_another_language_are_false(scenes, code):
    for other, drawn in scenes.items():
        if other != code:
            assert not any(is_true(text, scene, LANGUAGES[code]) for scene, captions in drawn[:50] for text in captions)


# On disk


def test_captions_and_truth_are_in_the_language_of_the_folder(root):
    code = root.name[-2:]
    records = read_scenes(root, **SMALL, language=code)
    assert records[1].captions == draw_scene(0, "train", 1, LANGUAGES[code])[3]
    captions = {record.image_id: record.captions[0] for record in records if record.split == "val"}
    assert truth(captions, root=root, split="val") == {"truth": 1.0}
    english = {1_000_001: draw_scene(0, "val", 0)[3][0], 1_000_002: captions[1_000_002]}
    assert truth(english, root=root, split="val") == {"truth": 0.5}


def test_scenes_in_another_language_are_refused_with_the_folder_to_name(root):
    code = root.name[-2:]
    before = {path: path.read_bytes() for path in root.rglob("*.json")}
    with pytest.raises(DataError) as caught:
        read_scenes(root, **SMALL)
    assert f"data.reader.language is {code} there, not en" in str(caught.value)
    assert str(caught.value).endswith(f"Set data.root={root.parent / 'scenes'}, or data.reader.language={code}")
    other = "ja" if code == "zh" else "zh"
    with pytest.raises(
        DataError, match=rf"data\.root={root.parent / 'scenes'}-{other}, or data\.reader\.language={code}$"
    ):
        read_scenes(root, **SMALL, language=other)
    assert {path: path.read_bytes() for path in root.rglob("*.json")} == before


def test_english_scenes_are_stored_as_before_and_refused_for_another_language(tmp_path):
    folder = tmp_path / "scenes"
    read_scenes(folder, **SMALL)
    info = json.loads((folder / "annotations" / "captions_train.json").read_text())["info"]
    assert info == {"description": "drawn scenes", "version": 4, "seed": 0, "pictures": SMALL}
    with pytest.raises(DataError, match=rf"is en there, not th\. Set data\.root={folder}-th, or"):
        read_scenes(folder, **SMALL, language="th")


def test_other_numbers_of_scenes_are_refused_in_every_language(root):
    with pytest.raises(DataError, match=r"delete it, or choose another data\.root"):
        read_scenes(root, **SMALL | {"train": 3}, language=root.name[-2:])


def test_an_unknown_language_is_refused_before_anything_is_drawn(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.reader\.language=de: .* en \(English\), zh \(Chinese\), ja"):
        read_scenes(tmp_path / "scenes", **SMALL, language="de")
    assert not list(tmp_path.iterdir())


def test_words_that_name_shapes_are_english(root):
    records = read_scenes(root, **SMALL, language=root.name[-2:])
    with pytest.raises(DataError, match=r"are English: use data=scenes with data\.reader\.language=en"):
        read_shapes(root, records)


def test_a_folder_with_an_unknown_language_has_no_scenes(root, tmp_path):
    (tmp_path / "annotations").mkdir()
    content = json.loads((root / "annotations" / "instances_val.json").read_text())
    content["info"]["language"] = "xx"
    (tmp_path / "annotations" / "instances_val.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"instances_val\.json has no drawn scenes"):
        truth({1_000_001: "x"}, root=tmp_path, split="val")
