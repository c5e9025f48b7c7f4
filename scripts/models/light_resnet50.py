"""ResNet-50 without its weights, for any batch size, for tests and benches: onnx's own test network, opened.

    python scripts/models/light_resnet50.py [--check]       writes, or compares, tests/data/light_resnet50.onnx

The package onnx (1.23.2, Apache-2.0) ships light_resnet50: the whole graph with constant weights, in 80 kB. Its batch is
fixed to one; here the first dimension of what goes in and comes out is open, weights are no inputs any more, and the
flattening before the last layer keeps the batch.
"""

import pathlib
import sys

import numpy as np
import onnx
from onnx import numpy_helper

SOURCE = pathlib.Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / "light_resnet50.onnx"
TARGET = pathlib.Path(__file__).resolve().parents[2] / "tests" / "data" / "light_resnet50.onnx"

model = onnx.load(SOURCE)
model.ir_version = 4  # From there on weights need not be inputs.
graph = model.graph
constants = {constant.name: constant for constant in graph.initializer}
inputs = [value for value in graph.input if value.name not in constants]
del graph.input[:]
graph.input.extend(inputs)
for value in [*graph.input, *graph.output]:
    value.type.tensor_type.shape.dim[0].dim_param = "N"
[flatten] = [node for node in graph.node if node.op_type == "Reshape" and node.input[1] in constants]
shape = constants[flatten.input[1]]
shape.CopyFrom(numpy_helper.from_array(np.array([-1, 2048], np.int64), shape.name))
onnx.checker.check_model(model)
made = model.SerializeToString(deterministic=True)
if "--check" in sys.argv[1:]:
    sys.exit(0 if TARGET.read_bytes() == made else f"{TARGET} is not what this makes")
TARGET.write_bytes(made)
