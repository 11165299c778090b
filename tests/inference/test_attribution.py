"""Contributions of grid locations to words: exact for a linear model, equal to difference quotients for others."""

import pytest
import torch
from torch import nn

from captioning.errors import CheckpointError
from captioning.inference.attribution import as_map, gradient_times_input
from captioning.models import (
    Captioner,
    CaptionModel,
    Glimpse,
    HardAttention,
    NoAttention,
    Step,
    TransformerCaptioner,
    build_captioner,
    build_transformer,
)
from captioning.models.state import RecurrentState

START, PAD = 1, 0


class Linear(CaptionModel):
    """Word t's logit is linear in the grid, and the softmax has two words of opposite logits."""

    def __init__(self, weight):
        super().__init__()
        self.pad, self.weight = PAD, nn.Parameter(weight)  # [T, L, D]

    def encode(self, images, mask=None):
        return images, mask

    def begin_from(self, grid, mask=None):
        zeros = grid.new_zeros(1, len(grid), 1, 1)
        return RecurrentState(zeros, zeros), grid

    def step(self, token, state, memory):
        t = int(state[0].flatten()[0])
        score = torch.einsum("bld,ld->b", memory, self.weight[t])[:, None]
        logits = torch.stack([torch.full_like(score, -1e9), torch.full_like(score, -1e9), score, score * 0], -1)
        empty = memory.new_zeros(len(memory), 1, 0)
        return Step(logits, RecurrentState(state[0] + 1, state[1]), Glimpse(empty, empty))


def captioner(attention=None) -> Captioner:
    torch.manual_seed(3)
    attention = {"attention": attention} if attention else {}
    model = build_captioner(
        feature_size=5, grid=(2, 3), vocabulary_size=9, pad=PAD, width=6, embedding_size=4, dropout=0.0, **attention
    )
    return model.double().eval()


def test_a_linear_model_gets_its_exact_contributions():
    torch.manual_seed(0)
    weight, features = torch.randn(2, 3, 4).double(), torch.randn(2, 3, 4).double()
    found = gradient_times_input(Linear(weight), features, [[2, 2], [2]], start=START)
    assert [part.shape for part in found] == [(2, 3), (1, 3)]
    for image, part in enumerate(found):
        for t, row in enumerate(part):
            terms = (features[image] * weight[t]).sum(-1)  # the logit is their sum
            doubt = 1 - torch.sigmoid(terms.sum())  # d log softmax / d logit
            assert torch.allclose(row, terms * doubt, atol=1e-12)


def transformer(maps: str) -> TransformerCaptioner:
    torch.manual_seed(3)
    sizes = {"width": 8, "layers": 2, "heads": 2, "feed_forward": 12, "dropout": 0.0}
    return (
        build_transformer(feature_size=5, grid=(2, 3), vocabulary_size=9, pad=PAD, maps=maps, **sizes).double().eval()
    )


MODELS = {
    "soft": captioner,
    "none": lambda: captioner(NoAttention),
    "hard": lambda: captioner(HardAttention),
    "transformer": lambda: transformer("last_layer"),
    "rollout": lambda: transformer("rollout"),
}


@pytest.mark.parametrize("name", MODELS)
def test_contributions_are_the_derivative_of_the_log_probability_as_the_grid_is_scaled(name):
    """Σ_d a_ld ∂/∂a_ld is the derivative with respect to a factor on location l: compare with a difference quotient."""
    model = MODELS[name]()
    features, words, rate = torch.randn(2, 6, 5).double(), [[4, 7, 3], [5, 3]], 1e-6
    found = gradient_times_input(model, features, words, start=START)
    table = torch.tensor([[[START, 4, 7, 3]], [[START, 5, 3, PAD]]])
    grid, _ = model.encode(features)

    def log_probs(grid):
        state, memory = model.begin_from(grid)
        decoded = model.teacher_force(table, state, memory)
        scores = decoded.logits.log_softmax(-1)
        targets = table[..., 1:].flatten()[decoded.index]
        return torch.zeros(6).double().index_put((decoded.index,), scores[range(len(targets)), targets]).view(2, 3)

    with torch.no_grad():
        for place in range(6):
            scale = torch.ones(6, 1).double()
            scale[place] = 1 + rate
            more = log_probs(grid * scale)
            scale[place] = 1 - rate
            slope = (more - log_probs(grid * scale)) / (2 * rate)
            for image, part in enumerate(found):
                assert torch.allclose(part[:, place], slope[image, : len(part)], atol=1e-7)


def test_other_images_of_the_batch_and_later_words_change_nothing():
    model, features = captioner(), torch.randn(2, 6, 5).double()
    both = gradient_times_input(model, features, [[4, 7, 3], [5, 3]], start=START)
    alone = gradient_times_input(model, features[1:], [[5, 3]], start=START)
    shorter = gradient_times_input(model, features[:1], [[4, 7]], start=START)
    assert torch.allclose(both[1], alone[0], atol=1e-12) and torch.allclose(both[0][:2], shorter[0], atol=1e-12)


def test_missing_locations_contribute_nothing_and_weights_get_no_gradient():
    model, features = captioner(), torch.randn(1, 6, 5).double()
    mask = torch.tensor([[True] * 4 + [False] * 2])
    (found,) = gradient_times_input(model, features, [[4, 3]], start=START, mask=mask)
    assert (found[:, 4:] == 0).all() and (found[:, :4] != 0).all()
    assert all(weight.grad is None for weight in model.parameters())


def test_one_vector_per_image_has_no_locations():
    torch.manual_seed(0)
    model = build_captioner(
        feature_size=5, grid=False, vocabulary_size=9, width=6, embedding_size=4, attention=NoAttention
    ).eval()
    with pytest.raises(CheckpointError, match="one vector per image"):
        gradient_times_input(model, torch.randn(1, 5), [[4, 3]], start=START)


def test_a_map_has_the_positive_contributions_and_is_uniform_without_any():
    contributions = torch.tensor([[3.0, -5.0, 1.0, 0.0], [-1.0, -2.0, 0.0, 0.0]])
    expected = torch.tensor([[0.75, 0.0, 0.25, 0.0], [0.25, 0.25, 0.25, 0.25]])
    assert torch.equal(as_map(contributions), expected)
