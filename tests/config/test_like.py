"""like=RUN/config.yaml: settings that were written as another one's value follow it where that is changed."""

import sys
from pathlib import Path

import pytest
import yaml

from captioning.config import TrainConfig, check, compose, entry_point
from captioning.config.interpolations import followers


@pytest.fixture
def like(monkeypatch, tmp_path, capsys):
    """like(overrides of the first run, …) -> configurations of the jobs, exit status."""
    monkeypatch.chdir(tmp_path)

    def start(first: list[str], *given: str):
        config = check(compose("train", [*first, "run_dir=old"]), TrainConfig)
        (tmp_path / "old").mkdir(exist_ok=True)
        (tmp_path / "old" / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        monkeypatch.setattr(sys, "argv", ["captioning-train", *given])
        seen = []
        try:
            entry_point("train", TrainConfig, seen.append)()
        except SystemExit as ending:
            return seen, ending.code
        return seen, 0

    return start


def roots(config):
    return [config["data"][key]["root"] for key in ("reader", "extra_scores", "instances")] + [config["data"]["root"]]


LIKE = ["like=old/config.yaml", "run_dir=new"]


def test_another_folder_of_data_is_the_one_that_is_read(like):
    (config,), status = like(["data.root=a"], *LIKE, "data.root=b")
    assert status == 0 and roots(config) == ["b"] * 4
    (config,), _ = like(["data.root=a"], *LIKE, "--data.root", "b")
    assert roots(config) == ["b"] * 4
    (config,), _ = like(["data.root=a"], *LIKE, "data.root=2024")
    assert roots(config) == ["2024"] * 4


def test_a_setting_that_is_given_by_itself_or_was_another_value_stays(like):
    (config,), _ = like(["data.root=a"], *LIKE, "data.instances.root=c", "data.root=b")
    assert roots(config) == ["b", "b", "c", "b"]
    (config,), _ = like(["data.root=a", "data.reader.root=d"], *LIKE, "data.root=b")
    assert roots(config) == ["d", "b", "b", "b"]
    (config,), _ = like(["data.root=a"], *LIKE, "seed=3")
    assert roots(config) == ["a"] * 4 and config["seed"] == 3
    (config,), _ = like(["data.root=a"], *LIKE, "data.instances=null", "data.root=b")
    assert config["data"]["instances"] is None and config["data"]["reader"]["root"] == "b"


def test_images_of_another_size_are_resized_to_it(like):
    (config,), _ = like(["encoder.image_size=64"], *LIKE, "encoder.image_size=96")
    assert (config["encoder"]["image_size"], config["transform"]["size"]) == (96, 96)


def test_only_what_was_written_as_the_other_follows_it(like):
    (config,), _ = like(["model.width=64", "model.feature_width=64"], *LIKE, "model.width=32")
    assert (config["model"]["width"], config["model"]["feature_width"]) == (32, 64)
    (config,), _ = like(["model/recurrence=adaptive", "model.width=64"], *LIKE, "model.width=32")
    assert (config["model"]["width"], config["model"]["feature_width"]) == (32, 32)
    several = ["model/conditioning=initial_every", "model.dropout=0.5"]
    (config,), _ = like(several, *LIKE, "model.dropout=0.25")
    assert config["model"]["conditioning"]["parts"][0]["dropout"] == config["model"]["readout"]["dropout"] == 0.25


def test_a_reader_of_ones_own_reads_the_other_folder_too():
    data = {"name": "a", "root": "a", "reader": {"_target_": "my_parts.read", "folder": "a", "file": "b"}}
    assert followers({"data": data}, ["data.root=c"]) == ["data.reader.folder=${data.root}"]
    assert followers({"data": data}, ["data.name=c", "~data.root", "--multirun"]) == []


@pytest.mark.slow
def test_a_sweep_like_a_run(like):
    configs, status = like(["data.root=a"], "-m", *LIKE, "data.root=b,c", "seed=1")
    assert status == 0 and [roots(config) for config in configs] == [["b"] * 4, ["c"] * 4]
    assert [config["seed"] for config in configs] == [1, 1]
    assert [Path(config["run_dir"]).relative_to(Path.cwd()) for config in configs] == [Path("new/0"), Path("new/1")]
    configs, status = like(["data.root=a"], "old/config.yaml", "run_dir=new", "model.width=16,32", "--multirun")
    assert status == 0 and [config["model"]["width"] for config in configs] == [16, 32]


def test_like_one_run_at_a_time(like):
    told = "error: like=old/config.yaml like=old/config.yaml: give the config.yaml of one run"
    for given in (["like=old/config.yaml"] * 2, ["old/config.yaml"] * 2, ["old/config.yaml", "like=old/config.yaml"]):
        for flag in ([], ["-m"]):
            assert like([], *flag, *given, "run_dir=new") == ([], told)
    swept = "error: like= cannot be swept: give the config.yaml of one run"
    assert like([], "-m", "like=old/config.yaml,old/config.yaml", "run_dir=new") == ([], swept)
