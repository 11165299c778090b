"""Pictures: what is read from a file, and that the box says exactly what the encoder's input shows."""

import json
import pickle
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageFile, ImageOps

from captioning.data import Box, Transform, list_pictures, open_picture, pixel_range, read_picture
from captioning.data.pictures import to_rgb
from captioning.errors import ConfigError, DataError

GREY = 127
SIZES = [(640, 427), (427, 640), (300, 300), (641, 479), (97, 501), (1999, 502), (33, 47), (224, 224), (1, 9)]
TRANSFORMS = [
    Transform(224),
    Transform(64, fit="crop"),
    Transform(224, fit="crop", resize=256),
    Transform(65, fit="crop", resize=101),
    Transform(224, fit="pad"),
    Transform(65, fit="pad"),
]


def noise(width: int, height: int, *channels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, *channels), dtype=np.uint8)


def name(transform: Transform) -> str:
    return f"{transform.fit}{transform.size}of{transform.resize}"


def spot(size: tuple[int, int], at: tuple[float, float], spread: tuple[float, float]) -> Image.Image:
    """A light spot on grey, its centre at (x, y) in pixels of the picture, its standard deviations along x and y."""
    x, y = (np.arange(length) + 0.5 for length in size)
    across, down = (np.exp(-(((c - m) / s) ** 2) / 2) for c, m, s in zip((x, y), at, spread, strict=True))
    values = GREY + 128 * down[:, None] * across
    return Image.fromarray(np.repeat(values[..., None], 3, axis=2).round().astype(np.uint8))


@pytest.mark.parametrize("transform", TRANSFORMS, ids=name)
@pytest.mark.parametrize("size", SIZES[:7], ids=str)
@pytest.mark.parametrize("share", [(0.5, 0.5), (0.3, 0.6), (0.65, 0.35)])
def test_a_spot_is_found_again_through_the_box(transform, size, share):
    box = transform.box(*size)
    shown = Box(max(0, box.left), max(0, box.top), min(size[0], box.right), min(size[1], box.bottom))
    at = (
        shown.left + share[0] * (shown.right - shown.left),
        shown.top + share[1] * (shown.bottom - shown.top),
    )
    spread = ((shown.right - shown.left) / 16, (shown.bottom - shown.top) / 16)
    light = transform(spot(size, at, spread))[0].double() - GREY
    light[light < 8] = 0  # rounding, far from the spot
    centres = torch.arange(transform.size, dtype=torch.float64) + 0.5
    column, row = (light.sum(0) @ centres / light.sum()).item(), (light.sum(1) @ centres / light.sum()).item()
    footprint = ((box.right - box.left) / transform.size, (box.bottom - box.top) / transform.size)
    coarse = max(1, *(1 / side for side in footprint)) * 0.1  # where a picture is enlarged, its own pixels limit
    assert abs(box.left + column * footprint[0] - at[0]) < coarse * footprint[0]
    assert abs(box.top + row * footprint[1] - at[1]) < coarse * footprint[1]


@pytest.mark.parametrize("transform", TRANSFORMS, ids=name)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_box_and_input_have_the_promised_shape(transform, size):
    box = transform.box(*size)
    images = transform(Image.fromarray(noise(*size, 3)))
    assert images.shape == (3, transform.size, transform.size) and images.dtype == torch.uint8
    assert images.is_contiguous()
    across, down = box.right - box.left, box.bottom - box.top
    if transform.fit == "squash":
        assert box == (0, 0, *size)
    elif transform.fit == "crop":
        assert across == pytest.approx(down) == pytest.approx(min(size) * transform.size / transform.resize)
        assert box.left + box.right == pytest.approx(size[0]) and box.top + box.bottom == pytest.approx(size[1])
        assert box.left >= 0 and box.top >= 0 and box.right <= size[0] and box.bottom <= size[1]
    else:
        assert box.left <= 0 and box.top <= 0 and box.right >= size[0] and box.bottom >= size[1]
        assert max(across, down) >= max(size) - 1e-9 and min(across, down) <= max(size) * (1 + 1 / min(size))


def test_boxes_by_hand():
    assert Transform(224, fit="crop", resize=256).box(640, 480) == (110, 30, 530, 450)
    assert Transform(224, fit="crop").box(480, 640) == (0, 80, 480, 560)
    assert Transform(200, fit="pad").box(400, 200) == (0, -100, 400, 300)
    assert Transform(200, fit="pad").box(100, 400) == (-150, 0, 250, 400)


