"""Runs Lorikeet as users start it, as command-line processes with their own Redis."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from ops.local.embedded_redis import EmbeddedRedis, start_redis

LORIKEET = Path(sys.executable).with_name("lorikeet")
START_TIMEOUT_S = 100.0
STOP_TIMEOUT_S = 45.0
POLL_S = 0.05
TAIL_CHARS = 8000
METRICS_KEY = "metrics-" + "m" * 20

Process = subprocess.Popen[bytes]


@dataclass
class Server:
    """A running `lorikeet up`."""

    url: str
    process: Process
    log: Path
    redis: EmbeddedRedis
    redis_folder: Path | None
    """Folder of Redis' data; None if Redis doesn't persist it."""
    api_key: str | None
    """API key that requests need; None if the server has none."""
    metrics_key: str | None
    """Key that requests for metrics need; None if the server has none."""

    @property
    def api_url(self) -> str:
        """Base URL for OpenAI's clients."""
        return f"{self.url}/v1"

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    def metric(self, name: str) -> float:
        """Return the value of a metric without labels."""
        headers = {"Authorization": f"Bearer {self.metrics_key}"} if self.metrics_key else {}
        reply = httpx.get(f"{self.url}/metrics", headers=headers, timeout=30)
        families = text_string_to_metric_families(reply.text)
        found = [s.value for f in families for s in f.samples if s.name == name and not s.labels]
        assert len(found) == 1, f"{name}: {found}"
        return found[0]

    def children(self, command: str) -> list[psutil.Process]:
        """Return the server's processes that run `lorikeet COMMAND`."""
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if command in child.cmdline()]

    def pids(self) -> set[int]:
        return {self.process.pid, *(c.pid for c in psutil.Process(self.process.pid).children())}

    def wait_for_workers(self, count: int, timeout_s: float = START_TIMEOUT_S) -> None:
        wait_for(
            lambda: self.metric("lorikeet_workers_alive") == count,
            lambda: self.log_text()[-TAIL_CHARS:],
            self.process,
            timeout_s,
        )

    def kill_redis(self) -> None:
        os.kill(self.redis.pid, signal.SIGKILL)
        self._wait(lambda: not self.redis.is_running)

    def start_redis_again(self) -> None:
        """Start the server's Redis on its previous port and with its previous data."""
        self.redis = start_redis(self.redis_folder, port=self.redis.port)

    def stop(self) -> None:
        """Stop the server as a service manager does; its exit status must be 0."""
        self.process.terminate()
        assert self.process.wait(STOP_TIMEOUT_S) == 0, self.log_text()[-TAIL_CHARS:]

    def _wait(self, condition: Callable[[], bool]) -> None:
        wait_for(condition, lambda: self.log_text()[-TAIL_CHARS:], self.process)


@contextmanager
def lorikeet_up(
    folder: Path,
    *flags: str,
    workers: int = 1,
    redis_folder: Path | None = None,
    api_key: str | None = None,
    start_timeout_s: float = START_TIMEOUT_S,
) -> Iterator[Server]:
    """Run a server on a free port, with its log in `folder`. At exit it must end with status 0."""
    redis = start_redis(redis_folder)
    log = folder / "lorikeet.log"
    words = ["up", "--port", "0", "--workers", str(workers), "--redis-url", redis.url, *flags]
    metrics_key = METRICS_KEY if api_key else None
    process = start_lorikeet(
        words, log, LORIKEET_API_KEYS=api_key or "", LORIKEET_METRICS_KEY=metrics_key or ""
    )
    try:
        url = _ready_url(process, log, start_timeout_s)
        server = Server(url, process, log, redis, redis_folder, api_key, metrics_key)
        server.wait_for_workers(workers)
        yield server
        server.stop()
        redis = server.redis
    finally:
        process.kill()
        process.wait()
        redis.stop()


@contextmanager
def lorikeet_worker(server: Server, folder: Path, *flags: str) -> Iterator[Process]:
    """Run one more worker for the server. At exit it must drain and end with status 0.

    The test may also have killed it.
    """
    workers = server.metric("lorikeet_workers_alive")
    words = ["worker", "--redis-url", server.redis.url, *flags]
    log = folder / "worker.log"
    process = start_lorikeet(words, log)
    try:
        wait_for(lambda: server.metric("lorikeet_workers_alive") > workers, log.read_text, process)
        yield process
        process.terminate()
        assert process.wait(STOP_TIMEOUT_S) in (0, -signal.SIGKILL), log.read_text()
    finally:
        process.kill()
        process.wait()


@pytest.hookimpl(wrapper=True)
def show_logs(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the logs of a test's servers to its report if it failed.

    A conftest assigns this hook to `pytest_runtest_makereport`.
    """
    report = yield
    if report.failed and isinstance(item, pytest.Function):
        for name, value in item.funcargs.items():
            if isinstance(value, Server):
                report.sections.append((f"log of {name}", value.log_text()[-TAIL_CHARS:]))
    return report


def start_lorikeet(words: Sequence[str], log: Path, **variables: str) -> Process:
    """Start the command line with `words` as a process that writes its output to `log`."""
    with log.open("wb") as file:
        return subprocess.Popen(
            [str(LORIKEET), *words],
            env={**_environment(), **variables},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )


def run_lorikeet(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([str(LORIKEET), *words], capture_output=True, text=True, timeout=120)


def pid_of(worker: str) -> int:
    """Return the process id that a worker's id contains."""
    return int(worker.split(":")[1])


def wait_for(
    condition: Callable[[], bool],
    explain: Callable[[], str],
    process: Process,
    timeout_s: float = START_TIMEOUT_S,
) -> None:
    """Wait until `condition` is true; fail with the explanation if `process` ends before that."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, f"exit code {process.returncode}:\n{explain()}"
        assert time.monotonic() < deadline, f"not ready in time:\n{explain()}"
        time.sleep(POLL_S)


def _ready_url(process: Process, log: Path, timeout_s: float) -> str:
    """Wait until the server prints that it is ready, and return its URL."""
    found: list[str] = []

    def is_ready() -> bool:
        found.extend(re.findall(r"^Lorikeet is ready at (\S+)", log.read_text(), re.MULTILINE))
        return bool(found)

    wait_for(is_ready, log.read_text, process, timeout_s)
    return found[0]


def _environment() -> dict[str, str]:
    """Return this process' environment without Lorikeet's settings, except the adapter store."""
    return {
        k: v
        for k, v in os.environ.items()
        if (not k.startswith("LORIKEET_") and k != "REDIS_URL") or k == "LORIKEET_ADAPTER_STORE"
    }
