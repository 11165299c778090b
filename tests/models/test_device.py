"""Test without a GPU what matters on one: the loop over words never waits for it, and all tensors are on it.

Tensors on torch's "meta" device have no values. Code that reads one (.item(), .tolist(), nonzero(), `if tensor`) fails
there; on a GPU it would wait until the queue is empty. With "meta" as the default device, a tensor that is created
without a device fails beside those of the CPU.
"""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from toys import (
    END,
    PAD,
    START,
    UNKNOWN,
)

from captioning.data import CaptionBatch
from captioning.decoding import (
    beam_search,
    consensus_search,
    diverse_beam_search,
    forced_decoding,
    greedy_search,
    sample,
    score_tokens,
)
from captioning.features import extraction
from captioning.models import decoder as decoding_loop
from captioning.models.ops import Layout
from captioning.objectives import CrossEntropy, LeaveOneOut, Reinforce, ScheduledSampling, SelfCritical, greedy
from captioning.objectives.rollout import draw_ids
from captioning.training import CaptionModule

# Calls that wait for a GPU: methods that read a tensor, and operations whose result size depends on its values.
METHODS = ("__bool__", "__int__", "__float__", "__index__", "item", "tolist", "cpu", "numpy")
OPERATIONS = {
    "nonzero",
    "masked_select",
    "multinomial",
    "_unique2",
    "isin",
    "lift_fresh",
}  # the last one is of a Python number
MODELS = [
    {"attention": "soft", "recurrence": "look_first"},
    {"attention": "soft", "recurrence": "look_with_word", "cell": "gru"},
    {"attention": "soft", "recurrence": "adaptive", "scorer": "dot_product"},
    {"attention": "soft", "recurrence": "up_down", "conditioning": "every_step"},
    {"attention": "hard", "recurrence": "look_first"},
    {"attention": "hard_gumbel", "recurrence": "up_down"},
]
RULES = {"no_repeat_ngram": 2, "avoid_endings": tuple(range(4, 8)), "require": (9, 10)}
SEARCHES = {
    "greedy": partial(greedy_search, min_length=5),
    "beam": partial(beam_search, beam_size=3, min_length=5),
    "rules": partial(beam_search, beam_size=4, n_best=2, length_normalization=0.6, **RULES),
    "diverse": partial(diverse_beam_search, beam_size=4, groups=2, min_length=5),
    "sample": partial(sample, samples=3, top_k=5, top_p=0.9, min_length=5),
}


class Watched(TorchDispatchMode):
    """Record every call of METHODS and OPERATIONS in order, and "step" for each step of the model."""

    def __init__(self, monkeypatch, recurrence):
        super().__init__()
        self.seen = []
        monkeypatch.setattr(recurrence, "step", self._noted("step", recurrence.step))
        for name in METHODS:
            monkeypatch.setattr(torch.Tensor, name, self._noted(name, getattr(torch.Tensor, name)))

    def _noted(self, name, function):
        def noted(*arguments, **named):
            self.seen.append(name)
            return function(*arguments, **named)

        return noted

    def __torch_dispatch__(self, operation, types, arguments=(), named=None):
        name = operation.overloadpacket.__name__
        indices = arguments[1] if name in ("index", "index_put", "index_put_") else ()
        if name in OPERATIONS or any(part is not None and part.dtype == torch.bool for part in indices):
            self.seen.append(name)
        return operation(*arguments, **(named or {}))

    def before(self) -> list[str]:
        """Return the calls before the first step."""
        return self.seen[: self.seen.index("step")]

    def between(self) -> list[str]:
        """Return the calls from the first step to the last."""
        first, last = self.seen.index("step"), len(self.seen) - 1 - self.seen[::-1].index("step")
        return [name for name in self.seen[first:last] if name != "step"]


def batch_of(tokens, *, device="cpu") -> CaptionBatch:
    images = torch.randn(len(tokens), 4, 6, dtype=torch.float64, device=device)
    mask = torch.tensor([[True] * 4, [True, True, True, False], [True] + [False] * 3]).to(device)
    return CaptionBatch(torch.arange(len(tokens), device=device), images, mask, tokens.to(device))


def reward(image_ids, captions):
    return [len(set(caption)) / (1 + len(caption)) for caption in captions]


