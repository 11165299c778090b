"""The views of an image: which there are, in which order, and which of them are mirrored."""

import pytest
import torch

from captioning.data import CORNERS, Transform
from captioning.errors import ConfigError
from captioning.features import AllViews, EachView, corner_crops, crop_shares
from captioning.features.views import views_of


def described(views):
    return [(each.mirror, each.corner, turned) for each, turned in views]


def test_views_of_training():
    whole = Transform(32)
    assert CORNERS == ("top left", "top right", "bottom left", "bottom right")
    assert described(views_of(whole, mirror=False, crops=None)) == []
    assert described(views_of(whole, mirror=True, crops=None)) == [(True, None, True)]
    assert described(views_of(whole, mirror=False, crops=0.75)) == [
        (False, (0.75, corner), False) for corner in CORNERS
    ]
    assert described(views_of(whole, mirror=True, crops=0.75)) == [
        (True, None, True),
        (False, (0.75, "top left"), False),
        (True, (0.75, "top right"), True),
        (True, (0.75, "bottom left"), True),
        (False, (0.75, "bottom right"), False),
    ]
    assert (whole.mirror, whole.corner) == (False, None)


@pytest.mark.parametrize("share", [0, 1, -0.5, 1.5])
def test_a_crop_is_a_share_of_both_sides(share):
    with pytest.raises(ConfigError, match=r"^features\.crops must be above 0 and below 1, not"):
        views_of(Transform(32), mirror=False, crops=share)
    with pytest.raises(ConfigError, match=r"^crops must be above 0 and below 1, not"):
        crop_shares([0.5, share])


def test_corners_of_every_share_in_order():
    assert [each.corner for each in corner_crops(Transform(32), [0.8, 0.6])] == [
        *((0.8, corner) for corner in CORNERS),
        *((0.6, corner) for corner in CORNERS),
    ]
    assert corner_crops(Transform(32), []) == []


def test_one_share_or_several():
    assert crop_shares(None) == ()
    assert crop_shares(0.75) == (0.75,)
    assert crop_shares([0.75, 0.5]) == (0.75, 0.5)
    for wrong, told in (("0.75", "'0.75'"), (True, "True"), ([0.5, "x"], "'x'"), ([True], "True"), ([None], "null")):
        with pytest.raises(ConfigError, match=r"crops must be shares of an image's sides, such as 0\.75, not " + told):
            crop_shares(wrong)


def test_views_stay_in_order_through_reader_and_encoder():
    read = AllViews([lambda record, factor=factor: factor * record for factor in (1, 10, 100)])
    assert read(torch.tensor([1, 2])).tolist() == [[1, 2], [10, 20], [100, 200]]
    views = torch.arange(24.0).view(2, 3, 4)  # two images, three views
    seen = []

    class Encoder(torch.nn.Module):
        def forward(self, images):
            seen.append(images.shape)
            return images.cumsum(0).sum(-1, keepdim=True)  # mixes the images of a call, so that calls differ

    expected = torch.stack([views[:, view].cumsum(0).sum(-1, keepdim=True) for view in range(3)], 1)
    assert torch.equal(EachView(Encoder())(views), expected)
    assert seen == [(2, 4)] * 3
