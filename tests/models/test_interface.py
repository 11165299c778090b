"""Train, search and score a model of forty lines that implements only the declared interface."""

from functools import partial
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from captioning.data import CaptionBatch
from captioning.decoding import beam_search, forced_decoding, greedy_search, sample, score_tokens
from captioning.errors import ConfigError
from captioning.models import CaptionModel, Glimpse, HardAttention, LookAfter, MultiCrop, Step, UpDown, build_captioner
from captioning.models.interface import stack_glimpses
from captioning.objectives import CrossEntropy, ScheduledSampling, SelfCritical

PAD, START, END, UNKNOWN, WORDS = 0, 1, 2, 3, 9


class ToyState(NamedTuple):
    hidden: Tensor  # [B, K, H]

    def select(self, index: Tensor) -> "ToyState":
        return ToyState(self.hidden.gather(1, index[..., None].expand(-1, -1, self.hidden.shape[-1])))

    def repeat(self, rows: int) -> "ToyState":
        return ToyState(self.hidden.expand(-1, rows, -1))

    def detach(self) -> "ToyState":
        return ToyState(self.hidden.detach())


class Toy(CaptionModel):
    attends = True

    def __init__(self, *, feature_size, grid, vocabulary_size, pad=0, regions=False, encoder=None, width=16):
        super().__init__()
        self.encoder, self.pad = encoder or nn.Identity(), pad
        self.image, self.words = nn.Linear(feature_size, width), nn.Embedding(vocabulary_size, width)
        self.cell, self.output = nn.Linear(3 * width, width), nn.Linear(width, vocabulary_size)

    def begin(self, images, mask=None):
        grid = self.image(self.encoder(images).to(self.image.weight.dtype))
        grid = grid if grid.dim() == 3 else grid[:, None]
        return ToyState(grid.mean(1, keepdim=True).tanh()), grid

    def step(self, token, state, memory):
        weights = (state.hidden @ memory.transpose(1, 2)).softmax(-1)
        context = weights @ memory
        hidden = self.cell(torch.cat((self.words(token), state.hidden, context), -1)).tanh()
        return Step(self.output(hidden), ToyState(hidden), Glimpse(context, weights))


def batch_of(images: Tensor) -> CaptionBatch:
    tokens = torch.tensor(
        [
            [[START, 4, 6, 7, END], [START, 4, 5, END, PAD]],
            [[START, 5, 5, END, PAD], [START, 8, END, PAD, PAD]],
        ]
    )
    return CaptionBatch(torch.arange(2), images, None, tokens)


@pytest.fixture
def toy() -> Toy:
    torch.manual_seed(0)
    return Toy(feature_size=6, grid=True, vocabulary_size=WORDS).double()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 4, 6, dtype=torch.float64)


def test_the_default_teacher_forcing_is_the_loop_over_steps(toy, images):
    batch = batch_of(images)
    decoded = toy(images, batch.tokens)
    scored = decoded.logits.log_softmax(-1)
    targets = batch.tokens[..., 1:].flatten()[decoded.index]
    state, memory = toy.begin(images)
    stepped = score_tokens(partial(toy.step, memory=memory), state, batch.tokens, pad=PAD)
    found = torch.zeros(targets.new_tensor(batch.tokens[..., 1:].shape).prod(), dtype=torch.float64)
    found[decoded.index] = scored.gather(-1, targets[:, None]).squeeze(-1)
    torch.testing.assert_close(found.view_as(stepped), stepped.clone(), rtol=0, atol=1e-12)
    real = batch.tokens[..., 1:] != PAD
    assert decoded.glimpse.weights.shape == (2, 2, 4, 4)
    torch.testing.assert_close(decoded.glimpse.weights.sum(-1), real.double())


def test_glimpses_of_steps_are_joined_along_time_and_zero_at_padding():
    real = torch.tensor([[[True, True, True], [True, False, False]], [[False] * 3, [True, True, False]]])
    steps = [
        Glimpse(torch.randn(2, 2, 5), torch.rand(2, 2, 4), torch.randint(1, 5, (2, 2)), -torch.rand(2, 2))
        for _ in range(3)
    ]
    joined = stack_glimpses(steps, real)
    assert joined.context.shape == (2, 2, 3, 0) and joined.entropy is None
    assert joined.places.dtype == torch.int64
    for t, step in enumerate(steps):
        for b in range(2):
            for k in range(2):
                for name in ("weights", "places", "log_prob"):
                    found, expected = getattr(joined, name)[b, k, t], getattr(step, name)[b, k]
                    assert torch.equal(found, expected if real[b, k, t] else torch.zeros_like(expected))


