"""The boxes that the whole way from a video's frame to detections should give, computed without the Rust code.

    python scripts/reference/golden.py vtest.avi    writes tests/data/golden_vtest_100.json, and the person
                                                    detector's raw outputs into tests/data/decode.{json,bin}

Frame 100 (counted from 0) of vtest.avi, decoded to I420 by GStreamer's libav plugin; pixels by preprocess.py,
which equals pre-processing bit for bit; the network by ONNX Runtime's Python package on one thread; boxes by
decode.py. Needs NumPy, OpenCV (for preprocess.py), onnxruntime 1.32.0 and gst-launch-1.0.

How far results may stray: fp32 hardly depends on the last bits of pixels (noise of 1/64 of a level: 0.001 of a
score, 0.1 px). int8 does: the same noise moves its weakest score by two quantisation steps, 0.06, and boxes by 1.6
px. So int8 can be held to 0.02 only where pixels and integer kernels are those of this script, whose processor's
the file names (`kernels`). Threads and batch size change nothing.
"""

import argparse
import json
import pathlib
import subprocess
import tempfile

import numpy as np
import onnxruntime

import decode
import preprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
FRAME, WIDTH, HEIGHT = 100, 768, 576


def frame(video):
    """The frame's I420 bytes."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            ["gst-launch-1.0", "-q", "filesrc", f"location={video}", "!", "avidemux", "!", "avdec_msmpeg4", "!",
             "video/x-raw,format=I420", "!", "identity", f"eos-after={FRAME + 2}", "!", "multifilesink",
             f"location={folder}/%d"],
            check=True, stdout=subprocess.DEVNULL,
        )
        data = np.fromfile(f"{folder}/{FRAME}", np.uint8)
    assert data.size == WIDTH * HEIGHT * 3 // 2, f"{video} is not the {WIDTH}x{HEIGHT} video"
    return data


def run(precision, tensor):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    path = ROOT / "models" / f"person-ssdlite.{precision}.onnx"
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(["concat:0", "concat_1:0"], {"Preprocessor/mul:0": tensor})


def kernels():
    """Which of ONNX Runtime's integer kernels this processor gets: they may round and saturate differently."""
    flags = pathlib.Path("/proc/cpuinfo").read_text().split()
    return next((flag for flag in ("avx512_vnni", "avx_vnni", "avx2", "asimddp", "asimd") if flag in flags), "other")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", type=pathlib.Path, help="vtest.avi of OpenCV's samples")
    video = parser.parse_args().video
    case = preprocess.case("I420", (WIDTH, HEIGHT), (300, 300))
    tensor = preprocess.preprocess(case, frame(video)).reshape(1, 300, 300, 3)
    models = {}
    for precision in ("int8", "fp32"):
        outputs = run(precision, tensor)
        found, _ = decode.decode(dict(decode.PERSON, frame=[WIDTH, HEIGHT]), outputs)
        models[precision] = [
            dict(label="person", score=round(float(score), 5),
                 **{key: round(float(value), 3) for key, value in zip(("x", "y", "width", "height"), box)})
            for _, score, *box in found
        ]
        if precision == "int8":
            decode.write(outputs)
    golden = dict(
        video=video.name, frame=FRAME, width=WIDTH, height=HEIGHT, onnxruntime=onnxruntime.__version__,
        kernels=kernels(), score_threshold=decode.PERSON["score_threshold"], models=models,
    )
    (decode.DATA / f"golden_vtest_{FRAME}.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
