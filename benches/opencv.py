"""OpenCV's side of benches/preprocess.rs: NV12 to RGB float32 by resize, cvtColor and a scale, on one thread.

    opencv.py FRAME WIDTH HEIGHT OUT_WIDTH OUT_HEIGHT

First line out: OpenCV's version. Then, for every line in, a number of repetitions: each order of the three
steps is run so often, and a line goes out with the median nanoseconds of each. All memory is allocated before
the first measurement, which is to OpenCV's advantage.
"""

import statistics
import sys
import time

import cv2
import numpy as np

SCALE = np.float32(1 / 127.5)


def orders(frame, width, height, out_width, out_height):
    size = (out_width, out_height)
    y = frame[:height]
    uv = frame[height:].reshape(height // 2, width // 2, 2)
    big = np.empty((height, width, 3), np.uint8)
    small = np.empty((out_height, out_width, 3), np.uint8)
    small_y = np.empty((out_height, out_width), np.uint8)
    half = (out_width // 2, out_height // 2)
    small_uv = np.empty((half[1], half[0], 2), np.uint8)
    out = np.empty((out_height, out_width, 3), np.float32)

    def color_first():
        cv2.cvtColor(frame, cv2.COLOR_YUV2RGB_NV12, big)
        cv2.resize(big, size, small, interpolation=cv2.INTER_LINEAR)
        np.multiply(small, SCALE, out=out, dtype=np.float32)

    def resize_first():
        cv2.resize(y, size, small_y, interpolation=cv2.INTER_LINEAR)
        cv2.resize(uv, half, small_uv, interpolation=cv2.INTER_LINEAR)
        cv2.cvtColorTwoPlane(small_y, small_uv, cv2.COLOR_YUV2RGB_NV12, small)
        np.multiply(small, SCALE, out=out, dtype=np.float32)

    return {"cvtColor-resize-scale": color_first, "resize-cvtColor-scale": resize_first}


def main():
    path, *sizes = sys.argv[1:]
    width, height, out_width, out_height = map(int, sizes)
    cv2.setNumThreads(1)
    frame = np.fromfile(path, np.uint8).reshape(height * 3 // 2, width)
    runs = orders(frame, width, height, out_width, out_height)
    for run in runs.values():
        run()
    print(cv2.__version__, flush=True)
    for line in sys.stdin:
        medians = []
        for name, run in runs.items():
            times = []
            for _ in range(int(line)):
                start = time.perf_counter_ns()
                run()
                times.append(time.perf_counter_ns() - start)
            medians.append(f"{name}={statistics.median(times):.0f}")
        print(*medians, flush=True)


if __name__ == "__main__":
    main()
