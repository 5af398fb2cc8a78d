"""`lorikeet up` as a process: what it starts, prints, restarts and cleans up."""

import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
from served_tiny import TinyModels
from servers import STOP_TIMEOUT_S, Process, start_lorikeet, wait_for


@dataclass(frozen=True)
class Up:
    """A running `lorikeet up` that has started its own Redis."""

    process: Process
    log: Path

    def wait_for(self, pattern: str, times: int = 1) -> re.Match[str]:
        """Wait for `times` matches of `pattern` in the output, and return the last one."""

        def found() -> list[re.Match[str]]:
            return list(re.finditer(pattern, self.log.read_text(), re.MULTILINE))

        wait_for(lambda: len(found()) >= times, self.log.read_text, self.process)
        return found()[-1]

    def kill_child(self, pattern: str) -> None:
        """Kill the one child whose command line matches `pattern`."""
        children = psutil.Process(self.process.pid).children()
        [child] = [c for c in children if re.search(pattern, " ".join(c.cmdline()))]
        child.kill()


@pytest.fixture
def up(models: TinyModels, tmp_path: Path) -> Iterator[Up]:
    words = ["up", *models.flags, "--port", "0", "--durability", "strict"]
    process = start_lorikeet(words, tmp_path / "log")
    try:
        yield Up(process, tmp_path / "log")
    finally:
        process.kill()
        process.wait()


def test_it_serves_recovers_and_leaves_no_processes(up: Up) -> None:
    url = up.wait_for(r"^Lorikeet is ready at (\S+)")[1]
    assert up.wait_for(rf"^curl {url}/v1/chat/completions .*\"model\":\"(\S+?)\"")

    up.kill_child(r"ops\.cli worker")
    up.wait_for(r"worker-1 .* ended \(SIGKILL\), restarts")
    up.kill_child(r"(redis|valkey)-server")
    up.wait_for("redis .* ended unexpectedly, restarts")
    up.wait_for(r"worker-1 .* worker_ready", times=2)

    name = httpx.get(f"{url}/v1/models", timeout=30).json()["data"][-1]["id"]
    body = {"model": name, "prompt": "hello", "max_tokens": 4}
    assert httpx.post(f"{url}/v1/completions", json=body, timeout=60).status_code == 200

    children = psutil.Process(up.process.pid).children(recursive=True)
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(STOP_TIMEOUT_S) == 0
    assert [child for child in children if child.is_running()] == []


@pytest.mark.slow
def test_keys_from_the_environment_allow_network_access_and_stay_secret(
    models: TinyModels, tmp_path: Path
) -> None:
    key, metrics_key = "secret-of-red-" + "r" * 20, "secret-of-metrics-" + "m" * 20
    log = tmp_path / "log"
    words = ["up", *models.flags, "--host", "0.0.0.0", "--port", "0"]
    process = start_lorikeet(
        words, log, LORIKEET_API_KEYS=f"red:{key}", LORIKEET_METRICS_KEY=metrics_key
    )
    try:
        url = Up(process, log).wait_for(r"^Lorikeet is ready at (\S+)")[1]
        children = psutil.Process(process.pid).children()
        shown_by_ps = [child.cmdline() for child in children]
        assert [words for words in shown_by_ps if "api" in words]
        assert key not in str(shown_by_ps)
        [worker] = [child for child in children if "worker" in child.cmdline()]
        assert key not in str(worker.environ())
        assert metrics_key not in str(worker.environ())

        assert httpx.get(f"{url}/health").status_code == 200
        assert httpx.get(f"{url}/v1/models").status_code == 401
        headers = {"Authorization": f"Bearer {key}"}
        assert httpx.get(f"{url}/v1/models", headers=headers).status_code == 200
        assert httpx.get(f"{url}/metrics", headers=headers).status_code == 403
        headers = {"Authorization": f"Bearer {metrics_key}"}
        assert httpx.get(f"{url}/metrics", headers=headers).status_code == 200
        process.terminate()
        assert process.wait(STOP_TIMEOUT_S) == 0
    finally:
        process.kill()
        process.wait()
    assert key not in log.read_text()
    assert "Authorization: Bearer KEY" in log.read_text()