def test_the_input_by_hand():
    """Four flat quarters: the corners of the input are too far from their seams for the filter to mix them."""
    quarters = np.zeros((400, 800, 3), dtype=np.uint8)
    quarters[:200, 400:], quarters[200:, :400], quarters[200:, 400:] = 80, 160, 240
    picture = Image.fromarray(quarters)
    for fit in ("squash", "crop"):
        shown = Transform(16, fit=fit)(picture)[1]
        assert shown[[0, 0, 15, 15], [0, 15, 0, 15]].tolist() == [0, 80, 160, 240]
        assert shown[0, 7] < 40 < shown[0, 8] and shown[7, 0] < 80 < shown[8, 0]  # the seams in the middle
    padded = Transform(16, fit="pad")(picture)[2]
    assert (padded[:4] == GREY).all() and (padded[12:] == GREY).all()
    assert padded[[4, 4, 11, 11], [0, 15, 0, 15]].tolist() == [0, 80, 160, 240]


@pytest.mark.parametrize("transform", [Transform(48), Transform(48, fit="crop"), Transform(48, fit="pad")], ids=name)
def test_a_picture_of_the_right_size_is_left_alone(transform):
    pixels = noise(48, 48, 3)
    assert np.array_equal(transform(Image.fromarray(pixels)).permute(1, 2, 0), pixels)


def test_shrinking_averages():
    """One white column in eight: without antialias an input pixel would be black or white."""
    stripes = np.zeros((256, 256, 3), dtype=np.uint8)
    stripes[:, ::8] = 255
    for transform in (Transform(32), Transform(28, fit="crop", resize=32), Transform(32, fit="pad")):
        inner = transform(Image.fromarray(stripes))[:, :, 2:-2].float()  # at the rim the filter is cut off
        assert (inner - 255 / 8).abs().max() < 3


def test_a_transform_describes_itself():
    transforms = [*TRANSFORMS, Transform(32)]
    described = [transform.describe() for transform in transforms]
    assert len({json.dumps(each) for each in described}) == len(transforms)
    assert Transform(64, fit="crop", resize=64).describe() == Transform(64, fit="crop").describe()
    again = pickle.loads(pickle.dumps(TRANSFORMS[2]))  # it goes to loader processes
    assert again.describe() == described[2] and again.box(640, 480) == (110, 30, 530, 450)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fit": "stretch"}, r"transform\.fit must be one of squash, crop, pad, not stretch"),
        ({"size": 0}, r"transform\.size must be .*, not 0"),
        ({"resize": 256}, r"resize=256 needs transform\.fit=crop"),
        ({"fit": "pad", "resize": 224}, r"resize=224 needs transform\.fit=crop"),
        ({"fit": "crop", "resize": 200}, r"resize=200 must be at least 224, the short side"),
    ],
)
def test_transforms_that_cannot_be(arguments, message):
    with pytest.raises(ConfigError, match=message):
        Transform(**arguments)


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(9))
def test_pictures_are_upright(tmp_path, suffix, orientation):
    path, stored = tmp_path / f"turned.{suffix}", Image.fromarray(noise(7, 5, 3))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored.save(path, exif=exif, **({"lossless": True} if suffix == "webp" else {}))
    upright = stored.copy()
    upright.getexif()[ExifTags.Base.Orientation] = orientation
    upright = ImageOps.exif_transpose(upright)
    opened = open_picture(path)
    assert opened.size == ((5, 7) if orientation >= 5 else (7, 5))
    assert np.array_equal(opened, upright)


def test_a_photograph_taken_on_its_side(tmp_path):
    """Orientation 6: the stored rows run down the upright picture from its right side."""
    pixels = np.zeros((32, 64, 3), dtype=np.uint8)
    pixels[:, :32, 0] = 255  # stored: the left half red
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(pixels).save(tmp_path / "side.jpg", exif=exif, quality=95)
    opened = np.asarray(open_picture(tmp_path / "side.jpg")).astype(int)
    assert opened.shape == (64, 32, 3)
    assert opened[:28, :, 0].min() > 200 and opened[36:].max() < 60  # upright: the upper half red


def test_damaged_exif_does_not_matter(tmp_path):
    picture = Image.fromarray(noise(7, 5, 3))
    for number, exif in enumerate((b"Exif\0\0garbage", b"Exif\0\0II*\0", b"nothing")):
        picture.save(tmp_path / f"{number}.png", exif=exif)
        assert np.array_equal(open_picture(tmp_path / f"{number}.png"), picture)
    # A maker's name (271) that is a number: the orientation (274) counts all the same.
    entries = struct.pack("<HHII", 271, 4, 1, 7) + struct.pack("<HHIHH", 274, 3, 1, 6, 0)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + struct.pack("<I", 0)
    picture.save(tmp_path / "maker.png", exif=exif)
    assert np.array_equal(open_picture(tmp_path / "maker.png"), picture.transpose(Image.Transpose.ROTATE_270))


def rgb(tmp_path, picture: Image.Image, file: str, **options) -> np.ndarray:
    picture.save(tmp_path / file, **options)
    opened = open_picture(tmp_path / file)
    assert opened.mode == "RGB"
    return np.asarray(opened).astype(int)


