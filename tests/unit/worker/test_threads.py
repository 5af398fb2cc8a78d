"""Threads are counted in processes of their own: OpenMP's settings are a process' for good."""

import json
import os
import subprocess
import sys

SETUP = """
import json, threading
import torch
from worker.threads import end_team, set_threads

def multiply():
    a = torch.ones(700, 700)
    for _ in range(3):
        a @ a

def in_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()

def num_tasks():
    import os
    return len(os.listdir("/proc/self/task"))
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


def test_a_thread_keeps_its_threads_when_others_set_theirs() -> None:
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


def test_a_thread_that_ended_its_team_leaves_no_openmp_threads() -> None:
    before, with_team, after = run("""
before = num_tasks()
multiply()
with_team = num_tasks()
end_team()
print(json.dumps([before, with_team, num_tasks()]))
""")
    assert with_team > before
    assert after == before


def test_a_thread_can_compute_again_after_it_ended_its_team() -> None:
    assert run("multiply(); end_team(); multiply(); print(json.dumps(True))") is True