OBJECTIVES = {
    "cross_entropy": lambda: CrossEntropy(location_loss=Reinforce(reward_to_go=True)),
    "leave_one_out": lambda: CrossEntropy(location_loss=Reinforce(baseline=LeaveOneOut())),
    "scheduled": lambda: CrossEntropy(inputs=ScheduledSampling(start=-5, every=1, increase=0.1)),
    "self_critical": lambda: SelfCritical(
        reward, start=START, end=END, forbidden=(PAD, START, UNKNOWN), baseline=greedy, max_length=6, samples=3
    ),
}


@pytest.mark.parametrize("parts", MODELS, ids=lambda parts: "-".join(parts.values()))
def test_no_step_of_training_waits_for_the_device(toy, toy_tokens, monkeypatch, parts):
    """Forward and backward pass on a device without values; only the layout is known."""
    layout = Layout.of(toy_tokens[..., 1:] != PAD)

    def there(real):
        assert real.device.type == "meta"
        return Layout(*(_to_meta(field) for field in layout))

    monkeypatch.setattr(decoding_loop.Layout, "of", there)
    model, objective = toy(**parts).train().to("meta"), CrossEntropy().to("meta")
    loss = objective(model, batch_of(toy_tokens, device="meta"))
    loss.total.backward()
    assert all(parameter.grad.is_meta for parameter in model.parameters())
    with pytest.raises((RuntimeError, NotImplementedError)):
        bool(loss.total.isfinite())  # reading a value fails there


PLAIN = [{"attention": "none", "cell": cell, "conditioning": "every_step"} for cell in ("lstm", "gru", "rnn")]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: only there can its numbers be held against a CPU's")
@pytest.mark.parametrize("parts", [*MODELS[:4], *PLAIN], ids=lambda parts: "-".join(parts.values()))
def test_a_gpu_computes_the_losses_and_gradients_of_a_cpu(toy, toy_tokens, parts):
    found = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(1)
        batch = batch_of(toy_tokens)
        model = toy(**parts).to(device)
        batch = CaptionBatch(*(field.to(device) for field in batch))
        if parts["attention"] == "none":
            batch = batch._replace(images=batch.images[:, 0], mask=None)
        total = CrossEntropy()(model, batch).total
        gradients = torch.autograd.grad(total, list(model.parameters()))
        found.append([part.detach().cpu() for part in (total, *gradients)])
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-12)


def _to_meta(field):
    if isinstance(field, list):
        return [_to_meta(part) for part in field]
    return field.to("meta") if isinstance(field, torch.Tensor) else field


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("attention", ["soft", "hard"])
def test_what_is_made_is_made_on_the_device_of_the_inputs(toy, toy_tokens, name, attention):
    model, batch, found = toy(attention=attention).train(), batch_of(toy_tokens), []
    for default in ("cpu", "meta"):
        objective = OBJECTIVES[name]()
        torch.manual_seed(1)
        model.zero_grad()
        with torch.device(default):
            total = objective(model, batch).total
            total.backward()
        found.append([total.detach(), *(parameter.grad for parameter in model.parameters())])
    for on_cpu, beside_meta in zip(*found, strict=True):
        assert torch.equal(on_cpu, beside_meta)


# These are not a single loop over steps.
OTHERS = {
    "consensus": partial(consensus_search, beam_size=3, finalists=2, samples=4, min_length=5, max_length=7, seed=0),
    "forced": partial(forced_decoding, tokens=[[5, 6, END], [], [4, 4, 7, 8]]),
}


@pytest.mark.parametrize("name", [*SEARCHES, *OTHERS])
def test_searches_make_their_tensors_on_the_device_of_the_state(toy, toy_tokens, name):
    model, batch = toy(attention="hard"), batch_of(toy_tokens)
    ids, found = {"batch": 3, "start": START, "end": END, "forbidden": (PAD, START, UNKNOWN)}, []
    for default in ("cpu", "meta"):
        torch.manual_seed(1)
        with torch.device(default), torch.inference_mode():
            state, memory = model.begin(batch.images, batch.mask)
            step = partial(model.step, memory=memory)
            captions = (OTHERS.get(name) or partial(SEARCHES[name], max_length=7))(step, state, **ids)
            known = score_tokens(step, state, batch.tokens, pad=PAD)
        found.append([[(each.tokens, each.log_prob) for each in group] for group in captions] + [known.tolist()])
    assert found[0] == found[1]


class Largest(TorchDispatchMode):
    """Record the size of the largest tensor that is created, in numbers."""

    numbers = 0

    def __torch_dispatch__(self, operation, types, arguments=(), named=None):
        made = operation(*arguments, **(named or {}))
        if isinstance(made, torch.Tensor) and not made._is_view() and operation.overloadpacket.__name__ != "expand":
            self.numbers = max(self.numbers, made.numel())
        return made