def test_greys(tmp_path):
    grey = noise(9, 6)
    assert np.array_equal(rgb(tmp_path, Image.fromarray(grey), "grey.png"), np.repeat(grey[..., None], 3, 2))
    bits = Image.fromarray(grey > 127)
    assert np.array_equal(rgb(tmp_path, bits, "bits.png")[..., 1], np.where(grey > 127, 255, 0))


@pytest.mark.parametrize("file", ["deep.png", "deep.tif"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path, file):
    deep = np.array([[0, 128, 129, 257], [256, 32896, 65000, 65535]], dtype=np.uint16)
    opened = rgb(tmp_path, Image.fromarray(deep), file)
    assert opened[..., 0].tolist() == [[0, 0, 1, 1], [1, 128, 253, 255]]
    assert (opened == opened[..., :1]).all()


@pytest.mark.parametrize("kind", [np.float32, np.int32])
@pytest.mark.parametrize("values", [[0, 70000], [-3, 2]])
def test_pixels_of_unknown_range_are_refused(tmp_path, kind, values):
    Image.fromarray(np.array([values, [1, 2]], dtype=kind)).save(tmp_path / "range.tif")
    with pytest.raises(
        DataError, match=r"range\.tif: (signed or 32|float).* pixels of unknown range \(.*save it with 8"
    ):
        open_picture(tmp_path / "range.tif")


def test_floats_that_are_not_finite_are_refused(tmp_path):
    Image.fromarray(np.array([[0, np.nan]], dtype=np.float32)).save(tmp_path / "range.tif")
    with pytest.raises(DataError, match=r"range\.tif: floating-point pixels that are not finite: save it with 8 bits"):
        open_picture(tmp_path / "range.tif")


@pytest.fixture
def told(capsys):
    """told() -> what was printed to stderr; the remark on a guessed range comes once per process."""
    pixel_range._shown.clear()
    yield lambda: capsys.readouterr().err
    pixel_range._shown.clear()


@pytest.mark.parametrize("file", ["deep.png", "deep.tif", "old.tif"])
@pytest.mark.parametrize(("bits", "highest"), [(8, 201), (10, 1001), (12, 4001), (12, 1025), (14, 16001)])
def test_few_bits_in_sixteen_are_not_nearly_black(tmp_path, file, bits, highest, told):
    deep, white = np.array([[0, 1, highest // 2, highest]]), 2**bits - 1
    kind = np.int32 if file == "old.tif" else np.uint16
    opened = rgb(tmp_path, Image.fromarray(deep.astype(kind)), file)
    assert opened[0, :, 0].tolist() == np.rint(deep[0] * 255 / white).astype(int).tolist()
    assert told() == (
        f"{tmp_path / file}: 16-bit pixels, but none is above {white}: read as {bits}-bit values. "
        "If this is wrong, save it with 8 bits. Further such files are read in the same way without notice.\n"
    )
    open_picture(tmp_path / file)
    assert told() == ""


def test_true_sixteen_bits_stay(tmp_path, told):
    shifted = np.array([[0, 16, 3200, 65520]], dtype=np.uint16)  # 12 bits, shifted up by 4
    assert rgb(tmp_path, Image.fromarray(shifted), "a.png")[0, :, 0].tolist() == [0, 0, 12, 255]
    high = np.array([[0, 256, 512, 7680]], dtype=np.uint16)  # 8 bits, shifted up by 8: a dark picture
    assert rgb(tmp_path, Image.fromarray(high), "e.png")[0, :, 0].tolist() == [0, 1, 2, 30]
    repeated = np.array([[0, 257, 514, 7710]], dtype=np.uint16)  # 8 bits made 16
    assert rgb(tmp_path, Image.fromarray(repeated), "b.png")[0, :, 0].tolist() == [0, 1, 2, 30]
    bright = np.array([[0, 1, 16384, 16385]], dtype=np.uint16)
    assert rgb(tmp_path, Image.fromarray(bright), "c.png")[0, :, 0].tolist() == [0, 0, 64, 64]
    black = np.zeros((1, 4), dtype=np.uint16)
    assert not rgb(tmp_path, Image.fromarray(black), "d.png").any()
    assert told() == ""


@pytest.mark.parametrize("file", ["shifted.png", "shifted.tif"])
@pytest.mark.parametrize(
    ("values", "shift", "bits", "expected"),
    [
        ([0, 1, 100, 255], 4, 12, [0, 1, 100, 254]),  # 8 bits in 12
        ([0, 1, 100, 255], 2, 10, [0, 1, 100, 254]),  # 8 bits in 10
        ([0, 4, 500, 1023], 4, 14, [0, 1, 125, 255]),  # 10 bits in 14
        ([0, 16, 32, 63], 2, 8, [0, 64, 128, 252]),
    ],
)
def test_values_shifted_up_below_sixteen_bits(tmp_path, file, values, shift, bits, expected, told):
    shifted = np.array([values], dtype=np.uint16) << shift
    assert rgb(tmp_path, Image.fromarray(shifted), file)[0, :, 0].tolist() == expected
    assert f"{file}: 16-bit pixels, but none is above {2**bits - 1}: read as {bits}-bit values" in told()
    (tmp_path / "color.png").write_bytes(png(np.repeat(shifted[..., None], 3, 2)))
    assert np.asarray(open_picture(tmp_path / "color.png"))[0, :, 2].tolist() == expected


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(values: np.ndarray, *, significant: bytes = b"", clear: bytes = b"") -> bytes:
    """A PNG of 16 bits: values [H, W, C] of 1 (grey), 2 (with alpha), 3 (color) or 4 channels."""
    height, width, channels = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    stated = chunk(b"sBIT", significant) if significant else b""
    stated += chunk(b"tRNS", clear) if clear else b""
    return b"".join(
        (b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), stated, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    )


@pytest.mark.parametrize(
    ("values", "bits", "expected"),
    [
        ([0, 1, 1000, 2000], 12, [0, 0, 62, 125]),  # 11 bits would hold them: 12 are stated
        ([0, 1, 100, 200], 10, [0, 0, 25, 50]),
        ([0, 16, 3200, 4080], 12, [0, 0, 12, 16]),  # shifted up as the standard wants it
        ([0, 4095 << 4 | 15, 2048 << 4 | 8, 1 << 4], 12, [0, 255, 128, 0]),  # the low bits repeat the high ones
        ([0, 1, 300, 600], 16, [0, 0, 1, 2]),  # all 16 count: a dark picture
        ([0, 1, 1000, 5000], 12, [0, 0, 16, 78]),  # the chunk is wrong: 14 bits hold them
    ],
)
def test_a_png_states_its_bits(tmp_path, values, bits, expected, told):
    (tmp_path / "a.png").write_bytes(png(np.array(values)[None, :, None], significant=bytes([bits])))
    assert np.asarray(open_picture(tmp_path / "a.png"))[0, :, 0].tolist() == expected
    assert bool(told()) == (values[-1] == 5000)


@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize("upload", [False, True])
def test_few_bits_in_colors_of_sixteen(tmp_path, channels, upload, told):
    """Pillow keeps the high byte alone: 4095 would be 15."""
    values = np.array([[[0] * channels, [4095] * channels, list(range(1001, 1001 + 100 * channels, 100))]])
    if channels in (2, 4):
        values[..., -1] = 65535
    content = png(values)
    (tmp_path / "a.png").write_bytes(content)
    opened = read_picture(content, name="it", max_pixels=99) if upload else open_picture(tmp_path / "a.png")
    last = np.rint(values[0, 2, : max(1, channels - channels % 2 - 1) if channels != 3 else 3] * 255 / 4095).astype(int)
    assert np.asarray(opened)[0].tolist() == [[0] * 3, [255] * 3, last.tolist() if channels > 2 else last.tolist() * 3]
    assert "none is above 4095: read as 12-bit values" in told()


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("kind", ["f4", "i4", "i2", "u4"])
def test_signed_and_32_bit_greys(tmp_path, order, deflate, kind):
    pixels, extra = np.array([0, 51, 1000, 4095], dtype=order + kind), [(339, 3, ["uif".index(kind[0]) + 1])]
    for photometric, expected in ((1, [0, 3, 62, 255]), (0, [255, 252, 193, 0])):
        options = {"bits": [8 * pixels.itemsize], "photometric": photometric, "deflate": deflate}
        (tmp_path / "a.tif").write_bytes(tiff(pixels.tobytes(), width=4, order=order, extra=extra, **options))
        assert np.asarray(open_picture(tmp_path / "a.tif"))[0, :, 0].tolist() == expected


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("deflate", [False, True])
def test_inks_of_few_bits(tmp_path, order, deflate, told):
    """Their high bytes alone would be nearly white."""
    inks = np.array([[0, 0, 0, 4095], [0, 0, 0, 0], [4095, 0, 0, 0]], dtype=f"{order}u2")
    content = tiff(inks.tobytes(), width=3, bits=[16] * 4, order=order, photometric=5, deflate=deflate)
    (tmp_path / "a.tif").write_bytes(content)
    assert np.asarray(open_picture(tmp_path / "a.tif"))[0].tolist() == [[0, 0, 0], [255, 255, 255], [0, 255, 255]]
    assert "a.tif: 16-bit pixels, but none is above 4095" in told()


@pytest.mark.parametrize("order", "<>")
def test_premultiplied_alpha_of_sixteen_bits(tmp_path, order):
    for white, deflate in ((65535, False), (65535, True), (4095, False), (4095, True)):
        values = np.array([[white, 0, 0, white], [0, 0, 0, white], [0, 0, 0, 0]], dtype=f"{order}u2").tobytes()
        options = {"bits": [16] * 4, "order": order, "extra": [(338, 3, [1])], "deflate": deflate}
        (tmp_path / "a.tif").write_bytes(tiff(values, width=3, **options))
        if white == 65535:
            assert np.asarray(open_picture(tmp_path / "a.tif"))[0].tolist() == [[255, 0, 0], [0, 0, 0], [255] * 3]
            continue
        with pytest.raises(DataError, match=r"a\.tif: premultiplied alpha .* 16-bit range: save it with 8 bits"):
            open_picture(tmp_path / "a.tif")


def test_channels_that_no_decoder_reads(tmp_path):
    floats = tiff(bytes(24), width=2, bits=[32] * 3, order="<", extra=[(339, 3, [3])])
    grey_alpha = tiff(bytes(8), width=2, bits=[16] * 2, order=">", extra=[(338, 3, [2])], photometric=1)
    for content in (floats, grey_alpha):
        (tmp_path / "a.tif").write_bytes(content)
        with pytest.raises(DataError, match=r"a\.tif: a TIFF whose channels cannot be decoded .*: save it with 8 bits"):
            open_picture(tmp_path / "a.tif")
        with pytest.raises(DataError, match=r"^“a.tif” is a TIFF whose channels cannot be decoded"):
            read_picture(content, name="“a.tif”", max_pixels=9)


@pytest.mark.parametrize("colors", [1, 3])
@pytest.mark.parametrize(
    ("pixels", "expected"),  # pixels of (color, alpha)
    [
        ([(4095, 4095), (0, 4095), (2001, 4095), (0, 819), (0, 0)], [255, 0, 125, 204, 255]),
        ([(1000, 4095), (0, 4095), (16, 4095)], [62, 0, 1]),  # a dark image: 10 bits would hold its colors
        ([(16368, 16383), (0, 3277)], [255, 204]),
        ([(4095, 65535), (0, 65535), (0, 13107)], [255, 0, 204]),  # alpha of 16 bits
    ],
)
def test_alpha_of_few_bits(tmp_path, colors, pixels, expected, told):
    values = np.array([[[color] * colors + [alpha] for color, alpha in pixels]])
    (tmp_path / "a.png").write_bytes(png(values))
    assert np.asarray(open_picture(tmp_path / "a.png"))[0].tolist() == [[value] * 3 for value in expected]
    assert "a.png: 16-bit pixels, but none is above" in told()


def test_a_deep_color_that_is_clear(tmp_path, told):
    """Pillow compares the low byte of the color that is clear with the high bytes."""

    def opened(*colors: tuple[int, int, int], clear: tuple[int, int, int]) -> list[list[int]]:
        (tmp_path / "a.png").write_bytes(png(np.array([colors]), clear=struct.pack(">3H", *clear)))
        return np.asarray(open_picture(tmp_path / "a.png"))[0].tolist()

    full = [(0x1234, 0, 0), (0x3412, 0, 0), (0x1235, 0, 0), (65535, 0, 0)]
    assert opened(*full, clear=(0x1234, 0, 0)) == [[255] * 3, [0x34, 0, 0], [0x12, 0, 0], [255, 0, 0]]
    assert told() == ""
    few = [(16, 16, 16), (17, 16, 16), (4095, 0, 0)]
    assert opened(*few, clear=(16, 16, 16)) == [[255] * 3, [1, 1, 1], [255, 0, 0]]
    assert "none is above 4095" in told()


def test_colors_of_true_sixteen_bits(tmp_path, told):
    (tmp_path / "a.png").write_bytes(png(np.array([[[65535, 0, 32768], [257, 1, 258]]])))
    assert np.asarray(open_picture(tmp_path / "a.png"))[0].tolist() == [[255, 0, 128], [1, 0, 1]]
    (tmp_path / "a.png").write_bytes(png(np.array([[[257, 514, 5140]]])))
    assert np.asarray(open_picture(tmp_path / "a.png"))[0].tolist() == [[1, 2, 20]]
    Image.fromarray(np.full((2, 2, 3), 20, np.uint8)).save(tmp_path / "dark.png")
    assert (np.asarray(open_picture(tmp_path / "dark.png")) == 20).all() and told() == ""


def tiff(
    pixels: bytes,
    *,
    width: int,
    bits: list[int],
    order: str,
    extra=(),
    photometric: int | None = None,
    planes: bool = False,
    deflate: bool = False,
) -> bytes:
    """A TIFF of one row; its pixels are those of one channel after the other where it has planes."""
    strips = len(bits) if planes else 1
    if photometric is None:
        photometric = 1 if len(bits) == 1 else 2
    pieces = [pixels[at : at + len(pixels) // strips] for at in range(0, len(pixels), len(pixels) // strips)]
    pieces = [zlib.compress(piece) for piece in pieces] if deflate else pieces
    mark = {"<": b"II", ">": b"MM"}[order]
    tags = [(256, 4, [width]), (257, 4, [1]), (258, 3, bits), (259, 3, [8 if deflate else 1]), (262, 3, [photometric])]
    tags += [(273, 4, [0] * strips), (277, 3, [len(bits)]), (278, 4, [1]), (279, 4, [len(piece) for piece in pieces])]
    tags = sorted([*tags, (284, 3, [2 if planes else 1]), *extra], key=lambda tag: tag[0])
    after, kinds = 8 + 2 + 12 * len(tags) + 4, {3: "H", 4: "I"}
    start = after + sum(len(values) * {3: 2, 4: 4}[kind] for _, kind, values in tags)  # room for all the values
    starts = [start + sum(map(len, pieces[:number])) for number in range(strips)]
    rest, entries = b"", b""
    for number, kind, values in tags:
        values = starts if number == 273 else values
        packed = struct.pack(f"{order}{len(values)}{kinds[kind]}", *values)
        if len(packed) > 4:
            packed, rest = struct.pack(f"{order}I", after + len(rest)), rest + packed
        entries += struct.pack(f"{order}HHI", number, kind, len(values)) + packed.ljust(4, b"\0")
    head = mark + struct.pack(f"{order}HIH", 42, 8, len(tags)) + entries + bytes(4) + rest
    return head.ljust(start, b"\0") + b"".join(pieces)


def test_a_tiff_states_its_bits(tmp_path, told):
    packed = bytes([0x00, 0x07, 0xD0, 0xFF, 0xF0, 0x10])  # 12 bits each: 0, 2000, 4095, 16
    for order in "<>":
        for photometric, expected in ((1, [0, 125, 255, 1]), (0, [255, 130, 0, 254])):
            content = tiff(packed, width=4, bits=[12], order=order, photometric=photometric)
            (tmp_path / "a.tif").write_bytes(content)
            assert np.asarray(open_picture(tmp_path / "a.tif"))[0, :, 0].tolist() == expected
        values = np.array([0, 100, 1000], dtype=f"{order}u2").tobytes()
        most = [(281, 3, [4095])]  # MaxSampleValue
        (tmp_path / "a.tif").write_bytes(tiff(values, width=3, bits=[16], order=order, extra=most))
        assert np.asarray(open_picture(tmp_path / "a.tif"))[0, :, 0].tolist() == [0, 6, 62]
    assert told() == ""


@pytest.mark.parametrize("order", "<>")
def test_a_tiff_of_colors_with_few_bits(tmp_path, order, told):
    values = np.array([[0, 2001, 4095], [1001, 3, 4000]], dtype=f"{order}u2").tobytes()
    (tmp_path / "a.tif").write_bytes(tiff(values, width=2, bits=[16] * 3, order=order))
    assert np.asarray(open_picture(tmp_path / "a.tif"))[0].tolist() == [[0, 125, 255], [62, 0, 249]]
    assert "a.tif: 16-bit pixels, but none is above 4095" in told()


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("alpha", [False, True])
def test_a_tiff_of_planes(tmp_path, order, alpha, told):
    """Three or four planes of 16 bits, read as 8 bits before: noise."""

    def opened(*planes: list[int], **options) -> list[list[int]]:
        planes = (*planes, [planes[0][0]] * 3) if alpha else planes
        values = np.array(planes, dtype=f"{order}u2").tobytes()
        extra = [(338, 3, [2])] if alpha else []
        content = tiff(values, width=3, bits=[16] * len(planes), order=order, extra=extra, planes=True, **options)
        (tmp_path / "a.tif").write_bytes(content)
        return np.asarray(open_picture(tmp_path / "a.tif"))[0].T.tolist()

    full = ([65535, 0, 32768], [257, 258, 2570], [1, 5140, 65535])
    assert opened(*full) == opened(*full, deflate=True) == [[255, 0, 128], [1, 1, 10], [0, 20, 255]]
    assert told() == ""
    few = ([4095, 2001, 0], [1001, 3, 4000], [16, 32, 48])
    assert opened(*few) == [[255, 125, 0], [62, 0, 249], [1, 2, 3]]
    assert "a.tif: 16-bit pixels, but none is above 4095" in told()
    with pytest.raises(
        DataError, match=r"a\.tif: 16-bit TIFF with separate planes for its channels: save it interleaved"
    ):
        opened(*few, deflate=True)


def test_planes_that_no_decoder_reads(tmp_path):
    values = np.arange(12, dtype="<u2").tobytes()
    inks = tiff(values, width=3, bits=[16] * 4, order="<", photometric=5, planes=True)
    premultiplied = tiff(values, width=3, bits=[16] * 4, order="<", extra=[(338, 3, [1])], planes=True)
    for content in (inks, premultiplied):
        (tmp_path / "a.tif").write_bytes(content)
        with pytest.raises(
            DataError, match=r"a\.tif: 16-bit TIFF with separate planes for its channels: save it interleaved"
        ):
            open_picture(tmp_path / "a.tif")
    unused = tiff(values, width=3, bits=[16] * 4, order="<", extra=[(338, 3, [0])], planes=True)
    (tmp_path / "a.tif").write_bytes(unused)
    assert np.asarray(open_picture(tmp_path / "a.tif"))[0].tolist() == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
    plain = tiff(bytes(range(9)), width=3, bits=[8] * 3, order="<", planes=True)
    (tmp_path / "a.tif").write_bytes(plain)
    assert np.asarray(open_picture(tmp_path / "a.tif"))[0].tolist() == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("upload", [False, True])
def test_a_tiff_whose_zero_is_white(tmp_path, order, deflate, upload, told):
    def opened(values: list, kind: str = "u2", extra=()) -> list[int]:
        pixels = np.array(values, dtype=order + kind)
        bits, options = [8 * pixels.itemsize], {"order": order, "deflate": deflate, "photometric": 0, "extra": extra}
        content = tiff(pixels.tobytes(), width=len(values), bits=bits, **options)
        (tmp_path / "a.tif").write_bytes(content)
        picture = read_picture(content, name="it", max_pixels=9) if upload else open_picture(tmp_path / "a.tif")
        return np.asarray(picture)[0, :, 0].tolist()

    assert opened([0, 257, 32896, 65535]) == [255, 254, 127, 0]
    assert opened([0, 50, 255], "u1") == [255, 205, 0]
    assert opened([0, 0.2, 1], "f4", [(339, 3, [3])]) == [255, 204, 0]
    assert told() == ""
    assert opened([0, 2001, 4095]) == [255, 130, 0]
    assert "16-bit pixels, but none is above 4095" in told()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 0.2, 0.5, 1], [0, 51, 128, 255]),
        ([0, 0.2, -0.0005, 1.0005], [0, 51, 0, 255]),
        ([0, 51.4, 128, 255], [0, 51, 128, 255]),
        ([0, 1, 100, 201], [0, 1, 100, 201]),
        ([0, 1, 2000, 4095], [0, 0, 125, 255]),
        ([0, 257, 32896, 65535], [0, 1, 128, 255]),
    ],
)
def test_floats(tmp_path, values, expected, told):
    opened = rgb(tmp_path, Image.fromarray(np.array([values], dtype=np.float32)), "float.tif")
    assert opened[0, :, 0].tolist() == expected
    assert bool(told()) == (values[-1] == 4095)


def test_a_deep_grey_that_is_clear(tmp_path):
    deep = Image.fromarray(np.array([[0, 7, 65535]], dtype=np.uint16))
    assert rgb(tmp_path, deep, "key.png", transparency=7)[0, :, 0].tolist() == [0, 255, 255]


def test_colors_that_cannot_be_converted(tmp_path):
    Image.new("LAB", (3, 2)).save(tmp_path / "lab.tif")
    with pytest.raises(DataError, match=r"lab\.tif: colors of mode LAB cannot be read: save it as RGB"):
        open_picture(tmp_path / "lab.tif")


def test_palettes_with_alpha():
    palette = Image.new("PA", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 0])
    palette.putpixel((0, 0), (0, 255))
    palette.putpixel((1, 0), (1, 51))
    assert np.asarray(to_rgb(palette))[0].tolist() == [[10, 20, 30], [244, 224, 204]]


def test_transparent_parts_are_white(tmp_path):
    pixels = np.zeros((1, 3, 4), dtype=np.uint8)
    pixels[0, :, 0], pixels[0, :, 3] = 200, [0, 51, 255]
    expected = [[255, 255, 255], [244, 204, 204], [200, 0, 0]]
    assert rgb(tmp_path, Image.fromarray(pixels), "alpha.png")[0].tolist() == expected
    assert rgb(tmp_path, Image.fromarray(pixels), "alpha.webp", lossless=True, exact=True)[0].tolist() == expected
    grey = Image.fromarray(pixels[..., [0, 3]].copy(), mode="LA")
    assert rgb(tmp_path, grey, "alpha_grey.png")[0].tolist() == [[255] * 3, [244] * 3, [200] * 3]
    keyed = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], dtype=np.uint8))
    assert rgb(tmp_path, keyed, "key.png", transparency=(1, 2, 3))[0].tolist() == [[255, 255, 255], [4, 5, 6]]


