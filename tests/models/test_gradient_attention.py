"""Gradient-weighted attention: exact for linear models, and equal to slow loops over words, heads and layers."""

import functools

import pytest
import torch
from tiny_transformers import tiny_transformer
from torch import nn
from toys import PAD, START

from captioning.errors import ConfigError
from captioning.models import (
    CaptionModel,
    Glimpse,
    HardAttention,
    LookAfter,
    MultiCrop,
    NoAttention,
    RecurrentState,
    Step,
    UpDown,
    build_captioner,
    head_name,
    layer_name,
)
from captioning.models import transformer as transformer_module
from captioning.models import transformer_blocks as blocks_module

MASK = torch.tensor([[True, True, True, False], [True] * 4, [False, True, True, True]])


class LinearLook(CaptionModel):
    """Attention with fixed weights; the log-odds of word 2 against word 3 are u · Σ_l α_tl a_l, times t + 1."""

    pad, attends = PAD, True

    def __init__(self, weights, direction):
        super().__init__()
        self.weights, self.direction = nn.Parameter(weights), direction  # [T, L], [D]

    def encode(self, images, mask=None):
        return images, mask

    def begin_from(self, grid, mask=None):
        zeros = grid.new_zeros(1, len(grid), 1, 1)
        return RecurrentState(zeros, zeros), grid

    def step(self, token, state, memory):
        t = int(state[0].flatten()[0])
        alpha = self.weights[t].expand(*token.shape, -1) * 1.0
        score = (alpha @ memory) @ self.direction * (t + 1)
        never = torch.full_like(score, -1e9)
        logits = torch.stack([never, never, score, score * 0], -1)
        return Step(logits, RecurrentState(state[0] + 1, state[1]), Glimpse(alpha[..., :0], alpha))


def test_a_linear_model_gets_the_exact_positive_contributions_of_its_locations():
    grid, direction = torch.randn(2, 5, 3).double(), torch.randn(3).double()
    weights = torch.rand(2, 5).double().softmax(-1)
    tokens = torch.tensor([[[START, 2, 3], [START, 3, PAD]], [[START, 2, 2], [START, 2, 3]]])
    found = LinearLook(weights, direction).gradient_attention(grid, tokens)
    for image in range(2):
        for t in range(2):
            exact = weights[t] * (grid[image] @ direction) * (t + 1)  # what each location adds to the log-odds
            for row, word in enumerate(tokens[image, :, t + 1].tolist()):
                if word == PAD:
                    assert not found[image, row, t].any()
                    continue
                sign = 1 if word == 2 else -1
                doubt = 1 - torch.sigmoid(sign * exact.sum())  # d log p / d log-odds
                torch.testing.assert_close(found[image, row, t], (sign * exact).clamp_min(0) * doubt)


RECURRENT = {
    "look_first": {},
    "look_after": {"recurrence": LookAfter},
    "up_down": {"recurrence": UpDown},
    "adaptive": {"recurrence": functools.partial(LookAfter, sentinel=True), "feature_width": 6},
}


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_captioners_equal_difference_quotients_of_one_weight(name, toy_tokens, monkeypatch):
    """Change one attention weight of one step, and nothing else: log p of the step's word changes by the gradient."""
    settings = {"feature_size": 6, "grid": True, "vocabulary_size": 11, "width": 6, "embedding_size": 4, "pad": PAD}
    model = build_captioner(**{**settings, "dropout": 0.0, **RECURRENT[name]}).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.7)
    images, tokens = torch.randn(3, 4, 6).double(), toy_tokens[:, :2, :4]
    found = model.gradient_attention(images, tokens)
    state, memory = model.begin(images)
    state, change = state.repeat(2), torch.zeros(4).double()
    from captioning.models import attention as attention_module

    look = attention_module._look
    monkeypatch.setattr(attention_module, "_look", lambda weights, *others: look(weights + change, *others))
    for t in range(3):
        words = tokens[..., t + 1, None]

        def log_probs(delta, words=words, state=state, t=t):
            change.copy_(delta)
            return model.step(tokens[..., t], state, memory).logits.log_softmax(-1).gather(-1, words).squeeze(-1)

        with torch.no_grad():
            for place, eye in enumerate(torch.eye(4).double()):
                slope = (log_probs(1e-6 * eye) - log_probs(-1e-6 * eye)) / 2e-6
                change.zero_()
                step = model.step(tokens[..., t], state, memory)
                expected = (slope * step.glimpse.weights[..., place]).clamp_min(0) * (words.squeeze(-1) != PAD)
                torch.testing.assert_close(found[..., t, place], expected, rtol=0, atol=1e-8)
            state = step.state
    assert (found > 1e-4).any()


