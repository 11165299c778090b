"""Trace networks of timm: a graph of their blocks and of the operations between them, for images of one size."""

from functools import reduce
from typing import Any

import torch
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import NodePathTracer

from captioning.errors import ConfigError

_INSIDE = "network."  # where the root module of a trace has timm's network


@torch.no_grad()
def trace_timm(model: Any, function: str, *, size: tuple[int, int]) -> tuple[fx.Graph, dict[fx.Node, str]]:
    """Trace one of a network's functions from images alone, without its classifier.

    Args:
        model: The network; its classifier is removed.
        function: "forward" or "forward_features".
        size: Height and width of the images.

    Returns:
        The graph, whose root is the network, and the name of each of its nodes.

    Raises:
        ConfigError: The network cannot take images of this size.
    """
    model.reset_classifier(0)
    root = _Function(model, function)
    tracer = _Tracer(torch.zeros(1, 3, *size))
    try:
        graph = tracer.trace(root)
    except fx.proxy.TraceError as error:
        raise ConfigError(
            f"encoder.name: this network cannot be traced ({_reason(error)}). Name another one"
        ) from error
    except Exception as error:  # the network's own code: not a multiple of the patches, or a map too small
        raise ConfigError(
            f"encoder.image_size: this network cannot take images of {size[0]}×{size[1]} ({_reason(error)}). "
            "Set another size"
        ) from error
    for node in graph.nodes:  # use timm's names, as if its network were the root
        if node.op in ("call_module", "get_attr"):
            target = str(node.target)
            if not target.startswith(_INSIDE):  # a constant that the tracer added
                setattr(model, target, getattr(root, target))
            node.target = target.removeprefix(_INSIDE)
    return graph, {node: name.removeprefix(_INSIDE) for node, name in tracer.node_to_qualname.items()}


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


class _Function(nn.Module):
    """One function of a network as a forward without optional arguments, which a tracer would take for given ones."""

    def __init__(self, network: nn.Module, function: str):
        super().__init__()
        self.network, self.function = network, function

    def forward(self, images: Tensor) -> Tensor:
        return getattr(self.network, self.function)(images)


class _Proxy(fx.Proxy):
    """A proxy with a length, for a node whose value has one."""

    def __len__(self) -> int:
        return len(self.tracer.value_of(self))  # type: ignore[attr-defined]


class _Tracer(NodePathTracer):
    """Trace the body of a network and of its stages. Blocks stay modules, so that their types and names are kept.

    Each operation is also computed for a black image. Where a network's code depends on shapes, as it does if position
    embeddings could be interpolated, these values decide which way it takes.
    """

    def __init__(self, image: Tensor):
        from timm.layers import get_notrace_functions, get_notrace_modules

        super().__init__(autowrap_functions=tuple(get_notrace_functions()))
        self._whole = tuple(get_notrace_modules())
        self._image, self._computing = image, False
        self._values: dict[fx.Node, Any] = {}

    def is_leaf_module(self, m: nn.Module, module_qualname: str) -> bool:
        # timm calls the list of a stage's blocks `blocks` in all its networks.
        return isinstance(m, self._whole) or not (isinstance(m, nn.Sequential) or hasattr(m, "blocks"))

    def create_node(self, *args: Any, **options: Any) -> fx.Node:
        node = super().create_node(*args, **options)
        self._computing = True
        try:
            self._values[node] = self._value(node)
        finally:
            self._computing = False
        return node

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def value_of(self, obj: fx.Proxy) -> Any:
        """Return the value that a proxy has for the black image."""
        return self._values[obj.node]

    def to_bool(self, obj: fx.Proxy) -> bool:
        return bool(self.value_of(obj))

    def iter(self, obj: Any) -> Any:
        value = self.value_of(obj)
        return (obj[index] for index in range(len(value))) if isinstance(value, list | tuple) else super().iter(obj)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        return forward(*args, **kwargs) if self._computing else super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: Any) -> Any:
        return attr_val if self._computing else super().getattr(attr, attr_val, parameter_proxy_cache)

    def _value(self, node: fx.Node) -> Any:
        """Compute the value of a node from the values of the nodes before it."""
        if node.op in ("placeholder", "output"):
            return self._image
        target = str(node.target)
        if node.op == "get_attr":
            return reduce(getattr, target.split("."), self.root)
        args: Any = fx.node.map_arg(node.args, self._values.__getitem__)
        kwargs: Any = fx.node.map_arg(node.kwargs, self._values.__getitem__)
        if node.op == "call_method":
            return getattr(args[0], target)(*args[1:], **kwargs)
        called: Any = self.root.get_submodule(target) if node.op == "call_module" else node.target
        return called(*args, **kwargs)
