"""The steps of scripts/gpu-test."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

from machine import ROOT, TESTS, Failed, say

# For all steps after the build, in seconds.
BUDGET = 470
# What a step has to reach.
EFFICIENCY = 0.97
IDLE = 0.03
PREPROCESS_US = 30.0
# Streams that a board may have.
MOST_STREAMS = 256

MODELS = {"detector": "models/person-ssdlite.fp16.toml", "light_resnet50": "tests/data/light_resnet50.toml"}
# And what golden answers are asked of.
PLANS = {**MODELS, "golden": "models/person-ssdlite.fp32.toml"}
NETWORKS = {"detector": "models/person-ssdlite.fp32.onnx", "light_resnet50": "tests/data/light_resnet50.onnx"}
BOUNDS = [33.3, 16.7]

BOARD = """config_version = 1

[accelerator]
backend = "tensorrt"
device = 0
engine_cache = "{cache}"
contexts = {contexts}
max_batch = {max_batch}

[models.person]
manifest = "{manifest}"
"""
STREAM = """
[[streams]]
id = "s{index}"
source = {{ type = "synthetic", phase_ms = {phase} }}
fps = {fps}
size = [640, 360]
format = "NV12"
latency_bound_ms = {bound}
model = "person"
"""


class Skipped(Exception):
    """A step can't be run here."""


class Beside(Skipped):
    """It needs a program beside ours that is not here: nothing of ours is left unshown."""


def verdict(rows):
    """The exit code. A step that was not run is no success."""
    if any(row["result"] == "FAILED" for row in rows):
        return 1
    return 75 if any(row["result"] == "SKIPPED" and not row["beside"] for row in rows) else 0


def reason(text):
    """Why a program failed: the first panic of a test, else its last words."""
    panicked = re.search(r"panicked at .*\n(.+)", text)
    return panicked.group(1).strip() if panicked else last_line(text)


def end(process):
    """Kills it and whatever it has started; the last of what it has said."""
    # Once it was waited for, its number may be another's.
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    try:
        out, errors = process.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        return "killed, and it does not end: stuck in the driver?\n"
    return errors[-2000:] + out[-2000:]