def test_states_and_indices_of_the_default_teacher_forcing(toy, images):
    tokens = batch_of(images).tokens
    state, memory = toy.begin(images)
    decoded = toy.teacher_force(tokens, state, memory)
    assert decoded.index.tolist() == (tokens[..., 1:] != PAD).flatten().nonzero().squeeze(1).tolist()
    state = state.repeat(2)
    for t in range(4):
        state = toy.step(tokens[..., t], state, memory).state
    torch.testing.assert_close(decoded.state, state)


@pytest.mark.parametrize("recurrence", [None, UpDown, partial(LookAfter, sentinel=True)])
@pytest.mark.parametrize("attention", [None, HardAttention])
def test_the_captioner_computes_what_the_default_does(recurrence, attention):
    given = {"recurrence": recurrence} if recurrence else {}
    given |= {"attention": attention} if attention else {}
    torch.manual_seed(1)
    model = build_captioner(
        feature_size=6, grid=True, vocabulary_size=WORDS, width=8, embedding_size=5, feature_width=8, **given
    )
    model = model.double().eval()
    images = torch.randn(2, 4, 6, dtype=torch.float64)
    tokens = batch_of(images).tokens
    state, memory = model.begin(images)
    fast, slow = model.teacher_force(tokens, state, memory), CaptionModel.teacher_force(model, tokens, state, memory)
    order = fast.index.argsort()
    torch.testing.assert_close(fast.index[order], slow.index)
    torch.testing.assert_close(fast.logits[order], slow.logits, rtol=0, atol=1e-12)
    torch.testing.assert_close(fast.glimpse.weights, slow.glimpse.weights, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "objective",
    [
        CrossEntropy,
        partial(CrossEntropy, doubly_stochastic=1.0, label_smoothing=0.1),
        partial(CrossEntropy, inputs=ScheduledSampling(start=-1, every=1, increase=0.2)),
    ],
)
def test_it_is_trained_by_any_objective_for_words(toy, images, objective):
    batch, objective = batch_of(images), objective()
    optimizer = torch.optim.Adam(toy.parameters(), lr=0.02)
    losses = []
    for _ in range(60):
        loss = objective(toy, batch)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        losses.append(float(loss.total.detach()))
    assert losses[-1] < 0.7 * losses[0]


def test_it_is_trained_by_a_reward(toy, images):
    def reward(image_ids, captions) -> list[float]:
        return [float(caption.count(5)) for caption in captions]

    objective = SelfCritical(reward=reward, start=START, end=END, forbidden=(PAD, START, UNKNOWN), max_length=4)
    optimizer = torch.optim.Adam(toy.parameters(), lr=0.02)

    def greedy() -> list[list[int]]:
        state, memory = toy.begin(images)
        found = greedy_search(partial(toy.step, memory=memory), state, batch=2, start=START, end=END, max_length=4)
        return [list(best.tokens) for (best,) in found]

    before = sum(caption.count(5) for caption in greedy())
    for _ in range(40):
        optimizer.zero_grad()
        objective(toy, batch_of(images)).total.backward()
        optimizer.step()
    assert sum(caption.count(5) for caption in greedy()) > before


def test_searches_and_scores_agree(toy, images):
    toy.eval()
    state, memory = toy.begin(images)
    step, common = partial(toy.step, memory=memory), {"batch": 2, "start": START, "end": END}
    for found in (
        beam_search(step, state, **common, beam_size=3, max_length=5),
        greedy_search(step, state, **common, max_length=5),
        sample(step, state, **common, max_length=5),
    ):
        for image, group in enumerate(found):
            best = group[0]
            assert best.weights.shape[-1] == 4
            led = forced_decoding(step, state, **common, tokens=[list(best.tokens)] * 2)
            assert led[image][0].log_prob == pytest.approx(best.log_prob, abs=1e-9)


def test_several_crops_need_the_two_halves_of_begin(toy, images):
    with pytest.raises(ConfigError, match="Toy takes one view per image: set crops=null"):
        MultiCrop(toy, 2).begin(torch.stack((images, images), 1))
