"""A model with a longest caption: settings that allow longer ones are refused before any image is encoded."""

import re
from functools import partial

import pytest
import torch
from small_runs import make_run, save_checkpoint
from small_world import run, short
from tiny_transformers import tiny_transformer
from toys import START

from captioning.config import DemoConfig, DistillConfig, GroundConfig, ReportConfig, check, compose
from captioning.data import Vocabulary
from captioning.decoding import beam_search, consensus_search
from captioning.demo import demo
from captioning.distill import distill
from captioning.errors import ConfigError
from captioning.ground import ground
from captioning.inference import Predictor, generate, load, load_all
from captioning.inference.borrowed_words import BorrowedWords
from captioning.inference.ensemble import Ensemble
from captioning.models import CaptionModel, LearnedPositions, MultiCrop
from captioning.report import report

LONGEST = ["model=transformer", "model.heads=2", "model/word_positions=learned", "model.word_positions.longest=9"]


def refused(key, value, *, most, longest, given=9):
    """The whole message of a setting that is refused, as a pattern."""
    message = (
        f"{key}={value} allows captions that this captioner cannot read: model.word_positions.longest={given}. Set "
        f"{key}={most}, or train with model.word_positions.longest={longest}"
    )
    return pytest.raises(ConfigError, match=f"^{re.escape(message)}$")


@pytest.fixture
def no_encoder(monkeypatch):
    """Every use of a predictor's encoder fails."""
    monkeypatch.setattr(Predictor, "encoder", property(lambda self: pytest.fail("an image would be encoded")))


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "made" / "checkpoints" / "best.ckpt"
    save_checkpoint(path, *LONGEST, "data.max_length=8")
    return path


SELF_CRITICAL = ["objective=self_critical", "data.max_length=8"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["data.max_length=9"], partial(refused, "data.max_length", 9, most=8, longest=10)),
        (
            ["data.max_length=8", "decoding.max_length=10"],
            partial(refused, "decoding.max_length", 10, most=9, longest=10),
        ),
        ([*SELF_CRITICAL, "objective.max_length=11"], partial(refused, "objective.max_length", 11, most=9, longest=11)),
        (
            ["data.max_length=null", "model.word_positions.longest=7"],  # null: at least 20 words
            partial(refused, "data.max_length", 20, most=6, longest=21, given=7),
        ),
    ],
)
def test_training_is_refused_before_features_are_computed(world, tmp_path, settings, message):
    data = ["data=csv", f"data.root={world}", f"features.root={tmp_path / 'features'}"]
    with message():
        run("train", *short(data, tmp_path / "run", *LONGEST, *settings))
    assert [each.name for each in (tmp_path / "features").iterdir()] == ["captions"]


def test_the_greatest_lengths_that_are_allowed(data, tmp_path):
    lengths = ["data.max_length=8", "decoding.max_length=9", "objective.max_length=9"]
    run("train", *short(data, tmp_path, *LONGEST, "objective=self_critical", *lengths, "trainer.max_steps=1"))
    last = f"checkpoint={tmp_path / 'checkpoints' / 'last.ckpt'}"
    output = f"output={tmp_path / 'val'}"
    run("evaluate", last, *data, "split=val", output, "decoding.max_length=9", "metrics.bootstrap=10")


def test_evaluation_is_refused_before_features_are_computed(checkpoint, world, tmp_path, no_encoder):
    data = ["data=csv", f"data.root={world}", f"features.root={tmp_path / 'features'}", "split=val"]
    with refused("decoding.max_length", 10, most=9, longest=10):
        run("evaluate", f"checkpoint={checkpoint}", *data, "decoding.max_length=10", f"output={tmp_path / 'val'}")


def test_captions_are_refused_before_an_image_is_encoded(checkpoint, world, tmp_path, no_encoder):
    given = [f"checkpoint={checkpoint}", f"images=[{world / 'val0.png'}]", f"output={tmp_path / 'captions'}"]
    with refused("decoding.max_length", 12, most=9, longest=12):
        run("caption", *given, "decoding=sample", "decoding.max_length=12")
    with refused("decoding.max_length", 10, most=9, longest=10):
        load(checkpoint, device="cpu").caption(world / "val0.png", max_length=10)


