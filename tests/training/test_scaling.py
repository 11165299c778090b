"""One run on several processes, in accumulated batches, and in another precision: the same steps as one whole batch."""

import math
import os
import socket
import subprocess
import sys
from functools import partial

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from processes import ByRow, Case, by_row, by_second_row, learn, part_of, train, validate
from small_world import rows, run, short, weights
from torch import multiprocessing
from toys import END, PAD, START, UNKNOWN

import captioning.objectives.cross_entropy
import captioning.objectives.self_critical
from captioning.data import CaptionBatch, QuestionBatch
from captioning.models import HardAttention, Standardized, build_answerer
from captioning.objectives import (
    AnswerCrossEntropy,
    CrossEntropy,
    LeaveOneOut,
    MovingAverage,
    Reinforce,
    ScheduledSampling,
    SelfCritical,
)

P, D, K, T = 4, 6, 3, 5
# Of the images of each step: the words of their captions (None: no caption), and which answers are known. Uneven, and
# image 2 of the first step and image 0 of the third have no caption at all.
LENGTHS = [
    [[4, 2, 0], [3, None, None], [None, None, None], [1, 1, None]],
    [[4, 4, 3], [0, None, None], [2, None, None], [3, 1, None]],
    [[None, None, None], [2, 2, 2], [4, None, None], [1, 0, None]],
]
KNOWN = [
    [[1, 1, 1], [0, 1, 0], [0, 0, 0], [1, 0, 0]],
    [[0, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]],
    [[0, 0, 0], [1, 1, 1], [0, 0, 1], [0, 0, 0]],
]
# Ways to divide the four images of a step: by process, and by micro-batch of each.
WHOLE = slice(0, 4)
TWO_PROCESSES = [[slice(0, 3)], [slice(3, 4)]], [[slice(0, 1)], [slice(1, 4)]], [[slice(0, 1)], [slice(1, 4)]]
PARTS = [slice(0, 1), slice(1, 2), slice(2, 4)]
TWO_IN_PARTS = [[slice(0, 1), slice(1, 2)], [slice(2, 3), slice(3, 4)]]
ONE_IDLE = [[slice(0, 1), slice(1, 3)], [slice(3, 4), slice(2, 2)]]  # the last part is of no image


def captions(step: int) -> CaptionBatch:
    tokens = torch.full((4, K, 1 + T), PAD)
    random = torch.Generator().manual_seed(step)
    for image, lengths in enumerate(LENGTHS[step]):
        for row, length in enumerate(lengths):
            if length is not None:
                words = torch.randint(4, 11, (length,), generator=random).tolist()
                tokens[image, row, : length + 2] = torch.tensor([START, *words, END])
    images = torch.randn(4, P, D, dtype=torch.float64, generator=random) + torch.arange(D)
    mask = torch.arange(P).expand(4, -1) < torch.tensor([4, 3, 2, 4])[:, None]
    return CaptionBatch(torch.arange(4) + 4 * step, images, mask, tokens)


def questions(step: int) -> QuestionBatch:
    batch = captions(step)
    random = torch.Generator().manual_seed(step)
    words = torch.randint(4, 11, (4, K, 3), generator=random)
    words[..., 2] = END
    answers = torch.randint(0, 5, (4, K, 2), generator=random)
    shares = torch.tensor(KNOWN[step])[..., None] * torch.tensor([0.75, 0.25])
    ids = torch.arange(4 * K).view(4, K) + 100 * step
    return QuestionBatch(batch.image_ids, batch.images, batch.mask, words, ids, answers, shares)


def hard(**location_loss):
    return CrossEntropy(doubly_stochastic=0.7, label_smoothing=0.1, location_loss=Reinforce(scale=1.0, **location_loss))


def rewards(image_ids, found):
    return [(7 * image + sum(caption)) % 5 / 2 for image, caption in zip(image_ids, found, strict=True)]


def self_critical(**options):
    forbidden = (PAD, START, UNKNOWN)
    return SelfCritical(rewards, start=START, end=END, forbidden=forbidden, samples=3, max_length=4, **options)


