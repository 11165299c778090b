"""What a user can get wrong in a training: one line that names the key, before any feature is made, nothing lost."""

import itertools
import json
import os
import re
import subprocess
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
import torch
from small_world import run, short
from toys import ATTENTIONS, RECURRENCES

import captioning.features.sources
from captioning.checkpoints import read_checkpoint
from captioning.config import conf_dir, entry_point
from captioning.config.schemas import TrainConfig
from captioning.errors import CaptioningError, ConfigError
from captioning.inference import Predictor, load
from captioning.models import DeepReadout, LinearReadout, SumReadout, build_captioner
from captioning.objectives import SelfCritical, greedy, leave_one_out


@pytest.fixture
def before_features(data, tmp_path, monkeypatch):
    """refused(*overrides) -> what training says; it must say it before a picture is looked at, and leave nothing."""

    def extract(*_, **__):
        raise AssertionError("features are being made")

    monkeypatch.setattr(captioning.features.sources, "extract", extract)

    def refused(*overrides: str) -> str:
        root, run_dir = f"features.root={tmp_path}/no features", tmp_path / "run"
        with pytest.raises(CaptioningError) as caught:
            run("train", *short(data, run_dir), root, *overrides)
        assert not run_dir.exists()
        return str(caught.value)

    return refused


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (["encoder.output=fc"], "model/attention=soft needs a feature grid"),
        (["model/readout=sum"], "Set model.feature_width=32"),
        (["objective=self_critical", "objective.location_loss.scale=1", "reward.cider_d=0"], "are both 0: set"),
        (["objective=scheduled_sampling", "objective.inputs.every=0"], "objective.inputs"),
        (["decoding=beam", "decoding.n_best=9"], "decoding.n_best (9)"),
        (["decoding.max_length=0"], "decoding.max_length (0)"),
        (["optimizer.betas=[2.0,0.9]"], "optimizer: Invalid beta"),
        (["trainer.precision=7"], "trainer: "),
        (["data.min_count=100"], "data.min_count"),
        (["trainer.limit_val_batches=0"], "set early_stopping=none"),
        (
            ["decoding.require=[dgo]"],
            "decoding.require: 'dgo' is not in the vocabulary. Did you mean 'dog'?",
        ),
    ],
)
def test_a_part_that_cannot_be_is_told_before_the_features(before_features, fault, told):
    assert told in before_features(*fault)


@pytest.mark.parametrize(
    "fault",
    [
        "model.layers=0",
        "model.width=0",
        "model.embedding_size=-3",
        "model.feature_width=0",
        "model.dropout=1.5",
        "model.dropout=-0.1",
        "model.readout.dropout=1",
        "model.conditioning.dropout=2",
        "model.scorer.width=0",
        "encoder.image_size=0",
        "loader.batch_size=0",
        "loader.val_batch_size=0",
        "features.batch_size=0",
        "features.workers=-1",
        "data.captions_per_image=0",
        "data.min_count=-1",
        "data.max_length=0",
        "objective.doubly_stochastic=-1",
        "objective.label_smoothing=1.5",
        "objective.location_loss.scale=-1",
        "objective.location_loss.baseline.decay=1.1",
        "optimizer.lr=0",
        "schedule.warmup=-1",
        "encoder_lr=0",
        "encoder_warmup=-1",
        "trainer.gradient_clip_val=-1",
        "trainer.skip_nonfinite=-1",
        "trainer.accumulate_grad_batches=0",
        "trainer.check_val_every_n_epoch=0",
        "trainer.limit_train_batches=0",
        "trainer.max_epochs=0",
        "early_stopping.patience=-1",
    ],
)
def test_a_number_out_of_its_range_is_told_by_its_key(before_features, fault):
    key, _, value = fault.partition("=")
    told = before_features(fault)
    assert told.startswith((f"{key} must be ", f"{key}={value} ")) and value in told