def test_masked_locations_have_no_relevance_and_crops_are_joined(toy_tokens):
    settings = {"feature_size": 6, "grid": True, "vocabulary_size": 11, "width": 6, "embedding_size": 4, "pad": PAD}
    model = build_captioner(**settings, dropout=0.0).double().eval()
    images = torch.randn(3, 4, 6).double()
    found = model.gradient_attention(images, toy_tokens, MASK)
    assert not found[0, ..., 3].any() and not found[2, ..., 0].any() and found[1].any()
    twice = MultiCrop(model, 2).gradient_attention(torch.stack((images, images), 1), toy_tokens)
    once = model.gradient_attention(images, toy_tokens)
    torch.testing.assert_close(twice[..., :4] + twice[..., 4:], once, rtol=0, atol=1e-12)  # the same locations twice


@pytest.mark.parametrize("attention", [NoAttention, HardAttention])
def test_words_without_a_gradient_through_attention_are_refused(attention, toy_tokens):
    settings = {"feature_size": 6, "grid": True, "vocabulary_size": 11, "width": 6, "embedding_size": 4, "pad": PAD}
    model = build_captioner(**settings, attention=attention).double().eval()
    message = r"words of Captioner have no gradient with respect to attention weights\. Set map=gradient_input"
    with pytest.raises(ConfigError, match=message):
        model.gradient_attention(torch.randn(3, 4, 6).double(), toy_tokens)
    with pytest.raises(ConfigError, match="words of TransformerCaptioner have no gradient"):
        tiny_transformer(grid=False).gradient_attention(torch.randn(3, 6).double(), toy_tokens)
    with pytest.raises(ConfigError, match="words of MultiCrop have no gradient"):
        MultiCrop(tiny_transformer(), 2).gradient_attention(torch.randn(3, 2, 4, 6).double(), toy_tokens)


# ---- the transformer


def test_a_linear_transformer_gets_the_exact_contributions_of_its_locations():
    """One block with one head, without normalization and feed-forward: remove a location's value, and compare."""
    model = tiny_transformer(std=0.5, layers=1, heads=1, tied=False)
    block = model.blocks[0]
    block.self_norm = block.image_norm = block.feed_norm = model.norm = nn.Identity()
    for part in (block.self_output, block.feed_forward[3]):
        nn.init.zeros_(part.weight), nn.init.zeros_(part.bias)
    images, word, other = torch.randn(2, 4, 6).double(), 5, 7
    model.output.bias.data.fill_(-1e9)
    model.output.bias.data[[word, other]] = 0.0
    tokens = torch.tensor([[[START, word, 4, word]]]).expand(2, -1, -1)
    found = model.gradient_attention(images, tokens)
    with torch.no_grad():
        state, memory = model.begin(images)

        def odds(memory):  # of `word` against `other`, at every step
            logits = model.teacher_force(tokens, state, memory).logits.view(2, 3, -1)
            return logits[..., word] - logits[..., other]

        whole, exact = odds(memory), []
        for place in range(4):
            keys = memory.keys[0].clone()
            keys[:, place, 8:] = 0.0  # the value, not the key
            exact.append(whole - odds(memory._replace(keys=(keys,))))
    exact = torch.stack(exact, -1)  # [images, T, L]
    doubt = 1 - torch.sigmoid(whole)
    for t in (0, 2):  # the steps that write `word`
        torch.testing.assert_close(found[:, 0, t], exact[:, t].clamp_min(0) * doubt[:, t, None], rtol=1e-9, atol=1e-12)
    assert (exact < 0).any() and (exact > 0).any()


