"""Parts of one's own module: where they are named they are built, and nowhere else."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import captioning
from captioning.config import allowed_plugins, build, build_trusted, plugins_allowed, plugins_in
from captioning.errors import CheckpointError, ConfigError

SCORER = '''
from os import system

import torch
from torch import nn


class Bilinear(nn.Module):
    """e_i = h · W a_i."""

    def __init__(self, feature_size, state_size, *, scale=1.0):
        super().__init__()
        self.width, self.scale = state_size, scale
        self.key = nn.Linear(feature_size, state_size)

    def project(self, grid):
        return self.key(grid)

    def forward(self, query, keys):
        return query @ keys.transpose(1, 2) * self.scale

    def of_rows(self, query, key):
        return (query * key).sum(-1) * self.scale


def length_penalty(captions, *, split):
    return {"words": sum(len(text.split()) for text in captions.values()) / max(1, len(captions))}
'''
SMALL = ["data.reader.train=6", "data.reader.val=2", "data.reader.test=2", "data.min_count=1", "model.width=16"]
SMALL += [
    "model.embedding_size=8",
    "encoder.image_size=64",
    "trainer.enable_progress_bar=false",
    "trainer.max_epochs=1",
]


@pytest.fixture
def my_parts(tmp_path, monkeypatch) -> Path:
    """A module of the user's, in the folder that commands start in."""
    (tmp_path / "my_parts.py").write_text(SCORER)
    (tmp_path / "folder" / "model" / "scorer").mkdir(parents=True)
    (tmp_path / "folder" / "model" / "scorer" / "bilinear.yaml").write_text(
        "_target_: my_parts.Bilinear\n_partial_: true\nscale: 0.5\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("my_parts", None)
    yield tmp_path
    sys.modules.pop("my_parts", None)


def command(name: str, *arguments: str, cwd: Path, **environment) -> subprocess.CompletedProcess:
    """As a console script: without the current folder on the path."""
    return subprocess.run(
        [sys.executable, "-P", "-m", f"captioning.{name}", *arguments],
        cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_only_what_a_named_module_defines_is_built(my_parts):
    node = {"_target_": "my_parts.Bilinear", "_partial_": True}
    with pytest.raises(ConfigError, match=r"'my_parts\.Bilinear' is not built: .*plugins="):
        build(node)
    with plugins_allowed(["my_parts"]):
        assert build(node)(4, 3).key.weight.shape == (3, 4)
        assert build_trusted(node)(4, 3).width == 3
        for other in ("os.system", "my_parts.system", "my_parts.torch.load", "my_parts._x", "my_part.Bilinear"):
            with pytest.raises(ConfigError):
                build({"_target_": other})
            with pytest.raises(CheckpointError):
                build_trusted({"_target_": other})
        with pytest.raises(CheckpointError):  # a checkpoint calls no function of one's own
            build_trusted({"_target_": "my_parts.length_penalty"})
        assert callable(build({"_target_": "my_parts.length_penalty", "_partial_": True}))
    assert allowed_plugins() == ()
    with pytest.raises(CheckpointError):
        build_trusted(node)


def test_a_plugin_that_is_none_is_told(my_parts):
    with (
        pytest.raises(ConfigError, match=r"plugins=\[my_prats\]: cannot import this module .*: install it, or start"),
        plugins_allowed(["my_prats"]),
    ):
        pass
    (my_parts / "slip.py").write_text("x = (\n")
    with pytest.raises(ConfigError, match=r"plugins=\[slip\]: .*never closed \(.*slip\.py, line 1\)"):
        plugins_allowed(["slip"]).__enter__()
    (my_parts / "leaves.py").write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(
        ConfigError, match=r"plugins=\[leaves\]: importing this module ends the program \(SystemExit: 0\)"
    ):
        plugins_allowed(["leaves"]).__enter__()
    for library in ("os", "shutil", "captioning", "captioning.io", "torch"):
        with pytest.raises(ConfigError, match="is a library"), plugins_allowed([library]):
            pass
    for wrong in (3, {"my_parts": 1}, True):
        with pytest.raises(ConfigError, match="plugins must be a list of modules"), plugins_allowed(wrong):
            pass
    for wrong in ("my_parts.py", "", "a b", 3, ["my_parts"]):
        with pytest.raises(ConfigError, match="is not a module name"), plugins_allowed([wrong]):
            pass


def test_what_a_configuration_needs_is_found():
    nodes = [
        {"_target_": "captioning.models.LSTM", "a": [{"_target_": "my_parts.scorers.Bilinear"}]},
        {"b": {"_target_": "my_parts.Encoder"}, "c": {"_target_": "torch.optim.Adam"}},
    ]
    assert plugins_in(nodes) == ["my_parts", "my_parts.scorers"]


@pytest.mark.slow
def test_a_run_with_a_scorer_of_ones_own(my_parts):
    """Trained, evaluated, captioned and exported from the command line; loaded only where the module is named."""
    given = ["plugins=[my_parts]", "run_dir=run", *SMALL]
    node = ["~model.scorer.width", "model.scorer._target_=my_parts.Bilinear"]
    done = command("train", *given[1:], *node, cwd=my_parts)
    assert done.returncode == 1 and "plugins=" in done.stderr and "Traceback" not in done.stderr
    done = command("train", *given, *node, cwd=my_parts)
    assert done.returncode == 0, done.stderr
    best = my_parts / "run" / "checkpoints" / "best.ckpt"
    metadata = torch.load(best, weights_only=True)["captioning"]
    assert metadata["plugins"] == ["my_parts"]

    expected = r"own module 'my_parts'.*: plugins=\[my_parts\].*captioning\.load\(path, plugins=\['my_parts'\]\)"
    with pytest.raises(CheckpointError, match=expected):
        captioning.load(best, device="cpu")
    model = captioning.load(best, device="cpu", plugins=["my_parts"])
    image = next((my_parts / "data" / "scenes" / "val").glob("*.png"))
    (found,) = model.caption(image)  # its encoder is built now, after `load`

    done = command("caption", f"checkpoint={best}", f"images={image}", "output=out", cwd=my_parts)
    assert done.returncode == 1 and "plugins=[my_parts]" in done.stderr and "Traceback" not in done.stderr
    done = command("caption", f"checkpoint={best}", f"images={image}", "output=out", "plugins=my_parts", cwd=my_parts)
    assert done.returncode == 0, done.stderr
    (told,) = json.loads((my_parts / "out" / "captions.json").read_text())
    assert told["caption"] == found.text

    done = command("export", f"checkpoint={best}", "output=mine", "dtype=float32", "plugins=[my_parts]", cwd=my_parts)
    assert done.returncode == 0, done.stderr
    with pytest.raises(CheckpointError, match=expected):
        captioning.load(my_parts / "mine.safetensors", device="cpu")
    again = captioning.load(my_parts / "mine.safetensors", device="cpu", plugins=["my_parts"])
    assert again.caption(image)[0].text == found.text

    likewise = [f"like={my_parts / 'run' / 'config.yaml'}", "run_dir=again"]
    done = command("train", *likewise, cwd=my_parts)
    assert done.returncode == 1 and "if you trust them, add plugins=[my_parts]" in done.stderr
    done = command("train", *likewise, "plugins=[my_parts]", cwd=my_parts)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_group_in_ones_own_folder(my_parts):
    given = ["--config-dir", "folder", "model/scorer=bilinear", "plugins=[my_parts]", "run_dir=run", *SMALL]
    done = command("train", *given, cwd=my_parts)
    assert done.returncode == 0, done.stderr
    best = my_parts / "run" / "checkpoints" / "best.ckpt"
    assert (
        captioning.load(best, device="cpu", plugins=["my_parts"]).metadata["config"]["model"]["scorer"]["scale"] == 0.5
    )