def test_palettes(tmp_path):
    palette = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8), mode="P")
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    colors = [[10, 20, 30], [40, 50, 60], [70, 80, 90]]
    for file in ("palette.png", "palette.gif", "palette.bmp"):
        assert rgb(tmp_path, palette, file)[0].tolist() == colors
    for file in ("clear.png", "clear.gif"):
        assert rgb(tmp_path, palette, file, transparency=1)[0].tolist() == [colors[0], [255] * 3, colors[2]]


def test_four_inks(tmp_path):
    inks = np.zeros((16, 32, 4), dtype=np.uint8)
    inks[:, :16, 0] = 255  # cyan beside white
    opened = rgb(tmp_path, Image.fromarray(inks, mode="CMYK"), "inks.jpg", quality=95)
    assert opened[8, 4].tolist() == pytest.approx([0, 255, 255], abs=12)
    assert opened[8, 28].tolist() == pytest.approx([255, 255, 255], abs=12)


@pytest.mark.parametrize("file", ["moving.gif", "moving.png", "moving.webp"])
def test_the_first_frame_of_an_animation(tmp_path, file):
    red, blue = (Image.new("RGB", (8, 6), colour) for colour in ("red", "blue"))
    assert rgb(tmp_path, red, file, save_all=True, append_images=[blue])[3, 4] == pytest.approx([255, 0, 0], abs=4)


