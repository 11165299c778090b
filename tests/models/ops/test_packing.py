"""Compare the layout of a loop without padding with plain loops over rows and steps."""

import pytest
import torch

from captioning.models.ops import Layout


def random_mask(batch: int, rows: int, length: int, *, seed: int) -> torch.Tensor:
    """Return rows of random lengths in random order, some of length 0."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, length + 1, (batch, rows, 1), generator=generator)
    return torch.arange(length) < lengths


@pytest.mark.parametrize("seed", range(60))
def test_every_word_is_there_once_and_its_row_is_found(seed):
    batch, rows, length = 1 + seed % 4, 1 + seed % 3, 1 + seed % 6
    real = random_mask(batch, rows, length, seed=seed)
    layout = Layout.of(real)
    words = [
        [(b, k) for b in range(batch) for k in range(rows) if real[b, k, t]]
        for t in range(length)
        if t == 0 or real[:, :, t].any()
    ]
    assert layout.counts == list(map(len, words))
    assert layout.index.tolist() == [(b * rows + k) * length + t for t, step in enumerate(words) for b, k in step]
    assert layout.image.tolist() == [b for step in words for b, _ in step]
    before = [(b, k) for b in range(batch) for k in range(rows)]
    for step, needed, slots, kept in zip(words, *layout[3:], strict=True):
        assert needed == max((k + 1 for _, k in step), default=0)
        lie_at = [b * needed + k for b, k in step]
        assert (list(range(batch * needed)) if slots is None else slots.tolist()) == lie_at
        stay = list(range(len(before))) if kept is None else kept.tolist()
        assert [before[place] for place in stay] == step
        before = step


def test_a_batch_without_a_word_has_one_step_of_no_rows(toy, toy_tokens):
    layout = Layout.of(torch.zeros(3, 2, 4, dtype=torch.bool))
    assert layout.counts == [0] and layout.needed == [0] and len(layout.index) == 0
    for attention in ("none", "soft", "hard"):
        for recurrence in ("look_first", "up_down", "look_with_word"):
            model = toy(attention=attention, recurrence=recurrence).train()
            decoded = model(torch.randn(3, 4, 6, dtype=torch.float64), torch.zeros_like(toy_tokens))
            assert decoded.logits.shape == (0, 11) and not decoded.glimpse.weights.any()
            decoded.logits.sum().backward()
