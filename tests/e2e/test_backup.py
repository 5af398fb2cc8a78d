"""The page about backups: its commands, run as they are written, bring a lost pool back."""

import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from served_tiny import TinyModels
from servers import LORIKEET, Process, lorikeet_up, start_lorikeet, wait_for
from tiny import save_adapter

from ops.local.embedded_redis import find_server
from ops.local.ports import free_port

PAGE = Path(__file__).parents[2] / "ops" / "docs" / "backup.md"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
READY = re.compile(r"^Lorikeet is ready at (\S+)", re.MULTILINE)
DEADLINE_S = 120
CLIENT = f"""#!{sys.executable}
import os, sys
from urllib.parse import urlsplit
import redis
print(redis.Redis(port=int(os.environ["REDIS_PORT"])).execute_command(*sys.argv[1:]))
"""
"""Stands in for redis-cli, which Valkey's wheel doesn't contain."""


def page_blocks(heading: str) -> list[list[str]]:
    """Return the commands in each block below a heading of the page."""
    _, _, rest = PAGE.read_text().partition(f"\n## {heading}\n")
    blocks = re.findall(r"^```bash\n(.*?)^```", rest.partition("\n## ")[0], re.DOTALL | re.M)
    return [block.splitlines() for block in blocks]


@contextmanager
def running(home: Path, log: Path, *flags: str) -> Iterator[str]:
    """Run `lorikeet up` of the user with this home folder, and provide its URL."""
    env = {"HOME": str(home), "XDG_CACHE_HOME": str(CACHE), "XDG_DATA_HOME": ""}
    process: Process = start_lorikeet(["up", "--port", "0", *flags], log, **env)
    try:
        wait_for(lambda: bool(READY.search(log.read_text())), log.read_text, process, DEADLINE_S)
        yield READY.findall(log.read_text())[-1]
        process.terminate()
        assert process.wait(DEADLINE_S) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def lorikeet(url: str, *words: str) -> str:
    env = {**os.environ, "LORIKEET_URL": url}
    done = subprocess.run([LORIKEET, *words], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def answer(url: str, model: str) -> dict[str, Any]:
    body = {"model": model, "prompt": "hello", "max_tokens": 8, "temperature": 0}
    reply = httpx.post(f"{url}/v1/completions", json=body, timeout=60).raise_for_status()
    found = reply.json()
    return {"version": found["weight_version"], "text": found["choices"][0]["text"]}


def in_background(url: str) -> str:
    body = {"model": "sent", "prompt": "kept", "max_tokens": 4, "background": True}
    return str(httpx.post(f"{url}/v1/completions", json=body).raise_for_status().json()["id"])


def wait_until_done(url: str, job: str) -> str:
    end_s = time.monotonic() + DEADLINE_S
    while (found := httpx.get(f"{url}/v1/jobs/{job}").json())["state"] != "done":
        assert time.monotonic() < end_s, found
        time.sleep(0.1)
    return str(found)


@pytest.mark.slow
def test_the_folder_of_lorikeet_up_is_restored_after_its_loss(
    tmp_path: Path, models: TinyModels
) -> None:
    home, log = tmp_path / "home", tmp_path / "log"
    (home / ".local" / "share").mkdir(parents=True)
    save_adapter(tmp_path / "adapter", seed=5, r=4)
    (backup,), (aside, extract, start) = page_blocks("`lorikeet up`")
    assert start == "lorikeet up"
    with running(home, log, *models.flags) as url:
        lorikeet(url, "adapters", "push", "sent", str(tmp_path / "adapter"))
        expected, job = answer(url, "sent"), in_background(url)
        wait_until_done(url, job)
    shutil.rmtree(tmp_path / "adapter")
    env = {**os.environ, "HOME": str(home)}
    for line in (backup, aside, extract):
        subprocess.run(line, shell=True, cwd=tmp_path, env=env, check=True)
    shutil.rmtree(home / ".local" / "share" / "lorikeet-old")
    log.unlink()
    with running(home, log, *models.flags) as url:
        assert answer(url, "sent") == expected
        assert wait_until_done(url, job)


@pytest.fixture
def redis_cli(tmp_path: Path) -> Path:
    """Return a folder with a program `redis-cli`."""
    program = tmp_path / "bin" / "redis-cli"
    program.parent.mkdir()
    program.write_text(CLIENT)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program.parent


@contextmanager
def served_alone(command: str) -> Iterator[int]:
    """Run the server that a line of the page starts, on a free port, and provide the port."""
    _, *flags = shlex.split(command)
    port = free_port()
    words = [str(find_server()), *flags, "--port", str(port), "--save", ""]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
        client = redis.Redis(port=port)
        while True:
            with suppress(redis.ConnectionError):
                if client.ping():
                    break
            assert process.poll() is None
            time.sleep(0.05)
        client.close()
        yield port
        process.terminate()


@pytest.mark.long
def test_a_redis_of_ones_own_is_restored_from_a_copy_that_a_running_server_has_written(
    tmp_path: Path, models: TinyModels, redis_cli: Path
) -> None:
    folder = tmp_path / "redis"
    save_adapter(tmp_path / "adapter", seed=5, r=4)
    (save, last, copy), (aside, make, put, serve, turn_on) = page_blocks("A Redis of your own")
    assert "--appendonly no" in serve

    def run(line: str, port: int = 0) -> str:
        line = line.replace("/var/lib/redis", str(folder))
        path = f"{redis_cli}:{os.environ['PATH']}"
        env = {**os.environ, "PATH": path, "REDIS_PORT": str(port)}
        return subprocess.run(
            line, shell=True, cwd=tmp_path, env=env, check=True, capture_output=True, text=True
        ).stdout

    with lorikeet_up(tmp_path, *models.flags, redis_folder=folder) as server:
        lorikeet(server.url, "adapters", "push", "sent", str(tmp_path / "adapter"))
        expected = answer(server.url, "sent")
        earlier = run(last, server.redis.port)
        time.sleep(1.1)  # LASTSAVE counts whole seconds
        run(save, server.redis.port)
        while run(last, server.redis.port) == earlier:
            time.sleep(0.1)
        run(copy)
    for line in (aside, make, put):
        run(line)
    with served_alone(serve.replace("/var/lib/redis", str(folder))) as port:
        run(turn_on, port)
        client = redis.Redis(port=port)
        while client.info("persistence")["aof_rewrite_in_progress"]:
            time.sleep(0.1)
        client.close()
    with lorikeet_up(tmp_path, *models.flags, redis_folder=folder) as server:
        assert answer(server.url, "sent") == expected
