"""What decoding computes, written down a second time, in NumPy and straight from the papers' formulas.

    python scripts/reference/decode.py            writes tests/data/decode.{json,bin}
    python scripts/reference/decode.py --check    fails if they differ from what it would write

Nothing here is shared with the Rust code, and all arithmetic is in float64. The synthetic heads are drawn from
seeded noise; the outputs of the person detector (case "person") are kept from a run of golden.py. Needs NumPy.

decode.bin holds the raw outputs, float32, little endian; decode.json says where each case's lie and what they
mean: detections as [label, score, x, y, width, height], boxes in frame pixels.
"""

import argparse
import json
import pathlib
import sys

import numpy as np

DATA = pathlib.Path(__file__).resolve().parents[2] / "tests" / "data"
MOST = 100


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(rows):
    e = np.exp(rows - rows.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


ACTIVATIONS = {"none": lambda x: x, "sigmoid": sigmoid, "softmax": softmax}


# Every head gives candidates (label, score, cx, cy, w, h), boxes in input pixels, in the order of the outputs.


def anchors(maps, least, greatest, ratios, interpolated, first):
    """cx, cy, w, h as shares of the input."""
    scales = list(np.linspace(least, greatest, len(maps))) + [1.0]
    out = []
    for k, edge in enumerate(maps):
        if k == 0 and first:
            shapes = first
        else:
            shapes = [(scales[k], ratio) for ratio in ratios]
            shapes += [(np.sqrt(scales[k] * scales[k + 1]), 1.0)] if interpolated else []
        for y in range(edge):
            for x in range(edge):
                for scale, ratio in shapes:
                    out.append(((x + 0.5) / edge, (y + 0.5) / edge, scale * np.sqrt(ratio), scale / np.sqrt(ratio)))
    return np.array(out)


def ssd(case, boxes, scores):
    width, height = case["input"]
    cx, cy, w, h = anchors(**case["anchors"]).T
    ty, tx, th, tw = (boxes.reshape(-1, 4) / case["variance"]).T
    cx, cy = (tx * w + cx) * width, (ty * h + cy) * height
    w, h = np.exp(tw) * w * width, np.exp(th) * h * height
    p = ACTIVATIONS[case["activation"]](scores.reshape(len(cx), -1))[:, 1 if case["background"] else 0 :]
    assert p.shape[1] == case["labels"]
    return [(c, p[i, c], cx[i], cy[i], w[i], h[i]) for i in range(len(cx)) for c in range(p.shape[1])]


def grid(width, height):
    """Cell and stride of every row of a YOLOX head."""
    return [(x, y, s) for s in (8, 16, 32) for y in range(height // s) for x in range(width // s)]


def yolo(case, output):
    if case["head"] == "v8":
        rows = output.reshape(4 + case["labels"], -1).T
        box, p = rows[:, :4], rows[:, 4:]
    else:
        rows = output.reshape(-1, 5 + case["labels"])
        box, p = rows[:, :4].copy(), rows[:, 4:5] * rows[:, 5:]
    if case["head"] == "yolox":
        x, y, stride = np.array(grid(*case["input"])).T
        box = np.stack([(box[:, 0] + x) * stride, (box[:, 1] + y) * stride,
                        np.exp(box[:, 2]) * stride, np.exp(box[:, 3]) * stride], axis=1)
    return [(c, p[i, c], *box[i]) for i, c in enumerate(p.argmax(axis=1))]


# From candidates to detections.


def placement(case):
    """Left, top, width and height of the frame in the input."""
    (w, h), (iw, ih) = case["frame"], case["input"]
    if case["fit"] == "stretch":
        return 0, 0, iw, ih
    factor = min(iw / w, ih / h)
    fw, fh = max(1, int(np.floor(w * factor + 0.5))), max(1, int(np.floor(h * factor + 0.5)))
    return (0, 0, fw, fh) if case["fit"] == "topleft" else ((iw - fw) // 2, (ih - fh) // 2, fw, fh)


def overlap(a, b):
    """Intersection over union of two (x0, y0, x1, y1)."""
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    area = lambda r: (r[2] - r[0]) * (r[3] - r[1])
    return w * h / (area(a) + area(b) - w * h)


def detections(case, candidates):
    """Threshold, the best few, back to the frame, clip, suppress within classes. `seen` counts how often each
    step did something, and how near any decision was to going the other way."""
    (frame_w, frame_h), (left, top, w, h) = case["frame"], placement(case)
    seen = dict(offered=len(candidates), cut=0, dropped=0, suppressed=0, margin=1.0)
    threshold = case["score_threshold"]
    seen["margin"] = min(abs(c[1] - threshold) for c in candidates)
    best = sorted((c for c in candidates if c[1] >= threshold), key=lambda c: -c[1])  # stable: first of equals
    # Scores may be equal, but not so nearly equal that rounding could decide.
    gaps = [a[1] - b[1] for a, b in zip(best, best[1:]) if a[1] != b[1]]
    seen["margin"] = min([seen["margin"], *gaps])
    seen["cut"], best = max(0, len(best) - case["candidates"]), best[: case["candidates"]]
    kept = []
    for label, score, cx, cy, bw, bh in best:
        box = np.array([cx - bw / 2 - left, cy - bh / 2 - top, cx + bw / 2 - left, cy + bh / 2 - top])
        box *= np.array([frame_w / w, frame_h / h] * 2)
        box = np.clip(box, 0, [frame_w, frame_h, frame_w, frame_h])
        if bw <= 0 or bh <= 0 or box[2] <= box[0] or box[3] <= box[1]:
            seen["dropped"] += 1
            continue
        overlaps = [overlap(box, other) for other_label, _, other in kept if other_label == label]
        seen["margin"] = min([seen["margin"], *(abs(o - case["iou_threshold"]) for o in overlaps)])
        if any(o > case["iou_threshold"] for o in overlaps):
            seen["suppressed"] += 1
            continue
        kept.append((label, score, box))
    return [[int(c), s, b[0], b[1], b[2] - b[0], b[3] - b[1]] for c, s, b in kept[:MOST]], seen


def classification(case, output):
    p = ACTIVATIONS[case["activation"]](output)
    order = [i for i in np.argsort(-p, kind="stable") if p[i] >= case["score_threshold"]][: case["top"]]
    gaps = [abs(p[i] - case["score_threshold"]) for i in range(len(p))] + [a - b for a, b in zip(p[order], p[order[1:]])]
    return [[int(i), p[i], 0.0, 0.0, *map(float, case["frame"])] for i in order], dict(margin=min(g for g in gaps if g))


def decode(case, outputs):
    outputs = [np.asarray(output, np.float64).ravel() for output in outputs]
    if case["decoder"] == "classification":
        return classification(case, *outputs)
    return detections(case, {"ssd": ssd, "yolo": yolo}[case["decoder"]](case, *outputs))


# The cases.

PERSON = dict(
    decoder="ssd", labels=1, input=[300, 300], fit="stretch", background=True, activation="sigmoid",
    anchors=dict(maps=[19, 10, 5, 3, 2, 1], least=0.2, greatest=0.95, ratios=[1, 2, 0.5, 3, 1 / 3], interpolated=True,
                 first=[(0.1, 1.0), (0.2, 2.0), (0.2, 0.5)]),
    variance=[10, 10, 5, 5], score_threshold=0.4, iou_threshold=0.5, candidates=100,
)


def boxes(rng, count, width, height):
    """Boxes in clusters, some beyond the edge, some without size."""
    centres = rng.uniform(-0.05, 1.05, (12, 2)) * [width, height]
    sizes = rng.uniform(0.1, 0.5, (12, 2)) * [width, height]
    which = rng.integers(0, 12, count)
    box = np.concatenate([centres[which], sizes[which]], axis=1) * rng.uniform(0.93, 1.07, (count, 4))
    box[rng.random(count) < 0.05, 2] *= -1
    box[rng.random(count) < 0.05, 3] = 0
    return box


def scores(rng, shape):
    """Most low, some high."""
    return np.where(rng.random(shape) < 0.12, rng.uniform(0.3, 1, shape), rng.uniform(0, 0.2, shape))


def ssd_outputs(rng, case, raw):
    """Encodings that lead to the boxes above, and raw scores."""
    cx, cy, w, h = anchors(**case["anchors"]).T
    width, height = case["input"]
    bx, by, bw, bh = boxes(rng, len(cx), width, height).T
    bw, bh = np.maximum(np.abs(bw), 1), np.maximum(np.abs(bh), 1)
    t = np.stack([(by / height - cy) / h, (bx / width - cx) / w, np.log(bh / height / h), np.log(bw / width / w)], axis=1)
    return [t * case["variance"], raw((len(cx), case["labels"] + case["background"]))]


def cases():
    limits = dict(score_threshold=0.4, iou_threshold=0.5, candidates=300)
    small = dict(maps=[6, 3, 1], least=0.3, greatest=0.9, ratios=[1, 2, 0.5], interpolated=True, first=[])

    rng = np.random.default_rng(1)
    case = dict(decoder="ssd", labels=3, input=[128, 96], fit="letterbox", frame=[640, 360], background=True,
                activation="softmax", anchors=small, variance=[10, 10, 5, 5], **limits)
    yield "ssd softmax", case, ssd_outputs(rng, case, lambda shape: rng.normal(0, 2, shape))

    rng = np.random.default_rng(2)
    plain = dict(small, maps=[5], interpolated=False, first=[(0.25, 1.0), (0.4, 2.5)])
    case = dict(decoder="ssd", labels=2, input=[96, 96], fit="topleft", frame=[333, 500], background=False,
                activation="none", anchors=plain, variance=[1, 1, 1, 1], **limits)
    yield "ssd probabilities", case, ssd_outputs(rng, case, lambda shape: scores(rng, shape))

    rng = np.random.default_rng(103)
    case = dict(decoder="ssd", labels=4, input=[64, 64], fit="stretch", frame=[1920, 1080], background=False,
                activation="sigmoid", anchors=dict(small, maps=[8, 4]), variance=[10, 8, 5, 4],
                **dict(limits, score_threshold=0.25, candidates=120))
    yield "ssd sigmoid", case, ssd_outputs(rng, case, lambda shape: rng.normal(-2, 2, shape))

    rng = np.random.default_rng(4)
    case = dict(decoder="yolo", head="v5", labels=3, input=[64, 64], fit="letterbox", frame=[1280, 720],
                **dict(limits, candidates=60))
    rows = 3 * (64 + 16 + 4)
    objectness = np.where(rng.random((rows, 1)) < 0.4, rng.uniform(0.6, 1, (rows, 1)), rng.uniform(0, 0.3, (rows, 1)))
    yield "yolo v5", case, [np.concatenate([boxes(rng, rows, 64, 64), objectness, rng.uniform(0.2, 1, (rows, 3))], axis=1)]

    rng = np.random.default_rng(5)
    case = dict(decoder="yolo", head="v8", labels=4, input=[96, 64], fit="topleft", frame=[720, 576], **limits)
    rows = 96 + 24 + 6
    yield "yolo v8", case, [np.concatenate([boxes(rng, rows, 96, 64), scores(rng, (rows, 4))], axis=1).T]

    rng = np.random.default_rng(6)
    case = dict(decoder="yolo", head="yolox", labels=2, input=[64, 96], fit="topleft", frame=[480, 640], **limits)
    x, y, stride = np.array(grid(64, 96)).T
    box = np.abs(boxes(rng, len(x), 64, 96)) + 1e-2
    raw = np.stack([box[:, 0] / stride - x, box[:, 1] / stride - y, np.log(box[:, 2] / stride), np.log(box[:, 3] / stride)], axis=1)
    tail = np.concatenate([rng.uniform(0, 1, (len(x), 1)), rng.uniform(0.3, 1, (len(x), 2))], axis=1)
    yield "yolox", case, [np.concatenate([raw, tail], axis=1)]

    for seed, (activation, top, threshold) in enumerate([("softmax", 5, 0.01), ("sigmoid", 100, 0.6), ("none", 3, 0.0)], 7):
        rng = np.random.default_rng(seed)
        case = dict(decoder="classification", labels=50, input=[32, 32], fit="stretch", frame=[640, 480],
                    activation=activation, top=top, score_threshold=threshold)
        raw = scores(rng, 50) if activation == "none" else rng.normal(0, 2, 50)
        yield f"classification {activation}", case, [raw]


def exercised(name, case, seen):
    """A case that decides nothing, or decides by rounding, is no test."""
    assert seen["margin"] > 1e-6, f"{name}: choose another seed, a decision hangs on {seen['margin']}"
    if case["decoder"] != "classification":
        assert seen["suppressed"] >= 3, f"{name}: {seen}"
    if name in ("yolo v5", "ssd sigmoid"):
        assert seen["cut"] > 0, f"{name}: {seen}"
    if name in ("yolo v5", "yolo v8"):
        assert seen["dropped"] > 0, f"{name}: {seen}"


def written(person):
    """Both files' content. `person` are the two outputs of the person detector."""
    index, blob = [], bytearray()
    for name, case, outputs in [("person", dict(PERSON, frame=[768, 576], score_threshold=0.01), person), *cases()]:
        outputs = [np.ascontiguousarray(output, "<f4") for output in outputs]
        found, seen = decode(case, outputs)
        exercised(name, case, seen)
        at = []
        for output in outputs:
            at.append([len(blob) // 4, output.size])
            blob.extend(output.tobytes())
        found = [[label, *(round(float(value), 6) for value in rest)] for label, *rest in found]
        index.append(dict(name=name, frame=case["frame"], outputs=at, detections=found))
        print(f"{name}: {len(found)} detections, {seen}", file=sys.stderr)
    lines = ",\n".join(" " + json.dumps(entry) for entry in index)
    return f"[\n{lines}\n]\n".encode(), bytes(blob)


def kept():
    """The person detector's outputs as the last run of golden.py left them."""
    entry = next(e for e in json.loads((DATA / "decode.json").read_text()) if e["name"] == "person")
    blob = np.fromfile(DATA / "decode.bin", "<f4")
    return [blob[at : at + size] for at, size in entry["outputs"]]


def write(person):
    for name, content in zip(("decode.json", "decode.bin"), written(person)):
        (DATA / name).write_bytes(content)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the files instead of writing them")
    if not parser.parse_args().check:
        return write(kept())
    for name, content in zip(("decode.json", "decode.bin"), written(kept())):
        if (DATA / name).read_bytes() != content:
            sys.exit(f"tests/data/{name} is not what this script makes: run it without --check and look at the difference")


if __name__ == "__main__":
    main()
