"""Conversion of a localiser's graph to an ONNX file."""

from __future__ import annotations

import importlib.util
import re
import warnings
from pathlib import Path

import torch

from stages.errors import InputError
from stages.models.onnx_export.graph import LocaliserGraph

INPUT = "pixels"
LARGEST_BYTES = 2_000_000_000
"""Weights that one file can hold: ONNX files are limited to 2 GiB, and the graph needs some room."""

_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
_OPERATOR = re.compile(r"aten[.:\w]+|prims[.:\w]+|torchvision[.:\w]+")


def require_packages() -> None:
    """Raise InputError unless the optional packages are installed."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"ONNX files need the package {missing[0]}, which is not installed: "
            "run `pip install 'placecache[onnx]'`"
        )


def convert(graph: LocaliserGraph, file: Path) -> None:
    """Write the graph as one ONNX file with float32 weights; the number of images stays free.

    Raises
    ------
    InputError
        If the weights exceed the limit of one file, or the graph has an operation that ONNX lacks.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in graph.state_dict().values())
    name, side = graph.backbone.name, graph.backbone.image_size
    if size > LARGEST_BYTES:
        raise InputError(
            f"the weights of {name} take {size / 1e9:.1f} GB: one ONNX file holds 2 GB; "
            "train on a smaller backbone"
        )
    pixels = torch.zeros(2, side, side, 3, dtype=torch.uint8)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of the exporter, about its own dependencies
            program = torch.onnx.export(
                graph,
                (pixels,),
                input_names=[INPUT],
                output_names=list(graph.outputs),
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                dynamo=True,
                verbose=False,
            )
    except Exception as error:
        raise InputError(
            f"{name} cannot be exported to ONNX ({reason_of(error)}): "
            "use the Python API, or train on another backbone"
        ) from error
    if program is None:
        raise InputError("this version of torch writes no ONNX program: run `pip install --upgrade torch`")
    program.save(file, external_data=False)


def reason_of(error: BaseException) -> str:
    """Return the operator that cannot be exported, or the first line of the innermost error."""
    messages = []
    innermost: BaseException | None = error
    while innermost is not None:
        messages.append(str(innermost))
        innermost = innermost.__cause__ or innermost.__context__
    for message in messages:
        if "No ONNX function found" in message or "not supported" in message:
            operator = _OPERATOR.search(message)
            if operator is not None:
                return f"ONNX has no operator for {operator[0]}"
    lines = [line.strip() for line in messages[-1].splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
