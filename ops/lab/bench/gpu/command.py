"""`python -m ops.lab.bench gpu`: all measurements that need a GPU, in minutes.

It needs torch, transformers, peft and Triton, and none of the packages of the queue and the front
end. On a machine that is lent for half an hour, a copy of the repository is therefore enough.
"""

import argparse
import faulthandler
import importlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from transformers.utils import logging

from ops.lab.bench.gpu.bench import GpuBench
from ops.lab.bench.gpu.part import PartResult, run_part
from ops.lab.bench.gpu.report import Report, progress_line
from ops.lab.bench.gpu.sizes import SIZES
from ops.lab.machine import this_machine

RESULTS = Path(__file__).parents[3] / "bench" / "results"
DEFAULT_MINUTES = 8.0
STANDARD_ERROR = 2
"""File descriptor of the standard error. `sys.stderr` may be an object without one."""
GRACE_S = 20.0
"""Seconds after the time limit at which a process that hangs in a kernel is ended."""
DRIVER_FILE = Path("/sys/module/nvidia/version")


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark, and return the exit status: 1 if a result is wrong or a part failed."""
    options = _options(arguments)
    if not torch.cuda.is_available() and options.model_size is None:
        print(
            "bench: gpu: torch finds no usable GPU, so nothing is measured "
            "(--model-size tiny tries the command on a CPU)",
            file=sys.stderr,
        )
        return 1
    logging.disable_progress_bar()
    end = time.monotonic() + 60 * options.minutes
    last_s = 60 * options.minutes + GRACE_S
    faulthandler.dump_traceback_later(last_s, exit=True, file=STANDARD_ERROR)
    try:
        return _measure(GpuBench(SIZES[options.model_size or "8b"]), options, end)
    finally:
        faulthandler.cancel_dump_traceback_later()


def _measure(bench: GpuBench, options: argparse.Namespace, end: float) -> int:
    try:
        report = _report(bench, options)
    except OSError as error:
        print(f"bench: gpu: --out {options.out}: {error.strerror}", file=sys.stderr)
        return 1
    start, results = time.monotonic(), []
    for part in bench.parts():
        _say(start, part.title)
        seconds = min(part.seconds, end - time.monotonic())
        result = run_part(part, seconds, lambda row: _say(start, f"  {progress_line(row)}"))
        if result.note:
            _say(start, f"  {result.note}")
        report.add(result)
        results.append(result)
    print(f"\n{report.text}\nwritten: {report.data}\nwritten: {report.tables}", flush=True)
    return _print_errors(results)


def _report(bench: GpuBench, options: argparse.Namespace) -> Report:
    machine, date = asdict(this_machine()), datetime.now(UTC).isoformat(timespec="seconds")
    if options.commit:
        machine["commit"] = options.commit
    device = describe_device(bench.device)
    head = {"date": date, "machine": machine, "device": asdict(device), "model": bench.sizes.name}
    says = (
        f"{device.name}, {bench.sizes.name}, random weights",
        f"driver {device.driver}, torch {device.torch}, CUDA {device.cuda}, "
        f"Triton {device.triton}, commit {machine['commit']}",
    )
    return Report(options.out, f"{date[:10]}-{machine['commit']}-gpu", head, says)


def _print_errors(results: Sequence[PartResult]) -> int:
    """Print each wrong result and each failed part, and return the exit status."""
    wrong = [
        f"wrong result of {row.trial}"
        for result in results
        for row in result.rows
        if not getattr(row, "is_right", True)
    ]
    failed = [f"{result.title}: {result.note}" for result in results if result.failure]
    for line in wrong + failed:
        print(f"error: {line}", file=sys.stderr)
    return 1 if wrong or failed else 0


def _say(start: float, line: str) -> None:
    print(f"[{time.monotonic() - start:4.0f} s] {line}", flush=True)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m ops.lab.bench gpu",
        description="Measure kernels, decode, prefill and sampling on a GPU, and compare with "
        "PEFT and vLLM.",
    )
    parser.add_argument("--model-size", choices=SIZES, help="shape of the model; 8b by default")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(os.environ.get("OUT") or RESULTS),
        metavar="DIR",
        help="folder for the JSON file and the tables; by default $OUT, or ops/bench/results",
    )
    parser.add_argument(
        "--minutes", type=float, default=DEFAULT_MINUTES, metavar="N", help="longest time of all"
    )
    parser.add_argument("--commit", metavar="TEXT", help="commit, if git can't tell it here")
    return parser.parse_args(arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device, and the versions of its driver and libraries. Missing ones are "none"."""

    name: str
    memory_gib: float | None
    multiprocessors: int | None
    driver: str
    cuda: str
    torch: str
    triton: str


def describe_device(device: torch.device) -> Device:
    """Describe the device that is measured."""
    is_cuda = device.type == "cuda"
    properties = torch.cuda.get_device_properties(device) if is_cuda else None
    return Device(
        name=properties.name if properties else device.type,
        memory_gib=round(properties.total_memory / 2**30, 1) if properties else None,
        multiprocessors=properties.multi_processor_count if properties else None,
        driver=_driver() if is_cuda else "none",
        cuda=torch.version.cuda or "none",
        torch=str(torch.__version__),
        triton=_triton(),
    )


def _driver() -> str:
    """Return the version of NVIDIA's driver."""
    if DRIVER_FILE.exists():
        return DRIVER_FILE.read_text().strip()
    if shutil.which("nvidia-smi") is None:
        return "unknown"
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return (found.stdout.splitlines() or ["unknown"])[0]


def _triton() -> str:
    try:
        return str(importlib.import_module("triton").__version__)
    except ImportError:  # torch for CPUs comes without it
        return "none"
