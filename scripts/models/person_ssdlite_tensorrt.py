"""Variants of the person detector for TensorRT, whose newer versions take the precision from the ONNX file.

    python scripts/models/person_ssdlite_tensorrt.py VTEST.AVI              makes models/person-ssdlite.{fp16,qdq}.onnx
    python scripts/models/person_ssdlite_tensorrt.py VTEST.AVI --check      fails if they are not what is there

fp16: weights and activations in 16 bits; inputs and outputs stay in 32. qdq: convolutions in int8 as TensorRT wants
them: symmetric Q/DQ around weights (per channel) and activations, biases in float. The first convolution, the
depthwise ones and the predictors stay in float: with them in int8 too, 15 of 100 persons are lost, and they are the
smaller part of the work. Both are made of models/person-ssdlite.fp32.onnx. Then it says what they lose against that on frames 5, 15, 25 ... of the video, none of
which was calibrated with, on ONNX Runtime. Needs what requirements-tensorrt.txt lists.
"""

import logging
import pathlib
import sys
import tempfile

import cv2
import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "reference"))
import decode  # noqa: E402
from person_ssdlite import INPUT, MODELS, Frames, expect, label  # noqa: E402

FP32 = MODELS / "person-ssdlite.fp32.onnx"
EVALUATED = range(5, 795, 10)


def halved(folder):
    out = folder / "person-ssdlite.fp16.onnx"
    onnx.save(convert_float_to_float16(onnx.load(FP32), keep_io_types=True), out)
    return label(out)


def depthwise(node):
    return any(attribute.name == "group" and attribute.i > 1 for attribute in node.attribute)


def quantized(video, folder):
    prepared, out = folder / "prepared.onnx", folder / "person-ssdlite.qdq.onnx"
    quant_pre_process(str(FP32), str(prepared), skip_symbolic_shape=True)
    convolutions = [node for node in onnx.load(prepared).graph.node if node.op_type == "Conv"]
    floats = [node.name for node in convolutions if depthwise(node) or "BoxPredictor" in node.name]
    quantize_static(
        str(prepared), str(out), Frames(video), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QInt8, weight_type=QuantType.QInt8, op_types_to_quantize=["Conv"],
        nodes_to_exclude=[convolutions[0].name, *floats],
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
    )
    return label(out)


def frames(video):
    capture = cv2.VideoCapture(str(video))
    for number in range(max(EVALUATED) + 1):
        read, frame = capture.read()
        assert read, f"{video} ends at frame {number}"
        if number in EVALUATED:
            rgb = cv2.resize(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), (300, 300))
            yield (frame.shape[1], frame.shape[0]), (rgb.astype(np.float32) / 127.5)[None]


def detector(path):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def detect(size, tensor):
        found, _ = decode.decode(dict(decode.PERSON, frame=list(size)), session.run(["concat:0", "concat_1:0"], {INPUT: tensor}))
        return [(float(score), np.array(box, float)) for _, score, *box in found]

    return detect


def overlap(a, b):
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[:2] + a[2:], b[:2] + b[2:])
    both = np.prod(np.maximum(high - low, 0))
    return both / (np.prod(a[2:]) + np.prod(b[2:]) - both)


def lost(reference, variant, video):
    """What `variant` finds of what `reference` does, and how far off."""
    there = found = extra = 0
    scores, edges = [], []
    for size, tensor in frames(video):
        ours, left = reference(size, tensor), variant(size, tensor)
        there += len(ours)
        for score, box in ours:
            best = max(left, key=lambda other: overlap(box, other[1]), default=None)
            if best is not None and overlap(box, best[1]) >= 0.5:
                left = [other for other in left if other is not best]
                found += 1
                scores.append(abs(score - best[0]))
                edges.append(np.abs(box - best[1]).max())
        extra += len(left)
    return (
        f"{found} of {there} persons found ({100 * found / there:.1f} %), {extra} more; score differs by "
        f"{np.mean(scores):.4f} (most {np.max(scores):.3f}), boxes by {np.mean(edges):.2f} px (most {np.max(edges):.1f})"
    )


def main():
    video, check = pathlib.Path(sys.argv[1]), "--check" in sys.argv[2:]
    expect("video", video.read_bytes())
    logging.disable(logging.WARNING)
    reference, same = detector(FP32), True
    with tempfile.TemporaryDirectory() as folder:
        for made in (halved(pathlib.Path(folder)), quantized(video, pathlib.Path(folder))):
            kept = MODELS / made.name
            if check:
                equal = kept.is_file() and kept.read_bytes() == made.read_bytes()
                same = same and equal
                print(f"{made.name}: {'the same bytes' if equal else 'OTHER BYTES than in models/'}")
            else:
                kept.write_bytes(made.read_bytes())
            print(f"{made.name}, {made.stat().st_size} bytes: {lost(reference, detector(made), video)}", flush=True)
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
