"""Tests of OpenMP threads, each in its own process because settings can't be reset."""

import json
import os
import shutil
import subprocess
import sys

import pytest

SETUP = """
import json, os, threading, time
import torch
from worker.startup.openmp import end_team, set_threads

def multiply():
    a = torch.ones(700, 700)
    for _ in range(3):
        a @ a

def in_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()

def num_tasks():
    return len(os.listdir("/proc/self/task"))

def wait_for_tasks(number):
    # The kernel lists a thread for a moment after it was joined.
    until = time.monotonic() + 10
    while num_tasks() != number and time.monotonic() < until:
        time.sleep(0.001)
    return num_tasks()
"""


def run(code: str) -> object:
    done = subprocess.run(
        [sys.executable, "-c", SETUP + code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "2"},
    )
    return json.loads(done.stdout)


@pytest.mark.slow
def test_the_number_of_threads_is_set_per_thread() -> None:
    found = run("""
found = {}
others_set, engine_set = threading.Event(), threading.Event()

def engine():
    set_threads(2)
    engine_set.set()
    others_set.wait()
    multiply()
    found["engine"] = torch.get_num_threads()

def reader():
    engine_set.wait()
    set_threads(1)
    multiply()
    found["reader"] = torch.get_num_threads()
    others_set.set()

threads = [threading.Thread(target=target) for target in (engine, reader)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps(found))
""")
    assert found == {"engine": 2, "reader": 1}


@pytest.mark.slow
def test_ending_a_team_ends_its_openmp_threads_and_a_thread_can_compute_afterwards() -> None:
    before, with_team, after = run("""
before = num_tasks()
multiply()
with_team = num_tasks()
end_team()
after = wait_for_tasks(before)
multiply()
print(json.dumps([before, with_team, after]))
""")
    assert with_team > before
    assert after == before


PINNING = """
import os
from shared.cache_folder import cache_folder
from worker.kernels.cpu.native import NativeKernels
from worker.startup.openmp import take_cores

def core_of_each_task():
    masks = [os.sched_getaffinity(int(task)) for task in os.listdir("/proc/self/task")]
    return sorted(next(iter(mask)) for mask in masks if len(mask) == 1)

cores = sorted(os.sched_getaffinity(0))[:2]
os.sched_setaffinity(0, cores)
kernels = NativeKernels(torch.float32, cache_folder())
found = []

def engine(num_threads, times):
    for _ in range(times):
        take_cores(num_threads, kernels)
        multiply()
    found.append(core_of_each_task())
"""

needs_pinning = pytest.mark.skipif(
    sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2 or shutil.which("g++") is None,
    reason="needs Linux, a compiler and two cores",
)


@needs_pinning
@pytest.mark.slow
def test_two_threads_are_pinned_to_one_core_each_and_a_single_thread_is_not() -> None:
    found, cores = run(
        PINNING
        + """
def again():
    end_team()
    engine(2, 1)

in_thread(lambda: engine(1, 1))
in_thread(lambda: (engine(2, 2), again()))
print(json.dumps([found, cores]))
"""
    )  # type: ignore[misc]
    assert found == [[], cores, cores], "a new team is pinned again"
