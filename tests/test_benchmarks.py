"""Benchmarks run and leave their figures in one file; what the figures are is not tested."""

import json
import re
import subprocess
import sys
from pathlib import Path

import compare
import measure
import pytest
import torch
import training
import transformer_speed

FOLDER = Path(__file__).parent / "benchmarks"


def test_results_of_several_benchmarks_are_merged(tmp_path):
    path = tmp_path / "bench.json"
    measure.merge(path, {"a": {"value": 1.0}, "b": {"value": 2.0}})
    measure.merge(path, {"b": {"value": 3.0}})
    content = json.loads(path.read_text())
    assert content["results"] == {"a": {"value": 1.0}, "b": {"value": 3.0}}
    assert {"machine", "versions", "commit"} < content.keys()


def test_matrix_operations_are_counted():
    def job():
        with torch.inference_mode():
            torch.nn.functional.linear(torch.zeros(3, 4, 5), torch.zeros(7, 5), torch.zeros(7))
            torch.zeros(2, 3, 5) @ torch.zeros(2, 5, 4)

    assert measure.matrix_operations(job) == 2 * (3 * 4 * 5 * 7) + 2 * (2 * 3 * 5 * 4)


def file_of(path, **values):
    results = {name: {"value": value, "unit": "words/s", "rival_ratio": None} for name, value in values.items()}
    path.write_text(json.dumps({"results": results, "machine": {"cores": 2}, "commit": "abc"}))
    return str(path)


def test_two_files_of_results_are_compared(tmp_path, capsys):
    old, new = file_of(tmp_path / "old.json", same=200.0, gone=5.0), file_of(tmp_path / "new.json", same=500.0, fresh=3)
    compare.main([old, new])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["old", "value", "unit", "ratio", "rival_ratio", "floor_ratio", "peak_MiB"]
    assert lines[1:4] == [
        ["same", "200", "500", "words/s", "2.5", "-", "-", "-"],
        ["gone", "5", "-", "words/s", "-", "-", "-", "-"],
        ["fresh", "-", "3", "words/s", "-", "-", "-", "-"],
    ]
    compare.main([new])
    assert capsys.readouterr().out.splitlines()[1].split() == ["same", "500", "words/s", "-", "-", "-"]


def test_what_is_no_file_of_results_is_told_in_one_line(tmp_path):
    (tmp_path / "list.json").write_text("[]")
    for name, told in {"none.json": "No such file", "list.json": "this is not a file of `make bench`"}.items():
        with pytest.raises(SystemExit, match=rf"error: .*{name}: {told}"):
            compare.main([str(tmp_path / name)])


@pytest.fixture
def small():
    """(captioner, batch) of a kind: 2 images of 3 × 4 features, captions of equal length: without padding."""

    def make(kind, *, padded=False):
        shape = (4,) if kind == "fc" else (3, 4)
        model = training.build(kind, 4, vocabulary=20, width=8).double()
        batch = training.draw_batch(2, shape, vocabulary=20)
        tokens = batch.tokens if padded else batch.tokens[..., :8].clamp(min=1)
        return model, batch._replace(images=batch.images.double(), tokens=tokens)

    return make


def test_the_products_of_a_step_are_counted_by_hand(small):
    (b, p, d, h, v), n = (2, 3, 4, 8, 20), 2 * 5 * 7
    a = 512  # the scorer's width
    once = 4 * b * p * d * a + 4 * b * d * h + 6 * b * (h * h + h * h)  # keys; the initial state
    cell = 6 * n * (h * 4 * h + d * 4 * h + h * 4 * h)  # word, context, state
    look = 6 * n * (h * a + p * a + h) + 4 * n * p * d  # query, scores, gate; context
    readout = 6 * n * (h * h + d * h + h * v)
    model, batch = small("soft")
    assert training.minimum_operations(model, batch) == once + cell + look + readout
    model, batch = small("fc")
    once = 4 * b * d * h + 6 * b * h * 4 * h  # the image, to a word's width and into the cell
    cell, readout = 6 * n * (h * 4 * h + h * 4 * h), 6 * n * h * v
    assert training.minimum_operations(model, batch) == once + cell + readout


@pytest.mark.parametrize("kind", ["soft", "hard", "updown"])
def test_no_step_makes_fewer_products_than_the_minimum(small, kind):
    model, batch = small(kind)
    step = training.ours(kind, model, batch)
    assert measure.matrix_operations(step) >= training.minimum_operations(model, batch)


