"""The command's own parts, without a GPU: python3 -m unittest discover --start-directory scripts/gpu"""

import json
import os
import pathlib
import signal
import subprocess
import tempfile
import time
import unittest
from unittest import mock

from machine import Failed, TensorRt, parts
from steps import Beside, Run, Skipped, decode_us, idle_share, served, verdict

RTX = TensorRt("libtensorrt_rtx.so.1", True, (1, 7, 1))
OLD = TensorRt("libnvinfer.so.8", False, (8, 5, 3))
NEW = TensorRt("libnvinfer.so.10", False, (10, 16, 1))
H100 = {"name": "made up", "capability": "9.0", "integrated": False}
ORIN = {"name": "made up", "capability": "8.7", "integrated": True}


def raises(why):
    def act():
        raise why

    return act


class Steps(unittest.TestCase):
    def test_the_end_of_all_time_is_no_failure_and_no_success(self):
        run = Run(H100, pathlib.Path("/nowhere"), {})
        with self.assertRaisesRegex(Failed, "took longer than 0.2 s"):
            run.call(["sleep", "9"], 0.2)
        run.deadline = time.monotonic() + 0.2
        run.step("cut", lambda: run.call(["sleep", "9"], 60))
        run.step("late", lambda: run.call(["true"], 60))
        self.assertEqual([row["result"] for row in run.rows], ["SKIPPED"] * 2)
        self.assertIn("were over", run.rows[0]["said"])
        self.assertEqual(verdict(run.rows), 75)

    def test_a_step_that_was_not_run_is_no_success_unless_it_needs_what_is_not_ours(self):
        run = Run()
        run.step("fine", lambda: ("", {}))
        run.step("sanitizer", raises(Beside("none here")))
        self.assertEqual(verdict(run.rows), 0)
        run.step("skipped", raises(Skipped("")))
        self.assertEqual(verdict(run.rows), 75)
        run.step("failed", raises(Failed("")))
        self.assertEqual(verdict(run.rows), 1)

    def test_batches_are_small_where_plans_take_long(self):
        runs = [Run(*of) for of in [(H100, None, {}, NEW), (H100, None, {}, OLD), (ORIN, None, {}, NEW)]]
        self.assertEqual([(run.max_batch(), run.contexts()) for run in runs], [(64, 2), (4, 1), (8, 1)])

    def test_who_ends_it_ends_what_it_runs(self):
        process = None
        communicate = subprocess.Popen.communicate

        def interrupted(started, *arguments, **named):
            nonlocal process
            if process is None:
                process = started
                raise KeyboardInterrupt
            return communicate(started, *arguments, **named)

        with mock.patch.object(subprocess.Popen, "communicate", interrupted), self.assertRaises(KeyboardInterrupt):
            Run(H100, None, {**os.environ}).call(["sleep", "600"], 60)
        self.assertEqual(process.returncode, -signal.SIGKILL)

    def test_boards_share_a_folder_of_plans(self):
        with tempfile.TemporaryDirectory() as work:
            run = Run(H100, pathlib.Path(work), {}, OLD)
            texts = [run.board(*of).read_text() for of in [("detector", 33.3), ("light_resnet50", 16.7, 3)]]
        for text in texts:
            self.assertIn(f'engine_cache = "{run.engines}"', text)
            self.assertIn("max_batch = 4", text)


def frame(captured, queue, service, decode):
    """A record, in microseconds."""
    timing = {"capture_us": 10, "queue_us": queue, "service_us": service, "decode_us": decode}
    return {"type": "frame", "captured_ns": captured * 1000, "timing": timing}


class Results(unittest.TestCase):
    def batches(self, *records):
        with tempfile.NamedTemporaryFile("w") as results:
            for record in [{"type": "begin"}, {"type": "frame", "timing": None}, *records]:
                results.write(json.dumps(record) + "\n")
            results.flush()
            return served(results.name)

    def test_frames_of_a_batch_are_decoded_one_after_the_other(self):
        batches = self.batches(frame(0, 50, 100, 30), frame(20, 30, 100, 60), frame(500, 0, 100, 40))
        self.assertEqual(sorted(batches), [(60, 160), (510, 610)])
        self.assertAlmostEqual(decode_us(batches), (60 + 40) / 3)

    def test_idle_is_where_nothing_is_in_flight_though_a_frame_has_come(self):
        # In flight from 10 to 110; one that came at 60 goes at 130: 20 were idle. The next comes later.
        waited = [frame(0, 0, 100, 1), frame(50, 70, 100, 1), frame(300, 0, 100, 1)]
        self.assertAlmostEqual(idle_share(self.batches(*waited)), 20 / 300)
        # While another batch is in flight nothing is.
        overlapping = [frame(0, 0, 100, 1), frame(20, 10, 100, 1)]
        self.assertEqual(idle_share(self.batches(*overlapping)), 0)


class Library(unittest.TestCase):
    def test_what_does_not_serve_a_gpu_says_so(self):
        self.assertIn("not compute capability 9.0", RTX.lacks("9.0"))
        self.assertIn("needs TensorRT 10.8", OLD.lacks("12.0"))
        for library, capability in [(RTX, "8.9"), (OLD, "9.0"), (OLD, "8.7"), (OLD, "7.2"), (NEW, "11.0")]:
            self.assertIsNone(library.lacks(capability), f"{library}, {capability}")
        self.assertEqual(str(OLD), "TensorRT 8.5.3")


class Pack(unittest.TestCase):
    def test_parts_are_small_and_whole_together(self):
        with tempfile.TemporaryDirectory() as work:
            folder = pathlib.Path(work) / "pack"
            folder.mkdir()
            # Nothing that xz makes smaller.
            random = os.urandom(5 << 19)
            (folder / "file").write_bytes(random)
            (folder.parent / "pack.part-007").write_text("of the time before")
            self.assertEqual(parts(folder, 1), 3)
            there = pathlib.Path(work) / "there"
            there.mkdir()
            together = f"cat '{folder}'.part-* | tar --extract --xz --directory '{there}'"
            subprocess.run(["bash", "-c", together], check=True)
            self.assertEqual((there / "pack" / "file").read_bytes(), random)


if __name__ == "__main__":
    unittest.main()