HARD = {"attention": "hard", "conditioning": "first_step"}
CASES = {
    "cross_entropy": ({}, lambda: CrossEntropy(doubly_stochastic=0.7, label_smoothing=0.1)),
    "standardized vector": (
        {"attention": "none", "grid": True, "conditioning": "initial_first", "vector": Standardized}, CrossEntropy,
    ),
    "moving average": (HARD, lambda: hard(baseline=MovingAverage())),
    "moving average, to go": (HARD, lambda: hard(baseline=MovingAverage(), reward_to_go=True)),
    "leave one out": (HARD, lambda: hard(baseline=LeaveOneOut())),
    "scheduled sampling": (
        {}, lambda: CrossEntropy(inputs=ScheduledSampling(start=-1, every=1, increase=0.5, maximum=1.0)),
    ),
    "self critical": ({"vector": Standardized, "conditioning": "first_step"}, self_critical),
    "self critical, hard": (HARD, lambda: self_critical(location_loss=Reinforce(scale=1.0))),
    "answers": ("soft", AnswerCrossEntropy),
    "answers, hard": ("hard", lambda: AnswerCrossEntropy(location_loss=Reinforce(scale=1.0, baseline=MovingAverage()))),
}  # fmt: skip


@pytest.fixture
def make(toy, monkeypatch):
    """make(name) -> a Case, without dropout; words are not drawn but fixed."""
    for module in (captioning.objectives.cross_entropy, captioning.objectives.self_critical):
        monkeypatch.setattr(module, "draw_ids", by_row)
    monkeypatch.setattr(torch, "rand", lambda shape, **_: by_second_row(shape))

    def case(name: str, dtype: torch.dtype = torch.float64) -> Case:
        torch.manual_seed(3)
        parts, objective = CASES[name]
        batch = questions if isinstance(parts, str) else captions
        if isinstance(parts, str):
            attention = {"attention": partial(HardAttention, draw=ByRow())} if parts == "hard" else {}
            sizes = {"feature_size": D, "grid": True, "vocabulary_size": 11, "answers": 5, "pad": PAD}
            model = build_answerer(
                width=7, embedding_size=3, readout_width=8, dropout=0.0, **sizes, **attention
            ).double()
        else:
            model = toy(dropout=0.0, **parts)
            if parts.get("attention") == "hard":
                model.decoder.attention.draw = ByRow()
        return Case(model.to(dtype).train(), objective().to(dtype), [batch(step) for step in range(3)])

    return case


def divided(case: Case, ways: list) -> list:
    """The parts of all steps, one after the other; `ways` has the slices of one step, or those of each step."""
    ways = ways if isinstance(ways[0], list) else [ways] * len(case.steps)
    return [part_of(step, part) for step, parts in zip(case.steps, ways, strict=True) for part in parts]


def assert_same(found: dict, expected: dict, before: dict) -> None:
    moved = [name for name, value in expected.items() if not torch.equal(value, before[name])]
    assert len(moved) > len(expected) / 2
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-10, atol=1e-13, msg=lambda text, name=name: f"{name}: {text}"
        )


def state(case: Case) -> dict:
    parts = {"captioner": case.model, "objective": case.objective}
    return {f"{at}.{name}": value.clone() for at, part in parts.items() for name, value in part.state_dict().items()}


@pytest.mark.parametrize("name", CASES)
def test_accumulated_batches_are_one_batch(make, tmp_path, name):
    expected = train(make(name), make(name).steps, tmp_path)
    found = train(make(name), divided(make(name), PARTS), tmp_path, accumulate=len(PARTS))
    assert_same(found, expected, state(make(name)))


def test_the_last_step_of_an_epoch_may_have_fewer_batches(make, tmp_path):
    """Two and then one of three: the mean is over the captions that there are."""
    case = make("moving average")
    whole = [*case.steps[:1], part_of(case.steps[1], slice(0, 2))]
    expected = train(make("moving average"), whole, tmp_path)
    parts = [part_of(case.steps[0], part) for part in PARTS] + [
        part_of(case.steps[1], slice(at, at + 1)) for at in (0, 1)
    ]
    assert_same(train(case, parts, tmp_path, accumulate=3), expected, state(make("moving average")))


