"""Tables of captions in all the forms in which they come, and what is not certain enough to be read."""

import pytest

from captioning.data import Faults, read_csv
from captioning.errors import DataError


def table(root, text, *pictures, name="captions.csv", encoding="utf-8"):
    (root / name).write_bytes(text.encode(encoding))
    for picture in pictures:
        (root / picture).parent.mkdir(parents=True, exist_ok=True)
        (root / picture).touch()


def captions(root, **options):
    """{picture: captions}, everything in one split."""
    records = read_csv(root, val_share=0, test_share=0, **options)
    return {record.path.relative_to(root).as_posix(): list(record.captions) for record in records}


def message(root, **options):
    with pytest.raises(DataError) as caught:
        read_csv(root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


WANTED = {"a.jpg": ["A dog , wet .", "Two dogs ."], "b.jpg": ["A cat ."]}


@pytest.mark.parametrize(
    "text",
    [
        "image,caption\na.jpg,A dog , wet .\na.jpg,Two dogs .\nb.jpg,A cat .\n",
        'image,caption\na.jpg,"A dog , wet ."\na.jpg,Two dogs .\nb.jpg,A cat .\n',
        "image;caption\na.jpg;A dog , wet .\na.jpg;Two dogs .\nb.jpg;A cat .\n",
        "image\tcaption\na.jpg\tA dog , wet .\na.jpg\tTwo dogs .\nb.jpg\tA cat .\n",
        "image|caption\na.jpg|A dog , wet .\na.jpg|Two dogs .\nb.jpg|A cat .\n",
        "image_name| comment_number| comment\na.jpg| 0| A dog , wet .\na.jpg| 4   Two dogs .\nb.jpg| 0| A cat .\n",
        "image_name,comment_number,comment\na.jpg,0,A dog , wet .\na.jpg,1,Two dogs .\nb.jpg,0,A cat .\n",
        "a.jpg#0\tA dog , wet .\na.jpg#1\tTwo dogs .\nb.jpg#0\tA cat .\n",
        "Unnamed: 0,filename,sentence\n0,a.jpg,A dog , wet .\n1,a.jpg,Two dogs .\n2,b.jpg,A cat .\n",
        "image,caption,split\na.jpg,A dog , wet .,train\na.jpg,Two dogs .,train\nb.jpg,A cat .,train\n",
        "caption,image\nA dog , wet .,a.jpg\nTwo dogs .,a.jpg\nA cat .,b.jpg\n",
        'image,caption,,\na.jpg,"A dog , wet .",,\na.jpg,Two dogs .,,\nb.jpg,A cat .,,\n',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_same_captions_from_every_form(tmp_path, text, encoding, end):
    table(tmp_path, text.replace("\n", end), "a.jpg", "b.jpg", encoding=encoding)
    assert captions(tmp_path) == WANTED


def test_a_quote_or_a_bar_in_a_published_table_is_a_character(tmp_path):
    text = 'image_name| comment_number| comment\na.jpg| 0| "Go" is on a sign | wall .\n'
    table(tmp_path, text, "a.jpg", name="results.csv")
    assert captions(tmp_path, file="results.csv") == {"a.jpg": ['"Go" is on a sign | wall .']}
    table(tmp_path, 'a.jpg#0\t"Go" is on a sign .\n', name="token.txt")
    assert captions(tmp_path, file="token.txt") == {"a.jpg": ['"Go" is on a sign .']}


def test_a_thousand_with_a_comma_is_part_of_the_caption(tmp_path):
    table(tmp_path, "image,caption\na.jpg,1,000 people march\n", "a.jpg")
    assert captions(tmp_path) == {"a.jpg": ["1,000 people march"]}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("image,caption\na.jpg,a dog,train\n", "line 2: 3 fields, not 2: put captions with a comma in quotes"),
        ("image,caption\na.jpg,0,a dog\n", "line 2: 3 fields, not 2"),
        ("image,caption\na.jpg,a dog,0.97\n", "line 2: 3 fields, not 2"),
        ("image,caption\na.jpg,a dog,b.jpg\n", "line 2: 3 fields, not 2"),
        ("image;caption\na.jpg;a dog;train\n", "put captions with a semicolon in quotes"),
        ("a.jpg,a dog\n", "If this line is the first image already, insert such a line above it"),
        ("image,caption;split\na.jpg,a;train\n", "the first line must be image,caption or image,caption,split, not"),
        ("image,caption,caption\na.jpg,a,b\n", "not 'image,caption,caption'"),
        ("image_name| comment_number| comment\na.jpg| x| a dog\n", "line 2: must be NAME| NUMBER| CAPTION, not"),
        ("a.jpg#0\ta dog\na.jpg a cat\n", "line 2: must be NAME#NUMBER, a tab and a caption"),
        ("", "the first line must be"),
    ],
)
def test_what_is_not_certain_is_refused(tmp_path, text, wanted):
    table(tmp_path, text, "a.jpg", "b.jpg")
    assert wanted in message(tmp_path)


def test_the_encoding_is_told_by_the_names_of_files(tmp_path, capsys):
    table(tmp_path, "image,caption\ncaf\u00e9.jpg,a dog\n", "caf\u00e9.jpg", encoding="cp1252")
    assert captions(tmp_path) == {"caf\u00e9.jpg": ["a dog"]}
    assert (
        "captions.csv is not UTF-8: read as cp1252, because its image names are file names" in capsys.readouterr().err
    )


@pytest.mark.parametrize("text", ["a.jpg,caf\u00e9\n", "caf\u00e9.jpg,a pi\u00f1ata\n", "ol\u00e9.jpg,a dog\n"])
def test_no_encoding_is_guessed_from_captions(tmp_path, text):
    table(tmp_path, "image,caption\n" + text, "a.jpg", "caf\u00e9.jpg", encoding="cp1252")
    assert "captions.csv is not UTF-8 (" in message(tmp_path)


def test_a_missing_table_names_those_that_are_there(tmp_path):
    table(tmp_path, "", name="results.csv")
    assert message(tmp_path).endswith("or choose one of results.csv with data.reader.file=NAME")


def test_collected_faults_are_of_rows(tmp_path):
    table(tmp_path, "image_name| comment_number| comment\na.jpg| 0\na.jpg| 1| ok\n", "a.jpg")
    faults = Faults()
    assert read_csv(tmp_path, faults=faults)[0].captions == ("ok",)
    assert len(faults.messages) == 1 and "line 2" in faults.messages[0]


def test_the_image_that_flickr8k_names_and_does_not_have(tmp_path, capsys):
    lines = "2258277193_586949ec62.jpg.1#0\tPeople wait .\na.jpg#0\ta dog\n"
    table(tmp_path, lines, "a.jpg")
    assert captions(tmp_path) == {"a.jpg": ["a dog"]}
    assert "the captions of 2258277193_586949ec62.jpg.1 are left out" in capsys.readouterr().err
    table(tmp_path, "b.jpg.1#0\ta cat\na.jpg#0\ta dog\n")
    assert "images that are not on disk: " in message(tmp_path)
