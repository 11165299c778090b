"""A model of the user's own beside an installed package: trained, scored, captioned, exported, loaded."""

import json
import os
import subprocess
import sys

import pytest

TOY = """
from typing import NamedTuple

import torch
from torch import Tensor, nn

from captioning.models import CaptionModel, Glimpse, Step


class ToyState(NamedTuple):
    hidden: Tensor

    def select(self, index):
        return ToyState(self.hidden.gather(1, index[..., None].expand(-1, -1, self.hidden.shape[-1])))

    def repeat(self, rows):
        return ToyState(self.hidden.expand(-1, rows, -1))

    def detach(self):
        return ToyState(self.hidden.detach())


class Toy(CaptionModel):
    attends = True

    def __init__(self, *, feature_size, grid, vocabulary_size, pad=0, regions=False, encoder=None, width=16):
        super().__init__()
        self.encoder, self.pad = encoder or nn.Identity(), pad
        self.image, self.words = nn.Linear(feature_size, width), nn.Embedding(vocabulary_size, width)
        self.cell, self.output = nn.Linear(3 * width, width), nn.Linear(width, vocabulary_size)

    def begin(self, images, mask=None):
        grid = self.image(self.encoder(images).to(self.image.weight.dtype))
        return ToyState(grid.mean(1, keepdim=True).tanh()), grid

    def step(self, token, state, memory):
        weights = (state.hidden @ memory.transpose(1, 2)).softmax(-1)
        context = weights @ memory
        hidden = self.cell(torch.cat((self.words(token), state.hidden, context), -1)).tanh()
        return Step(self.output(hidden), ToyState(hidden), Glimpse(context, weights))
"""
DATA = ["data.reader.train=12", "data.reader.val=4", "data.reader.test=2"]
LOAD = """
import captioning, sys
assert captioning.__file__.startswith(sys.argv[1]), captioning.__file__
model = captioning.load("toy.safetensors", device="cpu", plugins=["toy"])
found = model.caption(sys.argv[2], beam_size=5)[0]
assert found.attention.shape == (len(found.tokens), 4)
print(found.text)
"""


@pytest.mark.slow
def test_a_model_of_ones_own_from_an_installed_wheel(tmp_path, pytestconfig):
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", tmp_path / "wheel", pytestconfig.rootpath], check=True)
    (wheel,) = (tmp_path / "wheel").glob("captioning-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", tmp_path / "site", wheel], check=True)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    folder = tmp_path / "empty"
    (folder / "own" / "model").mkdir(parents=True)
    (folder / "toy.py").write_text(TOY)
    (folder / "own" / "model" / "toy.yaml").write_text("_target_: toy.Toy\nwidth: 24\n")

    def run(name: str, *arguments: str) -> str:
        # As a console script: without the current folder on the path.
        done = subprocess.run(
            [sys.executable, "-P", "-m", f"captioning.{name}", *arguments],
            cwd=folder, env=environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    best, mine = "checkpoint=run/checkpoints/best.ckpt", "plugins=[toy]"
    train = [
        "model=toy",
        mine,
        "run_dir=run",
        *DATA,
        "data.min_count=1",
        "encoder.image_size=64",
        "trainer.max_epochs=2",
    ]
    run("train", "--config-dir", "own", *train, "trainer.enable_progress_bar=false")
    assert "CIDEr" in run("evaluate", best, mine, "data=scenes", *DATA, "decoding.beam_size=2", "output=scores")
    assert 0 <= json.loads((folder / "scores" / "scores.json").read_text())["truth"] <= 1
    image = str(next((folder / "data" / "scenes" / "val").glob("*.png")))
    run("caption", best, mine, f"images={image}", "output=out")
    (told,) = json.loads((folder / "out" / "captions.json").read_text())
    assert len(list((folder / "out").glob("*.png"))) == 1
    run("export", best, mine, "output=toy", "dtype=float32")
    run("report", "run", mine, "metrics.bootstrap=10")
    loaded = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path / "site"), image],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.strip() == told["caption"]
