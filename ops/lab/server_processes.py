"""Starts servers as processes, waits until they are ready, and stops them."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from shared.errors import LorikeetError
from shared.settings import ENV_PREFIX

STOP_TIMEOUT_S = 30.0
POLL_S = 0.2
THREAD_LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables that servers don't inherit, so that the servers can use all cores."""


class ServerFailed(LorikeetError):
    """A server ended or didn't become ready. The message contains the server's last output."""


@dataclass(frozen=True, slots=True)
class Serving:
    """A running server that accepts requests."""

    url: str
    """URL of the server, including /v1."""
    pids: Mapping[str, int]
    """Process ids by role, such as `worker`."""
    fields: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Request fields that this server needs in addition to OpenAI's, by the model's name."""
    reuses_connections: bool = True
    """Whether a connection can carry several requests. Some servers close it after a stream."""


def clean_environment() -> dict[str, str]:
    """Return this process's environment without Lorikeet's settings and `THREAD_LIMITS`."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(ENV_PREFIX) and name not in THREAD_LIMITS
    }


@contextmanager
def process(
    name: str, command: Sequence[str], scratch: Path, environment: Mapping[str, str]
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run `command` until the block ends. The output goes to `name`.log in `scratch`."""
    with (scratch / f"{name}.log").open("wb") as log:
        started = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=scratch)
    try:
        yield started
    finally:
        _stop(started)


def wait_until_serves(
    url: str,
    *,
    ready: str,
    names: set[str],
    started: Sequence["subprocess.Popen[bytes]"],
    timeout_s: float,
    scratch: Path,
    api_key: str | None = None,
) -> None:
    """Wait until the server at `url` is ready and lists all models `names`.

    The server is ready when its path `ready` returns status 200.

    Raises:
        ServerFailed: a process in `started` ended, or `timeout_s` passed.
    """
    wait_until(
        lambda: _serves(url, ready, names, api_key),
        started=started,
        timeout_s=timeout_s,
        scratch=scratch,
    )


def wait_until(
    is_ready: Callable[[], bool],
    *,
    started: Sequence["subprocess.Popen[bytes]"],
    timeout_s: float,
    scratch: Path,
) -> None:
    """Wait until `is_ready` returns True. `scratch` has the logs of the processes in `started`.

    Raises:
        ServerFailed: a process in `started` ended, or `timeout_s` passed.
    """
    deadline = time.monotonic() + timeout_s
    while not is_ready():
        if any(one.poll() is not None for one in started) or time.monotonic() > deadline:
            raise ServerFailed("the server doesn't become ready:\n" + _last_output(scratch))
        time.sleep(POLL_S)


def _stop(started: "subprocess.Popen[bytes]") -> None:
    started.terminate()
    try:
        started.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        started.kill()
        started.wait()


def _serves(url: str, ready: str, names: set[str], api_key: str | None) -> bool:
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        with httpx.Client(trust_env=False, headers=headers) as http:
            is_ready = http.get(f"{url}{ready}").status_code == 200
            models = http.get(f"{url}/v1/models").json() if is_ready else {"data": []}
    except httpx.HTTPError:
        return False
    return names <= {model["id"] for model in models["data"]}


def _last_output(scratch: Path) -> str:
    logs = {path.stem: path.read_text(errors="replace") for path in sorted(scratch.glob("*.log"))}
    return "\n".join(f"{name}: {text.strip()[-2000:]}" for name, text in logs.items())
