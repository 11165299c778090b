"""Check the notebooks: short code, settings in the first code cell, small outputs, no local paths, plain openings.

`make notebooks` executes all of them. Here two are executed with other checkpoints and images, and one that needs only
the package as it is.
"""

import ast
import json
import math
import re
from pathlib import Path

import pytest
from PIL import Image

from captioning.config import check, compose
from captioning.config.schemas import TrainConfig
from captioning.train import train

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
NOVEL = Path(__file__).parents[1] / "notebooks" / "10_novel_objects.ipynb"
MOST = 300_000  # largest size of a notebook in bytes
FIRST_TEXT = ("**What you will see:**", "**Before:**", "**Time on two cores:**")


def code_cells(path: Path) -> list[dict]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def source(cell: dict) -> str:
    return "".join(cell["source"])


def test_there_are_notebooks():
    found = {path.stem for path in NOTEBOOKS}
    names = "data attention_maps soft_and_hard cells_and_gradients compare_runs grounding lecture readable_cells"
    names += " transformer_maps"
    assert found == {f"{number:02}_{name}" for number, name in enumerate(names.split(), start=1)} | {NOVEL.stem}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_short_and_clean(path):
    text, (settings, *cells) = path.read_text(), code_cells(path)
    assert len(text.encode()) < MOST
    for statement in ast.parse(source(settings)).body:
        assert isinstance(statement, ast.Assign)
        ast.literal_eval(statement.value)  # only values, no computation
    for cell in cells:
        assert not [node for node in ast.walk(ast.parse(source(cell))) if isinstance(node, ast.ClassDef | ast.While)]
    assert sum(len(source(cell).splitlines()) for cell in cells) <= 60
    counts = [cell["execution_count"] for cell in (settings, *cells)]
    assert cells[-1]["outputs"] and counts == list(range(1, len(counts) + 1))  # executed once, from the top
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    assert not re.search(r"/(tmp|work|home|root|Users)/", text)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_begins_with_what_to_expect_and_ends_with_what_to_try(path):
    first, *_, last = json.loads(path.read_text())["cells"]
    assert first["cell_type"] == last["cell_type"] == "markdown"
    assert source(first).startswith("# ") and all(each in source(first) for each in FIRST_TEXT)
    assert re.search(r"\*\*Time on two cores:\*\* .*\b(?:seconds|minutes?)\b", source(first))
    changes = source(last).partition("## Try this\n")[2]
    assert 2 <= len(re.findall(r"^- ", changes, re.MULTILINE)) <= 4


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[Path, Path, Path]:
    """Return the folders of a small run with soft attention, one with hard attention, and the drawn scenes."""
    root = tmp_path_factory.mktemp("notebooks")
    small = [
        "data=scenes", f"data.root={root}/scenes", "data.reader.train=8", "data.reader.val=4", "data.reader.test=1",
        f"features.root={root}/features", "data.min_count=1", "model.width=16", "encoder.image_size=64",
        "trainer.max_epochs=1", "trainer.enable_progress_bar=false", "trainer.accelerator=cpu",
    ]  # fmt: skip
    for kind in ("soft", "hard"):
        chosen = [*small, f"model/attention={kind}", f"run_dir={root}/{kind}"]
        train(check(compose("train", chosen), TrainConfig))
    return root / "soft", root / "hard", root / "scenes"


@pytest.mark.parametrize("name", ["02_attention_maps", "03_soft_and_hard"])
def test_they_run_with_any_checkpoint_and_images(name, runs, capsys, monkeypatch):
    pytest.importorskip("IPython", reason="the extra `notebooks` is not installed")
    soft, hard, scenes = runs
    path = next(path for path in NOTEBOOKS if path.stem == name)
    settings, *cells = map(source, code_cells(path))
    checkpoints = [str(run / "checkpoints" / "best.ckpt") for run in (soft, hard)]
    names = {"CHECKPOINT": checkpoints[0], "SOFT": checkpoints[0], "HARD": checkpoints[1], "FIRST": 0}
    names["IMAGE_FOLDER"] = str(scenes / "val")
    assert {node.targets[0].id for node in ast.parse(settings).body} <= names.keys()
    for cell in cells:
        exec(cell, names)
    assert len(names["images"]) == 3 and capsys.readouterr().out.count("\n") >= 3


def test_the_text_about_novel_objects_is_about_what_the_captioner_does(capsys, monkeypatch):
    """Its text names captions and locations: it must be read again if one of them changes."""
    monkeypatch.chdir(NOVEL.parent)
    names = {}
    for cell in code_cells(NOVEL):
        exec(source(cell), names)
        stored = "".join("".join(output["text"]) for output in cell["outputs"] if output["output_type"] == "stream")
        number = re.compile(r"-?\d+\.\d+")
        printed = capsys.readouterr().out
        assert number.sub("N", printed) == number.sub("N", stored)
        values = [[float(each) for each in number.findall(text)] for text in (printed, stored)]
        assert values[0] == pytest.approx(values[1], abs=0.011)


def test_the_text_about_novel_objects_is_true_of_what_it_shows():
    content = json.loads(NOVEL.read_text(encoding="utf-8"))
    outputs = "".join("".join(output.get("text", "")) for cell in code_cells(NOVEL) for output in cell["outputs"])
    scores = [float(each) for each in re.findall(r"a (?:white )?cat (-\d+\.\d+)", outputs)]
    best, *found, last = scores
    assert last == best and all(math.exp(each - best) == pytest.approx(0.25, abs=0.01) for each in found)
    for log_prob, with_stand_in, alone in re.findall(
        r"log_prob (\S+), stand_in_log_prob (\S+)\n.*: (\S+) without", outputs
    ):
        assert float(log_prob) < float(with_stand_in) == float(alone)
    text = "".join(source(cell) for cell in content["cells"] if cell["cell_type"] == "markdown")
    tag_of_person = re.findall(r"tag: person 0\.(\d\d)", outputs)
    assert all(share in tag_of_person for share in re.findall(r"(\d\d) % sure of a person", text))


def test_its_photos_are_small_and_credited():
    folder = NOVEL.parent / "photos"
    rows = re.findall(r"^\| `(\w+\.jpg)` \| <https://www.flickr.com/photo.gne\?id=(\d+)> \| <(\S+)> \| `(\S+)` \|$",
                      (folder / "LICENSES.md").read_text(encoding="utf-8"), re.MULTILINE)  # fmt: skip
    assert [row[0] for row in rows] == sorted(path.name for path in folder.glob("*.jpg")) and len(rows) == 5
    for name, page, original, _ in rows:
        assert f"/{page}_" in original and (folder / name).stat().st_size <= 60_000
        with Image.open(folder / name) as photo:
            assert max(photo.size) <= 480 and photo.format == "JPEG" and not photo.getexif()


def test_its_photos_have_the_license_that_coco_states(shared_dir):
    content = json.loads((shared_dir / "coco-sample" / "annotations" / "captions_train2017.json").read_text())
    stated = {f"`train2017/{each['file_name']}`": each for each in content["images"]}
    rows = [line.split(" | ") for line in (NOVEL.parent / "photos" / "LICENSES.md").read_text().splitlines()]
    listed = [(cells[2], cells[3].rstrip(" |")) for cells in rows if len(cells) == 4 and "train2017" in cells[3]]
    assert len(listed) == 5
    for original, name in listed:
        assert stated[name]["license"] == 4 and f"<{stated[name]['flickr_url']}>" == original
