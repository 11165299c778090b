"""Split a fine-tuned encoder into a frozen part, whose output can be stored, and a part that every step computes.

A network can be split if all its values pass through one tensor between the last frozen and the first unfrozen module:
chains of modules (`nn.Sequential`, also nested) and traced graphs (`torch.fx.GraphModule`).
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from captioning.errors import ConfigError
from captioning.models.weights import fingerprint_of


class FrozenPart(nn.Module):
    """The frozen part of an encoder: images [B, 3, S, S] uint8 -> what a feature store keeps of them.

    Maps [B, C, H, W] are returned as [B, H, W, C], the order in which the encoder's convolutions have them in memory.
    Tokens [B, N, D] and vectors [B, D] are returned as they are.

    Args:
        encoder: A `captioning.models.Encoder` with `unfreeze_from`.
        cut: The place where its network is cut.
    """

    def __init__(self, encoder: Any, cut: "Cut"):
        super().__init__()
        self.encoder, self._cut = encoder, cut

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Compute the value at the cut for images."""
        value = self._cut.frozen(self.encoder.network, self.encoder.as_input(images))
        return value.permute(0, 2, 3, 1) if value.dim() == 4 else value

    def describe(self) -> dict[str, Any]:
        """Return the settings that define the stored values: only of the frozen part, so that checkpoints share them.

        Everything after the cut is left out: the fine-tuned weights, and which layer and output they lead to.
        """
        frozen = {"layer": self._cut.name, "output": "frozen part", "fingerprint": self._fingerprint()}
        return self.encoder.describe() | frozen

    def _fingerprint(self) -> str:
        return fingerprint_of(self._cut.frozen.weights(self.encoder.network))


class TrainablePart(nn.Module):
    """The other part of the encoder: stored values -> features.

    It contains the encoder's complete network, under the encoder's names. So a checkpoint has the weights of the frozen
    part too, and its encoder can be used on images.

    Args:
        encoder: As for `FrozenPart`.
        cut: As for `FrozenPart`.
    """

    def __init__(self, encoder: Any, cut: "Cut"):
        super().__init__()
        self.network = encoder.network
        self._encoder, self._cut = (encoder,), cut  # in a tuple, so that no weight has two names

    def forward(self, values: Tensor) -> Tensor:
        """Compute features from the values that `FrozenPart` returns, in any float type."""
        values = values.to(next(self.network.parameters()).dtype)
        values = values.permute(0, 3, 1, 2) if values.dim() == 4 else values
        return self._encoder[0].as_features(self._cut.rest(self.network, values))

    def train(self, mode: bool = True) -> "TrainablePart":
        """Set the training flag of this module; its network stays in eval mode, as in an `Encoder`."""
        super().train(mode)
        self.network.eval()
        return self


def split_encoder(encoder: Any) -> tuple[FrozenPart, TrainablePart]:
    """Split a fine-tuned encoder before its first unfrozen module.

    Args:
        encoder: A `captioning.models.Encoder` with `unfreeze_from`.

    Returns:
        The two parts; both share the encoder's weights.

    Raises:
        ConfigError: nothing is frozen, or the network cannot be split.
    """
    cut = _cut(encoder)
    return FrozenPart(encoder, cut), TrainablePart(encoder, cut)


class Cut(NamedTuple):
    """A place between two parts of a network.

    Attributes:
        name: the place, as part of a store's key.
        frozen: the part before it.
        rest: the part after it.
    """

    name: str
    frozen: "Chain | Graph"
    rest: "Chain | Graph"


class Chain(NamedTuple):
    """Modules of a network that run one after another, by their names."""

    names: tuple[str, ...]

    def __call__(self, network: nn.Module, value: Tensor) -> Tensor:
        for name in self.names:
            value = network.get_submodule(name)(value)
        return value

    def weights(self, network: nn.Module) -> dict[str, Tensor]:
        """Return the weights and statistics of these modules."""
        return _weights(network, self.names)


