"""Build encoders from the networks of timm, by name.

The network is traced from the image to the layer that returns the features, so that only the needed part is kept, with
timm's own names of its modules.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from captioning.errors import ConfigError, two_sides
from captioning.io import timm_settings
from captioning.models.encoder import Encoder, proportional_grid
from captioning.models.timm_tracing import trace_timm
from captioning.models.timm_weights import build_timm
from captioning.models.weights import nearest

POOLINGS = ("own", "class_token", "mean")


def timm_encoder(
    name: str,
    *,
    weights: str | None = "pretrained",
    output: str = "grid",
    layer: str | None = None,
    image_size: int | list[int] | None = None,
    pooling: str = "own",
    unfreeze_from: str | None = None,
) -> Encoder:
    """Build an encoder from any network of timm.

    A grid is the network's last map, or its tokens without the class, register and distillation tokens.

    Args:
        name: Architecture and weights as in `timm.list_pretrained()`, such as "resnet50.a1_in1k"; without the part
            after the dot, timm's default weights.
        weights: "pretrained" for timm's weights of that name (downloaded at first use), a file (.safetensors, or
            written by `torch.save`), or None for random weights, which are the same every time.
        output: "fc" or "grid".
        layer: A module or operation of the network, such as "blocks.8" or "layer3"; None is the last layer before
            pooling. For output "fc", the vector is then the mean over the locations of that layer.
        image_size: Side of a square image, or [H, W], in pixels; None is the network's own. The position embeddings are
            interpolated if the weights were trained with another size.
        pooling: For output "fc" without a layer: "own" is the network's input to its classifier; "class_token" its
            first token; "mean" the mean over the locations of the grid.
        unfreeze_from: See `Encoder`. Class token and position embeddings always stay frozen.

    Raises:
        ConfigError: timm is not installed, an argument is unknown, or the network cannot take this size.
        CheckpointError: The weights cannot be downloaded, read or loaded into the network.
    """
    if pooling not in POOLINGS:
        raise ConfigError(f"encoder.pooling must be one of {', '.join(POOLINGS)}, not {pooling!r}")
    if pooling != "own" and (output != "fc" or layer is not None):
        raise ConfigError(f"encoder.pooling={pooling} needs encoder.output=fc and encoder.layer=null")
    own = timm_settings(name)
    size = own.size if image_size is None else two_sides("encoder.image_size", image_size)
    model = build_timm(name, weights, size=size, own=own)
    _check_patches(model, size)
    pooled = output == "fc" and pooling == "own" and layer is None
    network, found = _cut(model, layer, size=size, pooled=pooled, class_token=pooling == "class_token")
    return Encoder(
        network,
        name=name,
        layer=found,
        output=output,
        mean=own.mean,
        std=own.std,
        image_size=size,
        unfreeze_from=unfreeze_from,
    )


def timm_network(name: str, weights: str | None, *, image_size: int | list[int] | None) -> Any:
    """Build a classifier of timm, in eval mode; see `timm_encoder`."""
    own = timm_settings(name)
    size = own.size if image_size is None else two_sides("encoder.image_size", image_size)
    return build_timm(name, weights, size=size, own=own)


def _check_patches(model: Any, size: tuple[int, int]) -> None:
    """Refuse sizes that are no multiples of the patches of a transformer, which would ignore the rest of the image."""
    embed = getattr(model, "patch_embed", None)
    cut = getattr(embed, "proj", None)
    if not isinstance(cut, nn.Conv2d) or cut.kernel_size != cut.stride or getattr(embed, "dynamic_img_pad", False):
        return  # no patches side by side, or the image is padded
    patch = cut.stride
    pairs = list(zip(size, patch, strict=True))
    if not any(side % each for side, each in pairs):
        return
    below = [max(each, side // each * each) for side, each in pairs]
    above = [-(-side // each) * each for side, each in pairs]
    near = " or ".join(_typed(sides) for sides in (below, above))
    raise ConfigError(
        f"encoder.image_size: this network divides an image into patches of {patch[0]}×{patch[1]} pixels, but "
        f"{size[0]}×{size[1]} (height × width) is not a multiple of them. Set it to {near}"
    )


def _typed(sides: Sequence[int]) -> str:
    """Return a size as one types it: one side of a square, or [H,W]."""
    return str(sides[0]) if sides[0] == sides[1] else f"[{sides[0]},{sides[1]}]"


@torch.no_grad()
def _cut(
    model: Any, layer: str | None, *, size: tuple[int, int], pooled: bool, class_token: bool
) -> tuple[fx.GraphModule, str]:
    """Cut a network after a layer; return it as a graph with only the modules it needs, and the layer's name.

    The graph returns a map [B, D, H, W] or a vector [B, D].
    """
    graph, names = trace_timm(model, "forward" if pooled else "forward_features", size=size)
    end = graph.output_node()
    last = end.args[0] if layer is None else _find(layer, names)
    if not isinstance(last, fx.Node):
        raise ConfigError("encoder.layer: this network returns several maps. Name one of its layers as encoder.layer")
    shape = _shape(_ending_at(last, graph, model), size)
    found: str = names[last]
    change: tuple[Any, ...] | None = None
    if class_token:
        if len(shape) != 3 or getattr(model, "cls_token", None) is None:  # the first token may be a register
            raise ConfigError("encoder.pooling: this network has no class token. Set it to own or mean")
        found, change = f"class token of {found}", (_first_token, last)
    elif len(shape) == 3:
        change = (_tokens_to_map, last, *_locations(model, shape[1], size=size, layer=found))
    elif len(shape) == 4 and getattr(model, "output_fmt", "NCHW") == "NHWC":
        change = (_channels_first, last)
    if change:
        with graph.inserting_before(end):
            last = graph.call_function(change[0], change[1:])
    return _ending_at(last, graph, model), "pooled" if pooled else found


def _find(layer: str, names: dict[fx.Node, str]) -> fx.Node:
    """Return the last node of a module or operation."""
    found = [node for node, name in names.items() if name == layer or name.startswith(f"{layer}.")]
    if not found:
        known = {".".join(name.split(".")[:level]) for name in names.values() for level in range(1, 4)}
        raise ConfigError(
            f"encoder.layer: the network has no layer {layer!r}{nearest(layer, sorted(known))}. Name one of its layers"
        )
    return found[-1]


def _ending_at(last: fx.Node, graph: fx.Graph, root: nn.Module) -> fx.GraphModule:
    """Return the part of a traced network that ends at a node, with only the weights it needs."""
    graph.output_node().args = (last,)
    graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output"))  # checks of the size go too
    return fx.GraphModule(root, graph).eval()


def _shape(network: nn.Module, size: tuple[int, int]) -> torch.Size:
    """Return the shape of the network's output for two images: tracing saw only one."""
    result = network(torch.zeros(2, 3, *size))
    if not isinstance(result, Tensor) or result.dim() not in (2, 3, 4) or len(result) != 2:
        raise ConfigError("encoder.layer: this layer does not return one tensor of features. Name another layer")
    return result.shape