@pytest.mark.parametrize("name", [*SEARCHES, "consensus"])
def test_an_images_features_are_there_once_whatever_the_number_of_beams(toy, name):
    """With 3 · 40 locations of 32 features, no tensor is as large as the features of two rows per image."""
    model = toy(scorer="dot_product", feature_size=32)
    state, memory = model.begin(torch.randn(3, 40, 32, dtype=torch.float64))
    ids = {"batch": 3, "start": START, "end": END, "forbidden": (PAD, START, UNKNOWN)}
    with Largest() as seen, torch.inference_mode():
        ({**OTHERS, **SEARCHES}[name])(partial(model.step, memory=memory), state, **ids)
    assert memory.grid.shape == (3, 40, 32)
    assert 0 < seen.numbers < 2 * 3 * 40 * 32


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_looks_once_a_step_whether_it_is_over(toy, toy_tokens, monkeypatch, name):
    model, batch = toy(), batch_of(toy_tokens)
    ids = {"batch": 3, "start": START, "end": END, "forbidden": (PAD, START, UNKNOWN)}
    state, memory = model.begin(batch.images, batch.mask)
    with Watched(monkeypatch, model.decoder.recurrence) as watched:
        SEARCHES[name](partial(model.step, memory=memory), state, max_length=7, **ids)
    assert watched.seen.count("step") > 2
    assert watched.between() == ["__bool__"] * (watched.seen.count("step") - 1)


@pytest.mark.parametrize("parts", MODELS, ids=lambda parts: "-".join(parts.values()))
def test_a_step_of_training_asks_once_where_the_words_are(toy, toy_tokens, monkeypatch, parts):
    model, batch = toy(**parts).train(), batch_of(toy_tokens)
    with Watched(monkeypatch, model.decoder.recurrence) as watched:
        CrossEntropy()(model, batch).total.backward()
    assert watched.before() == ["cpu", "nonzero", "tolist", "tolist"]  # after the first, they are on the CPU
    assert watched.seen.count("step") == 6 and len(watched.seen) == 4 + 6


def test_how_often_training_looks_that_does_not_know_its_words(toy, toy_tokens, monkeypatch):
    """Sampling captions reads from the device once per step (have all ended?); sampling inputs never does."""
    model, batch = toy(attention="hard").train(), batch_of(toy_tokens)
    with monkeypatch.context() as patch, Watched(patch, model.decoder.recurrence) as watched:
        OBJECTIVES["self_critical"]()._sample(model, batch)
    assert watched.between() == ["__bool__"] * (watched.seen.count("step") - 1)
    with monkeypatch.context() as patch, Watched(patch, model.decoder.recurrence) as watched:
        OBJECTIVES["scheduled"]()(model, batch).total.backward()
    assert watched.before() == ["__int__"] and not watched.between()  # the number of batches so far


def test_looks_are_seen(toy, monkeypatch):
    with Watched(monkeypatch, toy().decoder.recurrence) as watched:
        numbers = torch.arange(4)
        if numbers.sum() > 3:
            numbers[numbers > 1].float().multinomial(1).nonzero()
        torch.tensor(2.0)
    assert watched.seen == ["__bool__", "index", "multinomial", "nonzero", "lift_fresh"]


def test_draws_are_those_of_torchs_multinomial():
    probabilities = torch.rand(40, 3, 7, generator=torch.Generator().manual_seed(0)).double()
    probabilities[..., 2] = 0.0
    torch.manual_seed(3)
    found = draw_ids(probabilities)
    torch.manual_seed(3)
    assert torch.equal(found, probabilities.flatten(0, 1).multinomial(1).view(40, 3))
    assert not (found == 2).any()


def test_memory_is_pinned_for_the_gpu_that_trains_and_for_no_other(monkeypatch):
    """The machine has a GPU that the run does not use."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for device in ("cpu", "cuda"):
        module = CaptionModule([1], [2], batch_size=1, val_batch_size=1)
        module.trainer = SimpleNamespace(
            strategy=SimpleNamespace(root_device=torch.device(device)), global_rank=0, world_size=1
        )
        assert module.train_dataloader().pin_memory == module.val_dataloader().pin_memory == (device == "cuda")
        assert extraction._loader([], None, workers=0, device=device).pin_memory == (device == "cuda")
