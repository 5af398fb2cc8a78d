"""The first start of `lorikeet up` says what it does, on the terminal and over HTTP."""

import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from api_support import free_port
from served_tiny import TinyModels
from servers import LORIKEET

pytestmark = pytest.mark.long
PATIENCE_S = 200.0
BODY = {"model": "tiny", "prompt": "hi", "max_tokens": 1}


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    main, other = pty.openpty()
    yield main, other
    os.close(main)


def read_available(terminal: int) -> str:
    os.set_blocking(terminal, False)
    try:
        return os.read(terminal, 1 << 16).decode(errors="replace")
    except (BlockingIOError, OSError):
        return ""


@pytest.mark.timeout(300)
def test_the_compilation_is_shown_and_requests_get_a_503_with_the_step(
    tmp_path: Path, models: TinyModels, terminal: tuple[int, int]
) -> None:
    port, (main, other) = free_port(), terminal
    words = [str(LORIKEET), "up", *models.flags, "--port", str(port), "--data-dir", "none"]
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(words, stdout=other, stderr=other, env=env) as process:
        os.close(other)
        shown, messages, deadline_s = "", set(), time.monotonic() + PATIENCE_S
        try:
            while "Lorikeet is ready" not in shown:
                assert process.poll() is None, shown
                assert time.monotonic() < deadline_s, shown
                shown += read_available(main)
                messages.add(message_of(port))
                time.sleep(0.1)
        finally:
            process.send_signal(signal.SIGINT)
    assert re.search(r"the worker is compiling the CPU kernels \([1-9] of \d\)", shown)
    loading = [text for text in messages if text.startswith("the first worker is loading: ")]
    assert any("compiling the CPU kernels (" in text for text in loading)
    assert any("reading the base model" in line for line in shown.splitlines())


def message_of(port: int) -> str:
    """Return the message of the error to a request, or an empty text."""
    try:
        reply = httpx.post(f"http://127.0.0.1:{port}/v1/completions", json=BODY, timeout=30)
    except httpx.TransportError:
        return ""
    return "" if reply.is_success else str(reply.json()["error"]["message"])