def test_the_rival_learns_the_same(small):
    model, batch = small("soft", padded=True)
    rival, step = training.alike("soft", model, batch).eval(), training.ours("soft", model.eval(), batch)
    assert (batch.tokens == 0).any()
    shared = [model.decoder.embedding.weight, rival.key.weight, rival.query.weight, model.conditioning.hidden.weight]
    own, other = step.loss()[0], rival(batch.images, batch.tokens)[0]
    torch.testing.assert_close(own, other, rtol=1e-9, atol=0)
    gradients = [torch.autograd.grad(total, shared, retain_graph=True) for total in (own, other)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)
    cell = model.decoder.recurrence.cell
    words, context = rival.cell.weight_ih.shape[1] - 4, 4
    for ours, theirs in zip(
        torch.autograd.grad(own, (cell.rnn.weight_ih_l0, cell.feedback.weight)),
        torch.autograd.grad(other, rival.cell.weight_ih)[0].split((words, context), 1),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("attention_dropout", [True, False])
def test_the_usual_transformer_learns_and_writes_the_same(attention_dropout):
    sizes = {"width": 8, "heads": 2, "layers": 2, "dropout": 0.3}
    size = transformer_speed.Size((3, 4), 20, sizes)
    model = transformer_speed.build(size).double()
    for parameter in model.parameters():  # biases are 0 at first
        torch.nn.init.normal_(parameter, std=0.5)
    batch = training.draw_batch(2, size.shape, vocabulary=20, lengths={2: 1, 5: 1})
    batch = batch._replace(images=batch.images.double())
    usual = transformer_speed.Usual(model, attention_dropout=attention_dropout)
    shares = {module.p for module in usual.modules() if isinstance(module, torch.nn.Dropout)}
    in_attention = {module.dropout for module in usual.modules() if isinstance(module, torch.nn.MultiheadAttention)}
    assert shares == {0.3} and in_attention == ({0.3} if attention_dropout else {0.0})
    assert (batch.tokens == 0).any()
    own = transformer_speed.ours(model.eval(), batch)()[0]
    other = usual.eval()(batch.images, batch.tokens)[0]
    torch.testing.assert_close(own, other, rtol=1e-9, atol=0)
    pairs = [(model.output.weight, usual.output.weight), (model.adapter[1].weight, usual.project.weight)]
    pairs += [(block.self_input.weight, layer.self_attn.in_proj_weight)
              for block, layer in zip(model.blocks, usual.decoder.layers, strict=True)]  # fmt: skip
    for ours, theirs in zip(
        torch.autograd.grad(own, [pair[0] for pair in pairs]),
        torch.autograd.grad(other, [pair[1] for pair in pairs]),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)
    found = transformer_speed.search(model, batch.images, tokens=6)
    assert [hypotheses[0].tokens for hypotheses in found] == usual.search(batch.images, tokens=6)


SCRIPTS = sorted({path.name for path in FOLDER.glob("*.py")} - {"measure.py", "compare.py", "beside.py", "simulate.py"})


def test_all_benchmarks_have_one_command_line(monkeypatch, tmp_path, capsys):
    def cases(arguments):
        yield "a/1", lambda: {"value": arguments.times, "unit": "s"}
        yield "b/1", lambda: pytest.fail("it was not asked for")

    def options(parser):
        parser.add_argument("--times", type=int)

    output, threads = tmp_path / "bench.json", torch.get_num_threads()
    arguments = ["--only", "a/", "--quick", "--threads", "1", "--shared", "x", "--output", str(output), "--times", "3"]
    monkeypatch.setattr(sys, "argv", ["bench", *arguments])
    measure.run(cases, "A benchmark.", options=options)
    torch.set_num_threads(threads)
    content = json.loads(output.read_text())
    assert list(content["results"]) == ["a/1"] and content["results"]["a/1"]["value"] == 3
    assert capsys.readouterr().out == "a/1: value 3, unit s\n"
    for script in SCRIPTS:
        source = (FOLDER / script).read_text()
        assert "run(cases, __doc__.splitlines()[0]" in source and "ArgumentParser" not in source, script


def test_make_bench_leaves_the_long_run_out():
    makefile = (FOLDER.parents[1] / "Makefile").read_text()
    assert re.search(r"^BENCHMARKS = .*filter-out .*%/soak\.py", makefile, re.MULTILINE)
    assert "--minutes 30" in re.search(r"^soak:.*?\n\n", makefile, re.MULTILINE | re.DOTALL)[0]


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_every_benchmark_runs(script, tmp_path, request):
    output = tmp_path / "bench.json"
    command = [sys.executable, str(FOLDER / script), "--quick", "--output", str(output)]
    if "arguments.shared" in (FOLDER / script).read_text():  # it measures on real captions
        command += ["--shared", str(request.getfixturevalue("shared_dir"))]
    root = str(FOLDER.parents[1])
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env={"PYTHONPATH": root})
    assert done.returncode == 0, done.stderr
    for result in json.loads(output.read_text())["results"].values():
        assert {"value", "unit", "rival_ratio", "floor_ratio", "peak_MiB"} <= result.keys() and result["value"] > 0
