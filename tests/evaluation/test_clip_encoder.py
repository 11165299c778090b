"""The CLIP encoder of image scores, with a tiny model of random weights."""

import re

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_clip import images_of, make_tiny_clip, plain_embeddings

from captioning.errors import ConfigError, DataError
from captioning.evaluation import ClipEncoder, PacEncoder
from captioning.evaluation.clip_model import ClipChoice, load_clip

open_clip = pytest.importorskip("open_clip", reason="the extra `clip` is not installed")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny_clip(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def encoder(tiny):
    return ClipEncoder(f"local-dir:{tiny}", "random", device="cpu")


def named(clip):
    """What names the model, without the digits of hashes."""
    return re.sub(r"SHA-256 [0-9a-f]{12}\)", "SHA-256 …)", clip.describe())


def test_embeddings_are_those_of_the_authors_program(encoder, tiny):
    texts = ["A photo depicts a Dog's  tail &amp; more, é!", "a", "", "word " * 200, "word " * 75]
    paths = images_of(tiny, "1.png", "2.png", "3.png", "gray.jpg")
    pictures, rows = plain_embeddings(encoder, paths, texts)
    np.testing.assert_allclose(encoder.embed_images(paths), pictures, rtol=0, atol=1e-5)
    np.testing.assert_allclose(encoder.embed_texts(texts), rows, rtol=0, atol=1e-5)
    assert np.abs(rows[:3] - rows[1:4]).max(axis=1).min() > 0.01 and np.abs(np.diff(pictures, axis=0)).max() > 0.01
    # 75 words fit beside the tokens of the start and the end.
    np.testing.assert_allclose(*encoder.embed_texts(["word " * 200, "word " * 75]), rtol=0, atol=1e-5)
    assert np.abs(np.subtract(*encoder.embed_texts(["word " * 74, "word " * 75]))).max() > 0.001


def test_images_and_texts_are_embedded_once_in_batches(tiny, monkeypatch):
    one, other = (ClipEncoder(f"local-dir:{tiny}", "random", batch_size=size, device="cpu") for size in (2, 64))
    sizes = []
    encode = ClipEncoder._encode

    def counted(self, method, batch):
        sizes.append((method, len(batch)))
        return encode(self, method, batch)

    monkeypatch.setattr(ClipEncoder, "_encode", counted)
    texts = ["a", "b", "a", "c", "d", "e"]
    rows = one.embed_texts(texts)
    assert sizes == [("encode_text", 2), ("encode_text", 2), ("encode_text", 1)]
    assert np.array_equal(rows[0], rows[2]) and not np.array_equal(rows[0], rows[1])
    assert np.array_equal(one.embed_texts(texts[::-1]), rows[::-1]) and len(sizes) == 3
    one.embed_texts(["f", "a"])
    assert sizes[3:] == [("encode_text", 1)]
    paths = images_of(tiny)
    pictures = one.embed_images([*paths, paths[0]])
    assert sizes[4:] == [("encode_image", 2), ("encode_image", 1)]
    assert np.array_equal(one.embed_images(paths[:1]), pictures[3:]) and len(sizes) == 6
    np.testing.assert_allclose(other.embed_images(paths), pictures[:3], atol=1e-5)
    np.testing.assert_allclose(other.embed_texts(texts), rows, atol=1e-5)


def test_random_weights_are_always_the_same_and_leave_the_generator_alone(encoder, tiny):
    torch.manual_seed(5)
    again = ClipEncoder(f"local-dir:{tiny}", "random", device="cpu").embed_texts(["a dog"])
    drawn = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(3))
    np.testing.assert_allclose(again, encoder.embed_texts(["a dog"]), atol=1e-6)
    assert encoder.random and named(encoder) == f"local-dir:{tiny} (SHA-256 …) with RANDOM weights"


def archived(values):
    """A TorchScript archive with these tensors, as OpenAI publishes its weights."""
    root = torch.nn.Module()
    for name, value in values.items():
        *parts, last = name.split(".")
        node = root
        for part in parts:
            if not hasattr(node, part):
                node.add_module(part, torch.nn.Module())
            node = getattr(node, part)
        node.register_buffer(last, value)
    return torch.jit.script(root)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_weights_of_files(encoder, tiny, tmp_path):
    generator = torch.Generator().manual_seed(3)
    values = encoder._ready().model.state_dict()
    values = {name: torch.randn(value.shape, generator=generator) * 0.1 for name, value in values.items()}
    torch.save({"state_dict": values, "epoch": 3}, tmp_path / "a.pth")
    torch.save({f"module.{name}": value for name, value in values.items()}, tmp_path / "b.pt")
    save_file(values, tmp_path / "c.safetensors")
    archived(values | {"input_resolution": torch.tensor(32)}).save(str(tmp_path / "d.pt"))
    made = {}
    for name in ("a.pth", "b.pt", "c.safetensors", "d.pt"):
        clip = ClipEncoder(f"local-dir:{tiny}", str(tmp_path / name), device="cpu")
        made[name] = clip.embed_texts(["a dog"]), clip.embed_images(images_of(tiny))
        assert named(clip) == f"local-dir:{tiny} (SHA-256 …) with weights {name} (SHA-256 …)" and not clip.random
    assert not np.allclose(made["a.pth"][0], encoder.embed_texts(["a dog"]), atol=1e-3)
    for texts, pictures in made.values():
        assert np.array_equal(texts, made["a.pth"][0]) and np.array_equal(pictures, made["a.pth"][1])
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "open_clip_config.json").write_bytes((tiny / "open_clip_config.json").read_bytes())
    save_file(values, tmp_path / "own" / "open_clip_model.safetensors")
    own = ClipEncoder(f"local-dir:{tmp_path / 'own'}", None, device="cpu")
    assert np.array_equal(own.embed_texts(["a dog"]), made["a.pth"][0])
    assert named(own) == f"local-dir:{tmp_path / 'own'} (SHA-256 …)"


