"""The audit's numbers of scripts, groups and pieces, and the tokenizer that it advises."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captioning.audit import audit
from captioning.config import AuditConfig, check, compose
from captioning.data import Record, audit_records, audit_table
from captioning.data.caption_scripts import (
    Suited,
    group_numbers,
    groups_table,
    script_numbers,
    scripts_table,
    suited_tokenizer,
    tokenizer_advice,
)
from captioning.text import make_tokenizer

CHINESE = ["一只狗在草地上奔跑。", "两个人在骑马", "一只猫坐在T恤上"]
JAPANESE = ["赤い四角は青い円の上にあります。", "白い猫が寝ている"]
THAI = ["สุนัขวิ่งเล่นบนสนามหญ้า"]


def shares(captions, name="unicode"):
    return script_numbers(captions, map(make_tokenizer(name), captions))


def test_shares_of_letters_captions_and_tokens():
    """Letters: 4 Latin, 3 Han, 1 Cyrillic. Tokens: ab c d 狗 跑 狗 я 12."""
    numbers = shares(["ab c 狗跑", "d 狗 12", "я", ""])
    assert numbers == [
        {"script": "Latin", "letters": 4 / 8, "captions": 2 / 4, "tokens": 3 / 8},
        {"script": "Han", "letters": 3 / 8, "captions": 2 / 4, "tokens": 3 / 8},
        {"script": "Cyrillic", "letters": 1 / 8, "captions": 1 / 4, "tokens": 1 / 8},
        {"script": "no letters", "letters": 0.0, "captions": 0.0, "tokens": 1 / 8},
    ]
    assert shares([]) == [] and shares(["狗"], "ptb")[0]["tokens"] == 1.0
    # A token counts for the script of most of its letters.
    assert {entry["script"]: entry["tokens"] for entry in shares(["狗狗狗ab x"], "ptb")} == {"Han": 0.5, "Latin": 0.5}


@pytest.mark.parametrize(
    ("captions", "name", "reason", "words"),
    [
        (["a dog runs", "two cats"], "ptb", "100% of the letters are Latin; it is the official", ""),
        (["a dog"] * 99 + ["狗跑狗跑"], "unicode", "1% of the captions have no spaces between words (Han script)", ""),
        (["a dog"] * 100 + ["狗跑狗跑"], "ptb", "99% of the letters are Latin", ""),
        (
            CHINESE,
            "unicode",
            "100% of the captions have no spaces between words (Han",
            "unicode:jieba (pip install 'capt",
        ),
        (JAPANESE, "unicode", "100% of the captions", "unicode:fugashi (pip install 'captioning[japanese]')"),
        (THAI, "unicode", "(Thai script)", "unicode:pythainlp (pip install 'captioning[thai]')"),
        (["ຊາຍຄົນໜຶ່ງກຳລັງຂີ່"], "unicode", "(Lao script)", ""),
        (["رجل يركب دراجة"], "unicode", "100% of the letters are Arabic; it normalizes them", ""),
        (["человек едет на dog"], "unicode", "81% of the letters are Cyrillic", ""),
        (["一只 狗 在 跑", "两只 猫"], "unicode", "100% of the letters are Han", ""),
        ([], "ptb", "0% of the letters are Latin", ""),
    ],
)
def test_the_tokenizer_that_suits_the_captions(captions, name, reason, words):
    suited = suited_tokenizer(captions, shares(captions))
    assert suited.name == name and reason in suited.reason
    assert (words in suited.words) if words else suited.words == ""


def test_advice_only_where_the_tokenizer_does_not_suit():
    ptb, unicode = make_tokenizer("ptb"), make_tokenizer("unicode")
    chinese = Suited("unicode", "why", "for words: x")
    assert tokenizer_advice(ptb, chinese, "12 captions") == ["12 captions", "for words: x"]
    assert tokenizer_advice(ptb, Suited("unicode", "why"), None) == [
        "data.tokenizer=unicode suits these captions better than ptb: why"
    ]
    assert tokenizer_advice(unicode, chinese, None) == []
    assert tokenizer_advice(ptb, Suited("ptb", "why"), None) == []


def records_of(captions, tmp_path, *, groups=None):
    records = []
    for index, caption in enumerate(captions):
        path = tmp_path / f"{index}.png"
        noise = np.random.default_rng(index).integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(noise).save(path)
        group = None if groups is None else groups[index]
        records.append(Record(index, path, ("train", "val")[index % 2], (caption, caption), group))
    return records


def report_of(records, name="ptb", **limits):
    tokenizer = make_tokenizer(name)
    tokenizer.fit(caption for record in records if record.split == "train" for caption in record.captions)
    return audit_records(records, [], min_count=1, workers=1, tokenizer=tokenizer, **{"max_length": 20} | limits)


def test_chinese_captions_with_each_tokenizer(tmp_path):
    records = records_of(CHINESE * 2, tmp_path)
    report = report_of(records)
    assert report["tokenizer"] == {
        "name": "ptb",
        "unit": "words",
        "suited": "unicode",
        "reason": "100% of the captions have no spaces between words (Han script)",
    }
    assert report["advice"][0].startswith("all splits: 12 of 12 captions (100%)")
    assert report["advice"][1] == (
        "for words instead of characters: data.tokenizer=unicode:jieba (pip install 'captioning[chinese]')"
    )
    assert len(report["findings"]["captions that the tokenizer cannot split"]) == 12
    report = report_of(records, "unicode")
    assert report["advice"] == [] and not report["findings"]["captions that the tokenizer cannot split"]
    assert report["splits"]["train"]["words"] == 2 * (9 + 8 + 6) and report["splits"]["train"]["length"]["max"] == 9
    assert report["scripts"][0] == {"script": "Han", "letters": 22 / 23, "captions": 1.0, "tokens": 22 / 23}


def test_characters_are_not_taken_for_the_last_word(tmp_path):
    report = report_of(records_of(["una rosa", "a dog on the"], tmp_path), "characters")
    assert [item["caption"] for item in report["findings"]["unfinished captions"]] == ["a dog on the"] * 2


def test_byte_pairs_are_counted_in_pieces(tmp_path):
    records = records_of(["abab abab", "abab dog"], tmp_path)
    report = report_of(records, "bpe:10:whitespace", max_length=1)
    assert report["splits"]["train"]["longer than max_length"] == report["splits"]["val"]["longer than max_length"] == 2
    assert report["splits"]["train"]["unknown share"] == 0.0
    assert report["splits"]["val"]["unknown share"] == pytest.approx(3 / 4)  # abab d@@ o@@ g
    assert report["splits"]["val"]["unknown distinct pieces"] == 3
    reasons = {item["reason"] for item in report["findings"]["captions longer than max_length"]}
    assert reasons == {"2 pieces, cut to 1", "4 pieces, cut to 1"}
    assert report["advice"] == [
        "2 of 2 training captions are longer than data.max_length=1 pieces and are cut: set data.max_length=2 "
        "(keeps all)"
    ]
    assert report["vocabulary"] == {"pieces": 7, "min_count": 1} and report["tokenizer"]["unit"] == "pieces"
    lines = audit_table(report, title="t", examples=0, min_count=1, max_distance=4).splitlines()
    assert lines[2] == "vocabulary (all learned pieces): 7 pieces"
    columns = [column.strip() for column in lines[4].split("  ") if column]
    assert columns[-3:] == ["over 1 pieces", "<unk> pieces %", "<unk> distinct pieces"]


def test_groups_of_images_are_counted_and_shown(tmp_path):
    records = records_of(["a dog", "a cat", "a red dog", "two cats"], tmp_path, groups=["near", "near", "out", "in"])
    counts = group_numbers(records)
    assert counts == {
        "train": {"near": {"images": 1, "captions": 2}, "out": {"images": 1, "captions": 2}},
        "val": {"near": {"images": 1, "captions": 2}, "in": {"images": 1, "captions": 2}},
    }
    report = report_of(records)
    assert report["groups"] == counts
    text = audit_table(report, title="x", examples=0, min_count=1, max_distance=4)
    assert "split  group  images  captions" in text and "  val     in       1         2" in text
    assert "tokenizer: ptb (ptb suits: 100% of the letters are Latin;" in text
    assert group_numbers([record._replace(group=None) for record in records]) == {} and groups_table({}) == []


def test_the_table_has_the_most_frequent_scripts():
    signs = "aяλबبאஅ한かก狗"
    captions = [sign * (index + 1) for index, sign in enumerate(signs)]
    lines = scripts_table(shares(captions))
    assert lines[0].split() == ["script", "letters", "%", "captions", "%", "tokens", "%"]
    assert lines[1].split() == ["Han", "16.67", "9.09", f"{100 * 11 / (11 + 10 + 9 + 8):.2f}"]
    assert len(lines) == 10 and lines[-1] == "… 3 more scripts"


def test_the_command_takes_the_tokenizer(tmp_path, capsys):
    for index in range(4):
        noise = np.random.default_rng(index).integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{index}.png")
    rows = [f"{index}.png,{CHINESE[index % 3]},{('train', 'val')[index % 2]}" for index in range(4)]
    Path(tmp_path / "captions.csv").write_text("\n".join(["image,caption,split", *rows]), encoding="utf-8")
    settings = ["data=csv", f"data.root={tmp_path}", "data.min_count=1", "workers=1", f"output={tmp_path / 'out'}"]
    for name, words, longest in (("unicode", 9, 20), ("characters", 10, 20), ("bpe:100:characters", 10, 20)):
        audit(check(compose("audit", [*settings, f"data.tokenizer={name}"]), AuditConfig))
        report = json.loads((tmp_path / "out/audit.json").read_text())
        assert report["tokenizer"]["name"] == name and report["max_length"] == longest
        assert report["splits"]["train"]["length"]["max"] == words and report["advice"] == []
        assert f"tokenizer: {name} (unicode suits: 100%" in capsys.readouterr().out
