"""Threads are chosen from environment, cores and quota, before torch is loaded; what the user has set stays."""

import os
import subprocess
import sys

import pytest
import torch

from captioning.io import choose_threads, cpu_quota, set_threads, share_threads, threads

SPINS = {"GOMP_SPINCOUNT": "6000"}


@pytest.mark.parametrize(
    ("environment", "affinity", "quota", "chosen"),
    [
        ({}, 2, None, SPINS),
        ({"PATH": "/bin"}, 64, 64.0, SPINS),
        ({}, 64, 100.0, SPINS),
        ({}, 64, 8.0, SPINS | {"OMP_NUM_THREADS": "8"}),
        ({}, 2, 1.5, SPINS),  # two threads, each for three quarters of the time
        ({}, 8, 1.5, SPINS | {"OMP_NUM_THREADS": "2"}),
        ({}, 2, 0.5, SPINS | {"OMP_NUM_THREADS": "1"}),
        ({}, 1, 0.5, SPINS),
        ({"OMP_NUM_THREADS": "5"}, 64, 8.0, SPINS),
        ({"MKL_NUM_THREADS": "5"}, 64, 8.0, SPINS),
        ({"OMP_WAIT_POLICY": "active"}, 2, None, {}),
        ({"OMP_WAIT_POLICY": "passive"}, 2, 1.0, {"OMP_NUM_THREADS": "1"}),
        ({"GOMP_SPINCOUNT": "infinity", "OMP_NUM_THREADS": "2"}, 2, 1.0, {}),
    ],
)
def test_variables_are_chosen_from_environment_cores_and_quota(environment, affinity, quota, chosen):
    assert choose_threads(environment, affinity=affinity, quota=quota) == chosen


def files(folder, **contents):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        (folder / name.replace("cpu_", "cpu.")).write_text(f"{text}\n")


def test_the_quota_is_the_smallest_of_all_groups_around_the_process(tmp_path):
    groups = tmp_path / "cgroup"
    groups.write_text("0::/slice/job\n")
    root = tmp_path / "two"
    files(root / "slice" / "job", cpu_max="max 100000")
    assert cpu_quota(groups, root) is None
    files(root / "slice", cpu_max="250000 100000")
    assert cpu_quota(groups, root) == 2.5
    files(root / "slice" / "job", cpu_max="40000 80000")
    assert cpu_quota(groups, root) == 0.5


@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
def test_the_quota_of_groups_of_version_1(tmp_path, mount):
    groups = tmp_path / "cgroup"
    groups.write_text("5:memory:/elsewhere\n1:cpu,cpuacct:/docker/abc\n0::/\n")
    root = tmp_path / "one"
    files(root / mount, cpu_cfs_quota_us="150000", cpu_cfs_period_us="100000")  # docker/abc is visible only outside
    files(root / "memory" / "elsewhere", cpu_cfs_quota_us="10000", cpu_cfs_period_us="100000")  # no group of the CPU
    assert cpu_quota(groups, root) == 1.5
    files(root / mount / "docker" / "abc", cpu_cfs_quota_us="-1", cpu_cfs_period_us="100000")
    assert cpu_quota(groups, root) == 1.5
    assert cpu_quota(tmp_path / "missing", root) is None


def test_nothing_is_set_once_torch_is_loaded(monkeypatch):
    monkeypatch.setattr(os, "environ", {})
    set_threads()
    assert os.environ == {}
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(threads, "_chosen", {})
    monkeypatch.setattr(threads, "cpu_quota", lambda: 1.0)
    monkeypatch.setattr(threads, "_affinity", lambda: 4)
    set_threads()
    assert os.environ == SPINS | {"OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize(("processes", "left"), [(1, 6), (2, 3), (4, 1), (16, 1)])
def test_processes_of_a_run_share_the_threads_of_a_quota(monkeypatch, processes, left):
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    monkeypatch.setattr(os, "environ", {"OMP_NUM_THREADS": "6"})
    monkeypatch.setattr(threads, "_chosen", {})
    share_threads(processes)  # the user's own number
    assert os.environ == {"OMP_NUM_THREADS": "6"} and not asked
    monkeypatch.setattr(threads, "_chosen", {"OMP_NUM_THREADS": "6"})
    for _ in range(2):  # a run may build its trainer twice
        share_threads(processes)
    assert os.environ == {"OMP_NUM_THREADS": str(left)} and asked == ([left, left] if processes > 1 else [])


PROGRAM = """
import importlib, os, sys
from captioning.__main__ import COMMANDS
for name in COMMANDS:
    importlib.import_module(f"captioning.{name}")
    assert "torch" not in sys.modules, name
sys.argv = ["captioning-score", "--version"]
sys.modules["captioning.score"].main()
print(os.environ["GOMP_SPINCOUNT"])
"""


def test_no_command_loads_torch_before_the_threads_are_set():
    environment = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "6000"
