"""Lorikeet as its users start it: Redis, `lorikeet worker` and `lorikeet api` as processes."""

import os
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from ops.embedded import start_redis
from shared.settings import ENV_PREFIX

BASE = "base"
"""What the base model is served as."""
START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 30.0
POLL_S = 0.2


class ServerFailed(Exception):
    """A server has ended, or didn't get ready; has its last words."""


@contextmanager
def lorikeet(model: Path, adapters: Mapping[str, Path], scratch: Path) -> Iterator[str]:
    """Serve the model as `BASE`, and its adapters by name, until the block ends.

    Gives the URL up to /v1. `scratch` takes the data of Redis and the logs.

    Raises:
        ServerFailed: it didn't get ready.
    """
    with ExitStack() as stack:
        redis = start_redis(scratch / "redis")
        stack.callback(redis.stop)
        common = ["--redis-url", redis.url, "--log-level", "warning"]
        named = [f"{name}={folder}" for name, folder in adapters.items()]
        port = _free_port()
        worker = ["--model", str(model), "--served-name", BASE, "--adapters", *named]
        started = [
            stack.enter_context(_process("worker", [*worker, *common], scratch)),
            stack.enter_context(_process("api", ["--port", str(port), *common], scratch)),
        ]
        _wait_until_ready(f"http://127.0.0.1:{port}", {BASE, *adapters}, started, scratch)
        yield f"http://127.0.0.1:{port}/v1"


@contextmanager
def _process(
    command: str, flags: Sequence[str], scratch: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    """`lorikeet command`, stopped at the end of the block."""
    program = Path(sysconfig.get_path("scripts")) / "lorikeet"
    with (scratch / f"{command}.log").open("wb") as log:
        process = subprocess.Popen(
            [program, command, *flags], stdout=log, stderr=log, env=_environment()
        )
    try:
        yield process
    finally:
        _stop(process)


def _environment() -> dict[str, str]:
    """Ours without settings of Lorikeet: what is measured are its defaults."""
    return {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_until_ready(
    url: str, names: set[str], started: Sequence["subprocess.Popen[bytes]"], scratch: Path
) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not _serves(url, names):
        if any(process.poll() is not None for process in started) or time.monotonic() > deadline:
            raise ServerFailed("Lorikeet doesn't get ready:\n" + _last_words(scratch))
        time.sleep(POLL_S)


def _serves(url: str, names: set[str]) -> bool:
    try:
        with httpx.Client(trust_env=False) as http:
            ready = http.get(f"{url}/ready").status_code == 200
            models = http.get(f"{url}/v1/models").json() if ready else {"data": []}
    except httpx.HTTPError:
        return False
    return names <= {model["id"] for model in models["data"]}


def _last_words(scratch: Path) -> str:
    logs = {path.stem: path.read_text(errors="replace") for path in sorted(scratch.glob("*.log"))}
    return "\n".join(f"{name}: {text.strip()[-2000:]}" for name, text in logs.items())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