@pytest.mark.parametrize("command", ["evaluate", "caption"])
def test_a_batch_needs_a_picture(command, tmp_path):
    what = {"evaluate": ["data=csv"], "caption": ["images=[]"]}[command]
    with pytest.raises(ConfigError, match="batch_size must be at least 1, not 0"):
        run(command, "checkpoint=none.ckpt", "batch_size=0", f"output={tmp_path}/out", *what)


def test_a_readout_may_have_its_own_dropout(toy):
    captioner = toy(dropout=0.5)
    assert captioner.decoder.readout.dropout.p == 0.5
    captioner = build_captioner(
        feature_size=4, grid=True, vocabulary_size=9, readout=partial(DeepReadout, dropout=0.2), dropout=0.5
    )
    assert captioner.decoder.readout.dropout.p == 0.2


def test_one_sample_has_no_others_to_be_held_against():
    reward = {"start": 1, "end": 2, "samples": 1}
    with pytest.raises(ConfigError, match=r"objective\.samples \(1\)"):
        SelfCritical(lambda *_: [], baseline=partial(leave_one_out), **reward)
    assert SelfCritical(lambda *_: [], baseline=partial(greedy), **reward)


def command_line(monkeypatch, capsys, *overrides: str) -> tuple[dict | None, str]:
    """What captioning-train's job is given, and what the command says where it refuses."""
    given = []
    monkeypatch.setattr(sys, "argv", ["captioning-train", *overrides])
    try:
        entry_point("train", TrainConfig, given.append)()
    except SystemExit as exit_:
        capsys.readouterr()
        return None, str(exit_.code)
    return given[0], ""


def test_null_is_what_none_is(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    null, _ = command_line(
        monkeypatch, capsys, "run_dir=x", "early_stopping=null", "weight_averaging=null", "model/attention=null"
    )
    none, _ = command_line(
        monkeypatch, capsys, "run_dir=x", "early_stopping=none", "weight_averaging=none", "model/attention=none"
    )
    assert null == none and not null["early_stopping"]
    removed, _ = command_line(monkeypatch, capsys, "run_dir=x", "~early_stopping", "experiment=null")
    assert removed["early_stopping"] is None


DATA = ", ".join(sorted(path.stem for path in (conf_dir() / "data").glob("*.yaml")))


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("data=null", f"error: data=null is not possible: choose one of {DATA}"),
        ("model=null", "error: model=null is not possible: choose one of answerer, default, language, transformer"),
        ("model/readout=null", "error: model/readout=null is not possible: choose one of deep, linear, sum"),
        ("~data", f"error: data is not set: give data=NAME, one of {DATA}"),
        ("model.readout=null", "error: model.readout must not be null"),
    ],
)
def test_what_cannot_be_null_lists_the_choices(monkeypatch, capsys, tmp_path, override, told):
    monkeypatch.chdir(tmp_path)
    assert command_line(monkeypatch, capsys, override) == (None, told)


