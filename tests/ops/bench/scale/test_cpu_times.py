"""CPU time of processes without some of their threads."""

import os
import sys
import threading
import time

import pytest

from ops.bench.scale.cpu_times import Part

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
BURNT_S = 0.3


def burn() -> None:
    """Use CPU time in the calling thread."""
    while time.thread_time() < BURNT_S:
        pass


def test_the_time_of_excluded_threads_does_not_count() -> None:
    may_end = threading.Event()
    has_burnt = threading.Event()

    def run() -> None:
        burn()
        has_burnt.set()
        may_end.wait()

    whole = Part(pids=[os.getpid()])
    before_s = whole.cpu_s()
    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert thread.native_id is not None
        assert has_burnt.wait(60)
        rest = Part(pids=[os.getpid()], without_threads={os.getpid(): [thread.native_id]})
        whole_s, rest_s = whole.cpu_s(), rest.cpu_s()
    finally:
        may_end.set()
        thread.join()
    assert whole_s - before_s >= 0.9 * BURNT_S
    assert whole_s - rest_s == pytest.approx(BURNT_S, rel=0.2)
