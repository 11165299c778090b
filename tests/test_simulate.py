"""The simulation of large runs computes what can be computed by hand, and names the bottleneck."""

import json
from dataclasses import replace

import pytest
import simulate
from simulate import Cluster, Rates, Work

WORK = Work(images=64_000, places=10, features=100, image_bytes=1e5, batch=64, epochs=2, record_bytes=1e3)
FAST = Rates(encode_seconds=1e-3, decode_seconds=1e-2, words_rate=368_000, load_seconds=0, start_seconds=0, weights=1e6)


def test_preparing_takes_as_long_as_the_slowest_resource():
    machine = Cluster(devices=1, cores=16, disk=1e9)
    # encoder 64 s; decoding 64,000 · 10 ms / 16 cores = 40 s; disk 64,000 · (100,000 + 2,000) / 1e9 = 6.528 s
    found = simulate.prepare(WORK, FAST, machine)
    assert found[:2] == (pytest.approx(64), "encoder") and found.disk == 64_000 * 102_000
    assert simulate.prepare(WORK, FAST, replace(machine, devices=2))[:2] == (pytest.approx(40), "cores (decoding)")
    assert simulate.prepare(WORK, FAST, replace(machine, disk=1e7))[:2] == (pytest.approx(652.8), "disk")
    slow = simulate.prepare(WORK, replace(FAST, start_seconds=65), machine)
    assert slow[:2] == (pytest.approx(129), "start")


def test_training_adds_the_sum_of_the_gradients_to_the_step():
    # 64 images · 5 captions · 11.5 words / 368,000 words/s = 10 ms per step, 2,000 steps
    one = simulate.train(WORK, FAST, Cluster(cores=16))
    assert one[:2] == (pytest.approx(20), "device") and one.network == 0
    # 16 devices: 125 steps; 2 · 4 MB · 15 / 16 at 0.5 GB/s = 15 ms, and no latency
    cluster = Cluster(devices=16, per_machine=8, cores=16, network=5e8, latency=0)
    many = simulate.train(WORK, FAST, cluster)
    assert many[:2] == (pytest.approx(125 * 0.025), "network")
    assert many.network == pytest.approx(125 * 7.5e6)
    inside = simulate.train(WORK, FAST, replace(cluster, per_machine=16))
    assert inside.network == 0 and inside.bottleneck == "device"


def test_features_that_do_not_fit_into_memory_are_read_in_every_epoch():
    small = Cluster(devices=8, cores=64, memory=8.2e9)  # 8 processes of 1 GB, 192 MB of data: too little is left
    assert not simulate.cached(WORK, small) and simulate.cached(WORK, replace(small, memory=9e9))
    slow = simulate.train(WORK, FAST, replace(small, disk=1e6))
    # 128 MB of features in two epochs, at 1 MB/s
    assert slow.bottleneck == "disk" and slow.disk == 2 * 128e6
    assert slow.seconds == pytest.approx(256 + 250 * simulate.reduce_seconds(FAST, small), rel=1e-6)


def test_processes_that_need_more_memory_than_a_machine_has_are_the_bottleneck():
    cluster = Cluster(devices=8, memory=8.1e9)
    assert simulate.train(WORK, FAST, cluster).bottleneck != "memory: does not fit"  # 8 · 1 GB
    found = simulate.train(WORK, FAST, replace(cluster, memory=7.9e9))
    assert found.bottleneck == "memory: does not fit"


def test_self_critical_training_waits_for_the_rewards():
    rates = replace(FAST, sample_rate=6400, reward_seconds=1e-3)
    work = replace(WORK, scst_epochs=1)
    # 10 ms of sampling, 10 ms of learning, 64 · 6 rewards of 1 ms; 1,000 steps
    found = simulate.self_critical(work, rates, Cluster(cores=16))
    assert found[:2] == (pytest.approx(404), "cores (reward)")


def test_processes_beyond_the_cores_share_them():
    results = {
        "scale/prepare/encode": {"value": 20.0},
        "scale/prepare/decode": {"value": 100.0},
        "scale/train/step": {"value": 0.5},
        "scale/train/reduce": {"value": 0.1},
        "scale/train/weights": {"value": 1000},
    }
    results |= {f"scale/{kind}/{number}": {"value": 1.0} for kind in ("prepare", "train") for number in (1, 2, 4)}
    found = simulate.predictions(results, cores=2)
    # An image takes 50 ms of the encoder and 10 ms of a loader process: two cores manage 2 / 60 ms.
    assert {number: found[f"scale/prepare/{number}"] for number in (1, 2, 4)} == pytest.approx(
        {1: 20.0, 2: 2 / 0.06, 4: 2 / 0.06}
    )
    # Four processes on two cores take two turns per step, and send 4 · 3/4 instead of 2 · 1/2 of twice the gradients.
    assert {number: found[f"scale/train/{number}"] for number in (1, 2, 4)} == pytest.approx(
        {1: 2.0, 2: 2 / 0.6, 4: 4 / (1.0 + 0.3)}
    )


def test_predictions_are_compared_with_what_was_measured(tmp_path, capsys):
    results = {f"scale/parts/{name}": {"value": 1.0} for name in ("encode", "decode", "step", "reduce", "weights")}
    results["scale/train/1"] = {"value": 0.9, "unit": "batches/s"}
    path = tmp_path / "bench.json"
    path.write_text(json.dumps({"results": results, "machine": {"cores": 2}}))
    simulate.main(["--check", str(path)])
    assert capsys.readouterr().out.splitlines()[-1] == "| `scale/train/1` | 0.9 batches/s | 1 | 1.11 |"
    results["scale/train/1"]["value"] = 0.7
    path.write_text(json.dumps({"results": results, "machine": {"cores": 2}}))
    with pytest.raises(SystemExit, match="wrong by 43%, which is more than 25 %"):
        simulate.main(["--check", str(path)])


def test_numbers_can_be_set(capsys):
    simulate.main(["--set", "start_seconds=0", "encode_seconds=1"])
    assert f"| COCO | 1 | {123_287 / 3600:.3g} h (encoder) |" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="error: --set speed=1: type NAME=NUMBER with one of images, "):
        simulate.main(["--set", "speed=1"])


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.5, "0.5 s"), (119, "119 s"), (180, "3 min"), (7200, "2 h"), (172_800, "2 days")]
)
def test_times_are_in_a_suitable_unit(seconds, text):
    assert simulate.duration(seconds) == text
