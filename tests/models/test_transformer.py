"""Compare the transformer with torch's own, its steps with its parallel pass, and its cache with no cache."""

import itertools
from functools import partial

import pytest
import torch
from tiny_transformers import tiny_transformer
from torch import nn
from toys import OBJECTIVES, PAD, START
from transformer_speed import copy_block

from captioning.data import CaptionBatch
from captioning.errors import ConfigError
from captioning.models import (
    CaptionModel,
    Coordinates,
    LearnedPositions,
    MultiCrop,
    SinusoidalPositions,
    attention_rollout,
    build_transformer,
)
from captioning.models.transformer_blocks import attend
from captioning.models.transformer_maps import mix_locations

MAPS = ("last_layer", "all_layers", "rollout")
SETTINGS = [
    {},
    {"maps": "all_layers", "encoder_layers": 2},
    {"maps": "rollout", "tied": False},
    {"maps": "rollout", "embedding_size": 5, "word_positions": LearnedPositions, "layers": 3},
    {"positions": Coordinates, "tied": False, "embedding_size": 5, "heads": 1, "layers": 1},
    {"grid": False},
]
MASK = torch.tensor([[True, True, True, False], [True] * 4, [False, True, True, True]])


def images_for(settings, count=3):
    return torch.randn(count, *([4] if settings.get("grid", True) else []), 6, dtype=torch.float64)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("grad", [False, True])
def test_the_parallel_pass_is_the_loop_over_steps(settings, mask, grad, toy_tokens):
    model = tiny_transformer(std=0.6, **settings)
    images, mask = images_for(settings), mask if settings.get("grid", True) else None
    with torch.set_grad_enabled(grad):
        state, memory = model.begin(images, mask)
        fast = model.teacher_force(toy_tokens, state, memory)
        slow = CaptionModel.teacher_force(model, toy_tokens, state, memory)
    assert torch.equal(fast.index, slow.index)
    torch.testing.assert_close(fast.logits, slow.logits, rtol=0, atol=1e-10)
    torch.testing.assert_close(fast.glimpse.weights, slow.glimpse.weights, rtol=0, atol=1e-10)
    real = (toy_tokens[..., 1:] != PAD).double()
    if settings.get("grid", True):
        torch.testing.assert_close(fast.glimpse.weights.sum(-1), real)
    else:
        assert fast.glimpse.weights.shape == (*real.shape, 0) and not model.attends
    if mask is not None:
        assert not fast.glimpse.weights[0, :, :, 3].any() and not fast.glimpse.weights[2, :, :, 0].any()


@pytest.mark.parametrize("maps", MAPS)
def test_captions_that_begin_alike_share_their_beginnings(maps):
    """Each beginning passes the blocks once, with the numbers and gradients of the loop over steps."""
    model, images = tiny_transformer(std=0.6, maps=maps), images_for({})
    lines = [[5, 6, 5], [5, 6, 6, 5], [5], [6, 5, 6], [5, 6, 5, 5]]
    tokens = torch.full((3, 5, 6), PAD)
    for row, words in zip(tokens.unbind(1), lines, strict=True):
        row[:, : len(words) + 2] = torch.tensor([START, *words, 2])
    tokens[1, 0] = PAD  # a missing caption
    passed = []
    hook = model.blocks[0].feed_forward.register_forward_pre_hook(lambda _, inputs: passed.append(inputs[0].shape))
    state, memory = model.begin(images)
    fast = model.teacher_force(tokens, state, memory)
    hook.remove()
    distinct = {(): 1, **{tuple(words[:n]): 1 for words in lines for n in range(1, len(words) + 1)}}
    assert passed == [(3 * len(distinct), 8)] and len(fast.index) == 3 * sum(len(words) + 1 for words in lines) - 4
    slow = CaptionModel.teacher_force(model, tokens, state, memory)
    torch.testing.assert_close(fast.logits, slow.logits, rtol=0, atol=1e-10)
    torch.testing.assert_close(fast.glimpse.weights, slow.glimpse.weights, rtol=0, atol=1e-10)
    outer, seen = torch.randn_like(slow.logits), torch.randn_like(slow.glimpse.weights)
    for one, two in zip(
        *(
            torch.autograd.grad(
                (run.logits * outer).sum() + (run.glimpse.weights * seen).sum(),
                [*model.blocks.parameters(), model.output.weight],
                retain_graph=True,
            )
            for run in (fast, slow)
        ),
        strict=True,
    ):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-9)


