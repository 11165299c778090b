"""Test that custom backward passes free their memory: count live tensors and graph nodes, without garbage collection.

Every pass runs several times: with all gradients, some, or none; with a graph of the gradients; with the graph
retained; and with an error in the middle. Afterwards the numbers of tensors and nodes must be as before.
"""

import ast
import gc
import importlib
import itertools
from pathlib import Path

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

import captioning
from captioning.models.ops import additive_scores, linear, products, summed_at_once
from captioning.objectives.chunked_cross_entropy import SoftTargets, chunked_cross_entropy

PASSES = 5


class Storages(TorchDispatchMode):
    """Track the storage of every tensor created inside, by weak references, which torch itself counts."""

    def __init__(self, kept=()):
        super().__init__()
        self.made, self.kept = [], {StorageWeakRef(part.untyped_storage()).cdata for part in kept}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for part in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(part, torch.Tensor):
                self.made.append(StorageWeakRef(part.untyped_storage()))
        return result

    def alive(self) -> int:
        """Return how many storages are alive, except for those given as `kept`."""
        return len({reference.cdata for reference in self.made if not reference.expired()} - self.kept)


def nodes() -> int:
    """Return the live graph nodes of custom functions, and the live sums of a matrix's gradient."""
    kinds = (products._Sum, torch.autograd.function.BackwardCFunction)
    return sum(issubclass(type(one), kinds) for one in gc.get_objects())


def leaf(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


class Failure(Exception):
    pass


def fail(_):
    raise Failure


# Each world: leaves, a function that computes a total and the tensor whose gradient can fail, and constants.


def loop_of_products():
    weight, bias, inputs = leaf(3, 4), leaf(3), leaf(5, 2, 4)

    def run():
        with summed_at_once():
            first = linear(inputs, weight, bias).tanh()
            second = linear(torch.nn.functional.pad(first[1:], (0, 1)), weight, bias).tanh()
        return second.square().sum() + first.sum(), first

    return (weight, bias, inputs), run


def products_without_bias():
    weight, inputs = leaf(3, 4), leaf(5, 2, 4)

    def run():
        with summed_at_once():
            first = linear(inputs, weight)
            second = linear(torch.nn.functional.pad(first, (0, 1)), weight)
        return second.square().sum(), first

    return (weight, inputs), run


def products_in_bfloat16():
    """Compute products under autocast, which casts the matrix and inputs of every product."""
    weight, bias, inputs = (part.detach().float().requires_grad_() for part in (leaf(3, 4), leaf(3), leaf(5, 2, 4)))

    def run():
        with torch.autocast("cpu", torch.bfloat16), summed_at_once():
            first = linear(inputs, weight, bias)
            second = linear(torch.nn.functional.pad(first, (0, 1)), weight, bias)
        return second.float().square().sum(), first

    return (weight, bias, inputs), run


def additive():
    query, keys, weight = leaf(3, 2, 4), leaf(3, 5, 4), leaf(1, 4)

    def run():
        middle = query.tanh()
        return additive_scores(middle, keys, weight).square().sum(), middle

    return (query, keys, weight), run


def additive_in_a_loop():
    query, keys, weight = leaf(3, 2, 4), leaf(3, 5, 4), leaf(1, 4)

    def run():
        with summed_at_once():
            first = additive_scores(query, keys, weight).tanh()
            second = additive_scores(first[..., :4], keys, weight)
        return second.square().sum() + first.sum(), first

    return (query, keys, weight), run


def words():
    features, weight, bias = leaf(6, 4), leaf(7, 4), leaf(7)
    targets = torch.tensor([0, 1, 2, 6, 3, 3])
    soft = SoftTargets(torch.tensor([[1, 2]] * 6), torch.full((6, 2), 0.25, dtype=torch.float64))

    def run():
        middle = features.tanh()
        total, _ = chunked_cross_entropy(middle, weight, bias, targets, soft, label_smoothing=0.1)
        return total.square(), middle

    return (features, weight, bias), run, targets, *soft


WORLDS = {
    loop_of_products: {"_Begin", "_Step"},
    products_without_bias: {"_Begin", "_Step"},
    products_in_bfloat16: {"_Begin", "_Step"},
    additive: {"_AdditiveScores"},
    additive_in_a_loop: {"_Begin", "_AdditiveScores"},
    words: {"_Words"},
}


def all_gradients(leaves, run):
    torch.autograd.grad(run()[0], leaves)


def backward_into_grad(leaves, run):
    run()[0].backward()
    for each in leaves:
        each.grad = None


def of_some(*asked):
    def some_gradients(leaves, run):
        torch.autograd.grad(run()[0], [leaves[index] for index in asked if index < len(leaves)])

    return some_gradients


def frozen(*which):
    def some_frozen(leaves, run):
        for index, each in enumerate(leaves):
            each.requires_grad_(index not in which)
        total, _ = run()
        wanted = [each for each in leaves if each.requires_grad]
        torch.autograd.grad(total, wanted)
        for each in leaves:
            each.requires_grad_(True)

    return some_frozen


def forward_only(leaves, run):
    run()


def without_gradients(leaves, run):
    with torch.no_grad():
        run()


def graph_of_gradients(leaves, run):
    torch.autograd.grad(run()[0], leaves, create_graph=True)


def graph_of_some_gradients(leaves, run):
    torch.autograd.grad(run()[0], leaves[-1:], create_graph=True)


def graph_kept(leaves, run):
    total, _ = run()
    for asked in (leaves, leaves[:1], leaves[-1:], leaves):
        torch.autograd.grad(total, asked, retain_graph=True)


def graph_kept_then_freed(leaves, run):
    total, _ = run()
    torch.autograd.grad(total, leaves[-1:], retain_graph=True)
    torch.autograd.grad(total, leaves)


def of_the_middle_alone(leaves, run):
    total, middle = run()
    torch.autograd.grad(total, middle)


def error_in_the_middle(leaves, run):
    total, middle = run()
    middle.register_hook(fail)
    try:  # pytest.raises would keep the frames
        torch.autograd.grad(total, leaves)
    except Failure:
        return
    raise AssertionError("the pass was to fail")


def error_then_a_whole_pass(leaves, run):
    total, middle = run()
    handle = middle.register_hook(fail)
    try:
        torch.autograd.grad(total, leaves, retain_graph=True)
    except Failure:
        handle.remove()
    torch.autograd.grad(total, leaves)


def error_in_the_forward_pass(leaves, run):
    try:
        with summed_at_once():
            run()
            linear(leaves[0], leaves[0].flatten()[:3])
            raise Failure
    except (Failure, RuntimeError):
        return


PASS = {
    "all gradients": all_gradients,
    "backward": backward_into_grad,
    **{f"gradient of {index} alone": of_some(index) for index in range(3)},
    "gradients of 0 and 2": of_some(0, 2),
    **{f"{index} frozen": frozen(index) for index in range(3)},
    "0 and 1 frozen": frozen(0, 1),
    "forward only": forward_only,
    "no gradients": without_gradients,
    "graph of gradients": graph_of_gradients,
    "graph of some gradients": graph_of_some_gradients,
    "graph kept": graph_kept,
    "graph kept, then freed": graph_kept_then_freed,
    "of the middle alone": of_the_middle_alone,
    "error in the middle": error_in_the_middle,
    "error, then a whole pass": error_then_a_whole_pass,
    "error in the forward pass": error_in_the_forward_pass,
}


@pytest.fixture
def without_collector():
    gc.freeze()  # do not track objects that exist already
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()


@pytest.mark.parametrize("name", PASS)
@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.__name__)
def test_passes_leave_as_much_in_memory_as_there_was(world, name, without_collector):
    leaves, run, *constants = world()
    if name in ("gradient of 2 alone", "0 and 1 frozen") and len(leaves) < 3:
        pytest.skip("there is no such input")
    with Storages():
        PASS[name](leaves, run)  # objects that torch creates once
    before, storages = nodes(), Storages(kept=(*leaves, *constants))
    for _ in range(PASSES):
        with storages:
            PASS[name](leaves, run)
    assert len(storages.made) > PASSES * 3
    assert (storages.alive(), nodes() - before) == (0, 0)


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.__name__)
def test_passes_over_one_graph_do_not_add_up(world, without_collector):
    """A pass over some steps only leaves records with the graph; the next pass replaces them."""
    leaves, run, *constants = world()
    storages, counts = Storages(kept=(*leaves, *constants)), []
    with storages:
        total, middle = run()
        first = storages.alive()
        for _ in range(6):
            torch.autograd.grad(total, leaves[-1:], retain_graph=True)
            counts.append((storages.alive(), nodes()))
        assert len(set(counts[1:])) == 1
        torch.autograd.grad(total, leaves, retain_graph=True)
        assert storages.alive() == first
        del total, middle
    assert storages.alive() == 0


