"""What is usual: a thread for each camera, which takes its newest frame, pre-processes it and runs the network on it alone.

    thread_per_camera.py --network FILE.onnx --bound-ms D [--seconds S]

The comparison for scripts/gpu-test, on the same GPU. ONNX Runtime with its CUDA provider runs any network; without it
PyTorch runs a ResNet-50 of its own (constant weights: the shape of the work), where the network is one. Frames are
640x360 NV12 at 30 fps, released in two groups half a period apart, on a grid fixed beforehand: a frame that nobody was
ready for counts as missed. Looks for the most cameras of which 99.9 % of all frames are done within D of their release.
Prints one line of JSON; `engine` is null where there is nothing to compare with, and `why` says so.
"""

import argparse
import json
import pathlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

WIDTH, HEIGHT, PERIOD = 640, 360, 1 / 30
SHARE = 0.999
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Unavailable(Exception):
    """There is nothing to compare with."""


def frame(seed):
    """A frame's bytes: a pattern, the same each time."""
    size = WIDTH * HEIGHT * 3 // 2
    return bytes((at * 2654435761 + seed >> 13) & 0xFF for at in range(size))


def with_onnxruntime(network):
    """A function that makes a camera's function: bytes in, result out."""
    import numpy
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise Unavailable("ONNX Runtime has no CUDA provider here")
    session = onnxruntime.InferenceSession(network, providers=["CUDAExecutionProvider"])
    if session.get_providers()[0] != "CUDAExecutionProvider":
        raise Unavailable("ONNX Runtime's CUDA provider does not start here")
    [asked] = session.get_inputs()
    last = asked.shape[3] == 3  # Channels come last.
    height, width = asked.shape[1:3] if last else asked.shape[2:4]
    kind = numpy.float16 if "float16" in asked.type else numpy.float32
    rows = numpy.arange(height) * HEIGHT // height
    columns = numpy.arange(width) * WIDTH // width
    mean, deviation = (numpy.array(values, numpy.float32)[:, None, None] for values in (MEAN, DEVIATION))

    def camera(_):
        def infer(data):
            planes = numpy.frombuffer(data, numpy.uint8)
            luma = planes[: WIDTH * HEIGHT].reshape(HEIGHT, WIDTH)
            chroma = planes[WIDTH * HEIGHT :].reshape(HEIGHT // 2, WIDTH // 2, 2)
            y = luma[rows[:, None], columns].astype(numpy.float32) - 16
            u, v = numpy.moveaxis(chroma[rows[:, None] // 2, columns // 2].astype(numpy.float32) - 128, 2, 0)
            y *= 1.164
            pixels = numpy.stack([y + 1.596 * v, y - 0.392 * u - 0.813 * v, y + 2.017 * u]).clip(0, 255)
            image = (pixels / 255 - mean) / deviation
            image = numpy.moveaxis(image, 0, 2) if last else image
            return session.run(None, {asked.name: image[None].astype(kind)})

        return infer

    return "ONNX Runtime " + onnxruntime.__version__, camera


def resnet50(torch):
    """ResNet-50, written down: there may be no torchvision."""
    nn = torch.nn

    def convolution(inside, outside, edge, stride=1):
        layer = nn.Conv2d(inside, outside, edge, stride, edge // 2, bias=False)
        return nn.Sequential(layer, nn.BatchNorm2d(outside))

    class Bottleneck(nn.Module):
        def __init__(self, inside, middle, stride):
            super().__init__()
            outside = 4 * middle
            self.way = nn.Sequential(
                convolution(inside, middle, 1),
                nn.ReLU(inplace=True),
                convolution(middle, middle, 3, stride),
                nn.ReLU(inplace=True),
                convolution(middle, outside, 1),
            )
            straight = inside == outside and stride == 1
            self.beside = nn.Identity() if straight else convolution(inside, outside, 1, stride)

        def forward(self, image):
            return torch.relu(self.way(image) + self.beside(image))

    layers = [convolution(3, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    inside = 64
    for middle, blocks, stride in [(64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)]:
        for block in range(blocks):
            layers.append(Bottleneck(inside, middle, stride if block == 0 else 1))
            inside = 4 * middle
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inside, 1000), nn.Softmax(1))


def with_pytorch(network):
    import torch

    if not torch.cuda.is_available():
        raise Unavailable("PyTorch finds no CUDA device")
    if "resnet50" not in pathlib.Path(network).name:
        raise Unavailable("ONNX Runtime with CUDA is not here, and PyTorch has no such network")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    model = resnet50(torch).eval().cuda()
    mean, deviation = (torch.tensor(values, device="cuda").view(1, 3, 1, 1) for values in (MEAN, DEVIATION))

    def camera(_):
        stream = torch.cuda.Stream()
        slot = torch.empty(WIDTH * HEIGHT * 3 // 2, dtype=torch.uint8).pin_memory()

        @torch.inference_mode()
        def infer(data):
            slot.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
            with torch.cuda.stream(stream):
                planes = slot.cuda(non_blocking=True).float()
                y = 1.164 * (planes[: WIDTH * HEIGHT].view(1, 1, HEIGHT, WIDTH) - 16)
                chroma = planes[WIDTH * HEIGHT :].view(1, HEIGHT // 2, WIDTH // 2, 2).permute(0, 3, 1, 2) - 128
                u, v = torch.nn.functional.interpolate(chroma, scale_factor=2).split(1, 1)
                pixels = torch.cat([y + 1.596 * v, y - 0.392 * u - 0.813 * v, y + 2.017 * u], 1).clamp(0, 255) / 255
                pixels = torch.nn.functional.interpolate(pixels, (224, 224), mode="bilinear")
                result = model((pixels - mean) / deviation).cpu()
            return result

        return infer

    return "PyTorch " + torch.__version__, camera


class Camera:
    """A camera's thread, the same for all probes. Engines keep handles, work spaces and what they found to be fastest
    for each thread: its first frames, which cost seconds, are run there too, and not measured."""

    WARM = 3

    def __init__(self, infer, data):
        self.infer = infer
        self.thread = ThreadPoolExecutor(max_workers=1)
        for _ in range(self.WARM):
            self.thread.submit(infer, data).result()


def probe(cameras, data, bound, seconds):
    """Runs so many cameras; the share of all frames that were done in time, and frames done a second."""
    releases = int(seconds / PERIOD)
    started = []
    # The grid begins when the last thread has run one more frame.
    ready = threading.Barrier(len(cameras), lambda: started.append(time.monotonic() + 0.05))

    def run(index, infer):
        infer(data)
        ready.wait()
        first = started[0] + (PERIOD / 2 if index % 2 else 0)
        met = done = next_release = 0
        while next_release < releases:
            release = first + next_release * PERIOD
            now = time.monotonic()
            if now < release:
                time.sleep(release - now)
            else:
                # The newest frame; those before it are missed.
                next_release = min(int((now - first) / PERIOD), releases - 1)
                release = first + next_release * PERIOD
            infer(data)
            done += 1
            met += time.monotonic() - release <= bound
            next_release += 1
        return met, done

    def ends(index, infer):
        try:
            return run(index, infer)
        except Exception:
            # Nobody waits for this one.
            ready.abort()
            raise

    runs = [camera.thread.submit(ends, index, camera.infer) for index, camera in enumerate(cameras)]
    met, done = (sum(counts) for counts in zip(*(run.result() for run in runs)))
    return met / (releases * len(cameras)), done / seconds


def search(camera, bound, seconds):
    """The most cameras in time, and every probe."""
    cameras, probes, data = [], [], frame(0)
    until = time.monotonic() + seconds
    good, bad, streams = 0, None, 1
    while time.monotonic() < until and streams <= 1024:
        while len(cameras) < streams:
            cameras.append(Camera(camera(len(cameras)), data))
        share, rate = probe(cameras[:streams], data, bound, 2)
        probes.append({"streams": streams, "share": round(share, 5), "frames_per_second": round(rate, 1)})
        if share >= SHARE:
            good = streams
        else:
            bad = streams
        if bad is not None and bad - good <= 1:
            break
        streams = 2 * good if bad is None else (good + bad) // 2
    return good, probes


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--network", required=True)
    arguments.add_argument("--bound-ms", type=float, required=True)
    arguments.add_argument("--seconds", type=float, default=30)
    asked = arguments.parse_args()
    reasons = []
    for opened in (with_onnxruntime, with_pytorch):
        try:
            engine, camera = opened(asked.network)
        except (ImportError, Unavailable) as why:
            reasons.append(str(why))
            continue
        streams, probes = search(camera, asked.bound_ms / 1e3, asked.seconds)
        best = max((tried["frames_per_second"] for tried in probes), default=0)
        print(json.dumps({"engine": engine, "streams": streams, "frames_per_second": best, "probes": probes}))
        return
    print(json.dumps({"engine": None, "why": "; ".join(reasons)}))


if __name__ == "__main__":
    main()
