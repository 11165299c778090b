"""A language model from its text to samples, by the commands."""

import csv
import itertools
import math
import sys

import numpy as np
import pytest
import torch
from language_models import run

from captioning.analysis.text_activations import held_out
from captioning.checkpoints import read_checkpoint
from captioning.config import SampleConfig, check, compose, entry_point
from captioning.data.corpus import TextBatch
from captioning.errors import CheckpointError, ConfigError, DataError
from captioning.inference import load_language_model
from captioning.objectives import Loss, TruncatedBackpropagation
from captioning.sample import sample_text
from captioning.tasks import language_model


def written(capsys, *overrides: str) -> str:
    capsys.readouterr()
    sample_text(check(compose("sample", list(overrides)), SampleConfig))
    return capsys.readouterr().out.removesuffix("\n")


@pytest.fixture(scope="module")
def hello(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("hello")
    run("experiment=char_hello", f"run_dir={run_dir}")
    return run_dir / "checkpoints" / "best.ckpt"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, names = tmp_path_factory.mktemp("files"), []
    for index in range(12):
        names.append(str(folder / f"{index}.txt"))
        (folder / f"{index}.txt").write_text("".join(f"{n} sheep and {n + index} goats.\n" for n in range(9)))
    return names


def small(files, run_dir, *more):
    arguments = ["experiment=char_rnn", f"data.files=[{','.join(files)}]", "data.min_count=1", "model.width=16"]
    arguments += ["model.embedding_size=8", "loader.batch_size=4", "loader.val_batch_size=3", "data.window=20"]
    return [*arguments, "data.reader.val_share=0.2", f"run_dir={run_dir}", *more]


def test_early_stopping_goes_by_the_kinds_own_score(files, tmp_path):
    stops = ["early_stopping=score", "early_stopping.patience=1", "early_stopping.min_delta=100"]  # bits: never so many
    run(*small(files, tmp_path, "trainer.max_epochs=9", *stops))
    checkpoint = read_checkpoint(tmp_path / "checkpoints" / "last.ckpt", task="language_model")
    assert checkpoint["position"]["epoch"] == 2


def test_the_lectures_toy_writes_hello(hello, capsys):
    checkpoint = read_checkpoint(hello, task="language_model")
    assert sorted(checkpoint["captioning"]["vocabulary"][4:]) == ["e", "h", "l", "o"]
    for arguments in (["prime=h"], ["prime=hel"], ["length=3", "prime=he"], ["temperature=0.5"]):
        assert written(capsys, f"checkpoint={hello}", "top_k=1", *arguments) == "hello"
    model = load_language_model(hello, device="cpu")
    assert model.sample(length=2, top_k=1) == "he"
    # h, e, l and l are followed by what the lecture's table says.
    (reading,) = model.read(["hello"])
    assert reading.tokens == "hello" and (reading.log_probs > math.log(0.9)).all()
    assert {name: values.shape for name, values in reading.states.items()} == {"hidden": (5, 8)}
    assert model.bits_per_character("hello") < 0.15 < model.bits_per_character("olleh")


def test_seeds_and_temperatures(hello):
    model = load_language_model(hello, device="cpu")
    texts = {model.sample(length=20, temperature=50, seed=seed) for seed in range(9)}
    assert len(texts) > 5 and set("".join(texts)) <= set("helo")
    assert model.sample(seed=3, temperature=9) == model.sample(seed=3, temperature=9)
    with pytest.raises(DataError, match="prime contains 'x', which is not in the model's vocabulary"):
        model.sample("hexlo")
    with pytest.raises(ConfigError, match="temperature"):
        model.sample(temperature=0)
    with pytest.raises(ConfigError, match="length must be at least 1"):
        model.sample(length=0)


def test_reading_is_what_validation_saw(files, tmp_path):
    run(*small(files, tmp_path, "trainer.max_epochs=2", "data.unit=words", "loader.val_batch_size=1"))
    with (tmp_path / "metrics.csv").open(newline="") as file:
        logged = [row for row in csv.DictReader(file) if row["val/nats"]][-1]
    model, config = (
        load_language_model(tmp_path / "checkpoints" / "last.ckpt", device="cpu"),
        compose("train", small(files, tmp_path)),
    )
    from captioning.data import read_texts

    val = read_texts(files, val_share=config.data.reader.val_share)["val"]
    # The text of the split in one line, as validation reads it: with one stream, and <end>s as characters.
    assert len(val) > 1 and model.unit == "words"
    ids = torch.tensor([i for _, text in val for i in [model.vocabulary.end, *model.vocabulary.ids(words(text))]])
    ids = torch.cat((ids, torch.tensor([model.vocabulary.end])))
    state, memory = model.model.begin(torch.zeros(1, 0))
    nats = 0.0
    with torch.no_grad():
        for token, target in itertools.pairwise(ids):
            logits, state, _ = model.model.step(token.view(1, 1), state, memory)
            nats -= float(logits[0, 0].double().log_softmax(-1)[target])
    characters = sum(len(text) + 1 for _, text in val)
    assert float(logged["val/nats"]) == pytest.approx(nats / (len(ids) - 1), rel=1e-5)
    assert float(logged["val/bits_per_character"]) == pytest.approx(nats / characters / math.log(2), rel=1e-5)
    assert float(logged["val/perplexity"]) == pytest.approx(math.exp(nats / (len(ids) - 1)), rel=1e-4)
    assert held_out(model, "val") == val and held_out(model) != val
    first = model.read([text for _, text in val])[0]
    assert "".join(first.tokens) == val[0].text and first.states["cell 2"].shape == (len(first.tokens), 16)


def words(text):
    from captioning.data import split_text

    return split_text(text, "words")


def test_texts_read_side_by_side_are_read_as_if_alone(hello):
    model = load_language_model(hello, device="cpu")
    together = model.read(["hello", "", "lo"])
    assert [len(reading.log_probs) for reading in together] == [5, 0, 2]
    (alone,) = model.read(["lo"])
    assert np.allclose(together[2].states["hidden"], alone.states["hidden"], atol=1e-6)
    assert np.allclose(together[2].log_probs, alone.log_probs, atol=1e-6)


@pytest.mark.parametrize("inside", [False, True])
def test_a_resumed_language_model_equals_a_run_that_never_stopped(files, tmp_path, monkeypatch, inside):
    """Resumed from the end of an epoch, or from inside of one, with the state that its window begins with."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    arguments = ["trainer.max_epochs=3", "model/cell=gru", "model.dropout=0.2"]
    run(*small(files, whole, *arguments))
    calls, original = [], TruncatedBackpropagation.forward

    def dies(self, model, batch):
        calls.append(model.training)
        if calls.count(True) == 40:
            raise RuntimeError("killed")
        return original(self, model, batch)

    monkeypatch.setattr(TruncatedBackpropagation, "forward", dies)
    saves = ["trainer.save_every_minutes=1e-9"] if inside else []  # after every step
    with pytest.raises(RuntimeError, match="killed"):
        run(*small(files, broken, *arguments, *saves))
    monkeypatch.undo()
    last = broken / "checkpoints" / "last.ckpt"
    position = read_checkpoint(last, task="language_model")["position"]
    assert 0 < position["epoch"] < 3 and (position["batches"] > 0) == inside
    run(*small(files, broken, *arguments, f"resume={last}"))
    first, second = (
        read_checkpoint(folder / "checkpoints" / "last.ckpt", task="language_model") for folder in (whole, broken)
    )
    assert first["global_step"] == second["global_step"] and "objective.hidden" in first["state_dict"]
    assert all(torch.equal(value, second["state_dict"][name]) for name, value in first["state_dict"].items())


def test_kinds_of_checkpoints_are_told_apart(hello, files, tmp_path):
    import captioning

    with pytest.raises(CheckpointError, match="is a checkpoint of task=language_model, but task=image_captioning"):
        captioning.load(hello)
    with pytest.raises(CheckpointError, match="is a checkpoint of task=language_model"):
        run("data=csv", f"resume={hello}", f"run_dir={tmp_path}")
    with pytest.raises(ConfigError, match="start_from: the checkpoint's vocabulary"):
        run(*small(files, tmp_path, f"start_from={hello}"))
    with pytest.raises(ConfigError, match=r"trainer\.devices=2: .* Set trainer\.devices=1"):
        run(*small(files, tmp_path, "trainer.devices=2"))
    with pytest.raises(
        ConfigError, match=r"model/embedding=one_hot needs the vocabulary's size .*Set model.embedding_size=null"
    ):
        run("experiment=char_hello", "model.embedding_size=9", f"run_dir={tmp_path}")
    with pytest.raises(ConfigError, match=r"loader\.batch_size must be at least 1, not 0"):
        run(*small(files, tmp_path, "loader.batch_size=0"))
    with pytest.raises(ConfigError, match=r"there is no setting 'encoder_lr':"):
        run(*small(files, tmp_path, "+encoder_lr=0.1"))


@pytest.mark.parametrize(
    "prime",
    [
        "def f(x):",
        "it's",
        "a\\'b",
        "two\nlines\n\tand a tab",
        "${seed}",
        "$HOME",
        "{a: [1, 2]}",
        "x=1, y=2",
        "\\",
        "'",
        " ",
        "a\\nb",
        "'\\",
        "\\\\'",
    ],
)
def test_free_text_reaches_the_job_as_it_stands(prime, monkeypatch):
    for given in ([f"prime={prime}"], ["--prime", prime], ["--", prime]):
        monkeypatch.setattr(sys, "argv", ["captioning-sample", "checkpoint=x", "seed=1", *given])
        made = []
        entry_point("sample", SampleConfig, made.append, plain=["prime"])()
        assert made[0]["prime"] == prime and made[0]["seed"] == 1


def test_scores_are_of_all_windows_and_all_their_streams():
    """The loss of a window is a mean over its streams."""
    found = {}
    for place, (nats, streams, tokens, characters) in {0: (6.0, 3, 9, 20), 7: (2.5, 2, 4, 12)}.items():
        batch = TextBatch(torch.arange(place, place + streams), None, None, torch.tensor(characters))
        loss = Loss(torch.tensor(nats / streams), {}, torch.tensor(streams), torch.tensor(tokens), {})
        found |= language_model._predict(None, batch, loss)
    expected = {"nats": 8.5 / 13, "bits_per_character": 8.5 / math.log(2) / 32, "perplexity": math.exp(8.5 / 13)}
    scores = language_model._score(found)
    assert scores == pytest.approx({f"val/{name}": value for name, value in expected.items()}, rel=1e-6)
