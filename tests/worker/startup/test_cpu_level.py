"""A worker's `--cpu-level` reaches the kernels, which are loaded without its settings."""

import subprocess
import sys

PROGRAM = """
import os, sys
from shared.settings import WorkerSettings, load_settings
from worker import process
from worker.startup import load_model

load_model.load_served = lambda settings: print(os.environ["LORIKEET_CPU_LEVEL"])
settings = load_settings(WorkerSettings, redis_url=sys.argv[1], model="m", cpu_level=sys.argv[2])
process._load_native(settings)
"""


def test_the_flag_is_the_level_of_the_process(redis_url: str) -> None:
    command = [sys.executable, "-c", PROGRAM, redis_url, "avx2"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "avx2\n"