def test_two_processes_are_one_and_so_are_their_accumulated_batches(make, tmp_path, monkeypatch):
    jobs = {}
    for name in CASES:
        case = make(name)
        shares = [divided(case, [step[rank] for step in TWO_PROCESSES]) for rank in range(2)]
        jobs[name, "whole"] = (make(name), shares, 1)
        ways = TWO_IN_PARTS if "answers" in name else ONE_IDLE
        shares = [divided(case, ways[rank]) for rank in range(2)]
        jobs[name, "parts"] = (make(name), shares, 2)
    for name in ("moving average", "answers"):  # one batch of the one process, and all others of the other
        batches = divided(make(name), PARTS)
        jobs[name, "validation"] = (make(name), [batches[:1], batches[1:]], 0)
    torch.save(jobs, tmp_path / "jobs.pt")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # of the server that both are forks of
    multiprocessing.get_context("forkserver").set_forkserver_preload(["processes"])  # torch is imported once, not twice
    multiprocessing.start_processes(learn, args=(str(tmp_path), port), nprocs=2, start_method="forkserver")
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert found[0]["seed"] == 5 != found[1]["seed"]  # else both would draw the same dropout and samples
    for name, how in jobs:
        if how == "validation":
            expected = validate(make(name), make(name).steps, tmp_path)
            assert [own[name, how] for own in found] == pytest.approx([expected] * 2, rel=1e-12)
            continue
        expected = train(make(name), make(name).steps, tmp_path)
        for own in found:
            assert_same(own[name, how], expected, state(make(name)))


@pytest.mark.parametrize("name", ["cross_entropy", "moving average", "self critical", "answers"])
def test_the_validation_loss_is_the_mean_over_all_captions_whatever_the_batches(make, tmp_path, name):
    """By hand: the sum over each image's captions (or questions with a known answer), over their number."""
    case = make(name)
    images = [part_of(step, slice(at, at + 1)) for step in case.steps for at in range(4)]
    with torch.no_grad():
        model, objective = case.model.eval(), case.objective.eval()
        alone = [objective(model, image) for image in images]
    if name == "answers":
        counts = [sum(known) for step in KNOWN for known in step]
    else:
        counts = [sum(length is not None for length in lengths) for step in LENGTHS for lengths in step]
    assert [int(loss.count) for loss in alone] == counts
    mean = sum(float(loss.total) * count for loss, count in zip(alone, counts, strict=True)) / sum(counts)
    whole, parts = divided(case, [WHOLE]), divided(case, PARTS)
    for batches in (images, whole, parts, parts[::-1]):
        assert validate(make(name), batches, tmp_path) == pytest.approx(mean, rel=1e-12)


def distance(found: dict, expected: dict, before: dict) -> float:
    """How far apart two trainings have come, as a share of how far they have come."""
    apart, way = (
        torch.cat(
            [(expected[name] - other[name]).flatten() for name in expected if name.startswith("captioner")]
        ).norm()
        for other in (found, before)
    )
    return float(apart / way)


# bfloat16 rounds each number by up to u = 2⁻⁸ of it. A caption's words go through R = 4 (T + 1) + 3 products one after
# another, whose errors have random signs: u √R in the forward pass, as much in the backward pass, and twice that for
# what the two are taken of (a log-softmax, a state that has already moved).
HALF = 4 * 2**-8 * math.sqrt(4 * (T + 1) + 3)


def steps_of(name: str) -> int:
    """One for what samples words: after it, a word whose chance is at the edge of its draw may be another one."""
    return 1 if name.startswith("self critical") else 3


@pytest.mark.parametrize("name", CASES)
def test_half_precision_takes_the_steps_of_full_precision(make, tmp_path, name):
    single = partial(make, name, torch.float32)
    steps = single().steps[: steps_of(name)]
    expected = train(single(), steps, tmp_path, precision="32-true")
    found = train(single(), steps, tmp_path, precision="bf16-mixed")
    assert {value.dtype for value in found.values()} <= {torch.float32, torch.int64}
    assert 0 < distance(found, expected, state(single())) < HALF


def float16(scale: float) -> dict:
    """Trainer options of 16-bit floating point with a loss scaler, here on the CPU."""
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1000)
    return {"plugins": MixedPrecision("16-mixed", "cpu", scaler)}


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("name", [name for name in CASES if "answers" not in name])  # no LSTM of torch's in float16
def test_float16_takes_the_steps_of_full_precision(make, tmp_path, name, accumulate):
    single = partial(make, name, torch.float32)
    steps = single().steps[: steps_of(name)]
    batches = [part_of(step, part) for step in steps for part in PARTS] if accumulate > 1 else steps
    expected = train(single(), steps, tmp_path, precision="32-true")
    found = train(single(), batches, tmp_path, accumulate=accumulate, **float16(2.0**8))
    assert 0 < distance(found, expected, state(single())) < HALF / 4  # float16 has three bits more; two of them here