def test_required_words_that_do_not_exist_are_refused_before_an_image_is_encoded(checkpoint, world, no_encoder):
    with pytest.raises(ConfigError, match=r"decoding\.require: 'zebra' is not in the vocabulary"):
        load(checkpoint, device="cpu").caption(world / "val0.png", require=["zebra"])


def test_grounding_is_refused_before_an_image_is_encoded(checkpoint, tmp_path, no_encoder):
    scenes = ["data=scenes", f"data.root={tmp_path / 'scenes'}", "data.reader.train=2", "data.reader.val=2"]
    given = [f"checkpoint={checkpoint}", *scenes, "data.reader.test=2", "split=val", "decoding.max_length=10"]
    with refused("decoding.max_length", 10, most=9, longest=10):
        ground(check(compose("ground", given), GroundConfig))


def test_a_report_is_refused_before_an_image_is_encoded(tmp_path, no_encoder):
    folder = make_run(tmp_path, *LONGEST, "data.max_length=8")
    with refused("decoding.max_length", 10, most=9, longest=10):
        report(check(compose("report", [f"run_dir={folder}", "decoding.max_length=10"]), ReportConfig))


def test_a_teacher_reads_no_longer_captions(checkpoint, data, tmp_path, no_encoder):
    given = [f"checkpoint={checkpoint}", *data, f"output={tmp_path / 'soft.npz'}", "data.max_length=9"]
    with refused("data.max_length", 9, most=8, longest=10):
        distill(check(compose("distill", given), DistillConfig))


def test_a_demo_of_a_captioner_whose_own_limit_is_too_long(tmp_path, monkeypatch):
    monkeypatch.setattr("captioning.web.demo.serve", lambda *_: pytest.fail("it would serve"))
    path = tmp_path / "made" / "checkpoints" / "best.ckpt"
    save_checkpoint(path, *LONGEST, "data.max_length=10")
    config = check(compose("demo", [f"checkpoint={path}", "port=0", "device=cpu", "examples=[]"]), DemoConfig)
    with refused("decoding.max_length", 10, most=9, longest=10):
        demo(config)


def test_the_shortest_limit_of_an_ensemble_counts(checkpoint, tmp_path):
    other = tmp_path / "other" / "checkpoints" / "best.ckpt"
    save_checkpoint(other, "data.max_length=8")  # recurrent: without a limit
    both = load_all(other, [checkpoint], device="cpu")
    both.check_search(partial(beam_search, max_length=9))
    with refused("decoding.max_length", 10, most=9, longest=10):
        both.check_search(partial(beam_search, max_length=10))


def test_models_state_their_longest_caption():
    def learned(longest):
        return tiny_transformer(word_positions=partial(LearnedPositions, longest=longest))

    assert tiny_transformer().longest is None and CaptionModel().longest is None
    assert learned(6).longest == (6, "model.word_positions.longest")
    assert MultiCrop(learned(6), 2).longest.tokens == 6
    assert Ensemble([learned(7), tiny_transformer(), learned(6)]).longest.tokens == 6
    assert Ensemble([tiny_transformer()]).longest is None
    assert BorrowedWords(learned(5), [], size=11, allowed=torch.zeros(1, 0)).longest.tokens == 5


@pytest.mark.parametrize("search", [beam_search, partial(consensus_search, seed=0)])
def test_a_search_of_as_many_tokens_as_the_model_has_positions(search):
    """It reads <start> and all words but the last; the default length counts too."""
    model = tiny_transformer(word_positions=partial(LearnedPositions, longest=6))
    vocabulary, images = Vocabulary([f"word{n}" for n in range(7)]), torch.randn(2, 4, 6, dtype=torch.float64)
    fits = partial(search, max_length=6, min_length=6)
    assert all(len(best[0].tokens) == 6 for best in generate(model, images, search=fits, vocabulary=vocabulary))
    for longer in (partial(search, max_length=7), partial(search, max_length=20), search):
        limit = longer.keywords.get("max_length", 20) if isinstance(longer, partial) else 20
        with refused("decoding.max_length", limit, most=6, longest=limit, given=6):
            generate(model, images, search=longer, vocabulary=vocabulary)
    state, memory = model.begin(images)
    for _ in range(6):
        state = model.step(torch.full((2, 1), START), state, memory).state
    with pytest.raises(ConfigError, match=r"longest=6 is too small for a caption of 7 tokens\. Shorten the caption"):
        model.step(torch.full((2, 1), START), state, memory)
