"""Extraction: the store gives what the encoder gives, and nothing is lost when it stops."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from captioning.data import Record, Transform, open_picture
from captioning.errors import ConfigError, DataError
from captioning.features import online, stored
from captioning.features.extraction import extract
from captioning.features.store import FeatureStore
from captioning.models import efficientnet_lite_encoder
from captioning.models.encoder import Encoder


class Counting(nn.Module):
    """[B, 3, 8, 8] -> [B, 3, 4, 4] means, times `factor`; raises `error` at its call number `stop`."""

    def __init__(self, *, stop: int | None = None, error: type[BaseException] = KeyboardInterrupt, factor: float = 1.0):
        super().__init__()
        self.stop, self.error, self.factor, self.calls, self.seen = stop, error, factor, -1, 0

    def forward(self, images):
        self.calls += 1  # the first is the encoder's own dry run
        if self.calls == self.stop:
            raise self.error
        self.seen += len(images) if self.calls else 0
        return nn.functional.avg_pool2d(images, 2) * self.factor


@pytest.fixture
def records(tmp_path) -> list[Record]:
    """Eleven noisy pictures of several sizes."""
    generator = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    folder.mkdir()
    made = []
    for number in range(11):
        path = folder / f"{number}.png"
        Image.fromarray(generator.integers(0, 256, (9 + number, 12, 3), dtype=np.uint8)).save(path)
        made.append(Record(100 + number, path, "train", ("a picture",)))
    return made


def counting_encoder(**changes) -> Encoder:
    return Encoder(Counting(**changes), name="counting", output="grid", image_size=8)


def run(encoder, records, store, **options):
    return extract(
        encoder, Transform(8), records, store, **{"workers": 0, "batch_size": 4, "progress": False} | options
    )


def open_store(tmp_path) -> FeatureStore:
    return FeatureStore(tmp_path / "store", {"name": "counting"}, shard_pictures=3)


def encoded(encoder, record: Record, size: int = 8) -> np.ndarray:
    return encoder(Transform(size)(open_picture(record.path))[None])[0].detach().numpy()


@pytest.mark.parametrize("workers", [0, 2])
def test_the_store_gives_what_the_encoder_gives(tmp_path, records, workers):
    encoder, before = counting_encoder(), torch.get_rng_state()
    done = run(encoder, records, open_store(tmp_path), workers=workers)
    assert (done.encoded, done.reused, done.unreadable) == (11, 0, []) and done.seconds > 0
    assert torch.equal(torch.get_rng_state(), before)
    store = open_store(tmp_path)
    for record in records:
        assert store[record.image_id].shape == (16, 3)
        np.testing.assert_allclose(store[record.image_id], encoded(encoder, record), atol=2e-3)


def test_a_second_run_encodes_nothing(tmp_path, records):
    run(counting_encoder(), records[:4], open_store(tmp_path))
    encoder = counting_encoder()
    assert run(encoder, records, open_store(tmp_path))[:2] == (7, 4)
    assert run(encoder, records, open_store(tmp_path))[:2] == (0, 11)
    assert encoder.network.seen == 7


@pytest.mark.parametrize("workers", [0, 1])
def test_an_interrupt_keeps_what_was_encoded(tmp_path, records, workers):
    with pytest.raises(KeyboardInterrupt):
        run(counting_encoder(stop=3), records, open_store(tmp_path), workers=workers)
    store, encoder = open_store(tmp_path), counting_encoder()
    assert len(store) == 8
    assert run(encoder, records, store)[:2] == (3, 8)
    assert encoder.network.seen == 3 and store.missing(records) == []
    np.testing.assert_allclose(store[records[0].image_id], encoded(encoder, records[0]), atol=2e-3)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_picture_is_named(tmp_path, records, workers):
    content = records[5].path.read_bytes()
    records[5].path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"5\.png") as caught:
        run(counting_encoder(), records, open_store(tmp_path), workers=workers)
    assert "Traceback" not in str(caught.value)
    assert len(open_store(tmp_path)) == 4


def test_unreadable_pictures_are_left_out_and_counted(tmp_path, records):
    run(counting_encoder(), records, open_store(tmp_path))
    for record in records[4:8]:  # a whole batch
        record.path.write_bytes(b"no picture")
    records[10].path.unlink()
    store = open_store(tmp_path)
    done = run(counting_encoder(), records, store, skip_unreadable=True, batch_size=1)
    assert (done.encoded, done.reused) == (0, 6)
    assert [path for path, _ in done.unreadable] == [records[index].path for index in (4, 5, 6, 7, 10)]
    assert all(path.name in reason for path, reason in done.unreadable)
    assert [record for record in records if record.image_id in store] == records[:4] + records[8:10]


def test_features_beyond_float16_name_the_picture(tmp_path, records):
    Image.new("RGB", (8, 8), "white").save(records[2].path)
    for record in records[:2]:
        Image.new("RGB", (8, 8), (124, 116, 104)).save(record.path)  # the mean: features near 0
    with pytest.raises(DataError, match=r"2\.png \(image 102\): its features are not finite"):
        run(counting_encoder(factor=1e5), records, open_store(tmp_path))
    assert len(open_store(tmp_path)) == 2


def test_progress_is_shown_on_request(tmp_path, records, capsys):
    run(counting_encoder(), records, open_store(tmp_path), progress=True)
    bar = capsys.readouterr()
    assert "11/11" in bar.err and "images/s" in bar.err and not bar.out
    run(counting_encoder(), records, open_store(tmp_path))
    assert capsys.readouterr() == ("", "")


def test_photographs_by_the_default_encoder(tmp_path, shared_dir):
    paths = sorted((shared_dir / "flickr8k" / "images").glob("*.jpg"))[:5]
    records = [Record(number, path, "val", ()) for number, path in enumerate(paths)]
    encoder, transform = efficientnet_lite_encoder(), Transform(224)
    key = encoder.describe() | {"transform": transform.describe()}
    extract(encoder, transform, records, FeatureStore(tmp_path, key), workers=1, batch_size=2, progress=False)
    store = FeatureStore(tmp_path, key)
    store.check(records)
    for record in records:
        stored = store[record.image_id].astype(np.float32)
        assert stored.shape == (49, 1280) and stored.std() > 0.1
        np.testing.assert_allclose(stored, encoded(encoder, record, 224), atol=2e-3, rtol=1e-3)


def test_mirror_images_of_training_pictures_have_a_store_of_their_own(tmp_path, records):
    records = [
        records[0],
        records[1]._replace(captions=("a dog on the left",)),
        records[2]._replace(split="val"),
        *records[3:5],
    ]
    encoder = counting_encoder()
    source = stored(encoder, Transform(8), records, name="toy", root=str(tmp_path / "stores"), mirror=True)
    plain = stored(encoder, Transform(8), records, name="toy", root=str(tmp_path / "stores"))
    assert not plain.views and len(list((tmp_path / "stores").glob("toy-*/manifest.json"))) == 2
    (mirrored, is_turned), *others = source.views
    assert is_turned and not others
    assert len(mirrored.store) == 3  # neither val's, nor where a caption tells left from right
    for record in (records[0], records[3], records[4]):
        upright = Transform(8)(open_picture(record.path))
        turned = torch.from_numpy(np.ascontiguousarray(upright.numpy()[:, :, ::-1]))
        np.testing.assert_allclose(mirrored(record), encoder(turned[None])[0].detach(), rtol=1e-3)
        np.testing.assert_array_equal(source.read(record), plain.read(record))
    seen = online(encoder, Transform(8), records, name="toy", mirror=True).views[0].read(records[4])
    assert torch.equal(seen, turned)


def test_corners_of_training_pictures_have_stores_of_their_own(tmp_path, records):
    """The four corners, two of them turned where mirror images are wanted too, by slices of the picture."""
    records = [records[0]._replace(captions=("a dog on the left",)), records[1], records[2]._replace(split="val")]
    encoder, transform = counting_encoder(), Transform(8)
    source = stored(encoder, transform, records, name="toy", root=str(tmp_path), mirror=True, crops=0.75)
    again = online(encoder, transform, records, name="toy", mirror=True, crops=0.75)
    assert [view.turned for view in source.views] == [True, False, True, True, False]
    assert [len(view.read.store) for view in source.views] == [1, 2, 1, 1, 2]
    assert not any(view.turned for view in online(encoder, transform, records, name="toy", crops=0.75).views)
    picture = np.asarray(open_picture(records[1].path))
    height, width = (round(0.75 * side) for side in picture.shape[:2])
    top, bottom = picture[:height], picture[-height:]
    slices = [top[:, :width], top[:, -width:], bottom[:, :width], bottom[:, -width:]]
    for corner, turned, view, fresh in zip(slices, (0, 1, 1, 0), source.views[1:], again.views[1:], strict=True):
        wanted = transform(Image.fromarray(np.ascontiguousarray(corner)))
        wanted = wanted.flip(2) if turned else wanted
        assert torch.equal(fresh.read(records[1]), wanted)
        np.testing.assert_allclose(view.read(records[1]), encoder(wanted[None])[0].detach(), rtol=1e-3)
    for share in (0, 1, 1.5):
        with pytest.raises(ConfigError, match=r"features\.crops"):
            online(encoder, transform, records, name="toy", crops=share)


def test_features_are_those_of_an_encoder_in_evaluation(tmp_path, records):
    """Whatever is passed as the encoder, and whatever mode it is in."""

    class Noisy(nn.Module):
        name, output, size, places = "noisy", "grid", 3, 16

        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, images):
            return self.drop(nn.functional.avg_pool2d(images.float() / 255, 2)).flatten(2).transpose(1, 2)

    encoder, store = Noisy().train(), open_store(tmp_path)
    run(encoder, records, store)
    wanted = nn.functional.avg_pool2d(Transform(8)(open_picture(records[5].path)).float() / 255, 2).flatten(1).T
    np.testing.assert_allclose(store[records[5].image_id], wanted.numpy(), rtol=1e-3)
