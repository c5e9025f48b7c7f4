"""What pre-processing computes, written down a second time, in NumPy and straight from its definition.

    python scripts/reference/preprocess.py            writes tests/data/preprocess.{json,bin}
    python scripts/reference/preprocess.py --check    fails if they differ from what it would write

The definition is the head of src/infer/preprocess/mod.rs. Nothing here is shared with the Rust code: all
coefficients are derived from Kr and Kb, all arithmetic is on 64-bit integers. The frames are not stored: both
sides draw their bytes from the same generator. Needs NumPy, and OpenCV for the cases that compare with it.
"""

import argparse
import json
import pathlib
import sys

import cv2
import numpy as np

DATA = pathlib.Path(__file__).resolve().parents[2] / "tests" / "data"
MATRICES = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}
PLANES = {"NV12": 2, "I420": 3}  # All others have one.


def noise(count, seed):
    """Bytes of a linear congruential generator (its top eight bits)."""
    out, state = np.empty(count, np.uint8), seed
    for i in range(count):
        state = (state * 1664525 + 1013904223) % 2**32
        out[i] = state >> 24
    return out


def within(case, data):
    """The same with no more bits set than the case's samples have: every second byte is a high one."""
    data[1::2] &= (1 << case.get("bits", 16) - 8) - 1
    return data


def half_up(value):
    return int(np.floor(value + 0.5))


# Where things are.


def mosaic(fmt):
    """The pattern's four colours, row by row, and the bytes of a sample; nothing for what is no mosaic."""
    return (fmt[:4], 1 if fmt[4:] == "8" else 2) if fmt[:4] in ("RGGB", "GRBG", "GBRG", "BGGR") else None


def planes_of(fmt):
    return PLANES.get(fmt, 1)


def extent(fmt, plane, width, height):
    """Bytes in a row of a plane, and rows."""
    half_w, half_h = (width + 1) // 2, (height + 1) // 2
    if mosaic(fmt):
        return 2 * half_w * mosaic(fmt)[1], 2 * half_h
    return {
        "NV12": [(width, height), (2 * half_w, half_h)],
        "I420": [(width, height), (half_w, half_h), (half_w, half_h)],
        "YUY2": [(4 * half_w, height)],
        "UYVY": [(4 * half_w, height)],
        "RGB": [(3 * width, height)],
        "BGR": [(3 * width, height)],
        "GRAY8": [(width, height)],
    }[fmt][plane]


def components(case, data):
    """Each component's samples as a 2-D array of values (6 fraction bits), with its sampling (horizontal, vertical):
    the subsampling as a shift, and where the first sample is, in half pixels from the first pixel."""
    fmt, width, height = case["format"], case["width"], case["height"]
    planes = []
    for index in range(planes_of(fmt)):
        row, rows = extent(fmt, index, width, height)
        offset, stride = case["planes"][index]
        planes.append(np.stack([data[offset + stride * y :][:row] for y in range(rows)]).astype(np.int64))
    full, half = (0, 0), (1, 1)
    none, both, across = (full, full), (half, half), (half, full)
    if mosaic(fmt):
        pattern, size = mosaic(fmt)
        samples = planes[0] * 64
        if size == 2:
            samples = planes[0][:, 0::2] + 256 * planes[0][:, 1::2]
            samples = np.where(samples >= 32768, 0, np.minimum(samples, 1020)) * 16
        kinds = [(row, column) for color in "RGB" for row in (0, 1) for column in (0, 1)
                 if pattern[2 * row + column] == color]
        return [(samples[row::2, column::2], ((1, 2 * column), (1, 2 * row))) for row, column in kinds]
    planes = [plane * 64 for plane in planes]
    if fmt == "NV12":
        return [(planes[0], none), (planes[1][:, 0::2], both), (planes[1][:, 1::2], both)]
    if fmt == "I420":
        return [(planes[0], none), (planes[1], both), (planes[2], both)]
    if fmt == "YUY2":
        luma = planes[0][:, 0::2][:, :width]
        return [(luma, none), (planes[0][:, 1::4], across), (planes[0][:, 3::4], across)]
    if fmt == "UYVY":
        luma = planes[0][:, 1::2][:, :width]
        return [(luma, none), (planes[0][:, 0::4], across), (planes[0][:, 2::4], across)]
    if fmt == "GRAY8":
        return [(planes[0], none)]
    order = (0, 1, 2) if fmt == "RGB" else (2, 1, 0)
    return [(planes[0][:, c::3], none) for c in order]


