"""docs/guided_sheet.py: each photo has its own two captions, in the order of the ids, in a file of limited size."""

import json

import numpy as np
import pytest
from docs_scripts import load_script
from PIL import Image

COLORS = {9: (200, 0, 0), 10: (0, 200, 0), 100: (0, 0, 200)}  # image id -> color of its photo


@pytest.fixture(scope="module")
def script():
    return load_script("guided_sheet")


@pytest.fixture
def files(tmp_path):
    """Two files of captions in different orders, by id and by file name, and the folder of their photos."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for image_id, color in COLORS.items():
        Image.new("RGB", (60, 40), color).save(folder / f"{image_id:012}.png")
    Image.new("RGB", (60, 40)).save(folder / "000000000011.png")  # a photo without captions
    before = [{"image_id": each, "caption": f"before {each}", "file_name": f"{each:012}.png"} for each in (100, 9, 10)]
    captions = {9: "after 9", 100: "after 100", 10: "before 10"}
    after = [{"image_id": each, "caption": text} for each, text in captions.items()]
    for name, content in (("before", before), ("after", after)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path / "before.json", tmp_path / "after.json", folder


def test_photos_are_in_the_order_of_their_ids_with_their_own_captions(script, files):
    before, after, folder = files
    expected = [
        ("000000000009.png", "before 9", "after 9"),
        ("000000000010.png", "before 10", "before 10"),
        ("000000000100.png", "before 100", "after 100"),
    ]
    rows = script.paired((before, after), folder)  # found by file name
    assert [(photo.name, *texts) for photo, *texts in rows] == expected
    rows = script.paired((after, before), folder)  # found by id
    assert [(photo.name, second, first) for photo, first, second in rows] == expected


def test_two_photos_of_one_id_are_an_error(script, files):
    before, after, folder = files
    Image.new("RGB", (60, 40)).save(folder / "more" / "9.jpg")
    with pytest.raises(script.DataError, match="photos has 2 photos with the id 9"):
        script.paired((after, before), folder)
    assert script.paired((before, after), folder)[0][0] == folder / "000000000009.png"  # the name is certain


def test_the_sheet_shows_photos_captions_and_how_many_differ(script, files):
    folder = files[2]
    photo = {each: folder / f"{each:012}.png" for each in COLORS}
    rows = [(photo[9], "a dog", "a zebra"), (photo[10], "a cat", "a cat"), (photo[100], "a bus", "a van")]
    figure = script.draw_sheet(rows, ("soft", "hard"))
    texts = [text.get_text() for text in figure.texts]
    assert texts[0] == "3 photos in the order of their ids: the captions of 2 differ (soft and hard)"
    assert texts[1:] == [
        part
        for path, first, second in rows
        for part in (path.name, f"soft: {first}", f"hard: {second}")
    ]  # fmt: skip
    shown = [axes.images[0].get_array()[0, 0].tolist() for axes in figure.axes]
    assert shown == [list(color) for color in COLORS.values()]


def test_the_file_is_as_wide_and_as_small_as_it_should_be(script, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    figure = script.draw_sheet([(tmp_path / "noise.png", "a", "b")], ("before", "after"))
    whole = script.save_sheet(figure, tmp_path / "new" / "sheet.jpg")
    assert whole == (tmp_path / "new" / "sheet.jpg").stat().st_size
    with Image.open(tmp_path / "new" / "sheet.jpg") as sheet:
        assert sheet.format == "JPEG" and abs(sheet.width - script.WIDTH) <= 1
    smaller = script.save_sheet(figure, tmp_path / "small.jpg", most=whole - 1)
    assert smaller == (tmp_path / "small.jpg").stat().st_size < whole
    with pytest.raises(script.DataError, match="--first"):
        script.save_sheet(figure, tmp_path / "tiny.jpg", most=1000)
    assert not (tmp_path / "tiny.jpg").exists()


def test_the_script_draws_the_first_photos(script, files, tmp_path, capsys):
    before, _, folder = files
    output = tmp_path / "sheet.jpg"
    script.main([str(before), str(before), str(folder), "--first", "2", "--output", str(output)])
    assert capsys.readouterr().out.startswith(f"{output}: 2 photos, 0.")
    assert output.is_file()


def test_captions_of_other_photos_are_one_clear_error(script, files, tmp_path):
    before, _, folder = files
    fewer = tmp_path / "fewer.json"
    fewer.write_text(json.dumps(json.loads(before.read_text())[1:]))
    with pytest.raises(SystemExit, match=r"^error: .*before.json and .*fewer.json .* 1 are only in the first file, 0 "):
        script.main([str(before), str(fewer), str(folder)])
    (folder / "000000000100.png").unlink()
    with pytest.raises(
        SystemExit, match=r"^error: .*photos lacks 1 of the 3 photos of .*before.json, such as 000000000100.png\. "
    ):
        script.main([str(before), str(before), str(folder)])


@pytest.mark.parametrize("wrong", [["--first", "0"], ["--labels", "a", "a"]])
def test_wrong_arguments_are_named(script, files, wrong, capsys):
    before, after, folder = map(str, files)
    with pytest.raises(SystemExit):
        script.main([before, after, folder, *wrong])
    assert wrong[0] in capsys.readouterr().err