@pytest.mark.slow
def test_a_run_goes_on_with_the_encoder_that_it_had(data, tmp_path):
    online = [item for item in data if not item.startswith("features.root")]
    tuning = ["features=online", "encoder.unfreeze_from=head", "encoder_lr=0.01", "trainer.max_epochs=1"]
    first, tuned = tmp_path / "first", tmp_path / "tuned"
    last = f"{first}/checkpoints/last.ckpt"
    run("train", *short(data, first, "trainer.max_epochs=1"))
    before = (first / "checkpoints" / "last.ckpt").read_bytes()
    for key, run_dir in (("resume", first), ("start_from", tmp_path / "none")):
        with pytest.raises(ConfigError, match=f"{key}: the checkpoint was trained with other encoder weights"):
            run("train", *short(data, run_dir, f"{key}={last}", "encoder.weights=null"))
    with pytest.raises(ConfigError, match="resume: the checkpoint's encoder is frozen, but this run's is fine-tuned"):
        run("train", *short(online, first, f"resume={last}", *tuning))
    assert (first / "checkpoints" / "last.ckpt").read_bytes() == before and not (tmp_path / "none").exists()

    run("train", *short(online, tuned, f"start_from={last}", *tuning))
    last = f"{tuned}/checkpoints/last.ckpt"
    run("train", *short(online, tuned, f"resume={last}", *tuning, "trainer.max_epochs=2"))
    with pytest.raises(ConfigError, match="resume: the checkpoint's encoder is fine-tuned, but this run's is frozen"):
        run("train", *short(data, tuned, f"resume={last}"))
    frozen = tmp_path / "frozen"  # on stored features of the encoder as it was tuned
    run("train", *short(data, frozen, f"start_from={last}", "trainer.max_epochs=1"))
    expected = load(last).encoder.state_dict()
    found = load(frozen / "checkpoints" / "last.ckpt").encoder.state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_regions_have_no_rows_and_columns(world, tmp_path):
    regions = ["encoder=regions", "features=regions", f"features.root={tmp_path}/none", "data.min_count=1"]
    with pytest.raises(ConfigError, match=r"not a detector's regions\. Set model/positions=none"):
        run("train", "data=csv", f"data.root={world}", *regions, "model/positions=coordinates", f"run_dir={tmp_path}/r")


READOUTS = {"deep": DeepReadout, "linear": LinearReadout, "sum": SumReadout}


def refusal(recurrence, readout, attention, output, feature_width=None) -> str:
    """Why these cannot go together; "" where they do. The adaptive choice brings its feature width."""
    width = 8 if recurrence == "adaptive" and feature_width is None else feature_width
    try:
        build_captioner(
            feature_size=6, grid=output == "grid", vocabulary_size=9, recurrence=RECURRENCES[recurrence],
            readout=READOUTS[readout], attention=ATTENTIONS[attention], width=8, embedding_size=4,
            feature_width=None if width is None else int(width),
        )  # fmt: skip
    except ConfigError as error:
        return str(error)
    return ""


def remedies(message: str) -> list[dict]:
    settings = re.sub(r"\(.*?\)", "", re.split(r"\b[Ss]et ", message, maxsplit=1)[-1])
    found = [re.findall(r"(?:model/|model\.|encoder\.)(\w+)=(\w+)", each) for each in re.split(",? or |, ", settings)]
    return [dict(pairs) for pairs in found if pairs]


def mended(parts: dict, steps: int) -> bool:
    message = refusal(**parts)
    return not message or (steps > 0 and any(mended(parts | remedy, steps - 1) for remedy in remedies(message)))


@pytest.mark.parametrize("recurrence", RECURRENCES)
def test_what_a_refusal_tells_to_set_mends_it(recurrence):
    refused = 0
    for readout, attention, output in itertools.product(READOUTS, ATTENTIONS, ("grid", "fc")):
        parts = {"recurrence": recurrence, "readout": readout, "attention": attention, "output": output}
        if message := refusal(**parts):
            refused += 1
            assert remedies(message), message
            for remedy in remedies(message):
                assert refusal(**parts | remedy) != message, f"{parts}: {remedy} changes nothing"
                assert mended(parts | remedy, 2), f"{parts}: {remedy} leads nowhere"
    assert refused