def test_any_mode_goes_through_a_transform():
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"):
        picture = Image.new(mode, (9, 7))
        assert to_rgb(picture).mode == "RGB" and Transform(4)(picture).shape == (3, 4, 4)


@pytest.mark.parametrize("file", ["cut.jpg", "cut.png", "cut.bmp", "cut.webp", "cut.tif", "cut.gif"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_pictures_cut_short(tmp_path, file, share):
    path = tmp_path / file
    Image.fromarray(noise(60, 40, 3)).save(path)
    assert open_picture(path).size == (60, 40)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=rf"{file}: (damaged|not an image)"):
        open_picture(path)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_no_damage_escapes_as_another_error(tmp_path):
    generator = np.random.default_rng(0)
    path, refused = tmp_path / "damaged", 0
    for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP"):
        Image.fromarray(noise(30, 20, 3)).save(path, format=kind)
        content = np.frombuffer(path.read_bytes(), dtype=np.uint8)
        for _ in range(40):
            damaged = content.copy()
            damaged[generator.integers(0, len(content), 8)] = generator.integers(0, 256, 8)
            path.write_bytes(damaged.tobytes())
            try:
                open_picture(path)
            except DataError as error:
                assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
                refused += 1
    assert refused > 50


def test_files_that_are_no_pictures(tmp_path, monkeypatch):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("a caption, not an image")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "program.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n")
    Image.new("RGB", (30, 30)).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)  # Pillow refuses twice as many
    expected = {
        "empty.jpg": "the file is empty",
        "text.jpg": "not an image",
        "folder.jpg": "a folder",
        "program.jpg": "not an image",
        "huge.png": "too large",
        "absent.jpg": "there is no such image",
        "text.jpg/inside.jpg": "there is no such image",
    }
    for file, message in expected.items():
        with pytest.raises(DataError, match=message) as caught:
            open_picture(tmp_path / file)
        assert str(tmp_path / file) in str(caught.value)