def full_pass(model, images, lines, mask=None):
    """Return the logits of the word after each of some prefixes of one length, [B, K, V], without a cache."""
    state, memory = model.begin(images, mask)
    tokens = torch.cat((lines, torch.full_like(lines[..., :1], START)), -1)  # any real word as the last target
    return model.teacher_force(tokens, state, memory).logits.view(*lines.shape, -1)[:, :, -1]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_any_reordering_of_beams_and_any_prefix(settings, context):
    """Rows are selected, repeated and dropped as a beam does; each row's logits are those of its whole prefix."""
    model, images = tiny_transformer(std=0.6, **settings), images_for(settings)
    with context():
        state, memory = model.begin(images)
        rows, lines = 1, torch.full((3, 1, 1), START)
        for t in range(20):  # beyond the first buffer of the cache
            out = model.step(lines[..., -1], state, memory)
            torch.testing.assert_close(out.logits, full_pass(model, images, lines), rtol=0, atol=1e-10)
            chosen = int(torch.randint(1, 5, ()))
            index = torch.randint(0, rows, (3, chosen))
            state = out.state if t % 3 == 2 else out.state.select(index)  # as sampling does: every row stays
            if t % 3 != 2:
                lines, rows = lines.gather(1, index[..., None].expand(-1, -1, lines.shape[-1])), chosen
            lines = torch.cat((lines, torch.randint(3, 11, (3, rows, 1))), -1)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_two_words_after_one_state_do_not_disturb_each_other(context):
    model, images = tiny_transformer(std=0.6, maps="rollout"), images_for({})
    with context():
        state, memory = model.begin(images)
        state = model.step(torch.full((3, 1), START), state, memory).state
        first = model.step(torch.full((3, 1), 5), state, memory)
        kept = [past.known.clone() for past in (*first.state.layers, *first.state.seen)]
        second = model.step(torch.full((3, 1), 6), state, memory)
        for past, values in zip((*first.state.layers, *first.state.seen), kept, strict=True):
            assert torch.equal(past.known, values)
        for word, out in ((5, first), (6, second)):
            after = model.step(torch.full((3, 1), 7), out.state, memory)
            lines = torch.tensor([[[START, word, 7]]]).expand(3, -1, -1)
            torch.testing.assert_close(after.logits, full_pass(model, images, lines), rtol=0, atol=1e-10)


def test_steps_after_a_search_may_have_gradients():
    """A state of inference mode goes on in every other mode."""
    model, images = tiny_transformer(std=0.6), images_for({})
    with torch.no_grad():
        state, memory = model.begin(images)
    with torch.inference_mode():
        state = model.step(torch.full((3, 1), START), state, memory).state
    lines = torch.tensor([[[START, 4]]]).expand(3, -1, -1)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            found = model.step(torch.full((3, 1), 4), state, memory).logits
            torch.testing.assert_close(found, full_pass(model, images, lines), rtol=0, atol=1e-10)


def test_a_step_without_gradients_does_not_copy_the_past():
    model, images = tiny_transformer(), images_for({})
    with torch.no_grad():
        state, memory = model.begin(images)
        places = []
        for _ in range(40):
            state = model.step(torch.full((3, 1), START), state, memory).state
            places.append(state.layers[0].known.data_ptr())
    assert len(set(places)) == 3  # buffers of 16, 32 and 64 positions