def _locations(model: Any, tokens: int, *, size: tuple[int, int], layer: str) -> tuple[int, int, int]:
    """Return the number of tokens before the locations of a grid, and the grid's rows and columns.

    The network itself counts the class, register and distillation tokens before its patches. Layers before these are
    added have none, and networks with a pyramid of maps have smaller grids than their first one.
    """
    prefix = getattr(model, "num_prefix_tokens", None)
    first = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    for extra in (1, 0) if prefix is None else (prefix, 0):
        if first and math.prod(first) == tokens - extra:
            return extra, *first
    for extra in (0, 1) if prefix is None else (prefix, 0):
        # One token alone may be a class token without patches, as the networks PiT return it.
        if tokens - extra > 1 and (grid := proportional_grid(tokens - extra, size)):
            return extra, *grid
    raise ConfigError(
        f"encoder.layer: {layer} returns {tokens} tokens, which are not a grid in the shape of the image. "
        "Name another layer"
    )


def _first_token(features: Tensor) -> Tensor:
    """Return the class token [B, D] of tokens [B, N, D]."""
    return features[:, 0]


def _tokens_to_map(features: Tensor, prefix: int, rows: int, columns: int) -> Tensor:
    """Return the map [B, D, H, W] of tokens [B, N, D], without the first `prefix` tokens."""
    return features[:, prefix:].unflatten(1, (rows, columns)).permute(0, 3, 1, 2)


def _channels_first(features: Tensor) -> Tensor:
    """Return the map [B, D, H, W] of [B, H, W, D]."""
    return features.permute(0, 3, 1, 2)
