"""Processes on one machine divide its cores, and a container's quota."""

import os

import pytest

from captioning.features import cores_per_process, ranks
from captioning.features.ranks import Rank


@pytest.mark.parametrize(
    ("affinity", "quota", "beside", "cores"),
    [
        (16, None, 1, 16),
        (16, None, 4, 4),
        (16, None, 32, 1),
        (4, None, 4, 4),  # srun has given this process four of the sixteen
        (16, 8.0, 4, 2),
        (16, 1.5, 1, 2),
        (16, 0.5, 4, 1),
        (4, 100.0, 4, 4),
    ],
)
def test_cores_of_a_process(monkeypatch, affinity, quota, beside, cores):
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(affinity), raising=False)
    monkeypatch.setattr(ranks, "cpu_quota", lambda: quota)
    assert cores_per_process(Rank(0, beside, 0, beside)) == cores
