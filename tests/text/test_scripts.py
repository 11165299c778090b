"""Text without spaces between words is noticed; other scripts, spaced text and a foreign name are not."""

import pytest

from captioning.text import is_unsplit, make_tokenizer, script_of, unsplit, unsplit_share, unsplit_warning

UNSPLIT = {
    "一只狗在草地上奔跑。": "Han",
    "红色方块": "Han",
    "一个女人拿着iPhone在打电话": "Han",
    "赤い四角は、青い円の上にあります。": "Hiragana",
    "スケートボードニノルダンセイ": "Katakana",
    "สุนัขวิ่งเล่นบนสนามหญ้า": "Thai",
    "ຊາຍຄົນໜຶ່ງກຳລັງຂີ່ລົດຖີບ": "Lao",
    "បុរសម្នាក់កំពុងជិះកង់": "Khmer",
    "လူတစ်ယောက်စက်ဘီးစီးနေသည်": "Myanmar",
}
SPLIT = [
    *["一只 狗 在 草地 上 奔跑 。", "一 只 狗 在 跑", "熊猫", "赤い 四角 は 、 青い 円 の 上 に あり ます 。"],
    *["สุนัข วิ่ง เล่น บน สนามหญ้า", "លោក\u200bម្នាក់\u200bកំពុង\u200bជិះ\u200bកង់", "མི་ཞིག་རྐང་འཁོར་བཞོན།"],
    *["한 남자가 자전거를 타고 있다", "رجل يركب دراجة", "एक आदमी साइकिल चला रहा है", "человек едет на велосипеде"],
    *["a man stands in front of the 北京天安门广场 sign", "a dog", "", "。", "ein Mädchen läuft über die Straße"],
]


@pytest.mark.parametrize("caption", UNSPLIT)
def test_a_sentence_without_spaces_is_noticed_and_its_script_named(caption):
    assert is_unsplit(caption)
    assert script_of(caption) == UNSPLIT[caption]


@pytest.mark.parametrize("caption", SPLIT)
def test_spaced_text_of_any_script_is_not(caption):
    assert not is_unsplit(caption)


def test_the_share_is_of_captions_with_words():
    assert unsplit_share(["一只狗在草地上奔跑。", "a dog runs", " ", ""]) == 0.5
    assert unsplit_share([]) == 0.0
    assert unsplit(["a dog", "一只狗在\n草地上奔跑。"]) == (1, 2, "一只狗在 草地上奔跑。", "Han")


def test_the_warning_names_file_share_and_example_and_what_to_do():
    warning = unsplit_warning(iter(["一只狗在草地上奔跑。"] * 3 + ["a dog"]), "refs.json")
    assert warning.startswith(
        "refs.json: 3 of 4 captions (75%) are written without spaces between words (Han script), for example "
        "'一只狗在草地上奔跑。': the tokenizer makes one word of a whole sentence"
    )
    assert warning.endswith(
        "Set data.tokenizer=unicode or data.tokenizer=characters (for scores alone: metrics.tokenizer=unicode), or put "
        "spaces between the words of the captions first."
    )
    assert "\n" not in warning


def test_one_foreign_caption_in_a_hundred_and_one_is_no_reason_to_warn():
    assert unsplit_warning(["一只狗在草地上奔跑。"] + ["a dog"] * 100, "x") is None
    assert unsplit_warning([], "x") is None


PHRASES = [
    ["一个男人，骑着马，在海边", "两只狗，在草地上", "一只猫，睡在，沙发上"],
    ["黒い犬が、芝生の上を、走る", "白い猫が、寝ている"],
    ["白色的猫 睡在 沙发上面", "一个男人 骑着一匹马"],
    ["สุนัขสีดำ กำลังวิ่ง บนหญ้า", "ชายคนหนึ่ง ขี่ม้า ริมทะเล"],
    ["ခွေးနက်တစ်ကောင် မြက်ခင်းပေါ်မှာ ပြေးနေသည်"],
    ["ຫມາສີດໍາ ແລ່ນຢູ່ ຢູ່ຫຍ້າ"],
]


@pytest.mark.parametrize("captions", PHRASES, ids=lambda captions: script_of(captions[0]))
def test_phrases_between_marks_or_spaces_are_no_words(captions):
    assert unsplit(captions).count == len(captions)


@pytest.mark.parametrize(
    "captions",
    [
        ["一 个 男 人 骑 着 马", "一个 男人 骑着 自行车 在 海边", "滑雪板 运动员"],
        ["スケートボード に 乗る 男", "赤い 四角 は 、 青い 円 の 上 に あり ます 。"],
        ["สุนัข วิ่ง เล่น บน สนามหญ้า", "ผู้ชาย ขี่ ม้า"],
        ["a man in front of the 北京天安门 sign", "a dog named 小白 runs", "two cats"],
    ],
)
def test_words_between_spaces_are(captions):
    assert unsplit(captions).count == 0


@pytest.mark.parametrize("name", ["unicode", "characters", "bpe:100:unicode"])
def test_tokenizers_that_split_such_scripts_have_nothing_to_warn_about(name):
    tokenizer = make_tokenizer(name)
    assert unsplit([*UNSPLIT, "a dog"], tokenizer) == (0, len(UNSPLIT) + 1, "", "")
    assert unsplit_warning(UNSPLIT, "refs.json", tokenizer) is None
    assert not any(is_unsplit(caption, tokenizer) for caption in UNSPLIT)


@pytest.mark.parametrize("name", ["ptb", "nltk", "whitespace", "bpe:100"])
def test_other_tokenizers_are_judged_by_their_own_tokens(name):
    tokenizer = make_tokenizer(name)
    assert unsplit(UNSPLIT, tokenizer).count == len(UNSPLIT)
    assert unsplit(SPLIT[:4], tokenizer).count == 0
    assert unsplit_share([*UNSPLIT, *["a dog"] * len(UNSPLIT)], tokenizer) == 0.5
    assert unsplit_warning(UNSPLIT, "refs.json", tokenizer).startswith("refs.json: 9 of 9 captions (100%)")