class Graph(NamedTuple):
    """A part of a traced network. It looks up modules in the network, so both always have the same weights."""

    graph: fx.Graph

    def __call__(self, network: nn.Module, value: Tensor) -> Tensor:
        return fx.Interpreter(network, graph=self.graph).run(value)

    def weights(self, network: nn.Module) -> dict[str, Tensor]:
        """Return the weights and statistics that this part uses."""
        own = {str(node.target): _attribute(network, node) for node in self.graph.nodes if node.op == "get_attr"}
        modules = [str(node.target) for node in self.graph.nodes if node.op == "call_module"]
        return own | _weights(network, modules)


def _cut(encoder: Any) -> Cut:
    network, name = encoder.network, f"encoder.unfreeze_from={encoder.unfreeze_from}"
    if isinstance(network, fx.GraphModule):
        cut = _cut_graph(network, encoder.black(2))
    else:
        cut = _cut_chain(network)
    if cut is None:
        raise ConfigError(
            f"{name}: {encoder.name} cannot be split there into a frozen part for the store and a part to train. "
            "Set features=online"
        )
    if not cut.frozen.weights(network):
        raise ConfigError(f"{name} leaves no frozen layers whose output could be stored. Set features=online")
    return cut


def _cut_chain(network: nn.Module) -> Cut | None:
    names = _links(network)
    trained = [any(part.requires_grad for part in network.get_submodule(name).parameters()) for name in names]
    if names == [""] or True not in trained:
        return None
    at = trained.index(True)
    return Cut(f"before {names[at]}", Chain(tuple(names[:at])), Chain(tuple(names[at:])))


def _links(module: nn.Module, name: str = "") -> list[str]:
    """Return the names of the modules that run one after another, in order; [""] if the module is no chain."""
    if type(module).forward is not nn.Sequential.forward:
        return [name]
    children = ((child, f"{name}.{key}" if name else key) for key, child in module.named_children())
    return [link for child, path in children for link in _links(child, path)]


def _cut_graph(network: fx.GraphModule, images: Tensor) -> Cut | None:
    """Cut a traced network at the last place before its unfrozen weights that only one tensor passes."""
    nodes = list(network.graph.nodes)
    position = {node: index for index, node in enumerate(nodes)}
    kinds = _Kinds(network)
    with torch.no_grad():
        kinds.run(images)
    first = next(index for index, node in enumerate(nodes) if _is_trained(network, node))
    for at in range(first, 0, -1):
        passing = [
            node
            for node in nodes[:at]
            if node.op != "get_attr" and max((position[user] for user in node.users), default=0) >= at
        ]
        if len(passing) == 1 and (passing[0].op == "placeholder" or kinds.storable[passing[0]]):
            return _cut_at(nodes, at, passing[0])
    return None


def _cut_at(nodes: list[fx.Node], at: int, value: fx.Node) -> Cut:
    frozen, rest = fx.Graph(), fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in nodes[:at]:
        copies[node] = frozen.node_copy(node, copies.__getitem__)
    frozen.output(copies[value])
    copies = {value: rest.placeholder("value")}
    for index, node in enumerate(nodes):
        if index >= at or node.op == "get_attr":
            copies[node] = rest.node_copy(node, copies.__getitem__)
    return Cut(f"after {value.name}", Graph(frozen), Graph(rest))


class _Kinds(fx.Interpreter):
    """Interpreter that notes for which nodes the value is one float tensor with the images as first dimension."""

    def __init__(self, network: fx.GraphModule):
        super().__init__(network)
        self.storable: dict[fx.Node, bool] = {}

    def run(self, images: Tensor) -> Any:  # type: ignore[override]
        self.images = len(images)
        return super().run(images)

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        tensor = isinstance(value, Tensor) and value.is_floating_point()
        self.storable[n] = tensor and value.dim() in (2, 3, 4) and len(value) == self.images
        return value


def _is_trained(network: nn.Module, node: fx.Node) -> bool:
    """Return whether a node uses a weight that is not frozen."""
    if node.op == "get_attr":
        return bool(_attribute(network, node).requires_grad)
    if node.op != "call_module":
        return False
    return any(part.requires_grad for part in network.get_submodule(str(node.target)).parameters())


def _attribute(network: nn.Module, node: fx.Node) -> Tensor:
    module, _, name = str(node.target).rpartition(".")
    return getattr(network.get_submodule(module), name)


def _weights(network: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    return {f"{name}.{key}": value for name in names for key, value in network.get_submodule(name).state_dict().items()}
