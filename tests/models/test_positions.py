"""Test position codes: by formula, different for every location, and used by the decoder."""

import math

import pytest
import torch

from captioning.errors import ConfigError
from captioning.models import Coordinates, NoPositions


@pytest.mark.parametrize(("given", "rows", "columns"), [({}, 3, 3), ({"grid": (1, 9)}, 1, 9), ({"grid": (9, 1)}, 9, 1)])
def test_coordinates_equal_their_formula(given, rows, columns):
    features = torch.randn(2, 9, 5, dtype=torch.float64)
    coded = Coordinates(frequencies=2, **given)(features)
    assert coded.shape == (2, 9, 13)
    torch.testing.assert_close(coded[..., :5], features)
    for place in range(9):
        row, column = (place // columns + 0.5) / rows, (place % columns + 0.5) / columns
        expected = [f(math.pi * at * turn) for at in (row, column) for f in (math.sin, math.cos) for turn in (1, 2)]
        assert coded[1, place, 5:].tolist() == pytest.approx(expected)
    assert len({tuple(code) for code in coded[0, :, 5:].tolist()}) == 9


def test_vectors_get_zeros_and_odd_grids_an_error():
    coded = Coordinates()(torch.ones(2, 5))
    assert coded.shape == (2, 13) and coded[:, 5:].abs().sum() == 0
    with pytest.raises(ConfigError, match=r"known rows and columns, not 8 locations\. Set model/positions=none"):
        Coordinates()(torch.ones(2, 8, 5))
    with pytest.raises(ConfigError, match=r"not 9 locations"):
        Coordinates(grid=(2, 4))(torch.ones(2, 9, 5))
    with pytest.raises(ConfigError, match="frequencies"):
        Coordinates(frequencies=0)
    assert NoPositions()(coded) is coded


def test_a_decoder_can_tell_places_apart(toy, toy_tokens):
    images = torch.randn(3, 4, 6, dtype=torch.float64)
    turned = images.flip(1)  # the same features at other locations
    plain, coded = toy(), toy(positions=Coordinates)
    torch.testing.assert_close(plain(images, toy_tokens).logits, plain(turned, toy_tokens).logits)
    assert not torch.allclose(coded(images, toy_tokens).logits, coded(turned, toy_tokens).logits)
