"""Smaller ONNX files: weights stored in 16 or 8 bits and widened when the file is loaded.

Only the weights are rounded; the arithmetic stays in float32. Quantised activations were worse: with 8 bits
for both (onnxruntime's static and dynamic quantisation), 20-28 % of 64 database photos of the campus changed
their first cell, instead of 2 %, and dynamic quantisation took ten times as long.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Precision = Literal["float32", "float16", "int8"]
_LEAST_VALUES = 1024
"""Smaller tensors keep float32: biases, scales and norms take no room and are sensitive."""
_LEVELS = 127
_LARGEST_HALF = 65504.0


def store_weights(source: Path, target: Path, precision: Precision) -> None:
    """Write an ONNX file whose large weights are stored with another precision.

    With "int8", the weights of convolutions and matrix products have one scale per output channel,
    max |w| / 127; other large tensors are stored as float16.
    """
    import onnx

    model = onnx.load(source)
    graph = model.graph
    axes = _output_axes(graph)
    initializers, widening = [], []
    for tensor in graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if precision == "float32" or values.dtype != np.float32 or values.size < _LEAST_VALUES:
            initializers.append(tensor)
        elif precision == "int8" and tensor.name in axes:
            axis = axes[tensor.name] % values.ndim
            small, scale = _quantised(values, axis)
            names = [f"{tensor.name}.int8", f"{tensor.name}.scale"]
            initializers.append(onnx.numpy_helper.from_array(small, names[0]))
            initializers.append(onnx.numpy_helper.from_array(scale, names[1]))
            # Not DequantizeLinear: onnxruntime would compute it again for every photo.
            wide = f"{tensor.name}.wide"
            widening.append(onnx.helper.make_node("Cast", names[:1], [wide], to=onnx.TensorProto.FLOAT))
            widening.append(onnx.helper.make_node("Mul", [wide, names[1]], [tensor.name]))
        elif np.abs(values).max() <= _LARGEST_HALF:
            name = f"{tensor.name}.float16"
            initializers.append(onnx.numpy_helper.from_array(values.astype(np.float16), name))
            widening.append(onnx.helper.make_node("Cast", [name], [tensor.name], to=onnx.TensorProto.FLOAT))
        else:
            initializers.append(tensor)
    nodes = [*widening, *graph.node]
    for field, content in ((graph.initializer, initializers), (graph.node, nodes)):
        content = list(content)
        del field[:]
        field.extend(content)
    onnx.checker.check_model(model)
    onnx.save(model, target)


def _output_axes(graph: Any) -> dict[str, int]:
    """Return the axis of the output channels of each weight that is multiplied with activations."""
    axes = {}
    for node in graph.node:
        if len(node.input) < 2:
            continue
        transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        axis = {"Conv": 0, "Gemm": 0 if transposed else 1, "MatMul": -1}.get(node.op_type)
        if axis is not None:
            axes[node.input[1]] = axis
    return axes


def _quantised(
    values: npt.NDArray[np.float32], axis: int
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Return int8 values and one scale per index of `axis`, to be multiplied with them."""
    others = tuple(number for number in range(values.ndim) if number != axis)
    scale = np.abs(values).max(axis=others, keepdims=True) / _LEVELS
    scale = np.where(scale > 0, scale, 1).astype(np.float32)
    return np.rint(values / scale).astype(np.int8), scale
