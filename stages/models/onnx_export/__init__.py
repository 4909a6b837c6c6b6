"""A localiser and its backbone as one ONNX file: graph, conversion, stored weights, check."""
