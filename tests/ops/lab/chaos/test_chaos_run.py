"""A short chaos run, from the command line to the report."""

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

KINDS = ("lose-worker", "kill-api", "fill-redis")
SIZE = ("--streams", "12", "--adapters", "6", "--workers", "2", "--apis", "2", "--step-ms", "50")


def test_a_run_of_half_a_minute_loses_nothing(tmp_path: Path) -> None:
    flags = ["--minutes", "0.5", "--each", "1", "--faults", ",".join(KINDS)]
    command = [sys.executable, "-m", "ops.lab.chaos", *SIZE, *flags, "--report", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = orjson.loads((tmp_path / "chaos.json").read_bytes())
    assert report["failures"] == []
    assert [kind["took_place"] for kind in report["kinds"]] == [1, 1, 1]
    assert report["outcomes"]["answered"] > 20
    assert report["machine"]["commit"]
