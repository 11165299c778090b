"""Fine-tuning from stored outputs of the frozen part: the same run as online, its checkpoints, stores and refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from miniatures import flickr8k
from small_world import SMALL, run, short, weights

from captioning.config import CaptionTrainConfig, ExportConfig, build_encoder, check, compose
from captioning.errors import ConfigError
from captioning.export import export
from captioning.features import sources
from captioning.features.sources import FeatureStore
from captioning.inference import load

TUNE = ["encoder.unfreeze_from=blocks.14", "encoder_lr=1e-3", "trainer.max_epochs=1", "model.dropout=0"]


@pytest.fixture
def stores(data):
    """The folder of the stores, and how many there are now."""
    root = Path(next(item for item in data if item.startswith("features.root")).partition("=")[2])
    return lambda: {path.parent.name for path in root.glob("*/manifest.json")}


def online(data, *more: str) -> list[str]:
    return [*(item for item in data if not item.startswith("features.root")), "features=online", *more]


def test_a_run_from_the_store_is_the_run_online(data, tmp_path, monkeypatch):
    """With the stored values in full precision, bit for bit: loss, gradients and moments decide every weight."""
    monkeypatch.setattr(torch.Tensor, "half", torch.Tensor.float)
    kept = {}
    monkeypatch.setattr(FeatureStore, "append", lambda self, image, stamp, value: kept.__setitem__(image, value.copy()))
    monkeypatch.setattr(FeatureStore, "locations", lambda self, ids: np.array([[(i in kept) - 1] * 2 for i in ids]))
    monkeypatch.setattr(FeatureStore, "__getitem__", lambda self, image: kept[image])
    run("train", *short(data, tmp_path / "stored", *TUNE, f"features.root={tmp_path}/none"))
    run("train", *short(online(data), tmp_path / "online", *TUNE, "features.workers=0"))
    assert kept
    stored, expected = (weights(tmp_path / name)["state_dict"] for name in ("stored", "online"))
    assert stored.keys() == expected.keys() and any(name.startswith("captioner.encoder.") for name in stored)
    assert not [name for name, value in expected.items() if not torch.equal(value, stored[name])]


def test_a_tuned_checkpoint_is_whole_and_shares_the_store(data, tmp_path, stores, world):
    views = ["features.mirror=true", "features.crops=0.75"]
    run("train", *short(data, tmp_path / "run", *TUNE, *views, "trainer.max_epochs=2"))
    before = stores()
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    found = {}
    for name, features in (("store", data), ("online", online(data))):
        run("evaluate", f"checkpoint={last}", *features, "split=val", f"output={tmp_path / name}")
        found[name] = json.loads((tmp_path / name / "captions.json").read_text())
    assert found["store"] == found["online"] and stores() == before
    run("caption", f"checkpoint={last}", f"images=[{world}/val0.png]", f"output={tmp_path}/photo")
    settings = ["dtype=float32", f"output={tmp_path}/tuned"]
    export(check(compose("export", [f"checkpoint={last}", *settings]), ExportConfig))
    run("evaluate", f"checkpoint={tmp_path}/tuned.safetensors", *data, "split=val", f"output={tmp_path}/exported")
    assert json.loads((tmp_path / "exported" / "captions.json").read_text()) == found["store"] and stores() == before


def test_a_resumed_run_is_the_uninterrupted_one(data, tmp_path, stores):
    """With averaged weights too: the frozen part of the average is the frozen part, so there is one store."""
    settings = [*TUNE, "loader.batch_size=3", "weight_averaging=ema", "weight_averaging.decay=0.7", "encoder_warmup=3"]
    run("train", *short(data, tmp_path / "parts", *settings))
    before = stores()
    run("train", *short(data, tmp_path / "parts", *settings, "trainer.max_epochs=3", "resume=auto"))
    run("train", *short(data, tmp_path / "whole", *settings, "trainer.max_epochs=3"))
    assert stores() == before
    for key in ("state_dict", "current_model_state"):
        whole, parts = (weights(tmp_path / name)[key] for name in ("whole", "parts"))
        assert not [name for name, value in whole.items() if not torch.equal(value, parts[name])]


@pytest.mark.parametrize("tuned", [(0,), (1,), (0, 1)])
def test_fine_tuned_encoders_side_by_side_are_whole_in_a_checkpoint(tuned, data, tmp_path, stores, world):
    """Also if one of them is frozen, and its features are stored."""
    parts = [
        "{encoder: efficientnet_lite0, image_size: 64" + f"{more}{', unfreeze_from: blocks.14' * (number in tuned)}}}"
        for number, more in enumerate(("", ", layer: blocks.15"))
    ]
    both = ["encoder=side_by_side", f"encoder.parts=[{', '.join(parts)}]"]
    here = [item for item in data if not item.startswith("encoder")]
    settings = [*both, *(item for item in TUNE if not item.startswith("encoder.")), "schedule=constant"]

    def train(name, *more):
        given = short(here, tmp_path / name, *settings, *more)
        run("train", *(item for item in given if not item.startswith(("encoder.image_size", "encoder.weights"))))

    train("parts")
    train("parts", "trainer.max_epochs=2", "resume=auto")
    train("whole", "trainer.max_epochs=2")
    whole, again = (weights(tmp_path / name)["state_dict"] for name in ("whole", "parts"))
    assert not [name for name, value in whole.items() if not torch.equal(value, again[name])]
    before, last = stores(), tmp_path / "whole/checkpoints/last.ckpt"
    found = {}
    for name, features in (("store", here), ("online", online(here))):
        run("evaluate", f"checkpoint={last}", *features, "split=val", f"output={tmp_path / name}")
        found[name] = json.loads((tmp_path / name / "captions.json").read_text())
    assert found["store"] == found["online"] and stores() == before
    own, package = load(last).encoder, compose("train", ["experiment=flickr8k_soft", *both, "run_dir=r"])
    fresh, _ = build_encoder(check(package, CaptionTrainConfig))
    for number in (0, 1):
        pairs = zip(own.parts[number].state_dict().values(), fresh.parts[number].state_dict().values(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs) == (number not in tuned)
    run("caption", f"checkpoint={last}", f"images=[{world}/val0.png]", f"output={tmp_path}/photo")


def test_prepare_stores_and_verifies_the_frozen_part(data, tmp_path, monkeypatch, capsys):
    here = [item for item in data if not item.startswith("features.root")] + [f"features.root={tmp_path}/features"]
    here.append("encoder.image_size=64")
    run("prepare", *here, "encoder.unfreeze_from=blocks.14")
    (store,) = (tmp_path / "features").glob("*/manifest.json")
    manifest = json.loads(store.read_text())
    assert manifest["key"]["layer"] == "before blocks.14" and len(manifest["shape"]) == 3
    run("prepare", *here, "encoder.unfreeze_from=blocks.14", "verify=true")
    assert "no damage found" in capsys.readouterr().out
    monkeypatch.setattr(sources, "extract", lambda *_, **__: pytest.fail("computed again"))
    run("train", *short(here, tmp_path / "run", *TUNE))


def test_a_trained_decoder_starts_fine_tuning_on_its_own_encoder_only(data, tmp_path):
    run("train", *short(data, tmp_path / "frozen", "trainer.max_epochs=1"))
    start = f"start_from={tmp_path}/frozen/checkpoints/last.ckpt"
    run("train", *short(data, tmp_path / "tuned", *TUNE, start))
    with pytest.raises(ConfigError, match="start_from: the checkpoint was trained with other encoder weights"):
        run("train", *short(data, tmp_path / "other", *TUNE, start, "encoder.weights=null"))


def test_what_cannot_be_stored_is_refused_with_the_reason(data, tmp_path):
    with pytest.raises(ConfigError, match=r"stem leaves no frozen layers whose output could be stored\. Set "):
        run("train", *short(data, tmp_path, "encoder.unfreeze_from=stem"))
    with pytest.raises(ConfigError, match=r"features\.augment changes each image at random.*features=online"):
        run("train", *short(data, tmp_path, "features.augment=light"))


def test_an_augmented_run_resumes_exactly(data, tmp_path):
    here = online(data, "features.augment=light", "features.workers=0", "schedule=constant")
    run("train", *short(here, tmp_path / "whole", "trainer.max_epochs=2"))
    run("train", *short(here, tmp_path / "parts", "trainer.max_epochs=1"))
    run("train", *short(here, tmp_path / "parts", "trainer.max_epochs=2", "resume=auto", "features.workers=1"))
    run("train", *short([*here[:-3], *here[-2:]], tmp_path / "plain", "trainer.max_epochs=2"))
    whole, parts, plain = (weights(tmp_path / name)["state_dict"] for name in ("whole", "parts", "plain"))
    assert not [name for name, value in whole.items() if not torch.equal(value, parts[name])]
    assert [name for name, value in whole.items() if not torch.equal(value, plain[name])]


def test_the_experiment_runs_from_a_trained_decoder_to_a_fine_tuned_captioner(tmp_path):
    (tmp_path / "data").mkdir()
    flickr8k(tmp_path / "data")
    small = [f"data.root={tmp_path}/data", f"features.root={tmp_path}/features", *SMALL, "data.min_count=1"]
    small += ["trainer.max_epochs=1", "model.feature_width=32", "model.scorer.width=16", "encoder_warmup=0"]
    start = [*small, "experiment=flickr8k_small", f"run_dir={tmp_path}/start"]
    run("train", *(item for item in start if item != "encoder_warmup=0"))
    before = tmp_path / "start/checkpoints/last.ckpt"
    run("train", *small, "experiment=flickr8k_finetuned", f"start_from={before}", f"run_dir={tmp_path}/tuned")
    before = load(before).encoder.state_dict()
    after = load(tmp_path / "tuned" / "checkpoints" / "last.ckpt").encoder.state_dict()
    moved = {name.split(".weight")[0] for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved and all(
        name.startswith(("network.blocks.13", "network.blocks.14", "network.blocks.15", "network.head"))
        for name in moved
    )