def test_repeated_and_detached_states_have_the_same_values():
    model, images = tiny_transformer(std=0.6, maps="rollout"), images_for({})
    state, memory = model.begin(images)
    state = model.step(torch.full((3, 1), START), state, memory).state
    wide = state.repeat(4).detach()
    assert not any(past.known.requires_grad for past in (*wide.layers, *wide.seen))
    words = torch.arange(12).view(3, 4) % 11
    out = model.step(words, wide, memory)
    for row in range(4):
        alone = model.step(words[:, row : row + 1], state, memory)
        torch.testing.assert_close(out.logits[:, row : row + 1], alone.logits, rtol=0, atol=1e-10)
        torch.testing.assert_close(out.glimpse.weights[:, row : row + 1], alone.glimpse.weights, rtol=0, atol=1e-10)


def test_the_state_after_teacher_forcing_continues_the_caption():
    model, images = tiny_transformer(std=0.6), images_for({})
    lines = torch.randint(4, 11, (3, 2, 5))
    lines[..., 0] = START
    state, memory = model.begin(images)
    after = model.teacher_force(lines, state, memory, carry=True).state
    found = model.step(lines[..., -1], after, memory).logits
    torch.testing.assert_close(found, full_pass(model, images, lines), rtol=0, atol=1e-10)
    rest = torch.randint(4, 11, (3, 2, 3))
    second = model.teacher_force(torch.cat((lines[..., -1:], rest), -1), after, memory).logits.view(3, 2, 3, -1)
    torch.testing.assert_close(second[:, :, 0], found, rtol=0, atol=1e-10)


@pytest.mark.parametrize("maps", MAPS)
def test_padding_batch_order_and_the_number_of_captions_change_nothing(maps, toy_tokens):
    model, images = tiny_transformer(std=0.6, maps=maps, encoder_layers=1), images_for({})
    images[~MASK] = torch.nan  # no feature at all
    whole = model(images, toy_tokens, MASK)
    length = toy_tokens.shape[-1] - 1
    logits = torch.zeros(3 * 3 * length, 11, dtype=torch.float64).index_copy(0, whole.index, whole.logits)
    logits = logits.view(3, 3, length, 11)
    for image, caption in itertools.product(range(3), range(3)):
        line = toy_tokens[image, caption]
        words = int((line[1:] != PAD).sum())
        if words:
            own, kept = images[image : image + 1, MASK[image]], line[None, None, : words + 1]
            alone = model(own, kept)
            torch.testing.assert_close(alone.logits, logits[image, caption, :words], rtol=0, atol=1e-10)
            seen = whole.glimpse.weights[image, caption, :words][:, MASK[image]]
            torch.testing.assert_close(alone.glimpse.weights[0, 0], seen, rtol=0, atol=1e-10)
    order = torch.tensor([2, 0, 1])
    turned = model(images[order], toy_tokens[order], MASK[order])
    again = torch.zeros(3 * 3 * length, 11, dtype=torch.float64).index_copy(0, turned.index, turned.logits)
    torch.testing.assert_close(again.view(3, 3, length, 11), logits[order], rtol=0, atol=1e-10)


def test_a_word_never_sees_a_later_one():
    model, images = tiny_transformer(std=0.6), images_for({})
    tokens = torch.randint(4, 11, (3, 2, 8))
    before = model(images, tokens).logits.view(3, 2, 7, 11)
    for t in range(1, 7):
        changed = tokens.clone()
        changed[..., t] = 4 + (tokens[..., t] - 3) % 7
        after = model(images, changed).logits.view(3, 2, 7, 11)
        assert torch.equal(after[:, :, :t], before[:, :, :t])
        assert ((after - before)[:, :, t:].abs().amax((-1, -2)) > 1e-6).all()


