"""Front ends as processes of their own."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[2]
RUN = """
import sys
from api.server import run_api
from shared.settings import ApiSettings
redis_url, pool, port, drain_s = sys.argv[1:]
run_api(ApiSettings(redis_url=redis_url, pool=pool, port=int(port), drain_s=float(drain_s)))
"""


@contextmanager
def api_process(
    redis_url: str, pool: str, port: int, drain_s: float = 30
) -> Iterator["subprocess.Popen[str]"]:
    words = [sys.executable, "-c", RUN, redis_url, pool, str(port), str(drain_s)]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            yield process
        finally:
            process.kill()


def is_healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    except httpx.TransportError:
        return False


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready/worker", timeout=3).status_code == 200
    except httpx.TransportError:
        return False
