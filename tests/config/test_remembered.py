"""Compositions that the tests remember (helpers/remembered.py) are those that hydra makes."""

import pytest
from hydra._internal import config_loader_impl, defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from omegaconf import OmegaConf

from captioning.config import compose

PATCHED = (
    (config_loader_impl, "create_defaults_list"),
    (ConfigLoaderImpl, "_compose_config_from_defaults_list"),
    (defaults_list, "_create_interpolation_map"),
)
GIVEN = {
    "settings": ("train", ["model.width=8", "+trainer.val_check_interval=1", "~model.cell._target_", "run_dir=x"]),
    "groups": ("train", ["experiment=scenes_scst", "model/attention=hard", "objective/baseline=greedy", "seed=3"]),
    "another task": ("train", ["task=vqa", "data=easy_vqa", "run_dir=x"]),
    "a default that follows another": ("caption", ["images=[a.jpg]", "decoding=sample"]),
    "its first value": ("caption", ["images=[a.jpg]", "decoding.beam_size=2"]),
}


def composed(given) -> str:
    name, overrides = given
    return OmegaConf.to_yaml(compose(name, overrides, return_hydra_config=True))


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
def test_what_is_remembered_is_what_hydra_composes(given, monkeypatch):
    remembered = [composed(given) for _ in range(2)]
    for owner, name in PATCHED:
        monkeypatch.setattr(owner, name, getattr(owner, name).__wrapped__)
    assert remembered == [composed(given)] * 2


def test_a_changed_composition_is_not_remembered():
    first = compose("train", ["run_dir=x"])
    first.model.width = 1
    del first.model.cell
    again = compose("train", ["run_dir=y"])
    assert again.model.width != 1 and "cell" in again.model and again.run_dir == "y"


def test_files_of_a_test_are_read_each_time(tmp_path):
    (tmp_path / "experiment").mkdir()
    given = ["experiment=mine", f"hydra.searchpath=[file://{tmp_path}]"]
    for width in (3, 4):
        (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\nmodel:\n  width: {width}\n")
        assert compose("train", given).model.width == width