@pytest.mark.parametrize("maps", ["last_layer", "rollout"])  # with torch's kernel, and with explicit weights
def test_it_is_torchs_transformer(maps, toy_tokens):
    model, images = tiny_transformer(std=0.5, encoder_layers=2, layers=3, maps=maps), images_for({})
    own = {"d_model": 8, "nhead": 2, "dim_feedforward": 32, "dropout": 0.0, "batch_first": True, "norm_first": True}
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(**own), 2, norm=nn.LayerNorm(8), enable_nested_tensor=False
    ).double()
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(**own), 3, norm=nn.LayerNorm(8)).double()
    for block, layer in zip(model.grid_blocks, encoder.layers, strict=True):
        copy_block(block, layer, looks=False)
    for block, layer in zip(model.blocks, decoder.layers, strict=True):
        copy_block(block, layer, looks=True)
    encoder.norm.load_state_dict(model.grid_norm.state_dict())
    decoder.norm.load_state_dict(model.norm.state_dict())
    features = (images.where(MASK[..., None], 0.0) @ model.adapter[1].weight.T + model.adapter[1].bias).relu()
    memory = encoder(features, src_key_padding_mask=~MASK)
    found = model(images, toy_tokens, MASK)
    for caption in range(3):
        inputs = toy_tokens[:, caption, :-1]
        t, i = torch.arange(6.0, dtype=torch.float64)[:, None], torch.arange(4, dtype=torch.float64)
        code = torch.empty(6, 8, dtype=torch.float64)
        code[:, 0::2], code[:, 1::2] = (t / 10000 ** (i / 4)).sin(), (t / 10000 ** (i / 4)).cos()
        words = model.output.weight[inputs] * 8**0.5 + code
        causal = nn.Transformer.generate_square_subsequent_mask(6, dtype=torch.float64)
        hidden = decoder(words, memory, tgt_mask=causal, memory_key_padding_mask=~MASK)
        logits = hidden @ model.output.weight.T + model.output.bias
        for image, step in (toy_tokens[:, caption, 1:] != PAD).nonzero().tolist():
            place = (found.index == (image * 3 + caption) * 6 + step).nonzero().item()
            torch.testing.assert_close(found.logits[place], logits[image, step], rtol=0, atol=1e-10)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_with_and_without_weights(causal, masked):
    query, key, value = (torch.randn(3, 5, 8, dtype=torch.float64) for _ in range(3))
    mask = (torch.rand(3, 1, 1, 5) > 0.3) | (torch.arange(5) == 0) if masked and not causal else None
    plain, none = attend(query, key, value, heads=4, weighs=False, mask=mask, causal=causal)
    shown, weights = attend(query, key, value, heads=4, weighs=True, mask=mask, causal=causal)
    assert none is None and weights.shape == (3, 4, 5, 5)
    torch.testing.assert_close(plain, shown, rtol=0, atol=1e-12)
    for head in range(4):
        part = slice(2 * head, 2 * head + 2)
        torch.testing.assert_close(shown[..., part], weights[:, head] @ value[..., part], rtol=0, atol=1e-12)


def test_gradients():
    model = tiny_transformer(std=0.5, width=4, layers=1, encoder_layers=1, maps="rollout", vocabulary_size=6)
    images = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)
    tokens = torch.tensor([[[START, 4, 5, 2], [START, 5, 2, PAD]], [[START, 2, PAD, PAD], [PAD] * 4]])

    def run(images, *_):
        decoded = model(images, tokens)
        return decoded.logits, decoded.glimpse.weights

    assert torch.autograd.gradcheck(run, (images, *model.parameters()))


@pytest.mark.parametrize("maps", MAPS)
def test_maps_are_the_named_summaries_of_layers_and_heads(maps, toy_tokens):
    model, images = tiny_transformer(std=0.8, maps=maps, layers=3), images_for({})
    seen, found = model.attention_maps(images, toy_tokens, MASK), model(images, toy_tokens, MASK).glimpse.weights
    real = toy_tokens[..., 1:] != PAD
    assert seen.words.shape == (3, 3, 3, 2, 6, 6) and seen.image.shape == (3, 3, 3, 2, 6, 4) and seen.grid is None
    by_hand = {"last_layer": seen.image[-1].mean(2), "all_layers": seen.image.mean((0, 3))}
    by_hand["rollout"] = seen.rollout[..., :4] / seen.rollout[..., :4].sum(-1, keepdim=True)
    torch.testing.assert_close(found[real], by_hand[maps][real], rtol=0, atol=1e-12)
    others = [values for name, values in by_hand.items() if name != maps]
    assert all((found - values)[real].abs().max() > 1e-3 for values in others)


