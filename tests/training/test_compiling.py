"""trainer.compile: the same numbers and names as without, and a run without a compiler goes on."""

import os
import subprocess
import sys

import pytest
import torch
from small_world import SMALL, run

from captioning.checkpoints import read_checkpoint
from captioning.data import CaptionBatch
from captioning.models import LSTM, Additive
from captioning.objectives import CrossEntropy
from captioning.training import compile_parts
from captioning.training.compile import _PARTS, why_not

MODELS = {
    "lstm": {},
    "gru": {"recurrence": "adaptive", "cell": "gru"},
}


@pytest.fixture
def compiler():
    if fault := why_not("cpu"):
        pytest.skip(f"torch.compile does not work here: {fault}")
    torch.compiler.reset()


@pytest.fixture
def broken(monkeypatch):
    """No compiler."""

    def fail(*_, **__):
        raise RuntimeError("No working C++ compiler found\nSet something")

    monkeypatch.setattr(torch, "compile", fail)


def batch_of(tokens, *, masked: bool) -> CaptionBatch:
    images = torch.randn(len(tokens), 4, 6, dtype=torch.float64)
    mask = torch.tensor([[True] * 4, [True] * 3 + [False], [True] + [False] * 3])[: len(tokens)] if masked else None
    return CaptionBatch(torch.arange(len(tokens)), images, mask, tokens)


def gradients(model, objective, batch) -> dict[str, torch.Tensor]:
    model.zero_grad()
    total = objective(model, batch).total
    total.backward()
    return {"loss": total.detach()} | {name: value.grad.clone() for name, value in model.named_parameters()}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_compiled_parts_give_the_same_loss_and_gradients(toy, toy_tokens, compiler, name):
    model, objective = toy(**MODELS[name]).train(), CrossEntropy(label_smoothing=0.1)
    batches = [batch_of(toy_tokens, masked=False), batch_of(toy_tokens[:2, :2], masked=True)]
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    expected = [gradients(model, objective, batch) for batch in batches]
    torch._dynamo.utils.counters.clear()
    assert compile_parts(torch.nn.ModuleList([model, objective]), "cpu") == ""
    for batch, wanted in zip(batches, expected, strict=True):
        found = gradients(model, objective, batch)
        assert found.keys() == wanted.keys()
        for key, value in found.items():
            torch.testing.assert_close(value, wanted[key], rtol=1e-9, atol=1e-12, msg=key)
    # Nothing fell back to what is not compiled, after too many graphs or at a part of a graph.
    counters = torch._dynamo.utils.counters
    assert not counters["graph_break"] and not counters["unimplemented"] and counters["stats"]["unique_graphs"] > 2


def test_names_of_weights_stay_as_they_are(toy, monkeypatch):
    monkeypatch.setattr("captioning.training.compile.why_not", lambda device: "")
    module = torch.nn.ModuleList([toy(), CrossEntropy()])
    before = list(module.state_dict())
    assert compile_parts(module, "cpu") == ""
    assert list(module.state_dict()) == before
    compiled = {type(part) for part in module.modules() if part._compiled_call_impl is not None}
    assert compiled == {LSTM, Additive} and all(issubclass(part, _PARTS) for part in compiled)


def test_without_a_compiler_nothing_is_compiled(toy, broken):
    model = toy()
    assert compile_parts(model, "cpu") == "No working C++ compiler found"
    assert not any(part._compiled_call_impl for part in model.modules())


def test_a_run_without_a_compiler_goes_on_and_says_so(data, tmp_path, broken, capsys):
    settings = [*data, *SMALL, "trainer.max_epochs=1", "trainer.compile=true"]
    run("train", *settings, f"run_dir={tmp_path}/run")
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()
    told = "warning: trainer.compile=true has no effect: torch cannot compile here (No working C++ compiler found)"
    assert capsys.readouterr().err.count(told) == 1


@pytest.mark.slow
def test_the_compiler_is_really_tried(tmp_path, pytestconfig):
    """In a process whose compiler is not there."""
    code = "from captioning.training.compile import why_not; print(why_not('cpu'))"
    environment = {**os.environ, "PYTHONPATH": str(pytestconfig.rootpath), "CXX": "/nowhere/g++"}
    environment["TORCHINDUCTOR_CACHE_DIR"] = str(tmp_path)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "/nowhere/g++" in done.stdout and len(done.stdout.splitlines()) == 1


@pytest.mark.slow
def test_a_compiled_run_is_gone_on_with_uncompiled(data, tmp_path, compiler):
    settings = [*data, *SMALL, f"run_dir={tmp_path}/run", "decoding=beam", "weight_averaging=ema"]
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    run("train", *settings, "trainer.max_epochs=1", "trainer.compile=true")
    names = read_checkpoint(last)["state_dict"].keys()
    run("train", *settings, "trainer.max_epochs=2", f"resume={last}")
    checkpoint = read_checkpoint(last)
    assert checkpoint["state_dict"].keys() == names and checkpoint["global_step"] == 4
