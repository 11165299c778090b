"""Store the weights of an ONNX model in fewer bits. The numbers are computed in float32, as before.

`float16` rounds each weight once. `int8` rounds it to one of 255 multiples of a scale; each output channel has its own
scale. Only weights are rounded: for activations, ranges would have to be measured on images.

The operators that restore a weight are Cast and Mul. onnxruntime computes them once, when it loads a file. After
DequantizeLinear, it would round activations too, in some operators of some of its versions.
"""

from typing import Any

import numpy as np

FEWEST_NUMBERS = 1024  # numbers of a weight that is stored in fewer bits; small ones save nothing
# Operator -> position of its weight, and the weight's axis of output channels; -1 is that of a Gemm, see `_channels`.
_WEIGHTS = {"Conv": (1, 0), "MatMul": (1, 1), "Gemm": (1, -1), "Gather": (0, 0)}


def reduce_weights(model: Any, dtype: str) -> None:
    """Replace the large float32 weights of a model by float16 or int8 numbers and an operator that restores them.

    Args:
        model: an `onnx.ModelProto`, which is changed.
        dtype: "float16" or "int8".
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    channels = _channels(graph)
    restored = []
    for tensor in list(graph.initializer):
        values = numpy_helper.to_array(tensor)
        if tensor.name not in channels or values.dtype != np.float32 or values.size < FEWEST_NUMBERS or values.ndim < 2:
            continue
        name, stored = tensor.name, f"{tensor.name}.{dtype}"
        graph.initializer.remove(tensor)
        if dtype == "float16" and np.isfinite(values.astype(np.float16)).all():
            graph.initializer.append(numpy_helper.from_array(values.astype(np.float16), stored))
            restored.append(helper.make_node("Cast", [stored], [name], to=1))  # 1: float32
        elif dtype == "int8":
            axis = channels[name] if channels[name] < values.ndim else 0
            numbers, scale = rounded_to_int8(values, axis)
            graph.initializer.append(numpy_helper.from_array(numbers, stored))
            graph.initializer.append(numpy_helper.from_array(scale, f"{stored}.scale"))
            restored.append(helper.make_node("Cast", [stored], [f"{stored}.whole"], to=1))
            restored.append(helper.make_node("Mul", [f"{stored}.whole", f"{stored}.scale"], [name]))
        else:
            graph.initializer.append(tensor)
    nodes = [*restored, *graph.node]  # an operator comes after those whose results it reads
    del graph.node[:]
    graph.node.extend(nodes)


def rounded_to_int8(values: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers from −127 to 127, and one scale per index of `axis`: values ≈ numbers · scale, by broadcasting."""
    others = tuple(other for other in range(values.ndim) if other != axis)
    scale = np.abs(values).max(others, keepdims=True) / 127
    scale = np.where(scale > 0, scale, 1).astype(np.float32)
    return np.clip(np.rint(values / scale), -127, 127).astype(np.int8), scale


def _channels(graph: Any) -> dict[str, int]:
    """Return the weights that operators read, and their axis of output channels."""
    found: dict[str, int] = {}
    for node in graph.node:
        place, axis = _WEIGHTS.get(node.op_type, (None, 0))
        if place is not None and place < len(node.input):
            transposed = any(each.name == "transB" and each.i for each in node.attribute)
            found.setdefault(node.input[place], axis if axis >= 0 else 0 if transposed else 1)
    return found