def placement(case):
    """x, y, width, height of the frame in the input."""
    w, h, iw, ih = case["width"], case["height"], case["input_width"], case["input_height"]
    if case["fit"] == "stretch":
        return 0, 0, iw, ih
    if iw * h <= ih * w:
        fw, fh = iw, min(max((2 * h * iw + w) // (2 * w), 1), ih)
    else:
        fw, fh = min(max((2 * w * ih + h) // (2 * h), 1), iw), ih
    if case["fit"] == "topleft":
        return 0, 0, fw, fh
    return (iw - fw) // 2, (ih - fh) // 2, fw, fh


# The arithmetic.


def axis(pixels, sampling, output):
    """Index, next index and weight of each output pixel."""
    shift, site = sampling
    samples = (pixels + (1 << shift) - 1) >> shift
    denominator = output << (shift + 1)
    taps = []
    for x in range(output):
        index, rest = divmod((2 * x + 1) * pixels - output * (1 + site), denominator)
        weight = min(((rest << 15) + denominator // 2) // denominator, 32767)
        if index < 0:
            index, weight = 0, 0
        if index >= samples - 1:
            index, weight = samples - 1, 0
        taps.append((index, min(index + 1, samples - 1), weight))
    return tuple(np.array(column) for column in zip(*taps))


def scaled(a, weight):
    return (a * weight + (1 << 14)) >> 15


def resize(value, pixels, sampling, output):
    """Bilinear, horizontally and then vertically."""
    left, right, weight = axis(pixels[0], sampling[0], output[0])
    value = value[:, left] + scaled(value[:, right] - value[:, left], weight[None, :])
    above, below, weight = axis(pixels[1], sampling[1], output[1])
    return value[above] + scaled(value[below] - value[above], weight[:, None])


def is_rgb(fmt):
    return fmt in ("RGB", "BGR") or mosaic(fmt) is not None


def color(case, values):
    """Values of the output's channels."""
    kr, kb = MATRICES[case["matrix"]]
    limited = case["range"] == "limited"
    rgb, gray = is_rgb(case["format"]), case["channels"] == "gray"
    if mosaic(case["format"]):
        red, green, other, blue = values
        values = red, (green + other + 1) >> 1, blue

    def fixed(number):
        return half_up(number * 32768)

    def expanded(y):
        y = y - (16 * 64 if limited else 0)
        return y + scaled(y, fixed(255 / 219 - 1) if limited else 0)

    if rgb and gray:
        r, g, b = values
        out = [g + scaled(r - g, fixed(kr)) + scaled(b - g, fixed(kb))]
    elif rgb:
        out = values
    elif gray or case["format"] == "GRAY8":
        out = [expanded(values[0])] * (1 if gray else 3)
    else:
        chroma = 255 / 224 if limited else 1
        kg = 1 - kr - kb
        a, d = 2 * (1 - kr) * chroma, 2 * (1 - kb) * chroma
        b, c = d * kb / kg, a * kr / kg
        y = expanded(values[0])
        u, v = (2 * (plane - 128 * 64) for plane in values[1:])
        out = [
            y + v + scaled(v, fixed((a - 2) / 2)),
            y - scaled(u, fixed(b / 2)) - scaled(v, fixed(c / 2)),
            y + u + scaled(u, fixed((d - 2) / 2)),
        ]
    out = [np.clip(plane, 0, 255 * 64) for plane in out]
    return out[::-1] if case["channels"] == "bgr" else out


def fused(value, scale, offset):
    """value * scale + offset, rounded once to float32. A value has 14 bits and a scale 24: their product is
    exact in float64. So that the sum is exact as well, the cases' offsets are chosen near to the products."""
    product = value.astype(np.float64) / 64 * np.float64(scale)
    total = product + np.float64(offset)
    assert np.all(total - product == offset) and np.all(total - np.float64(offset) == product)
    return total.astype(np.float32)


def preprocess(case, data):
    """The tensor's row."""
    x, y, width, height = placement(case)
    pixels = case["width"], case["height"]
    parts = components(case, data)
    if case["channels"] == "gray" and not is_rgb(case["format"]):
        parts = parts[:1]
    values = [resize(samples, pixels, sampling, (width, height)) for samples, sampling in parts]
    planes = []
    for channel, plane in enumerate(color(case, values)):
        whole = np.full((case["input_height"], case["input_width"]), case["fill"] * 64, np.int64)
        whole[y : y + height, x : x + width] = plane
        planes.append(fused(whole, np.float32(case["scale"][channel]), np.float32(case["offset"][channel])))
    tensor = np.stack(planes, axis=2 if case["layout"] == "nhwc" else 0).ravel()
    if case["element"] == "f16":
        return tensor.astype(np.float16)
    if case["element"] == "u8":
        return np.clip(np.rint(tensor), 0, 255).astype(np.uint8)
    return tensor


# The cases.

PLAIN = dict(scale=[1.0, 1.0, 1.0], offset=[0.0, 0.0, 0.0])
UNIT = dict(scale=[float(np.float32(1 / 127.5))] * 3, offset=[0.0, 0.0, 0.0])
IMAGENET = dict(
    scale=[float(np.float32(1 / 255 / s)) for s in (0.229, 0.224, 0.225)],
    offset=[float(np.float32(-m / s)) for m, s in ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))],
)


def case(fmt, size, target, layout="nhwc", element="f32", channels="rgb", fit="stretch", fill=114, pad=0, lead=0,
         matrix="bt601", range="limited", bits=None, **affine):
    planes, offset = [], lead
    for index in np.arange(planes_of(fmt)):
        row, rows = extent(fmt, index, *size)
        planes.append([offset, row + pad])
        # The last row has no padding: nothing beyond it may be needed.
        offset += (row + pad) * (rows - 1) + row + (pad if index + 1 < planes_of(fmt) else 0)
    return dict(
        format=fmt, width=size[0], height=size[1], planes=planes, bytes=offset, matrix=matrix, range=range,
        input_width=target[0], input_height=target[1], layout=layout, element=element, channels=channels, fit=fit,
        fill=fill, **(affine or UNIT), **({"bits": bits} if bits else {}),
    )


def cases():
    yield case("NV12", (64, 36), (30, 30))
    yield case("NV12", (640, 4), (300, 3), range="full")
    yield case("NV12", (33, 17), (37, 19), layout="nchw", pad=5, lead=3, matrix="bt709")
    yield case("NV12", (64, 36), (24, 24), layout="nchw", element="f16", fit="letterbox", **IMAGENET)
    yield case("NV12", (36, 64), (24, 24), element="u8", fit="letterbox", pad=28, **PLAIN)
    yield case("NV12", (40, 30), (31, 33), channels="gray", layout="nchw")
    yield case("NV12", (18, 10), (18, 10), channels="bgr", element="u8", matrix="bt709", range="full", **PLAIN)
    yield case("I420", (50, 38), (20, 20), pad=14)
    yield case("I420", (31, 21), (48, 35), layout="nchw", channels="bgr", matrix="bt709", **IMAGENET)
    yield case("I420", (5, 3), (17, 9), element="f16", range="full", fit="topleft")
    yield case("I420", (1, 1), (5, 3), element="u8", **PLAIN)
    yield case("YUY2", (48, 20), (22, 22), pad=16)
    yield case("YUY2", (35, 9), (20, 24), layout="nchw", fit="letterbox", matrix="bt709", range="full", **IMAGENET)
    yield case("YUY2", (20, 20), (33, 20), channels="gray", element="f16")
    yield case("RGB", (45, 28), (20, 20), pad=1)
    yield case("RGB", (7, 5), (21, 16), layout="nchw", **IMAGENET)
    yield case("RGB", (30, 20), (16, 16), channels="gray", element="u8", matrix="bt709", **PLAIN)
    yield case("RGB", (2, 300), (3, 41), channels="bgr", element="f16", lead=7)
    yield case("BGR", (32, 18), (32, 32), fit="topleft", element="u8", **PLAIN)
    yield case("BGR", (200, 3), (19, 7), channels="bgr", layout="nchw", **IMAGENET)
    yield case("BGR", (21, 14), (20, 13), channels="gray")
    yield case("GRAY8", (39, 25), (24, 24), range="full")
    yield case("GRAY8", (16, 9), (40, 40), layout="nchw", fit="letterbox", pad=3, **IMAGENET)
    yield case("GRAY8", (90, 6), (9, 6), channels="gray", element="u8", range="limited", **PLAIN)
    yield case("UYVY", (40, 12), (21, 13), pad=8, lead=2)
    yield case("UYVY", (23, 9), (12, 14), channels="bgr", layout="nchw", element="u8", range="full", **PLAIN)
    yield case("RGGB8", (32, 20), (15, 15))
    yield case("RGGB8", (14, 10), (14, 10), element="u8", **PLAIN)
    yield case("GRBG8", (33, 17), (20, 11), layout="nchw", pad=6, fit="letterbox", **IMAGENET)
    yield case("GBRG8", (26, 40), (13, 20), channels="bgr", element="f16", lead=1)
    yield case("BGGR8", (12, 8), (29, 21), channels="gray", element="u8", matrix="bt709", **PLAIN)
    # Most of the noise's samples are out of range, as a misread frame's would be.
    yield case("RGGB10", (16, 10), (16, 10), element="u8", **PLAIN)
    yield case("RGGB10", (36, 18), (17, 17), bits=10)
    yield case("GRBG10", (30, 30), (15, 9), layout="nchw", pad=10, bits=10, **IMAGENET)
    yield case("GBRG10", (9, 7), (22, 13), channels="bgr", element="u8", bits=10, **PLAIN)
    yield case("BGGR10", (64, 8), (10, 8), channels="gray", element="f16", lead=4, bits=10)
    yield case("BGGR10", (1, 1), (3, 2), element="u8", bits=10, **PLAIN)


def slope(width, height, base, across, down):
    """A smooth plane: where samples vary slowly, differences in chroma's siting or filter matter little."""
    x, y = np.arange(width)[None, :], np.arange(height)[:, None]
    return (base + x * across // width + y * down // height).astype(np.uint8)


def opencv_cases():
    """What OpenCV makes of a frame: close to ours, not equal (it rounds to 8 bits after every step)."""
    rgb = noise(40 * 30 * 3, 7).reshape(30, 40, 3)
    yield (
        case("RGB", (40, 30), (25, 20), element="u8", **PLAIN), rgb,
        cv2.resize(rgb, (25, 20), interpolation=cv2.INTER_LINEAR),
    )
    y = slope(64, 36, 30, 150, 40)
    uv = np.dstack([slope(32, 18, 100, 60, 20), slope(32, 18, 150, -50, -20)])
    nv12 = np.concatenate([y, uv.reshape(18, 64)])
    big = cv2.cvtColor(nv12, cv2.COLOR_YUV2RGB_NV12)
    yield (
        case("NV12", (64, 36), (30, 30), element="u8", **PLAIN), nv12,
        cv2.resize(big, (30, 30), interpolation=cv2.INTER_LINEAR),
    )


def written():
    """Both files' content."""
    index, blob = [], bytearray()

    def add(entry, frame, expected, kind):
        entry.update(kind=kind, at=len(blob))
        blob.extend(frame.tobytes() if kind == "opencv" else b"")
        entry["expected_at"] = len(blob)
        blob.extend(expected.astype(expected.dtype.newbyteorder("<")).tobytes())
        entry["end"] = len(blob)
        index.append(entry)

    for number, entry in enumerate(cases(), 1):
        entry["seed"] = number
        frame = within(entry, noise(entry["bytes"], number))
        add(entry, frame, preprocess(entry, frame), "exact")
    for entry, frame, expected in opencv_cases():
        add(entry, frame.ravel(), expected.ravel(), "opencv")
    lines = ",\n".join("  " + json.dumps(entry, sort_keys=True) for entry in index)
    return f"[\n{lines}\n]\n".encode(), bytes(blob)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the files instead of writing them")
    check = parser.parse_args().check
    for name, content in zip(("preprocess.json", "preprocess.bin"), written()):
        path = DATA / name
        if not check:
            path.write_bytes(content)
        elif path.read_bytes() != content:
            sys.exit(f"{path} is not what this script makes: run it without --check and look at the difference")


if __name__ == "__main__":
    main()