def test_the_rollout_is_the_product_of_all_matrices(toy_tokens):
    """One matrix per part of a block over the L locations and T words together; their product, the last one first."""
    model, images = tiny_transformer(std=0.8, layers=3, encoder_layers=2), images_for({})
    seen = model.attention_maps(images, toy_tokens, MASK)
    assert seen.grid.shape == (2, 3, 2, 4, 4)
    eye = torch.eye(10, dtype=torch.float64)
    for image, caption in itertools.product(range(3), range(2)):
        product = eye
        for weights in seen.grid[:, image].mean(1):
            layer = eye.clone()
            layer[:4, :4] = weights
            product = (eye + layer) / 2 @ product
        of_grid = product
        product = eye
        for words, look in zip(
            seen.words[:, image, caption].mean(1), seen.image[:, image, caption].mean(1), strict=True
        ):
            reads, looks = eye.clone(), eye.clone()
            reads[4:, 4:] = words
            looks[4:], looks[4:, :4] = 0.0, look
            product = (eye + looks) / 2 @ (eye + reads) / 2 @ product
        product = product @ of_grid
        real = int((toy_tokens[image, caption, 1:] != PAD).sum())
        torch.testing.assert_close(seen.rollout[image, caption, :real], product[4 : 4 + real], rtol=0, atol=1e-12)
        torch.testing.assert_close(product.sum(-1), torch.ones(10, dtype=torch.float64))


def test_rollouts_of_one_layer_by_hand():
    words, image = torch.tensor([[[[[1.0, 0.0], [0.5, 0.5]]]]]), torch.tensor([[[[[0.2, 0.8], [1.0, 0.0]]]]])
    found = attention_rollout([words], [image], torch.zeros(1, 1, 2, 2))
    torch.testing.assert_close(found[0, 0], torch.tensor([[0.1, 0.4], [0.5, 0.0]]))
    found = attention_rollout([words], [image], torch.eye(2)[None, None])
    torch.testing.assert_close(found[0, 0], torch.tensor([[0.6, 0.4], [0.625, 0.375]]))
    grid = torch.tensor([[[[0.0, 1.0], [0.5, 0.5]]]])
    found = mix_locations([grid], image.mean(2)[None])
    torch.testing.assert_close(found[0, 0, 0], torch.tensor([[0.3, 0.7], [0.5, 0.5]]))


# Settings that are combined with every objective.
OTHERS = list(
    itertools.product((1, 2), (0, 1), (True, False), (None, 5), MAPS, (SinusoidalPositions, LearnedPositions))
)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_two_steps_move_every_parameter(objective, toy_tokens):
    """Each objective gets a quarter of the settings, so that every two settings meet somewhere."""
    images = torch.randn(3, 4, 6, dtype=torch.float64)
    batch = CaptionBatch(torch.arange(3), images, MASK, toy_tokens)
    for layers, encoder_layers, tied, size, maps, positions in OTHERS[
        list(OBJECTIVES).index(objective) :: len(OBJECTIVES) + 1
    ]:
        settings = {"layers": layers, "encoder_layers": encoder_layers, "tied": tied, "embedding_size": size}
        model = tiny_transformer(**settings, maps=maps, word_positions=positions, dropout=0.1).train()
        loss_of, optimizer = OBJECTIVES[objective](), torch.optim.Adam(model.parameters())
        moved = dict.fromkeys(dict(model.named_parameters()), 0.0)
        for _ in range(2):
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            assert loss.total.isfinite(), settings
            loss.total.backward()
            for key, parameter in model.named_parameters():
                assert parameter.grad is not None and parameter.grad.isfinite().all(), f"{settings}: {key}"
                moved[key] += parameter.grad.abs().sum().item()
            optimizer.step()
        assert not [key for key, size in moved.items() if not size], settings


def test_dropout_is_in_training_only(toy_tokens):
    model, images = tiny_transformer(dropout=0.5, encoder_layers=1), images_for({})
    assert torch.equal(model(images, toy_tokens).logits, model(images, toy_tokens).logits)
    model.train()
    assert not torch.equal(model(images, toy_tokens).logits, model(images, toy_tokens).logits)


