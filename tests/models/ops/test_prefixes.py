"""Compare the beginnings that captions share with an enumeration of all of them."""

import pytest
import torch

from captioning.models.ops import Prefixes


@pytest.mark.parametrize("seed", range(5))
def test_every_beginning_is_computed_once_where_it_occurs_first(seed):
    """Two different words, so that most captions begin alike; captions of any length, some of them missing."""
    torch.manual_seed(seed)
    words, lengths = torch.randint(1, 3, (4, 6, 5)), torch.randint(0, 6, (4, 6))
    real = torch.arange(5) < lengths[..., None]
    words = words * real
    found, seen = Prefixes.of(words, real), {}
    for position in range(4 * 6 * 5):
        image, caption, step = position // 30, position // 5 % 6, position % 5
        if real[image, caption, step]:
            seen.setdefault((image, *words[image, caption, : step + 1].tolist()), position)
    assert found.index.tolist() == real.flatten().nonzero().squeeze(1).tolist()
    assert sorted(found.first.tolist()) == sorted(seen.values()) and len(seen) < int(real.sum())
    for position in found.index.tolist():
        image, caption, step = position // 30, position // 5 % 6, position % 5
        beginning = (image, *words[image, caption, : step + 1].tolist())
        assert found.first[found.row[position]] == seen[beginning]


def test_a_batch_without_words_has_one_row():
    found = Prefixes.of(torch.zeros(2, 3, 4, dtype=torch.int64), torch.zeros(2, 3, 4, dtype=torch.bool))
    assert found.index.tolist() == [] and found.first.tolist() == [0] and found.row.tolist() == [0] * 24
