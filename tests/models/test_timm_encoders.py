"""Compare timm's networks as encoders with timm's own activations, and follow one bright patch into its location."""

import functools

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from huggingface_hub import constants
from PIL import Image
from remembered import remember_networks
from small_runs import draw_pictures, save_checkpoint
from timm.data import create_transform
from timm.layers import resample_abs_pos_embed
from torch import nn

import captioning
from captioning.checkpoints.read import without_memory
from captioning.config import ExportConfig, check, compose
from captioning.config.headings import conf_dir
from captioning.config.schemas import TrainConfig
from captioning.data import Record, TimmTransform, Transform
from captioning.errors import CheckpointError, ConfigError
from captioning.export import export
from captioning.features import online, stored
from captioning.io import timm_settings
from captioning.models import timm_encoder
from captioning.models.weights import fixed_seed

# (name, size, tokens before the patches or layout of the map)
NETWORKS = [
    ("test_resnet", 96, "NCHW"),
    ("convnext_atto", 96, "NCHW"),
    ("efficientnet_b0", 96, "NCHW"),
    ("mobilenetv3_small_050", 96, "NCHW"),
    ("swin_tiny_patch4_window7_224", 96, "NHWC"),
    ("vit_tiny_patch16_224", 64, 1),
    ("vit_small_patch14_reg4_dinov2", 56, 5),  # a class token and four registers
    ("deit_tiny_distilled_patch16_224", 64, 2),  # a class token and a distillation token
    ("vit_xsmall_patch16_clip_224", 64, 1),
    ("test_vit3", 64, 1),  # a register, no class token; pooled by attention, as in SigLIP
    ("eva02_tiny_patch14_224", 56, 1),
    pytest.param("mixer_s32_224", 224, 0, marks=pytest.mark.slow),
    pytest.param("twins_svt_small", 224, 0, marks=pytest.mark.slow),
    pytest.param("beit_base_patch16_224", 64, 1, marks=pytest.mark.slow),
    pytest.param("vit_base_patch16_clip_224", 64, 1, marks=pytest.mark.slow),
    pytest.param("vit_base_patch16_siglip_224", 64, 0, marks=pytest.mark.slow),
    pytest.param("resnet18", 96, "NCHW", marks=pytest.mark.slow),
]
TINY = "test_vit.r160_in1k"
remember_networks(timm, "create_model")


@functools.cache
def encoder_of(name: str, size: int, output: str = "grid"):
    return timm_encoder(name, weights=None, output=output, image_size=size)


def trained(name: str, **options) -> nn.Module:
    """Build a network whose random weights, also of its norms, are none of those that weights=None means."""
    torch.manual_seed(3)
    model = timm.create_model(name, **options)
    for value in model.parameters():
        nn.init.normal_(value, std=0.1)
    return model


def reference(name: str, size: int) -> nn.Module:
    """Build the classifier with the weights that weights=None means."""
    sized = {"img_size": size} if timm.get_pretrained_cfg(name).fixed_input_size else {}
    with fixed_seed():
        return timm.create_model(name, **sized).eval()


def pictures(count: int, size: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(7))


def normalized(images: torch.Tensor, model: nn.Module) -> torch.Tensor:
    mean, std = (torch.tensor(model.pretrained_cfg[key])[:, None, None] for key in ("mean", "std"))
    return (images / 255 - mean) / std


@pytest.mark.parametrize("name, size, layout", NETWORKS)
def test_a_bright_patch_changes_its_own_location_most(name, size, layout):
    """All cells of the grid in turn: one is white in an image of the mean color.

    Locations of a deep convolutional network see far beyond their cell, so each kernel here only keeps its center.
    """
    encoder = timm_encoder(name, weights=None, image_size=size)
    if layout in ("NCHW", "NHWC"):
        center_kernels(encoder.network)
    side = round(encoder.places**0.5)
    assert side >= 2 and side**2 == encoder.places
    step = size // side
    images = torch.tensor([round(255 * mean) for mean in encoder.mean], dtype=torch.uint8)[:, None, None]
    images = images.expand(1 + side**2, 3, size, size).clone()
    for cell in range(side**2):
        row, column = divmod(cell, side)
        images[1 + cell, :, row * step : (row + 1) * step, column * step : (column + 1) * step] = 255
    grids = torch.cat([encoder(part) for part in images.split(16)])
    changes = (grids[1:] - grids[0]).norm(dim=2)  # [images, locations]
    assert changes.isfinite().all() and changes.argmax(1).tolist() == list(range(side**2))