def slow_relevance(model, image, line, monkeypatch):
    """Relevance of each location to the last word of one caption of one image, one matrix and one head at a time."""
    seen = []

    def attend(*arguments, **settings):
        found, weights = blocks_attend(*arguments, **settings)
        seen.append(weights)
        return found, weights

    blocks_attend = blocks_module.attend
    with monkeypatch.context() as patch:
        patch.setattr(blocks_module, "attend", attend)
        patch.setattr(transformer_module, "attend", attend)
        patch.setattr(model, "_maps", "rollout")  # every weight is computed, and is part of the result
        patch.setattr(model, "_encode", functools.partial(model._encode, weighs=True))
        grid, _, _ = model._encode(image, None)
        state, memory = model.begin_from(grid)
        logits = model.teacher_force(line, state, memory).logits
    score = logits[-1].log_softmax(-1)[line[0, 0, -1]]
    bars = []
    for weights in seen:
        gradient = torch.autograd.grad(score, weights, retain_graph=True)[0]
        heads = [(gradient[0, h] * weights[0, h]).clamp(min=0) for h in range(weights.shape[1])]
        bars.append((sum(heads) / len(heads)).detach())

    def normalized(matrix):
        rest = matrix - torch.eye(len(matrix)).double()
        for row in rest:
            if row.sum() > 0:
                row /= row.sum()
        return rest + torch.eye(len(matrix)).double()

    count = len(model.grid_blocks)
    of_grid = torch.eye(image.shape[1]).double()
    for bar in bars[:count]:
        of_grid = of_grid + bar @ of_grid
    length = line.shape[-1] - 1
    own, shown = torch.eye(length).double(), torch.zeros(length, image.shape[1]).double()
    for reads, looks in zip(bars[count::2], bars[count + 1 :: 2], strict=True):
        own, shown = own + reads @ own, shown + reads @ shown
        shown = shown + normalized(own).T @ looks @ normalized(of_grid)
    return shown[-1]


@pytest.mark.parametrize("settings", [{}, {"layers": 3, "encoder_layers": 2}, {"heads": 4, "embedding_size": 5}])
def test_the_batched_relevance_is_the_slow_loop(settings, toy_tokens, monkeypatch):
    model, images = tiny_transformer(std=0.8, **settings), torch.randn(3, 4, 6).double()
    found = model.gradient_attention(images, toy_tokens, MASK)
    assert found.shape == (3, 3, 6, 4) and (found >= 0).all()
    for image in range(3):
        for caption, line in enumerate(toy_tokens[image]):
            words = int((line[1:] != PAD).sum())
            for t in range(words):
                slow = slow_relevance(
                    model, images[image : image + 1, MASK[image]], line[None, None, : t + 2], monkeypatch
                )
                torch.testing.assert_close(found[image, caption, t, MASK[image]], slow, rtol=1e-9, atol=1e-12)
            assert not found[image, caption, words:].any() and not found[image, caption, :, ~MASK[image]].any()
    assert (found[1, 0, :2].std(-1) > 0).all()


def test_named_maps_are_those_of_the_model(toy_tokens):
    model, images = tiny_transformer(std=0.8, layers=3), torch.randn(3, 4, 6).double()
    names = ("last_layer", "all_layers", "rollout")
    heads = [head_name(layer, head) for layer in range(3) for head in range(2)]
    assert model.map_names == (*names, *map(layer_name, range(3)), *heads)
    assert heads[3] == "layer2_head2" and layer_name(2) == "layer3"
    with torch.no_grad():
        found = model.named_maps(images, toy_tokens, model.map_names, MASK)
        seen = model.attention_maps(images, toy_tokens, MASK).image
    real = (toy_tokens[..., 1:] != PAD).double()[..., None]
    for name in names:
        model.maps = name
        expected = model(images, toy_tokens, MASK).glimpse.weights
        torch.testing.assert_close(found[name], expected, rtol=0, atol=1e-12)
    for layer in range(3):
        torch.testing.assert_close(found[layer_name(layer)], seen[layer].mean(2) * real, rtol=0, atol=1e-12)
        for head in range(2):
            torch.testing.assert_close(
                found[head_name(layer, head)], seen[layer, :, :, head] * real, rtol=0, atol=1e-12
            )
    for weights in found.values():
        torch.testing.assert_close(weights.sum(-1, keepdim=True), real)
    with pytest.raises(ConfigError, match=r"map=layer4 does not exist\. Choose from last_layer, .*layer3_head2"):
        model.named_maps(images, toy_tokens, ["layer1", "layer4"])


def test_models_with_one_map_per_word_have_no_names(toy_tokens):
    model = build_captioner(feature_size=6, grid=True, vocabulary_size=11, width=6, embedding_size=4, pad=PAD)
    assert model.map_names == MultiCrop(model, 2).map_names == tiny_transformer(grid=False).map_names == ()
    with pytest.raises(ConfigError, match="Captioner has one attention map per word: set map=attention"):
        model.named_maps(torch.randn(3, 4, 6), toy_tokens, ["rollout"])
