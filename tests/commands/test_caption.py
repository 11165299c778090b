"""captioning-caption on folders as users have them: nothing is left out, or written empty, without a word."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_runs import save_checkpoint
from small_world import run

from captioning.caption import figure_names
from captioning.config import compose
from captioning.errors import DataError
from captioning.inference import Predictor


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("run") / "checkpoints" / "best.ckpt"
    save_checkpoint(path)
    return f"checkpoint={path}"


def photo(path: Path, kind: str = "JPEG") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(noise).save(path, format=kind)
    return path


def caption(checkpoint: str, folder: Path, output: Path, *overrides: str) -> list[dict]:
    run("caption", checkpoint, f"images=[{folder}]", f"output={output}", "device=cpu", "figures=[]", *overrides)
    return json.loads((output / "captions.json").read_text())


def test_the_packaged_captioner_is_guided_by_default_and_others_are_not(checkpoint, tmp_path, capsys):
    photo(tmp_path / "photos/a.jpg")
    line = "captions guided by tags: classifier"
    (guided,) = caption("checkpoint=flickr8k-small", tmp_path / "photos", tmp_path / "guided")
    assert capsys.readouterr().out.splitlines()[-2] == f"{line} (off: tags=null)"
    (same,) = caption("checkpoint=flickr8k-small", tmp_path / "photos", tmp_path / "same", "tags=classifier")
    assert capsys.readouterr().out.splitlines()[-2] == line
    (off,) = caption("checkpoint=flickr8k-small", tmp_path / "photos", tmp_path / "off", "tags=null")
    (own,) = caption(checkpoint, tmp_path / "photos", tmp_path / "own")
    assert guided == same and isinstance(guided["tags"], list)
    assert not {"tags"} & {*off, *own} and line not in capsys.readouterr().out


def test_five_beams_are_the_default_of_beam_search_alone():
    for given, beams in (([], 5), (["decoding=beam"], 5), (["decoding.beam_size=2"], 2), (["decoding=greedy"], None)):
        assert compose("caption", ["images=x", *given])["decoding"].get("beam_size") == beams
    assert compose("evaluate", ["data=scenes", "checkpoint=x"])["decoding"]["beam_size"] == 3


@pytest.mark.slow
def test_a_folder_of_many_formats_and_of_folders(checkpoint, tmp_path, capsys):
    folder, output = tmp_path / "photos", tmp_path / "out"
    for name in ("a.jfif", "b", "c.JPE", "cats/1.jpg", "dogs/1.jpg", "dogs/deep/1.jpg"):
        photo(folder / name)
    (folder / "README").write_text("My photos")
    (folder / "d.jpg.part").write_bytes(photo(tmp_path / "d.jpg").read_bytes()[:500])
    run("caption", checkpoint, f"images=[{folder}]", f"output={output}", "device=cpu")
    told, results = capsys.readouterr(), json.loads((output / "captions.json").read_text())
    names = ["a.jfif", "b", "c.JPE", "cats/1.jpg", "dogs/1.jpg", "dogs/deep/1.jpg"]
    assert [result["file_name"] for result in results] == [str(folder / name) for name in names]
    assert told.out.splitlines()[-1] == f"6 images captioned, 2 left out. Results: {output}"
    assert [line for line in told.err.splitlines() if line.startswith("left out: ")] == [
        f"left out: {folder / 'README'}: not an image: plain text",
        f"left out: {folder / 'd.jpg.part'}: an unfinished download (.part)",
    ]
    figures = ["a.png", "b.png", "c.png", "cats_1.png", "deep_1.png", "dogs_1.png"]
    assert sorted(path.name for path in output.glob("*.png")) == figures


@pytest.mark.slow
def test_figures_are_not_captioned_by_the_next_call(checkpoint, tmp_path, capsys):
    photo(tmp_path / "a.jpg")
    for output in ("first", "second", "second"):
        run("caption", checkpoint, f"images=[{tmp_path}]", f"output={tmp_path / output}", "device=cpu")
    assert [each["file_name"] for each in json.loads((tmp_path / "second" / "captions.json").read_text())] == [
        str(tmp_path / "a.jpg")
    ]
    told = capsys.readouterr()
    assert told.err.count(f"{tmp_path / 'first'}: results of captioning-caption") == 2
    assert f"{tmp_path / 'second'}: the output folder" in told.err
    assert "1 image captioned, 2 left out" in told.out.splitlines()[-1]


def test_a_broken_image_stops_it_unless_told_otherwise(checkpoint, tmp_path, capsys):
    folder, output = tmp_path / "photos", tmp_path / "out"
    photo(folder / "a.jpg")
    (folder / "b").write_bytes(photo(tmp_path / "b.jpg").read_bytes()[:500])
    with pytest.raises(DataError) as caught:
        caption(checkpoint, folder, output)
    assert str(caught.value).startswith(f"{folder / 'b'}: damaged or cut short")
    assert str(caught.value).endswith("To leave out unreadable files: skip_unreadable=true")
    assert len(caption(checkpoint, folder, output, "skip_unreadable=true")) == 1
    told = capsys.readouterr()
    assert f"left out: {folder / 'b'}: damaged or cut short" in told.err
    assert told.out.splitlines()[-1] == f"1 image captioned, 1 left out. Results: {output}"


def test_many_that_are_left_out_are_all_named_in_a_file(checkpoint, tmp_path, capsys):
    folder, output = tmp_path / "photos", tmp_path / "out"
    photo(folder / "a.jpg")
    for number in range(30):
        (folder / f"{number:02}.txt").write_text("words")
    caption(checkpoint, folder, output)
    told, listed = capsys.readouterr().err, (output / "left_out.txt").read_text().splitlines()
    assert listed == [f"{folder / f'{number:02}.txt'}: not an image: plain text" for number in range(30)]
    assert told.count("left out: ") == 19
    assert f"… and 11 more. All of them: {output / 'left_out.txt'}" in told
    for number in range(30):
        (folder / f"{number:02}.txt").unlink()
    caption(checkpoint, folder, output)
    assert not (output / "left_out.txt").exists()


def test_an_empty_caption_is_reported_as_empty(checkpoint, tmp_path, monkeypatch, capsys):
    folder, output = tmp_path / "photos", tmp_path / "out"
    for name in ("a.jpg", "b.jpg"):
        photo(folder / name)
    original = Predictor.all_captions

    def first_is_empty(*arguments, **options):
        first, *others = original(*arguments, **options)
        return [[first[0]._replace(text="", tokens=[])], *others]

    monkeypatch.setattr(Predictor, "all_captions", first_is_empty)
    results = caption(checkpoint, folder, output)
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"{folder / 'a.jpg'}: (empty caption)" and "(empty" not in told[1]
    assert told[-1] == f"2 images captioned (1 empty caption), 0 left out. Results: {output}"
    assert results[0]["caption"] == "" != results[1]["caption"]


def test_every_empty_sample_is_counted(checkpoint, tmp_path, monkeypatch, capsys):
    photo(tmp_path / "photos/a.jpg")
    original = Predictor.all_captions

    def the_last_two_are_empty(*arguments, **options):
        ((first, *others),) = original(*arguments, **options)
        return [[first, *(each._replace(text=" ", tokens=[]) for each in others)]]

    monkeypatch.setattr(Predictor, "all_captions", the_last_two_are_empty)
    caption(checkpoint, tmp_path / "photos", tmp_path / "out", "decoding=sample", "decoding.samples=3")
    told = capsys.readouterr().out
    assert told.count("(empty caption)") == 2 and "1 image captioned (2 empty captions), 0 left out" in told


def test_a_folder_without_images_says_what_it_has(checkpoint, tmp_path):
    (tmp_path / "notes.txt").write_text("words")
    with pytest.raises(DataError) as caught:
        caption(checkpoint, tmp_path, tmp_path / "out")
    assert str(caught.value) == (
        f"{tmp_path}: no images in this folder, only notes.txt (not an image: plain text): add images, or choose "
        "another folder"
    )


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["x/1.jpg", "y/1.jpg", "2.jpg"], ["x_1", "y_1", "2"]),
        (["x/1.jpg", "x/deep/1.jpg", "y/deep/1.jpg"], ["x_1", "x_deep_1", "y_deep_1"]),
        (["x/1.jpg", "x/1.png"], ["1_0", "1_1"]),
        (["x/A.jpg", "y/a.jpg", "x_a.jpg"], ["x_A", "y_a", "x_a_2"]),
        (["/x/1.jpg", "../x/1.jpg", "1.jpg"], ["1_0", "1_1", "1_2"]),
        (["a/1.jpg", "a/1.jpg"], ["1_0", "1_1"]),
        (["ä" * 120 + ".jpg"], ["ä" * 100]),
    ],
)
def test_figures_are_named_after_images_and_their_folders(paths, expected):
    assert figure_names([Path(path) for path in paths], [".png"]) == [[f"{name}.png"] for name in expected]