def test_a_gradient_beyond_float16_halves_the_scale_and_takes_no_step(make, tmp_path):
    """At a scale of 2²⁰ a gradient of 0.1 is beyond 65504, as a large network's is at a smaller scale."""
    case, precision = make("cross_entropy", torch.float32), float16(2.0**20)
    before, batches = state(case), case.steps
    overflows = train(case, batches[:1], tmp_path, **precision)
    assert precision["plugins"].scaler.get_scale() == 2.0**19
    for name, value in before.items():
        assert torch.equal(overflows[name], value), name
    scale = float16(2.0**8)
    train(case, batches[:1], tmp_path, **scale)
    assert scale["plugins"].scaler.get_scale() == 2.0**8
    assert not torch.equal(
        state(case)["captioner.decoder.embedding.weight"], before["captioner.decoder.embedding.weight"]
    )


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_loss_beyond_float16_is_left_out_and_the_other_batches_of_its_step_are_not(make, tmp_path, accumulate):
    """Features of 10⁶ are infinite in float16."""
    single = partial(make, "moving average", torch.float32)
    first, second, third = single().steps
    spoiled = second._replace(images=1e6 * second.images.sign())
    nothing = first._replace(tokens=torch.full_like(first.tokens, PAD))  # a batch of no caption, by which no step moves
    after = [third, second] if accumulate == 2 else [third]
    found = train(
        single(), [first, spoiled, *after], tmp_path, accumulate=accumulate, skip_nonfinite=1, **float16(256.0)
    )
    without = [first, nothing, *after] if accumulate == 2 else [first, *after]
    expected = train(single(), without, tmp_path, accumulate=accumulate, precision="32-true")
    assert all(value.isfinite().all() for value in found.values())
    assert 0 < distance(found, expected, state(single())) < HALF


@pytest.mark.slow
def test_a_run_on_two_processes_is_that_on_one_with_batches_twice_as_large(data, tmp_path, pytestconfig):
    environment = {**os.environ, "PYTHONPATH": str(pytestconfig.rootpath), "PYTHONWARNINGS": "ignore"}
    exact = ["model.dropout=0.0", "model.conditioning.dropout=0.0", "trainer.max_epochs=2", "trainer.precision=64-true"]
    for name, options in {
        "one": ["loader.batch_size=4"],
        "two": ["loader.batch_size=2", "trainer.devices=2", "trainer.strategy=ddp"],
    }.items():
        command = [sys.executable, "-m", "captioning.train", *short(data, tmp_path / name, *exact, *options)]
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=400)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert one["global_step"] == two["global_step"] == 4
    for name, value in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][name], value, rtol=1e-6, atol=1e-8)
    scores = [[row["val/greedy/CIDEr"] for row in rows(tmp_path / name)] for name in ("one", "two")]
    assert scores[0] == scores[1]


@pytest.mark.slow
def test_loss_curves_of_half_and_full_precision_agree(data, tmp_path):
    """bfloat16 rounds each number by up to u = 2⁻⁸ of it. A caption's words go through R = 4 T + 3 products one after
    another (T steps of four, and the readout), whose errors have random signs: the logits are wrong by about u √R of
    themselves, and a log-softmax by at most twice as much as its logits. The loss is of the logits' size."""
    curves = {}
    for precision in ("32-true", "bf16-mixed"):
        options = ["model.dropout=0.0", "model.conditioning.dropout=0.0", "trainer.log_every_n_steps=1"]
        options += ["trainer.max_epochs=20", "trainer.check_val_every_n_epoch=20", f"trainer.precision={precision}"]
        run("train", *short(data, tmp_path / precision, *options, "optimizer.lr=5e-3"))
        curves[precision] = [float(row["train/loss"]) for row in rows(tmp_path / precision) if row["train/loss"]]
        kinds = {value.dtype for value in weights(tmp_path / precision)["state_dict"].values()}
        assert kinds == {torch.float32}
    full, half = curves.values()
    steps = 8  # the longest sentence, <end> among its words
    tolerance = 2 * 2**-8 * math.sqrt(4 * steps + 3)
    assert len(full) == 40 and full[-1] < full[0] / 2
    assert half[0] != full[0]  # it is another precision
    assert half == pytest.approx(full, rel=tolerance)