def nodes_of(total) -> set[str]:
    """Return the names of the graph's functions."""
    found, waiting = set(), [total.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in found:
            found.add(node)
            waiting += [following for following, _ in node.next_functions]
    return {node.name().removesuffix("Backward") for node in found}


def test_every_custom_backward_pass_has_these_tests():
    """Every subclass of torch.autograd.Function in the package's source must occur in the graph of a world."""
    root = Path(captioning.__file__).parent
    functions = set()
    for path in sorted(root.rglob("*.py")):
        source = path.read_text()
        if "autograd" not in source:
            continue
        for node in ast.walk(ast.parse(source)):
            bases = [ast.unparse(base) for base in node.bases] if isinstance(node, ast.ClassDef) else []
            if any(base.split(".")[-1] in ("Function", "InplaceFunction", "NestedIOFunction") for base in bases):
                functions.add(node.name)
                module = importlib.import_module(".".join(path.relative_to(root.parent).with_suffix("").parts))
                assert issubclass(getattr(module, node.name), torch.autograd.Function)
    assert functions == set().union(*WORLDS.values())
    for world, names in WORLDS.items():
        assert names <= nodes_of(world()[1]()[0])


@pytest.mark.parametrize("world", [w for w in WORLDS if w is not products_in_bfloat16], ids=lambda w: w.__name__)
def test_gradients_by_finite_differences_whichever_are_wanted(world):
    leaves, run, *_ = world()
    for wanted in itertools.product((True, False), repeat=len(leaves)):
        if not any(wanted):
            continue
        for each, want in zip(leaves, wanted, strict=True):
            each.requires_grad_(want)
        assert torch.autograd.gradcheck(lambda *_: run()[0], leaves)