def test_several_crops_are_encoded_one_by_one(toy_tokens):
    model, views = (
        tiny_transformer(std=0.6, encoder_layers=1, positions=Coordinates),
        images_for({}, 6).view(3, 2, 4, 6),
    )
    crops = MultiCrop(model, 2)
    grid, _ = crops.encode(views)
    torch.testing.assert_close(grid[:, 4:], model.encode(views[:, 1])[0], rtol=0, atol=1e-12)
    twice = MultiCrop(model, 2)(views[:, :1].expand(-1, 2, -1, -1), toy_tokens)
    once = model(views[:, 0], toy_tokens)
    torch.testing.assert_close(twice.logits, once.logits, rtol=0, atol=1e-10)  # the same locations twice
    torch.testing.assert_close(twice.glimpse.weights[..., :4] * 2, once.glimpse.weights, rtol=0, atol=1e-10)


def test_tied_words_share_one_matrix():
    tied, untied = tiny_transformer(), tiny_transformer(tied=False)
    assert not [name for name in tied.state_dict() if name.startswith("embedding")]
    assert untied.embedding.weight.shape == tied.output.weight.shape == (11, 8)
    spread = (tied._embed(torch.arange(1, 11))).std().item()
    assert 0.7 < spread < 1.3  # as large as the code of a position


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": 3}, r"model\.heads \(3\) must divide model\.width \(8\)"),
        ({"maps": "first"}, r"model\.maps must be one of last_layer, all_layers, rollout, not 'first'"),
        ({"layers": 0}, r"model\.layers must be at least 1 and at most 64, not 0"),
        ({"encoder_layers": -1}, r"model\.encoder_layers must be at least 0 and at most 64, not -1"),
        ({"feed_forward": 0}, r"model\.feed_forward must be at least 1, not 0"),
        ({"embedding_size": 0}, r"model\.embedding_size must be at least 1, not 0"),
        ({"dropout": 1.0}, r"model\.dropout must be at least 0 and below 1, not 1\.0"),
        ({"width": 9, "heads": 3}, r"model\.width must be even for model/word_positions=sinusoidal, not 9"),
        ({"feature_size": 0, "grid": False}, r"needs an image: for task=language_model, set model=language"),
        ({"positions": Coordinates, "regions": True}, r"model/positions=coordinates needs a grid"),
        ({"word_positions": partial(LearnedPositions, longest=1)}, r"longest must be at least 2, not 1"),
    ],
)
def test_unusable_settings(settings, message):
    with pytest.raises(ConfigError, match=message):
        tiny_transformer(**settings)


def test_captions_longer_than_the_learned_positions(toy_tokens):
    model, images = tiny_transformer(word_positions=partial(LearnedPositions, longest=6)), images_for({})
    assert model(images, toy_tokens).logits.isfinite().all()  # six inputs
    state, memory = model.begin(images)
    for _ in range(6):
        state = model.step(torch.full((3, 1), START), state, memory).state
    message = r"model\.word_positions\.longest=6 is too small for a caption of 7 tokens\. Shorten the caption"
    with pytest.raises(ConfigError, match=message):
        model.step(torch.full((3, 1), START), state, memory)
    with pytest.raises(ConfigError, match=message):
        model(images, torch.nn.functional.pad(toy_tokens, (1, 0), value=START))


def test_the_encoder_keeps_its_weights():
    network = nn.Linear(6, 6)
    before = network.weight.clone()
    model = build_transformer(
        feature_size=6, grid=True, vocabulary_size=9, width=8, heads=2, encoder=nn.Sequential(network)
    )
    assert torch.equal(network.weight, before) and not model.output.bias.any()


def test_a_summary_that_does_not_exist_is_refused_also_after_training():
    model = build_transformer(feature_size=3, grid=(1, 2), vocabulary_size=5, width=4, heads=2, layers=1)
    model.maps = "rollout"
    assert model.maps == "rollout"
    with pytest.raises(
        ConfigError, match=r"model\.maps must be one of last_layer, all_layers, rollout, not 'roll_out'"
    ):
        model.maps = "roll_out"
    assert model.maps == "rollout"
