"""Lorikeet as users start it: processes of the command line, with a Redis of their own."""

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
    """`lorikeet up`, running."""

    url: str
    process: Process
    log: Path
    redis: EmbeddedRedis
    redis_folder: Path | None
    """Where Redis keeps its data, if it does."""
    api_key: str | None
    """What it wants to be asked with."""
    metrics_key: str | None
    """What it wants to be asked for metrics with."""

    @property
    def api_url(self) -> str:
        """What OpenAI's clients call the base URL."""
        return f"{self.url}/v1"

    def log_text(self) -> str:
        """All that its processes have printed."""
        return self.log.read_text(errors="replace")

    def metric(self, name: str) -> float:
        """The value of a metric without labels."""
        headers = {"Authorization": f"Bearer {self.metrics_key}"} if self.metrics_key else {}
        reply = httpx.get(f"{self.url}/metrics", headers=headers, timeout=30)
        families = text_string_to_metric_families(reply.text)
        found = [s.value for f in families for s in f.samples if s.name == name and not s.labels]
        assert len(found) == 1, f"{name}: {found}"
        return found[0]

    def pids(self) -> set[int]:
        """The processes that it consists of."""
        return {self.process.pid, *(c.pid for c in psutil.Process(self.process.pid).children())}

    def wait_for_workers(self, count: int) -> None:
        """Return once `count` workers hold a lease."""
        self._wait(lambda: self.metric("lorikeet_workers_alive") == count)

    def kill_redis(self) -> None:
        """SIGKILL its Redis."""
        os.kill(self.redis.pid, signal.SIGKILL)
        self._wait(lambda: not self.redis.is_running)

    def start_redis_again(self) -> None:
        """Start its Redis on the port and with the data that it had."""
        self.redis = start_redis(self.redis_folder, port=self.redis.port)

    def stop(self) -> None:
        """End it as Ctrl-C or a service manager would; all must have gone well."""
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
) -> Iterator[Server]:
    """A server on a free port, its log in `folder`; afterwards it must end with exit code 0."""
    redis = start_redis(redis_folder)
    log = folder / "lorikeet.log"
    words = ["up", "--port", "0", "--workers", str(workers), "--redis-url", redis.url, *flags]
    metrics_key = METRICS_KEY if api_key else None
    process = start_lorikeet(
        words, log, LORIKEET_API_KEYS=api_key or "", LORIKEET_METRICS_KEY=metrics_key or ""
    )
    try:
        url = _ready_url(process, log)
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
    """One more worker for the server; afterwards it must drain and end with exit code 0."""
    workers = server.metric("lorikeet_workers_alive")
    words = ["worker", "--redis-url", server.redis.url, *flags]
    log = folder / "worker.log"
    process = start_lorikeet(words, log)
    try:
        wait_for(lambda: server.metric("lorikeet_workers_alive") > workers, log.read_text, process)
        yield process
        process.terminate()
        assert process.wait(STOP_TIMEOUT_S) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


@pytest.hookimpl(wrapper=True)
def show_logs(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A `pytest_runtest_makereport` that shows, with a failure, what the test's servers printed."""
    report = yield
    if report.failed and isinstance(item, pytest.Function):
        for name, value in item.funcargs.items():
            if isinstance(value, Server):
                report.sections.append((f"log of {name}", value.log_text()[-TAIL_CHARS:]))
    return report


def start_lorikeet(words: Sequence[str], log: Path, **variables: str) -> Process:
    """The command line in a process of its own, whose output goes to `log`."""
    with log.open("wb") as file:
        return subprocess.Popen(
            [str(LORIKEET), *words],
            env={**_environment(), **variables},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )


def wait_for(condition: Callable[[], bool], explain: Callable[[], str], process: Process) -> None:
    """Wait until `condition`; fails, with the explanation, when `process` ends before."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not condition():
        assert process.poll() is None, f"exit code {process.returncode}:\n{explain()}"
        assert time.monotonic() < deadline, f"not ready in time:\n{explain()}"
        time.sleep(POLL_S)


def _ready_url(process: Process, log: Path) -> str:
    """The URL of the ready line, once that is printed."""
    found: list[str] = []

    def is_ready() -> bool:
        found.extend(re.findall(r"^Lorikeet is ready at (\S+)", log.read_text(), re.MULTILINE))
        return bool(found)

    wait_for(is_ready, log.read_text, process)
    return found[0]


def _environment() -> dict[str, str]:
    """Ours without settings of Lorikeet, but for where copies of adapters go."""
    return {
        k: v
        for k, v in os.environ.items()
        if (not k.startswith("LORIKEET_") and k != "REDIS_URL") or k == "LORIKEET_ADAPTER_STORE"
    }
