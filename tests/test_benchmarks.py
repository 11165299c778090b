"""Benchmarks run and leave their figures in one file; what the figures are is not tested."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "benchmarks"
sys.path.insert(0, str(FOLDER))

import measure  # noqa: E402


def test_results_of_several_benchmarks_are_merged(tmp_path):
    path = tmp_path / "bench.json"
    measure.merge(path, {"a": {"value": 1.0}, "b": {"value": 2.0}})
    measure.merge(path, {"b": {"value": 3.0}})
    content = json.loads(path.read_text())
    assert content["results"] == {"a": {"value": 1.0}, "b": {"value": 3.0}}
    assert {"machine", "versions", "commit"} < content.keys()


def test_matrix_operations_are_counted():
    import torch

    def job():
        with torch.inference_mode():
            torch.nn.functional.linear(torch.zeros(3, 4, 5), torch.zeros(7, 5), torch.zeros(7))
            torch.zeros(2, 3, 5) @ torch.zeros(2, 5, 4)

    assert measure.matrix_operations(job) == 2 * (3 * 4 * 5 * 7) + 2 * (2 * 3 * 5 * 4)


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted(path.name for path in FOLDER.glob("*.py") if path.name != "measure.py"))
def test_every_benchmark_runs(script, tmp_path, request):
    output = tmp_path / "bench.json"
    command = [sys.executable, str(FOLDER / script), "--quick", "--output", str(output)]
    if "--shared" in (FOLDER / script).read_text():  # it measures on real captions
        command += ["--shared", str(request.getfixturevalue("shared_dir"))]
    root = str(FOLDER.parents[1])
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env={"PYTHONPATH": root})
    assert done.returncode == 0, done.stderr
    for result in json.loads(output.read_text())["results"].values():
        assert {"value", "unit", "rival_ratio", "floor_ratio", "peak_MiB"} <= result.keys() and result["value"] > 0