def test_real_photographs(shared_dir):
    paths = list_pictures([shared_dir / "coco-sample" / "val2017"])[:12]
    assert len(paths) == 12
    for path in paths:
        picture = open_picture(path)
        shown = Transform(224)(picture).float()
        whole = torch.from_numpy(np.array(picture)).float().mean((0, 1))
        assert (shown.mean((1, 2)) - whole).abs().max() < 1 and shown.std() > 10


def test_a_mirrored_transform_turns_what_is_seen_and_keeps_the_region():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 47, 3), dtype=np.uint8))
    for transform in TRANSFORMS:
        turned = transform.mirrored()
        np.testing.assert_array_equal(turned(picture).numpy(), transform(picture).numpy()[:, :, ::-1])
        assert turned.box(47, 30) == transform.box(47, 30)
        assert turned.describe() == transform.describe() | {"mirror": True}
        assert turned.mirrored().describe() == transform.describe()


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
@pytest.mark.parametrize(
    ("corner", "left", "top"), [("top left", 0, 0), ("top right", 5, 0), ("bottom left", 0, 2), ("bottom right", 5, 2)]
)
def test_a_corner_is_that_part_of_the_picture_and_its_box_lies_there(fit, corner, left, top):
    """Of 12 × 6 pixels 0.6 of each side: 7 × 4, which four slices give by hand."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 12, 3), np.uint8)
    whole, part = Image.fromarray(pixels), Image.fromarray(pixels[top : top + 4, left : left + 7])
    transform = Transform(8, fit=fit)
    assert torch.equal(transform.cropped(0.6, corner)(whole), transform(part))
    inner, box = transform.box(7, 4), transform.cropped(0.6, corner).box(12, 6)
    assert box == pytest.approx((inner.left + left, inner.top + top, inner.right + left, inner.bottom + top))


def test_a_corner_has_at_least_one_pixel():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 3), np.uint8)
    tiny = Transform(4, fit="squash").cropped(0.1, "bottom right")
    assert (tiny(Image.fromarray(pixels)) == torch.from_numpy(pixels[1, 2])[:, None, None]).all()
    assert tiny.box(3, 2) == (2, 1, 3, 2)
