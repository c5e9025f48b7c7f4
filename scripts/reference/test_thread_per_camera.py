"""The comparison with a made-up engine: python3 -m unittest discover --start-directory scripts/reference"""

import threading
import time
import unittest

import thread_per_camera


class Engine:
    """Its first frame in each thread takes long, as with those that look for the fastest way at first."""

    def __init__(self, first=0.2, later=0.001, fails_at=None):
        self.first, self.later, self.fails_at = first, later, fails_at
        self.known = threading.local()
        self.frames = 0

    def camera(self, _):
        def infer(_):
            self.frames += 1
            if self.frames == self.fails_at:
                raise MemoryError("made up")
            time.sleep(self.later if hasattr(self.known, "warm") else self.first)
            self.known.warm = True

        return infer


class ThreadPerCamera(unittest.TestCase):
    def test_what_a_thread_costs_at_first_is_not_measured(self):
        engine = Engine()
        cameras = [thread_per_camera.Camera(engine.camera(index), b"") for index in range(4)]
        for seconds in (0.5, 0.5):
            share, rate = thread_per_camera.probe(cameras, b"", 1 / 30, seconds)
            self.assertEqual(share, 1.0)
            self.assertEqual(rate, 4 * 15 / seconds)

    def test_what_is_too_slow_misses(self):
        engine = Engine(later=0.05)
        cameras = [thread_per_camera.Camera(engine.camera(index), b"") for index in range(2)]
        share, rate = thread_per_camera.probe(cameras, b"", 1 / 30, 0.5)
        self.assertEqual(share, 0.0)
        self.assertLess(rate, 2 * 30)

    def test_an_engine_that_fails_ends_the_probe(self):
        # Two cameras warm up with three frames each.
        engine = Engine(first=0, later=0, fails_at=7)
        cameras = [thread_per_camera.Camera(engine.camera(index), b"") for index in range(2)]
        with self.assertRaises((MemoryError, threading.BrokenBarrierError)):
            thread_per_camera.probe(cameras, b"", 1 / 30, 0.5)


if __name__ == "__main__":
    unittest.main()