@torch.no_grad()
def center_kernels(network: nn.Module) -> None:
    """Make convolutions with odd kernels see one pixel, and let all convolutions average what they see."""
    for value in network.parameters():
        if value.dim() == 4:
            middle = value.shape[-1] // 2
            if value.shape[-1] % 2:
                center = value[:, :, middle, middle].clone()
                value.zero_()
                value[:, :, middle, middle] = center
            value.abs_().div_(value.sum((1, 2, 3), keepdim=True))


@pytest.mark.parametrize("name, size, layout", NETWORKS)
def test_features_are_those_that_timm_itself_computes(name, size, layout):
    model, images = reference(name, size), pictures(2, size)
    with torch.no_grad():
        features = model.forward_features(normalized(images, model))
        pooled = model.forward_head(features, pre_logits=True)
    if layout == "NCHW":
        features = features.flatten(2).mT
    elif layout == "NHWC":
        features = features.flatten(1, 2)
    else:
        features = features[:, layout:]
    grid, vector = encoder_of(name, size), encoder_of(name, size, "fc")
    assert (grid.places, grid.size, vector.places) == (*features.shape[1:], None)
    assert vector.size == pooled.shape[1]
    torch.testing.assert_close(grid(images), features, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(vector(images), pooled, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name, size, layout", NETWORKS)
def test_stored_features_are_those_of_the_encoder(name, size, layout, tmp_path):
    draw_pictures(tmp_path)
    records = [
        Record(number, path, "train", ("a dog",)) for number, path in enumerate(sorted(tmp_path.glob("train*.png")))
    ]
    encoder, transform = encoder_of(name, size), TimmTransform(name, size=size)
    common = {"name": "toys"}
    kept = stored(encoder, transform, records, root=str(tmp_path), extract_workers=0, device="cpu", **common)
    now = online(encoder, transform, records, **common)
    found = torch.stack([kept.read(record) for record in records])
    expected = encoder(torch.stack([now.read(record) for record in records]))
    assert expected.std() > 0
    torch.testing.assert_close(found, expected.half(), atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("name, size, layout", NETWORKS)
def test_a_reloaded_export_gives_the_same_captions(name, size, layout, tmp_path):
    draw_pictures(tmp_path)
    file = tmp_path / "run" / "checkpoints" / "best.ckpt"
    given = ["encoder=timm", f"encoder.name={name}", "encoder.weights=null", f"encoder.image_size={size}"]
    save_checkpoint(file, *given)
    asked = [f"checkpoint={file}", f"output={tmp_path / 'exported'}", "dtype=float32"]
    export(check(compose("export", asked), ExportConfig))
    photos = sorted(tmp_path.glob("val*.png"))
    first, second = (captioning.load(path) for path in (file, tmp_path / "exported.safetensors"))
    for one, other in zip(first.caption(photos), second.caption(photos), strict=True):
        assert one.text == other.text and one.log_prob == pytest.approx(other.log_prob, abs=1e-5)
        np.testing.assert_allclose(one.attention, other.attention, atol=1e-5)


def test_weights_of_another_size_are_interpolated_and_any_classifier_may_follow(tmp_path):
    model = trained(TINY, num_classes=7)
    state, image_size = model.state_dict(), 64
    torch.save(state, tmp_path / "own.pth")
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "run.pth")
    safetensors.torch.save_file(state, tmp_path / "own.safetensors")
    names = ("own.pth", "run.pth", "own.safetensors")
    made = [timm_encoder(TINY, weights=str(tmp_path / name), image_size=image_size) for name in names]
    assert len({encoder.fingerprint() for encoder in made}) == 1
    own = made[0].network.state_dict()
    assert made[0].places == 16 and not any(key.startswith("head.") for key in own)
    expected = resample_abs_pos_embed(state["pos_embed"], new_size=(4, 4), old_size=(10, 10), num_prefix_tokens=1)
    torch.testing.assert_close(own["pos_embed"], expected)
    assert own.keys() == state.keys() - {"head.weight", "head.bias"}
    for key in own.keys() - {"pos_embed"}:
        assert torch.equal(own[key], state[key]), key


def small(weights, **changes):
    return timm_encoder(**{"name": TINY, "weights": weights, "image_size": 64} | changes)


def test_weights_that_do_not_fit_are_refused_in_one_line(tmp_path):
    file = tmp_path / "weights.pth"
    state = dict(trained(TINY).state_dict())

    def refused(message: str, **changes) -> None:
        torch.save(state | changes, file)
        with pytest.raises(CheckpointError, match=f"weights.pth: the weights do not fit {TINY}.*{message}") as caught:
            small(str(file))
        assert "\n" not in str(caught.value) and "Set encoder.weights to a file of" in str(caught.value)

    refused("extra", extra=torch.zeros(1))
    refused("norm.bias", **{"norm.bias": torch.zeros(3)})
    refused(r"patches have other sizes than \(16, 16\)", **{"patch_embed.proj.weight": torch.zeros(64, 3, 8, 8)})
    del state["norm.bias"]
    refused("norm.bias")
    state = dict(trained("test_resnet").state_dict())
    refused("Missing key")


@pytest.mark.parametrize(
    "name, content, found",
    [
        ("page.safetensors", b"<!DOCTYPE html><html></html>", "a web page"),
        ("zeros.pth", bytes(4096), "a file of zeros"),
        ("pointer.bin", b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\n", "git lfs pull"),
        ("empty.safetensors", b"", "an empty file"),
    ],
)
def test_damaged_weights_are_named(name, content, found, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{name}: not a weights file.*; it looks like .*{found}") as caught:
        small(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_files_that_are_no_weights_are_refused(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"encoder\.weights: .*none.pth is neither a file nor 'pretrained'\. Give"
    ):
        small(str(tmp_path / "none.pth"))
    file = tmp_path / "module.pth"
    torch.save(nn.Linear(2, 2), file)  # a pickled module could run any code
    with pytest.raises(CheckpointError, match=r"module\.pth: not a weights file that can be loaded safely"):
        small(str(file))
    torch.save({"epoch": 3}, file)
    with pytest.raises(CheckpointError, match=r"module\.pth: not a state_dict"):
        small(str(file))


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """A cache of downloads without files, and no hub."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def cache(folder, content) -> str:
    """Put a file into the cache as huggingface_hub does; return its path."""
    home, commit = folder / f"models--timm--{TINY}", "0" * 40
    (home / "refs").mkdir(parents=True, exist_ok=True)
    (home / "refs" / "main").write_text(commit)
    file = home / "snapshots" / commit / "model.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return str(file)


def test_pretrained_weights_come_from_the_hub_s_cache(offline, tmp_path):
    state = trained(TINY).state_dict()
    cache(offline, safetensors.torch.save(state))
    torch.save(state, tmp_path / "own.pth")
    assert small("pretrained").fingerprint() == small(str(tmp_path / "own.pth")).fingerprint()


def test_a_hub_out_of_reach_is_told_in_one_line_with_the_file_to_get(offline):
    with pytest.raises(CheckpointError) as caught:
        small("pretrained")
    message = str(caught.value)
    assert message.startswith(f"cannot download the weights of {TINY} from https://huggingface.co/timm/{TINY} (")
    assert message.endswith("Download model.safetensors from there yourself, and set encoder.weights to its path")
    assert "\n" not in message


def test_a_damaged_file_in_the_cache_is_to_be_deleted(offline):
    for content, found in ((b"<!DOCTYPE html><html></html>", "looks like a web page"), (b"\x08" * 99, "ader")):
        file = cache(offline, content)
        with pytest.raises(CheckpointError, match=rf"{file} should contain .*{found}.*Delete that file") as caught:
            small("pretrained")
        assert "\n" not in str(caught.value)


def test_names_that_timm_does_not_have():
    smal, small_ = "vit_smal_patch14_dinov2.lvd142m", r"vit_small_patch14_dinov2\.lvd142m"
    for name, near in (("resnet5O", "resnet50"), (smal, small_)):
        with pytest.raises(ConfigError, match=rf"timm has no network '{name}' \(nearest: .*{near}"):
            timm_encoder(name, weights=None)
        with pytest.raises(ConfigError, match=f"timm has no network '{name}'"):
            TimmTransform(name)
    with pytest.raises(ConfigError, match=r"no weights 'a1_in2k' of resnet50\. .*nearest: resnet50\.a1_in1k"):
        timm_encoder("resnet50.a1_in2k", weights=None)
    with pytest.raises(ConfigError, match="timm has no network 'hf-hub:someone/model'"):
        timm_encoder("hf-hub:someone/model", weights=None)
    bare = next(each for each in timm.list_models("vit_*") if not timm_settings(each).url)
    with pytest.raises(ConfigError, match=f"weights: timm has no weights of {bare}. Set encoder.weights to a file"):
        timm_encoder(bare)


def test_without_the_package_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr("captioning.io.optional_packages.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs the package timm\. Run: pip install 'captioning\[timm\]'"):
        timm_encoder("resnet18", weights=None)


def test_faults_in_the_arguments_are_named():
    with pytest.raises(ConfigError, match=r"no layer 'block\.3' \(nearest: blocks\.3"):
        small(None, layer="block.3")
    with pytest.raises(ConfigError, match=r"encoder\.image_size: .*60×60 .*not a multiple of them\. Set it to 48"):
        small(None, image_size=60)
    with pytest.raises(ConfigError, match=r"encoder\.pooling must be one of own, class_token, mean"):
        small(None, pooling="max")
    with pytest.raises(ConfigError, match=r"pooling=mean needs encoder\.output=fc"):
        small(None, pooling="mean")
    with pytest.raises(ConfigError, match="this network has no class token"):
        small(None, name="test_resnet", output="fc", pooling="class_token")
    with pytest.raises(ConfigError, match="returns 1 tokens, which are not a grid"):
        timm_encoder("pit_ti_224", weights=None)  # whose last layer returns the class token alone
    with pytest.raises(ConfigError, match=r"several maps\. Name one of its layers"):
        timm_encoder("crossvit_tiny_240", weights=None)


def test_poolings_differ_and_have_keys_of_their_own():
    name, size = "eva02_tiny_patch14_224", 56
    model, images = reference(name, size), pictures(2, size)
    with torch.no_grad():
        tokens = model.forward_features(normalized(images, model))
    wanted = {"class_token": tokens[:, 0], "mean": tokens[:, 1:].mean(1)}
    made = {each: timm_encoder(name, weights=None, output="fc", image_size=size, pooling=each) for each in wanted}
    for pooling, encoder in made.items():
        torch.testing.assert_close(encoder(images), wanted[pooling], atol=1e-5, rtol=1e-4)
    made["own"] = timm_encoder(name, weights=None, output="fc", image_size=size)
    assert len({str(encoder.describe()["layer"]) for encoder in made.values()}) == 3
    with pytest.raises(ConfigError, match="this network has no class token"):  # its first token is a register
        timm_encoder("test_vit3", weights=None, output="fc", image_size=64, pooling="class_token")


def test_an_earlier_layer_and_only_what_it_needs():
    model, images = reference(TINY, 64), pictures(2, 64)
    with torch.no_grad():
        expected = model.forward_intermediates(normalized(images, model), indices=[2], intermediates_only=True)[0]
    encoder = small(None, layer="blocks.2")
    torch.testing.assert_close(encoder(images), expected.flatten(2).mT, atol=1e-5, rtol=1e-4)
    kept = {key.split(".")[1] for key in encoder.network.state_dict() if key.startswith("blocks.")}
    assert kept == {"0", "1", "2"} and not any(key.startswith("norm.") for key in encoder.network.state_dict())
    before = small(None, layer="patch_embed", name="vit_small_patch14_reg4_dinov2", image_size=42)
    assert before.places == 9  # here no token comes before the patches, though 9 - 5 would be a square too


def test_fine_tuning_from_a_block_and_splitting_there():
    encoder = small(None, unfreeze_from="blocks.4").train()
    images = pictures(3, 64)
    encoder(images).square().sum().backward()
    moved = {name.split(".")[0:2][-1] for name, value in encoder.network.named_parameters() if value.grad is not None}
    assert moved == {"4", "5", "weight", "bias"}  # the last two are of `norm`
    assert not encoder.network.cls_token.requires_grad
    frozen, rest = encoder.split()
    torch.testing.assert_close(rest(frozen(images)), encoder(images))
    mapped = timm_encoder("test_resnet", weights=None, image_size=64, unfreeze_from="layer4")
    named = {name for name, value in mapped.network.named_parameters() if value.requires_grad}
    assert named and all("conv" in name or "downsample" in name for name in named)  # no BatchNorm
    assert not {name for name in named if ".bn" in name}


@pytest.mark.parametrize("name, calls", [(TINY, 6), ("test_vit3", 9), ("eva02_tiny_patch14_224", 12)])
def test_attention_is_memory_efficient(name, calls, monkeypatch):
    """Every block calls torch's fused function, which never stores the N × N weights."""
    counted, fused = [], nn.functional.scaled_dot_product_attention
    size = 56 if "14" in name else 64
    encoder = timm_encoder(name, weights=None, image_size=size)

    def count(*args, **options):
        counted.append(1)
        return fused(*args, **options)

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", count)
    encoder(pictures(1, size))
    assert len(counted) == calls


def test_random_weights_are_the_same_every_time_and_leave_the_generator_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, second = small(None), small(None)
    assert torch.equal(torch.get_rng_state(), before) and first.fingerprint() == second.fingerprint()
    assert first.describe() == second.describe() and first.describe()["name"] == TINY


def test_the_transform_is_timm_s_own():
    own = timm_settings(TINY)
    side = int(own.size[0] / own.crop_share)
    assert side > own.size[0] and own.fit == "crop"
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    theirs = create_transform(own.size[0], mean=(0, 0, 0), std=(1, 1, 1), crop_pct=own.crop_share)
    ours = TimmTransform(TINY)
    assert torch.equal(ours(Image.fromarray(noise)), (theirs(Image.fromarray(noise)) * 255).round().byte())
    assert ours.describe() == Transform(own.size[0], fit="crop", resize=side).describe()


@pytest.mark.parametrize(
    "name, changes, expected",
    [
        ("vit_small_patch14_dinov2.lvd142m", {}, (518, "crop", 518, "bicubic")),
        ("resnet50.tv_in1k", {}, (224, "crop", 256, "bilinear")),
        ("resnet50.tv_in1k", {"size": 448}, (448, "crop", 512, "bilinear")),
        ("resnet50.tv_in1k", {"fit": "squash", "interpolation": "lanczos"}, (224, "squash", 224, "lanczos")),
        ("convnext_base.fb_in22k_ft_in1k_384", {}, (384, "squash", 384, "bicubic")),
        ("resnet50.tv_in1k", {"resize": 300}, (224, "crop", 300, "bilinear")),
    ],
)
def test_each_network_has_its_own_transform(name, changes, expected):
    described = TimmTransform(name, **changes).describe()
    assert tuple(described[key] for key in ("size", "fit", "resize", "interpolation")) == expected


def test_interpolations_differ_and_are_part_of_the_key():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8))
    made = [Transform(24, interpolation=each) for each in ("bicubic", "bilinear", "lanczos")]
    assert len({tuple(each(noise).flatten().tolist()) for each in made}) == 3
    assert [each.describe()["interpolation"] for each in made] == ["bicubic", "bilinear", "lanczos"]
    assert Transform(24).describe() == made[0].describe()
    with pytest.raises(ConfigError, match=r"transform\.interpolation must be one of bicubic, bilinear, lanczos"):
        Transform(24, interpolation="nearest")


READY = {
    "dinov2_s14": (256, 384),
    "dinov2_b14": (256, 768),
    "clip_b16": (196, 768),
    "siglip_b16": (196, 768),
    "convnext_tiny": (49, 768),
    "resnet50_a1": (49, 2048),
    "efficientnet_b3": (81, 1536),
}


def test_the_ready_settings_are_all_listed():
    found = {path.stem for path in (conf_dir() / "encoder").glob("*.yaml") if "- timm\n" in path.read_text("utf-8")}
    assert found == set(READY)


@pytest.mark.parametrize("choice", READY)
def test_ready_settings_have_weights_and_the_grid_that_their_file_states(choice):
    config = check(compose("train", [f"encoder={choice}", "data=scenes", "run_dir=x"]), TrainConfig)
    encoder, transform = config["encoder"], config["transform"]
    assert encoder["weights"] == "pretrained" and timm.is_model_pretrained(encoder["name"])
    assert transform["name"] == encoder["name"] and transform["size"] == encoder["image_size"]
    arguments = {key: value for key, value in encoder.items() if key != "_target_"}
    with without_memory():
        made = timm_encoder(**arguments | {"weights": None})
    places, size = READY[choice]
    assert (made.places, made.size) == (places, size)
    side = int(places**0.5)
    assert f"{side}×{side}×{size}" in (conf_dir() / "encoder" / f"{choice}.yaml").read_text("utf-8")