def test_a_sweep_runs_in_the_folder_that_is_given(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    given = []

    def job(config):
        given.append(config)

    def sweep(*overrides):
        monkeypatch.setattr(sys, "argv", ["captioning-train", "-m", "model.width=8,16", *overrides])
        entry_point("train", TrainConfig, job)()

    sweep("run_dir=my runs/a")
    assert [Path(config["run_dir"]).resolve() for config in given] == [tmp_path / "my runs" / "a" / n for n in "01"]
    assert [config["model"]["width"] for config in given] == [8, 16]
    assert [path.name for path in tmp_path.iterdir()] == ["my runs"]
    sweep("run_dir=b", "hydra.sweep.dir=c")
    assert [Path(config["run_dir"]).resolve() for config in given[2:]] == [tmp_path / "c" / n for n in "01"]
    with pytest.raises(SystemExit, match="error: run_dir cannot be swept: give one folder"):
        sweep("run_dir=a,b")


@pytest.mark.parametrize("start", [False, True])
def test_rewards_from_the_first_step_on_are_warned_of(data, trained, tmp_path, capsys, start):
    first = [f"start_from={trained}"] if start else []
    capsys.readouterr()
    run("train", *short(data, tmp_path / "run", "objective=self_critical", "trainer.max_steps=1", *first))
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert len(lines) == (not start) and all("start_from=CHECKPOINT" in line for line in lines)


@pytest.mark.parametrize("ends", [RuntimeError, KeyboardInterrupt, None])
def test_captions_made_so_far_are_never_lost(trained, world, tmp_path, monkeypatch, ends):
    output, batches, original = tmp_path / "out", [], Predictor.all_captions

    def breaks(self, pictures, search, **names):
        batches.append(len(pictures))
        if len(batches) == 3:
            if ends is None:  # as a kill would find it
                assert len(json.loads((output / "captions.json").read_text())) == 4
            else:
                raise ends
        return original(self, pictures, search)

    monkeypatch.setattr(Predictor, "all_captions", breaks)
    if ends is None:
        monkeypatch.setattr("captioning.caption.SECONDS", 0.0)
    images = ",".join(f"{world}/val{index}.png" for index in range(6))
    arguments = [f"checkpoint={trained}", f"images=[{images}]", "batch_size=2", "figures=[]"]  # they take long
    with pytest.raises(ends) if ends else nullcontext():
        run("caption", *arguments, f"output={output}")
    found = json.loads((output / "captions.json").read_text())
    assert [Path(item["file_name"]).name for item in found] == [f"val{index}.png" for index in range(4 if ends else 6)]


BREAKS = """
import torch
import captioning.train
from captioning.objectives import CrossEntropy

original, calls = CrossEntropy.forward, []

def breaks(self, model, batch):
    loss = original(self, model, batch)
    calls.append(model.training)
    if not model.training or sum(calls) != 2 or torch.distributed.get_rank() != 1:
        return loss
    with open("ids", "w") as file:
        file.write(", ".join(map(str, batch.image_ids.tolist())))
    parts = loss.parts | {"cross_entropy": loss.total.detach() * torch.nan}
    return loss._replace(total=loss.total * torch.nan, parts=parts)

CrossEntropy.forward = breaks
captioning.train.main()
"""


@pytest.mark.slow
def test_two_processes_leave_out_and_stop_together(data, tmp_path, pytestconfig):
    script = tmp_path / "breaks.py"
    script.write_text(BREAKS)
    environment = {**os.environ, "PYTHONPATH": str(pytestconfig.rootpath), "PYTHONWARNINGS": "ignore"}
    two = ["loader.batch_size=2", "trainer.devices=2", "trainer.strategy=ddp", "trainer.max_epochs=2"]  # 2 steps each

    def train_on_two(*overrides):
        command = [sys.executable, script, *short(data, tmp_path / "run", *two, *overrides)]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400)

    done = train_on_two()
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    told = f"step 1: train/cross_entropy is nan (batch with image ids {(tmp_path / 'ids').read_text()}). "
    assert done.returncode == 1 and line.startswith(f"error: {told}")
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert read_checkpoint(last)["global_step"] == 1

    done = train_on_two("trainer.skip_nonfinite=1", "overwrite=true")
    assert done.returncode == 0 and done.stderr.count("Skipped this batch (1 of at most trainer.skip_nonfinite=1)") == 1
    saved = read_checkpoint(last)
    assert saved["skipped"] == 1 and all(value.isfinite().all() for value in saved["state_dict"].values())
