"""Soft targets of one captioner, or of several together, and another that learns from them."""

import numpy as np
import pytest
import torch
from small_world import SENTENCES, run, short, weights
from toys import PAD

from captioning.config import DistillConfig, check, compose
from captioning.data import CaptionBatch, open_picture, read_csv
from captioning.distill import distill
from captioning.errors import CheckpointError, ConfigError
from captioning.inference import load, read_teacher
from captioning.models.readout import LazyLogits
from captioning.objectives import CrossEntropy, Teacher, chunked_cross_entropy, number_captions
from captioning.objectives.chunked_cross_entropy import SoftTargets
from captioning.objectives.word_loss import WordLoss

WORDS = 3  # kept of each distribution


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("made", [True, False])
@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_the_word_loss_with_soft_targets_is_the_cross_entropy_of_the_mixture(smoothing, made, at_once, monkeypatch):
    monkeypatch.setattr(chunked_cross_entropy, "_CACHED", at_once * 30 + 29)
    output, features = torch.nn.Linear(5, 30).double(), torch.randn(7, 5, dtype=torch.float64).requires_grad_()
    targets, ids = torch.tensor([0, 29, 5, 17, 5, 8, 1]), torch.stack([torch.randperm(30)[:4] for _ in range(7)])
    shares = 0.4 * torch.rand(7, 4).softmax(-1)
    shares[2] = 0  # a word of which the teacher says nothing
    logits = features @ output.weight.T + output.bias
    wanted = torch.full((7, 30), smoothing / 30, dtype=torch.float64)
    wanted[range(7), targets] += 1 - smoothing
    wanted = wanted * (1 - shares.double().sum(-1, keepdim=True))
    for row in range(7):
        for place in range(4):
            wanted[row, ids[row, place]] += shares[row, place]
    expected = -(wanted * logits.log_softmax(-1)).sum()
    scores = logits if made else LazyLogits(features, output)
    total, of_words = WordLoss(label_smoothing=smoothing)(scores, targets, SoftTargets(ids, shares))
    torch.testing.assert_close(total, expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(of_words, -(wanted * logits.log_softmax(-1)).sum(-1).detach())
    inputs = [features, output.weight, output.bias]
    found, other = (torch.autograd.grad(value, inputs, retain_graph=True) for value in (total, expected))
    torch.testing.assert_close(found, other, rtol=1e-6, atol=1e-9)


def lookup(image_ids, tokens, probs):
    """A teacher of these captions whose ids and probabilities are counted up, in an order of its own."""
    keys = number_captions(image_ids, tokens).flatten()
    lengths = (tokens[..., 1:] != PAD).sum(-1).flatten()
    order = keys.argsort()
    starts = torch.cat((torch.zeros(1, dtype=torch.int64), lengths[order].cumsum(0)))
    rows = torch.cat([probs[place, : lengths[place]] for place in order.tolist()])
    return Teacher(keys=keys[order], starts=starts, ids=torch.ones(len(rows), 1, dtype=torch.int32), probs=rows)


def test_a_soft_target_is_found_by_image_and_words_however_the_batch_is_padded(toy_tokens):
    image_ids = torch.tensor([3, 2**40, 17])
    probs = torch.rand(toy_tokens[..., 0].numel(), toy_tokens.shape[-1] - 1, 1)
    teacher = lookup(image_ids, toy_tokens, probs)
    real = toy_tokens[..., 1:] != PAD
    wider = torch.nn.functional.pad(toy_tokens, (0, 3), value=PAD)
    for tokens in (toy_tokens, wider):
        ids, found = teacher(image_ids.flip(0), tokens.flip(0))
        assert ids.shape == found.shape == (*tokens[..., 1:].shape, 1)
        found = found.flip(0)[:, :, : real.shape[-1], 0]
        torch.testing.assert_close(found, probs.view(*real.shape) * real)
    away = teacher.to("meta")(image_ids.to("meta"), toy_tokens.to("meta"))  # where looking at a number is an error
    assert away[1].shape == probs.view(*real.shape, 1).shape
    teacher = lookup(image_ids, toy_tokens, probs)
    assert not teacher(image_ids + 1, toy_tokens)[1].any() and not teacher.knows(image_ids + 1, toy_tokens).any()
    other = toy_tokens.clone()
    other[0, 0, 1] += 1
    known = teacher.knows(image_ids, other)
    assert not known[0, 0] and known[1:].all()


def test_a_teacher_is_listened_to_in_training_alone_and_by_its_share(toy, toy_tokens):
    """A teacher for whom every word is the word 1."""
    model = toy()
    batch = CaptionBatch(torch.arange(3), torch.randn(3, 4, 6, dtype=torch.float64), None, toy_tokens)
    teacher = lookup(batch.image_ids, toy_tokens, torch.ones(toy_tokens[..., 0].numel(), toy_tokens.shape[-1] - 1, 1))

    def total(*, training=True, **options):
        torch.manual_seed(1)  # the same units are dropped each time
        return CrossEntropy(doubly_stochastic=0, **options)(model.train(training), batch).total

    plain, learnt = total(), {share: total(teacher=teacher, teacher_share=share) for share in (0.0, 0.25, 1.0)}
    torch.testing.assert_close(learnt[0.0], plain)
    torch.testing.assert_close(learnt[0.25], 0.75 * plain + 0.25 * learnt[1.0])
    torch.manual_seed(1)
    log_probs = model(batch.images, toy_tokens).logits.log_softmax(-1)
    torch.testing.assert_close(learnt[1.0], -log_probs[:, 1].sum() / (toy_tokens[..., 1] != PAD).sum())
    torch.testing.assert_close(total(teacher=teacher, training=False), total(training=False))


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """Two runs of different seeds and parts."""
    runs = [tmp_path_factory.mktemp(name) for name in ("first", "second")]
    for seed, (run_dir, part) in enumerate(zip(runs, ("model/cell=lstm", "model/cell=gru"), strict=True)):
        run("train", *short(data, run_dir, part, f"seed={seed}", "trainer.max_epochs=2"))
    return [run_dir / "checkpoints" / "last.ckpt" for run_dir in runs]


def write(checkpoints, data, output, *overrides: str):
    given = [f"checkpoint=[{','.join(map(str, checkpoints))}]", *data, f"output={output}", f"words={WORDS}", *overrides]
    distill(check(compose("distill", given), DistillConfig))


@pytest.fixture(scope="module")
def soft_targets(trained, data, tmp_path_factory):
    output = tmp_path_factory.mktemp("soft_targets") / "a" / "soft_targets.npz"
    write(trained, data, output)
    return output


def test_soft_targets_are_the_mean_of_what_the_checkpoints_say_step_by_step(soft_targets, trained, world):
    predictors = [load(path, device="cpu") for path in trained]
    vocabulary = predictors[0].vocabulary
    teacher = read_teacher(soft_targets, vocabulary=vocabulary)
    assert len(teacher.keys) == 8 and teacher.probs.shape == (sum(len(text.split()) + 1 for text in SENTENCES), WORDS)
    for record in read_csv(world):
        if record.split != "train":
            continue
        tokens = torch.tensor([[vocabulary.encode(record.captions[0].lower().strip(".").split(), max_length=20)]])
        mean = 0.0
        for predictor in predictors:
            features = predictor.encode([open_picture(record.path)])
            state, memory = predictor.captioner.begin(features)
            probs = []
            for word in tokens[0, 0, :-1]:
                step = predictor.captioner.step(word.view(1, 1), state, memory)
                state = step.state
                probs.append(step.logits[0, 0].softmax(-1))
            mean = mean + torch.stack(probs) / 2
        likeliest = mean.topk(WORDS)
        ids, found = teacher(torch.tensor([record.image_id]), tokens)
        expected = likeliest.values / likeliest.values.sum(-1, keepdim=True)
        torch.testing.assert_close(found[0, 0].float(), expected.detach(), rtol=5e-3, atol=2e-3)
        same = (ids[0, 0] == likeliest.indices).float().mean()
        assert (
            same > 0.8
        )  # words of nearly one probability may change places, as features were stored in half precision


def test_a_run_learns_from_soft_targets_and_goes_on_as_if_never_stopped(soft_targets, data, tmp_path, monkeypatch):
    arguments = ["objective=distilled", f"teacher.file={soft_targets}", "trainer.log_every_n_steps=1"]
    run("train", *short(data, tmp_path / "whole", *arguments, "trainer.max_epochs=2"))
    run("train", *short(data, tmp_path / "plain", "trainer.max_epochs=2", "trainer.log_every_n_steps=1"))
    whole, plain = (weights(tmp_path / name)["state_dict"] for name in ("whole", "plain"))
    assert whole.keys() == plain.keys()  # the soft_targets are not in the checkpoint
    assert not torch.equal(whole["captioner.decoder.embedding.weight"], plain["captioner.decoder.embedding.weight"])
    original, calls = CrossEntropy.forward, []

    def dies(self, *asked):
        calls.append(1)
        if len(calls) == 6:
            raise RuntimeError("killed")
        return original(self, *asked)

    monkeypatch.setattr(CrossEntropy, "forward", dies)
    with pytest.raises(RuntimeError, match="killed"):
        run("train", *short(data, tmp_path / "broken", *arguments, "trainer.max_epochs=2"))
    monkeypatch.undo()
    moved = tmp_path / "moved.npz"
    moved.write_bytes(soft_targets.read_bytes())
    arguments[1] = f"teacher.file={moved}"
    run("train", *short(data, tmp_path / "broken", *arguments, "trainer.max_epochs=2", "resume=auto"))
    again = weights(tmp_path / "broken")["state_dict"]
    assert all(torch.equal(value, again[name]) for name, value in whole.items())
    with pytest.raises(ConfigError, match=r"teacher was read_teacher and is null now"):
        run("train", *short(data, tmp_path / "broken", "trainer.max_epochs=3", "resume=auto"))


def test_soft_targets_that_do_not_fit_are_told(soft_targets, trained, data, tmp_path, capsys):
    def train(*overrides: str, file=soft_targets):
        given = ["objective=distilled", f"teacher.file={file}", "trainer.max_epochs=1", *overrides]
        run("train", *short(data, tmp_path / "run", *given))

    with pytest.raises(CheckpointError, match=r"nowhere\.npz does not exist\. Run: captioning-distill"):
        train(file=tmp_path / "nowhere.npz")
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(CheckpointError, match=r"bad\.npz is not a file of soft targets.* captioning-distill"):
        train(file=tmp_path / "bad.npz")
    with pytest.raises(CheckpointError, match=r"a teacher with another vocabulary.*data\.min_count"):
        train("data.min_count=2")
    with pytest.raises(
        CheckpointError, match=r"teacher\.file=.* has soft targets of other captions, .*captioning-distill"
    ):
        train("data.max_length=1")
    with pytest.raises(ConfigError, match=r"teacher cannot be combined with a reward.*teacher=null"):
        train("+reward._target_=captioning.metrics.Reward")
    with np.load(soft_targets) as parts:
        fewer = dict(parts)
    for name, values in {
        "starts": fewer["starts"] + 1,
        "ids": fewer["ids"] + 10**6,
        "keys": fewer["keys"][::-1],
    }.items():
        np.savez(tmp_path / "bad.npz", **(fewer | {name: values}))
        with pytest.raises(CheckpointError, match=r"bad\.npz is not a file of soft targets.* captioning-distill"):
            train(file=tmp_path / "bad.npz")
    fewer |= {"keys": fewer["keys"][:5], "starts": fewer["starts"][:6]}
    np.savez(tmp_path / "fewer.npz", **fewer)
    capsys.readouterr()
    train(file=tmp_path / "fewer.npz")
    assert (
        "teacher: 5 of 8 training captions have soft targets; the others are learned without" in capsys.readouterr().out
    )
    with pytest.raises(ConfigError, match=r"is a folder: give a file name that ends in"):
        write(trained, data, tmp_path)
    with pytest.raises(ConfigError, match=r"checkpoint= is empty"):
        write([], data, tmp_path / "x.npz")
    with pytest.raises(ConfigError, match=r"words must be at least 1, not 0"):
        write(trained, data, tmp_path / "x.npz", "words=0")


def test_the_printed_size_counts_pieces_without_the_ends(data, tmp_path, capsys):
    run("train", *short(data, tmp_path / "run", "trainer.max_steps=1", "data.tokenizer=bpe:60"))
    checkpoint, output = tmp_path / "run/checkpoints/last.ckpt", tmp_path / "soft.npz"
    capsys.readouterr()
    write([checkpoint], data, output)
    with np.load(output) as stored:
        captions, rows = len(stored["keys"]), len(stored["ids"])
    printed = capsys.readouterr().out
    assert f"soft targets for {captions} captions ({rows - captions} pieces, and <end> of each) from" in printed