def last_line(text):
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def served(results):
    """The batches of a run by when they went to the device and came back; of each frame in them, when it had come and
    how long after its batch it was decoded. All in microseconds."""
    batches = {}
    with open(results, encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            if record.get("type") != "frame" or not record.get("timing"):
                continue
            timing = record["timing"]
            arrived = record["captured_ns"] // 1000 + timing["capture_us"]
            submitted = arrived + timing["queue_us"]
            frames = batches.setdefault((submitted, submitted + timing["service_us"]), [])
            frames.append((arrived, timing["decode_us"]))
    return batches


def decode_us(batches):
    """What one thread takes a frame from a batch's end on: the frames of a batch come one after the other."""
    last = [max(decoded for _, decoded in frames) for frames in batches.values()]
    return sum(last) / sum(len(frames) for frames in batches.values())


def idle_share(batches):
    """Time without any batch in flight though a frame had come before the last one's end, against time with one."""
    busy = idle = 0
    free = None
    for (submitted, completed), frames in sorted(batches.items()):
        if free is not None and min(arrived for arrived, _ in frames) < free:
            idle += max(0, submitted - free)
        # Where batches overlap, each moment counts once.
        busy += max(0, completed - max(submitted, free or 0))
        free = max(completed, free or 0)
    return idle / busy


class Run:
    """One run of all steps."""

    def __init__(self, found=None, work=None, environment=None, library=None, engines=None):
        self.device = found
        self.library = library
        self.work = work
        # Of all steps and tests: each plan is built once.
        self.engines = engines or (work and work / "engines")
        self.keeps = engines is not None
        self.environment = environment
        self.programs = {}
        self.benches = {}
        self.decoding = {}
        self.rows = []
        self.deadline = None

    def call(self, command, limit, environment=None):
        """Runs a command; what it said, on both outputs, where it ends with 0."""
        rest = limit if self.deadline is None else self.deadline - time.monotonic()
        command = [str(word) for word in command]
        started = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**self.environment, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            out, errors = started.communicate(timeout=max(min(limit, rest), 1))
        except subprocess.TimeoutExpired as why:
            sys.stderr.write(end(started))
            if rest < limit:
                raise Skipped(f"the {BUDGET} s of all steps were over after {max(rest, 1):.0f} s of this one") from why
            raise Failed(f"took longer than {limit} s") from why
        except BaseException:  # Whoever ends this command ends what it runs.
            end(started)
            raise
        if started.returncode != 0:
            sys.stderr.write(errors[-4000:] + out[-4000:])
            raise Failed(f"exit {started.returncode}: {reason(errors if errors.strip() else out)[:300]}")
        return out, errors

    def ocelli(self, arguments, limit):
        return self.call([self.programs["ocelli"], *arguments], limit)

    def tests(self, name, limit, before=(), only=()):
        """Runs tests whose names have this in them, on the device; how many passed."""
        passed = 0
        said = ""
        for test in TESTS:
            if test not in self.programs or (only and test not in only):
                continue
            command = [*before, self.programs[test], name, "--nocapture", "--test-threads=1"]
            told = {
                "OCELLI_GPU": "1",
                "OCELLI_GPU_ENGINES": str(self.engines),
                "OCELLI_GPU_MAX_BATCH": str(self.max_batch()),
                "OCELLI_GPU_CONTEXTS": str(self.contexts()),
            }
            out, errors = self.call(command, limit, told)
            if "SKIPPED" in out + errors:
                raise Failed(f"{test}: {last_line(out)}: a test left the device out")
            passed += sum(int(count) for count in re.findall(r"test result: ok\. (\d+) passed", out))
            said += out + errors
        if passed == 0:
            raise Skipped(f"no test is called {name}")
        return passed, said

    def builds_fast(self):
        """Plans are to be built within the time of all steps. Before TensorRT 10 each batch size of each context takes
        a profile: TensorRT 8.5.3 took longer than 150 s beside an H100 for either network with four of them."""
        return self.library is None or self.library.shares_profiles()

    def contexts(self):
        """A discrete GPU computes one batch while another is uploaded."""
        return 2 if not self.device["integrated"] and self.builds_fast() else 1

    def max_batch(self):
        if not self.builds_fast():
            return 4
        return 8 if self.device["integrated"] else 64

    def board(self, model, bound, streams=1, fps=30):
        """A board file; half of its streams half a period later."""
        path = self.work / f"{model}-{bound}-{streams}x{fps}.toml"
        manifest = ROOT / PLANS[model]
        text = BOARD.format(
            cache=self.engines, contexts=self.contexts(), max_batch=self.max_batch(), manifest=manifest
        )
        for index in range(streams):
            late = 500 / fps if index % 2 else 0
            text += STREAM.format(index=index, phase=round(late, 3), fps=fps, bound=bound)
        path.write_text(text)
        return path

    def step(self, name, act):
        began = time.monotonic()
        row = {"step": name, "result": "passed", "said": "", "numbers": {}, "beside": False}
        say(f"{name} ...")
        try:
            if self.deadline is not None and began >= self.deadline:
                raise Skipped(f"the {BUDGET} s of all steps were over")
            row["said"], row["numbers"] = act()
        except Skipped as why:
            row["result"], row["said"], row["beside"] = "SKIPPED", str(why), isinstance(why, Beside)
        except Failed as why:
            row["result"], row["said"], row["numbers"] = "FAILED", str(why), why.numbers
        except Exception as why:  # What nobody thought of stops no other step either.
            row["result"], row["said"] = "FAILED", f"{type(why).__name__}: {why}"
        row["seconds"] = round(time.monotonic() - began, 1)
        self.rows.append(row)
        say(f"{name}: {row['result']} {row['said']}")

    # The steps.

    def conformance(self):
        passed, _ = self.tests("conform", 60)
        return f"{passed} tests", {"tests": passed}

    def golden(self):
        passed, _ = self.tests("golden", 180, only=["gpu"])
        return f"{passed} tests", {"tests": passed}

    def kernels(self):
        passed, _ = self.tests("kernels", 60, only=["gpu"])
        return f"{passed} tests: the bits of the CPU's definition", {"tests": passed}

    def sanitizer(self, tool):
        program = shutil.which("compute-sanitizer", path=f"{os.environ.get('PATH', '')}:/usr/local/cuda/bin")
        if not program:
            raise Beside("there is no compute-sanitizer (package cuda-sanitizer)")
        before = [program, "--tool", tool, "--error-exitcode", "86"]
        passed, said = self.tests("kernels", 100, before, only=["gpu"])
        found = re.search(r"(ERROR|RACECHECK) SUMMARY: (.*)", said)
        return found.group(2) if found else f"{passed} tests", {"tests": passed}

    def engine(self, model):
        board = self.board(model, BOUNDS[0])
        # Where plans are kept, a slow builder may take all the time: the other steps are another run's.
        self.ocelli(["engine", "build", board], BUDGET if self.keeps and not self.builds_fast() else 150)
        out, errors = self.ocelli(["engine", "verify", board], 60)
        return last_line(out or errors), {}

    def copies(self):
        summary = self.work / "copies.json"
        board = self.board("detector", 100, 4)
        self.ocelli(["run", board, "--for", "5", "--summary", summary], 60)
        told = json.loads(summary.read_text())
        # What the synthetic cameras draw is no copy.
        copied = {stage: told["copied_bytes"][stage] for stage in ("capture", "accelerator")}
        total = told["total"]
        numbers = {"copied_bytes": copied, "total": total, "telemetry": told["telemetry"]}
        if any(copied.values()):
            raise Failed(f"bytes copied on the host: {copied}", numbers)
        if total["met"] < total["captured"] * 0.99:
            raise Failed(f"met {total['met']} of {total['captured']}: {total['dropped']}", numbers)
        return f"0 bytes copied on the host, met {total['met']} of {total['captured']}", numbers

    def allocations(self):
        passed, _ = self.tests("no_allocation", 90, only=["no_alloc_tensorrt"])
        return f"{passed} tests: 0 allocations a frame", {"tests": passed}

    def bench(self, model, bound):
        quick = ["--releases", "groups", "--for", "1.5", "--confirm", "1", "--confirm-for", "3", "--profile-for", "2"]
        quick += ["--retries", "1", "--no-overload", "--format", "json"]
        # Where as many as a board may have are no limit, streams are faster.
        for fps in (30, 120):
            out, _ = self.ocelli(["bench", self.board(model, bound, fps=fps), *quick], 75)
            told = json.loads(out)
            if fps == 30:
                self.benches[model, bound] = told
            if told["streams"] != MOST_STREAMS:
                break
        streams, efficiency = told["streams"], told["efficiency"]
        if streams is None or efficiency is None:
            raise Failed(f"no result: {told['invalid']}")
        bare = told["bare_loop"][0]["frames_per_second"]
        # Where contexts overlap, more than capacity by l(b) is possible: what a bare loop reached in the same run.
        share = efficiency if self.contexts() > 1 else streams / told["limit"]["upper"]
        p99_9 = told["latency_us"]["p99_9"]
        limit = f"{told['limit']['upper']} by l(b), bare loop {bare:.0f} frames/s"
        words = f"{streams} streams at {fps} fps, {share:.1%} of the limit ({limit}), p99.9 {(p99_9 or 0) / 1e3:.1f} ms"
        # One thread publishes: near 100 % it is what bounds the row.
        decode = self.decode_us(model)
        load = decode * streams * fps / 1e6
        words += f", publishing {decode:.0f} us a frame: {load:.0%} of its thread"
        numbers = {"streams": streams, "fps": fps, "efficiency": efficiency, "share": share}
        numbers.update(decode_us=decode, publishing_load=load)
        numbers.update(limit=told["limit"], bare=bare, latency_us=told["latency_us"], accelerator=told["accelerator"])
        if share < EFFICIENCY:
            raise Failed(f"{words}: less than {EFFICIENCY:.0%}", numbers)
        return words, numbers

    def decode_us(self, model):
        """What publishing takes for a frame, with few streams, so that none waits for another's batch."""
        if model not in self.decoding:
            results = self.work / f"{model}.jsonl"
            self.ocelli(["run", self.board(model, 100, 4), "--for", "3", "--results", results], 60)
            batches = served(results)
            if not batches:
                raise Failed("no frame was served")
            self.decoding[model] = decode_us(batches)
        return self.decoding[model]

    def idle(self):
        """As the host sees it: with two contexts, what the GPU waits for while a batch is in flight does not show."""
        told = self.benches.get(("light_resnet50", BOUNDS[0]))
        if not told or not told["streams"]:
            raise Skipped("the bench gave no number of streams")
        # As many as are in time and a tenth more: something always waits.
        streams = min(MOST_STREAMS, told["streams"] + told["streams"] // 10 + 1)
        results = self.work / "idle.jsonl"
        board = self.board("light_resnet50", BOUNDS[0], streams)
        self.ocelli(["run", board, "--for", "5", "--results", results], 60)
        batches = served(results)
        if len(batches) < 20:
            raise Failed(f"only {len(batches)} batches were seen")
        share = idle_share(batches)
        words = (
            f"no batch in flight though frames waited for {share:.2%} of the time with one, by host times; "
            f"{len(batches)} batches of {streams} streams, {self.contexts()} contexts"
        )
        numbers = {"idle_share": share, "batches": len(batches), "streams": streams, "contexts": self.contexts()}
        if share > IDLE:
            raise Failed(f"{words}: more than {IDLE:.0%}", numbers)
        return words, numbers

    def preprocess(self):
        _, said = self.tests("preprocess_time", 60, only=["gpu"])
        found = re.search(r"preprocess: ([\d.]+) us a frame", said)
        if not found:
            raise Failed("the test told no time")
        took = float(found.group(1))
        words = f"{took:.1f} us a frame, 1920x1080 NV12, batches of 8"
        # The bound is for the class of the GPU that it was stated for.
        if took > PREPROCESS_US and not self.device["integrated"] and self.device["capability"] == "9.0":
            raise Failed(f"{words}: more than {PREPROCESS_US:.0f}", {"us": took})
        return words, {"us": took}

    def comparison(self, model):
        script = ROOT / "scripts" / "reference" / "thread_per_camera.py"
        python = os.environ.get("OCELLI_PYTHON", sys.executable)
        command = [python, script, "--network", ROOT / NETWORKS[model], "--bound-ms", BOUNDS[0], "--seconds", "22"]
        # Their own libraries, not ours.
        out, _ = self.call(command, 60, {"LD_LIBRARY_PATH": os.environ.get("LD_LIBRARY_PATH", "")})
        told = json.loads(last_line(out))
        if told["engine"] is None:
            raise Beside(told["why"])
        ours = self.benches.get((model, BOUNDS[0]), {}).get("streams")
        words = f"{told['engine']}: {told['streams']} streams in time (99.9 %); ours in the same run: {ours or 'none'}"
        return words, {**told, "ours": ours}

    def steps(self):
        """Every step by name, in order."""
        steps = {
            "kernels": self.kernels,
            "memcheck": lambda: self.sanitizer("memcheck"),
            "racecheck": lambda: self.sanitizer("racecheck"),
            "preprocess": self.preprocess,
            # The smallest network first: what goes wrong everywhere is seen soon.
            "conformance": self.conformance,
        }
        for model in PLANS:
            steps[f"engine-{model}"] = lambda model=model: self.engine(model)
        steps |= {"golden": self.golden, "copies": self.copies, "allocations": self.allocations}
        for model in MODELS:
            for bound in BOUNDS:
                steps[f"bench-{model}-{bound}"] = lambda model=model, bound=bound: self.bench(model, bound)
        steps["idle"] = self.idle
        for model in reversed(MODELS):
            steps[f"comparison-{model}"] = lambda model=model: self.comparison(model)
        return steps
