"""One run on several processes, and in another precision: the same loss and gradients as on one, in 32 bits."""

import math
import os
import subprocess
import sys

import pytest
import torch
from processes import Objective, learn, of_images
from small_world import rows, run, short, weights
from torch import multiprocessing, nn
from toys import PAD

from captioning.data import CaptionBatch


def test_two_processes_have_the_loss_and_gradients_of_one(toy, toy_tokens, tmp_path):
    model = toy(conditioning="first_step")
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    batch = CaptionBatch(torch.arange(3), torch.randn(3, 4, 6, dtype=torch.float64), None, toy_tokens)
    counts = (toy_tokens[..., 1:] != PAD).any(-1).sum(1)
    assert counts[:2].sum() != counts[2:].sum()  # captions: the mean of two means would be another
    torch.save((model, batch), tmp_path / "whole.pt")
    multiprocessing.spawn(learn, args=(str(tmp_path),), nprocs=2)
    whole = Objective(model.train())
    loss = whole(batch)
    loss.backward()
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert sum(part for part, _, _ in found) / 2 == pytest.approx(loss.item(), rel=1e-12)
    for _, gradients, _ in found:
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-10, atol=1e-14)
    model.eval()
    assert found[0][2] == pytest.approx(whole(of_images(batch, slice(0, 2))).item(), rel=1e-12)


@pytest.mark.slow
def test_a_run_on_two_processes_is_that_on_one_with_batches_twice_as_large(data, tmp_path, pytestconfig):
    environment = {**os.environ, "PYTHONPATH": str(pytestconfig.rootpath), "PYTHONWARNINGS": "ignore"}
    exact = ["model.dropout=0.0", "model.conditioning.dropout=0.0", "trainer.max_epochs=2", "trainer.precision=64-true"]
    for name, options in {
        "one": ["loader.batch_size=4"],
        "two": ["loader.batch_size=2", "trainer.devices=2", "trainer.strategy=ddp"],
    }.items():
        command = [sys.executable, "-m", "captioning.train", *short(data, tmp_path / name, *exact, *options)]
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=400)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert one["global_step"] == two["global_step"] == 4
    for name, value in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][name], value, rtol=1e-6, atol=1e-8)
    scores = [[row["val/greedy/CIDEr"] for row in rows(tmp_path / name)] for name in ("one", "two")]
    assert scores[0] == scores[1]


def test_loss_curves_of_half_and_full_precision_agree(data, tmp_path):
    """bfloat16 rounds each number by up to u = 2⁻⁸ of it. A caption's words go through R = 4 T + 3 products one after
    another (T steps of four, and the readout), whose errors have random signs: the logits are wrong by about u √R of
    themselves, and a log-softmax by at most twice as much as its logits. The loss is of the logits' size."""
    curves = {}
    for precision in ("32-true", "bf16-mixed"):
        options = ["model.dropout=0.0", "model.conditioning.dropout=0.0", "trainer.log_every_n_steps=1"]
        options += ["trainer.max_epochs=20", "trainer.check_val_every_n_epoch=20", f"trainer.precision={precision}"]
        run("train", *short(data, tmp_path / precision, *options, "optimizer.lr=5e-3"))
        curves[precision] = [float(row["train/loss"]) for row in rows(tmp_path / precision) if row["train/loss"]]
        kinds = {value.dtype for value in weights(tmp_path / precision)["state_dict"].values()}
        assert kinds == {torch.float32}
    full, half = curves.values()
    steps = 8  # the longest sentence, <end> among its words
    tolerance = 2 * 2**-8 * math.sqrt(4 * steps + 3)
    assert len(full) == 40 and full[-1] < full[0] / 2
    assert half[0] != full[0]  # it is another precision
    assert half == pytest.approx(full, rel=tolerance)