def test_16_bits_are_close_to_32(encoder, tiny):
    half = ClipEncoder(f"local-dir:{tiny}", "random", device="cpu")
    half._loaded = load_clip(half.choice, device="cpu", half=True)
    for rows, wide in (
        (half.embed_texts(["a dog"]), encoder.embed_texts(["a dog"])),
        (half.embed_images(images_of(tiny)), encoder.embed_images(images_of(tiny))),
    ):
        assert rows.dtype == np.float32 and 0 < np.abs(rows - wide).max() < 0.02


def test_all_unreadable_images_are_one_error(encoder, tiny, tmp_path):
    bad = [tmp_path / f"{number}.jpg" for number in range(5)]
    for path in bad[1:]:
        path.write_bytes(b"not an image")
    with pytest.raises(DataError) as caught:
        encoder.embed_images([*bad[:3], *images_of(tiny), *bad[3:]])
    message = str(caught.value)
    assert message.startswith(
        f"metrics.clip cannot read 5 images, so replace or remove them: {bad[0]}: there is no such "
    )
    assert message.endswith("…") and str(bad[2]) in message and str(bad[3]) not in message and "\n" not in message
    assert len(encoder.embed_images(images_of(tiny))) == 3


@pytest.mark.parametrize(
    ("model", "weights", "message"),
    [
        ("ViT-B-32-quickgelo", "openai", "open_clip has no such model: did you mean ViT-B-32-quickgelu"),
        ("ViT-B-32-quickgelu", None, r"metrics.clip.weights is null, but .* Set it to openai, or to a file"),
        ("ViT-B-32-quickgelu", "none.pt", "there is no such file, and .* Give a file, or a name: openai, "),
        ("local-dir:TINY", "openai", "Give a file, or null for the model's own weights"),
        (
            "local-dir:TINY",
            None,
            r"local-dir:.*weights=null: cannot load the model \(it has no weights\). Check the folder",
        ),
        (
            "local-dir:TINY",
            "TINY/1.png",
            r"1.png: cannot load the model \(.*\). Give a file with weights of this model",
        ),
        ("local-dir:TINY", "TINY/wide.pt", r"wide.pt: cannot load the model \(.*\). Give a file with weights of this"),
        ("local-dir:TINY/none", None, r"cannot load the model \(Directory .* not found"),
    ],
)
def test_what_cannot_be_loaded_is_one_clear_line(tiny, encoder, model, weights, message):
    if not (tiny / "wide.pt").exists():
        values = encoder._ready().model.state_dict()
        torch.save({name: torch.zeros(3, *value.shape) for name, value in values.items()}, tiny / "wide.pt")
    model, weights = (None if text is None else text.replace("TINY", str(tiny)) for text in (model, weights))
    with pytest.raises(ConfigError, match=message) as caught:
        ClipEncoder(model, weights, device="cpu").prepare()
    assert "\n" not in str(caught.value)


def test_a_missing_package_device_or_weight_file_is_named(monkeypatch, tiny):
    with pytest.raises(
        ConfigError, match=r"metrics.pac.weights is null.* Download clip_ViT-B-32.pth .* set metrics.pac"
    ):
        PacEncoder("ViT-B-32-quickgelu", None, device="cpu").prepare()
    with pytest.raises(ConfigError, match=r"^metrics.clip.device=gpu: there is no such device"):
        ClipEncoder(f"local-dir:{tiny}", "random", device="gpu").prepare()
    with pytest.raises(ConfigError, match=r"metrics.clip.batch_size must be at least 1, not 0"):
        ClipEncoder(f"local-dir:{tiny}", "random", batch_size=0)
    monkeypatch.setattr("captioning.io.optional_packages.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs the package open_clip. Run: pip install 'captioning\[clip\]'"):
        ClipEncoder("ViT-B-32-quickgelu", "openai", device="cpu").prepare()


def test_another_activation_and_a_failed_download_are_errors(monkeypatch):
    choice = ClipChoice("metrics.clip", "ViT-B-32", "openai", "Do.")

    def mismatch(*_, **__):
        import warnings

        warnings.warn("QuickGELU mismatch between final model config and pretrained tag", UserWarning, stacklevel=2)

    monkeypatch.setattr(open_clip, "create_model_from_pretrained", mismatch)
    with pytest.raises(ConfigError, match=r"were trained with another activation than metrics.clip.model=ViT-B-32"):
        load_clip(choice, device="cpu", half=False)

    def offline(*_, **__):
        raise RuntimeError("Failed to download weights for tag 'openai':\n no connection")

    monkeypatch.setattr(open_clip, "create_model_from_pretrained", offline)
    with pytest.raises(ConfigError, match=r"tag 'openai': no connection\). Check the connection, or download"):
        load_clip(choice, device="cpu", half=False)


def test_values_that_are_not_finite_are_refused(tiny, tmp_path, encoder):
    values = {name: value * float("nan") for name, value in encoder._ready().model.state_dict().items()}
    torch.save(values, tmp_path / "nan.pt")
    with pytest.raises(ConfigError, match=r"nan.pt: some embeddings are not finite numbers. Use other weights"):
        ClipEncoder(f"local-dir:{tiny}", str(tmp_path / "nan.pt"), device="cpu").embed_texts(["a dog"])
