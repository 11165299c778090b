"""Long work shows a bar on a terminal, and is quiet elsewhere."""

import io
import os
import pty
import subprocess
import sys
import termios

import pytest
from PIL import Image
from small_runs import draw_pictures, make_run

from captioning.data import Transform, read_csv
from captioning.features import online
from captioning.models import efficientnet_lite_encoder
from captioning.training import ProgressBar


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("kind", [Terminal, io.StringIO])
def test_training_has_a_bar_on_a_terminal_only(kind, monkeypatch):
    monkeypatch.setattr(sys, "stdout", kind())
    assert ProgressBar().is_enabled is (kind is Terminal)


@pytest.mark.parametrize("kind", [Terminal, io.StringIO])
def test_pictures_that_are_opened_beforehand(kind, monkeypatch, tmp_path):
    draw_pictures(tmp_path)
    monkeypatch.setattr(sys, "stderr", kind())
    encoder = efficientnet_lite_encoder("efficientnet-lite0", weights=None, output="grid", image_size=64)
    online(encoder, Transform(64), read_csv(tmp_path), name="x", skip_unreadable=True)
    assert ("opening images: 100%" in sys.stderr.getvalue()) is (kind is Terminal)


@pytest.mark.slow
@pytest.mark.parametrize("terminal", [True, False])
def test_a_command_in_a_pipe_and_on_a_terminal(terminal, tmp_path):
    """captioning-caption writes its captions to stdout alike; the bar is on stderr, where that is a terminal."""
    run, photos = make_run(tmp_path), tmp_path / "photos"
    photos.mkdir()
    for index in range(3):
        Image.new("RGB", (32, 32), (index, 9, 9)).save(photos / f"{index}.png")
    command = [sys.executable, "-m", "captioning.caption", f"checkpoint={run / 'checkpoints' / 'best.ckpt'}",
               f"images=[{photos}]", f"output={tmp_path / 'out'}", "decoding=greedy", "device=cpu"]  # fmt: skip
    leader, follower = pty.openpty() if terminal else os.pipe()
    if terminal:
        termios.tcsetwinsize(leader, (24, 100))
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=follower, cwd=tmp_path, timeout=120, check=True,
                          env=os.environ | {"PYTHONPATH": os.getcwd()})  # fmt: skip
    os.close(follower)
    shown = b""
    try:
        while part := os.read(leader, 65536):
            shown += part
    except OSError:  # the end of a terminal
        pass
    os.close(leader)
    captions = [line for line in done.stdout.decode().splitlines() if line.startswith(str(tmp_path))]
    assert len(captions) == 3
    assert (b"images: 100%" in shown) is terminal and (shown == b"") is not terminal
