"""The text that names a CLIP model differs if the model does."""

import pytest

from captioning.evaluation.clip_identity import named_model
from captioning.evaluation.clip_model import ClipChoice

FILES = {"open_clip_config.json": "{}", "a.safetensors": "1", "b.bin": "2", "tokenizer.json": "{}", "spiece.model": "3"}


def described(folder, weights=None):
    return ClipChoice("metrics.clip", f"local-dir:{folder}", weights, "").describe()


@pytest.fixture
def folder(tmp_path):
    for name, content in FILES.items():
        (tmp_path / name).write_text(content)
    return tmp_path


@pytest.mark.parametrize("name", FILES)
def test_each_file_of_a_folder_counts(folder, name):
    before = described(folder)
    assert before.startswith(f"local-dir:{folder} (SHA-256 ") and described(folder) == before
    (folder / name).write_text("other")
    assert described(folder) != before
    (folder / name).write_text(FILES[name])
    assert described(folder) == before
    (folder / name).unlink()
    assert described(folder) != before


def test_other_files_do_not_count(folder):
    before = described(folder)
    (folder / "photo.png").write_text("0")
    (folder / "README.md").write_text("0")
    assert described(folder) == before


@pytest.mark.parametrize("weights", ["random", "b.bin"])
def test_weights_of_the_folder_count_only_if_they_are_used(folder, weights):
    given = weights if weights == "random" else str(folder / weights)
    before = described(folder, given)
    (folder / "a.safetensors").write_text("other")
    assert described(folder, given) == before
    (folder / "open_clip_config.json").write_text("other")
    assert described(folder, given) != before


def test_a_model_of_a_hub_has_its_revision(tmp_path, monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants", reason="the extra `clip` is not installed")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert named_model("hf-hub:me/tiny", own_weights=True) == "hf-hub:me/tiny"  # before the download
    for revision in ("0123456789abcdef", "fedcba9876543210"):
        for path in (f"refs/main {revision}", f"snapshots/{revision}/open_clip_config.json {{}}"):
            name, content = path.split()
            file = tmp_path / "models--me--tiny" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        assert named_model("hf-hub:me/tiny", own_weights=True) == f"hf-hub:me/tiny (revision {revision[:12]})"
    assert named_model("hf-hub:not a repository", own_weights=True) == "hf-hub:not a repository"


def test_names_of_the_package_stay_as_they_are():
    assert named_model("ViT-B-32", own_weights=False) == "ViT-B-32"
