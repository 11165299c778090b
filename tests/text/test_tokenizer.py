"""The tokenizer against the recorded answers of the original, and the rules one by one."""

import gzip
import json
import shutil

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from captioning.text import tokenize
from captioning.text.ptb_tokenizer import split

# Caption -> what coco-caption's Java tokenizer makes of it, punctuation dropped.
ANSWERS = {
    "A plate. There is a fork..": "a plate there is a fork",
    "A man.The field.three dogs .hit a tree.,": "a man.the field.three dogs hit a tree.",
    "Wow!!! What?! Yes! No?": "wow !!! what ?! yes no",
    "x St. and 12th Ave. by Blvd. x T.V. in D.C. at 5 p.m. x str. tv.": (
        "x st. and 12th ave. by blvd. x t.v. in d.c. at 5 p.m. x str tv"
    ),
    "La. la. Tex. tex. KY. b. a No. 5 no. five": "la. la tex. tex ky. b. a no. 5 no five",
    "reads K. The sign": "reads k the sign",
    "rif=ding up/ down/up 1/2 a 5/a": "rif = ding up / down/up 1/2 a 5/a",
    "old- -new well-known a - b a--b c -- d ----- 1.5-inch u.s.-made t-shirt.": (
        "old new well-known a b a b c d ----- 1.5-inch u.s.-made t-shirt"
    ),
    "6:40PM 5:54pm. 5pm 10:30am- 3.5mm -5 +5 .5 5+5 1,000.50 $5 50% #5": (
        "6:40 pm 5:54 pm 5pm 10:30 am 3.5 mm -5 +5 .5 5 +5 1,000.50 $ 5 50 % # 5"
    ),
    "A&M a&m AT&T R & B M&M's b&w": "a&m a & m at&t r & b m&m 's b & w",
    "'one way' slip 'n' slide rock'n'roll the '80s 'em 'til 'cause 'tis 80's": (
        "one way slip 'n' slide rock 'n' roll the '80s 'em 'til 'cause 't is 80 's"
    ),
    "It's don't DON'T SHE'S can't've dogs' I'd it’s ma'am o'clock O'Neil y'all cannot gonna": (
        "it 's do n't do n't she 's ca n't 've dogs i 'd it 's ma'am o'clock o'neil y' all can not gon na"
    ),
    "(left) [x] {y} :) :-( <3 <unk> </s> a*b ** a_b #tag @home me@home.org": (
        "-lrb- left -rrb- -lsb- x -rsb- -lcb- y -rcb- :-rrb- :--lrb- < 3 <unk> </s> a * b ** a_b #tag @home me@home.org"
    ),
    "“quoted” ‘x’ a — b … ½ £5 €3 DÖG 犬 naïve 45°": "quoted x a b 1/2 # 5 $ 3 dög 犬 naïve 45 °",
    "o’clock rock ’n’ roll ’80s don’t po’nd cafe\u0301 हिन्दी में tête‑à‑tête «bonjour» I ♥\ufe0f NY 👍🏽! 5′10″": (
        "o’clock rock ’n’ roll ’80s do n't po ’n d cafe\u0301 हिन्दी में tête‑à‑tête bonjour i ♥ ny 5 ′ 10 ″"
    ),
    "www.site.com http://a.b/c?d=e, a|||b": "www.site.com http://a.b/c?d=e a | | | b",
    "22 3/4 inch": "22\u00a03/4 inch",
    "her Ph.D. from (Ph.D.), ED.D. graph.d. Ph.D.student": (
        "her ph.d. from -lrb- ph.d. -rrb- ed.d. graph.d ph.d.student"
    ),
    "a\ufffddog ‼ don\ufffdt ‽ ₹500 Ⅳ and Ⅳcat": "a dog don t 500 and cat",
    "": "",
    ' . , "" -- ': "",
    "cafe\u0300 a\u200bb soft\u00adly :| :D ;p a --- b ---- c ‟ d 😀 e": ("cafe\u0300 a b softly :| :d ;p a b c ‟ d e"),
    "a\r\nb\x0bc\x0cd\u2028e\tf": "a b c d e f",
}


@pytest.mark.parametrize("caption", ANSWERS)
def test_rules(caption):
    assert tokenize(caption) == [word for word in ANSWERS[caption].split(" ") if word]


@pytest.mark.parametrize("source", ["coco_val2017", "flickr8k"])
def test_recorded_captions(shared_dir, source):
    with gzip.open(shared_dir / "metrics" / "ptb_java_pairs.json.gz") as file:
        pairs = json.load(file)[source]
    wrong = [(raw, tokens) for raw, tokens in pairs if " ".join(tokenize(raw)) != tokens]
    assert len(pairs) >= 12_000 and wrong == []


fragments = st.sampled_from([*"aAbS5.,-'/\"<>!(:@&é½’_#", " ", "no.", "n't", "'s", "The", "22 3/4", "http://", "..."])


@given(st.lists(fragments, max_size=12).map("".join))
@settings(max_examples=300, deadline=None)
@example("No. 5 in S. The")
def test_what_is_remembered_changes_nothing(text):
    tokens = tokenize(text)
    assert tokens == split(" ".join(text.split())) == tokenize(text)
    assert all(token and " " not in token for token in tokens)


@pytest.mark.parametrize("part", ["a,", "a.-", "<a", "a'", "5:", "@", "-", "."])
def test_long_nonsense_ends(part):
    assert isinstance(tokenize(part * 5000), list)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="no Java here")
def test_java_itself_says_the_same():
    """Each caption followed by one whose beginning cannot be a sentence's: the original looks at the next line."""
    from captioning.metrics.java import tokenize_all

    captions = [caption for caption in ANSWERS if caption.strip()]
    answers = tokenize_all([text for caption in captions for text in (caption, "zz")])[::2]
    assert {caption: " ".join(words) for caption, words in zip(captions, answers, strict=True)} == {
        caption: ANSWERS[caption] for caption in captions
    }


def test_plain_captions_are_cut_as_nltks_treebank_tokenizer_cuts_them():
    """An independent implementation of the same rules, where captions hold nothing that it does otherwise."""
    from nltk.tokenize.destructive import NLTKWordTokenizer

    texts = ["A man's dog doesn't bark at the black-and-white cat", "Two kids, aged 7 and 9, can't swim in 3.5 feet"]
    for text in texts:
        plain = [token for token in NLTKWordTokenizer().tokenize(text.lower()) if token not in {",", "."}]
        assert tokenize(text) == plain
