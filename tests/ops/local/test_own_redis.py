"""The Redis of `lorikeet up`: its password, its port and the folder of its data."""

import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from full_disk import full_disk

from ops.local import embedded_redis
from ops.local import own_redis as module
from ops.local.data_folder import NOTHING, PROBE_BYTES, data_folder, locked_folder, quick_digest
from ops.local.embedded_redis import find_server, program_version, start_redis
from ops.local.own_redis import MIN_MEMORY_BYTES, WRITER_FILE, OwnRedis, own_redis
from ops.local.redis_login import published, url_file, with_login
from shared.errors import SettingsError
from shared.settings import WorkerSettings
from shared.store.redis.connection import check_redis_at, connect

IN_ANOTHER_PROCESS = """
import sys, time
from ops.local.redis_login import published
with published(sys.argv[1]):
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep passwords in a folder of the test."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))


@pytest.fixture
def redis() -> Iterator[OwnRedis]:
    with own_redis(None, syncs_always=False) as started:
        yield started


def port_of(redis: OwnRedis) -> int:
    return int(redis.public_url.rpartition(":")[2].partition("/")[0])


def ask(port: int, *words: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(" ".join(words).encode() + b"\r\n")
        return connection.makefile("rb").readline()


async def test_commands_of_the_user_find_the_password(redis: OwnRedis) -> None:
    assert with_login(redis.public_url) == redis.url
    for url in (redis.url, with_login(redis.public_url.replace("127.0.0.1", "localhost"))):
        await check_redis_at(url)


def test_a_client_without_the_password_is_refused(redis: OwnRedis) -> None:
    for words in (("PING",), ("KEYS", "*"), ("AUTH", "x"), ("CONFIG", "GET", "requirepass")):
        assert ask(port_of(redis), *words).startswith((b"-NOAUTH", b"-WRONGPASS")), words


def test_nobody_else_can_read_the_password(redis: OwnRedis) -> None:
    password = redis.url.partition(":")[2].strip("/:").partition("@")[0]
    assert len(password) == 32
    path = url_file(port_of(redis))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    assert not any(password in word for process in processes for word in process.cmdline())


@pytest.mark.skipif(os.getuid() != 0, reason="only root can run a program as another user")
def test_another_user_of_the_machine_gets_neither_the_password_nor_the_jobs(
    redis: OwnRedis,
) -> None:
    port, path = port_of(redis), url_file(port_of(redis))
    script = f"exec 3<>/dev/tcp/127.0.0.1/{port}; echo PING >&3; read -r reply <&3; echo $reply"
    done = subprocess.run(
        ["bash", "-c", f"{script}; cat {path}"],
        user="nobody",
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.startswith("NOAUTH") or done.stdout.startswith("-NOAUTH")
    assert "Permission denied" in done.stderr
    assert "redis://" not in done.stdout


async def test_its_memory_is_limited(redis: OwnRedis) -> None:
    client = connect(redis.url)
    found = await client.config_get("maxmemory*")
    await client.aclose()
    most = max(MIN_MEMORY_BYTES, psutil.virtual_memory().total // 8)
    assert MIN_MEMORY_BYTES <= int(found["maxmemory"]) <= most
    assert found["maxmemory-policy"] == "noeviction"


def test_after_the_end_no_password_is_left() -> None:
    with own_redis(None, syncs_always=False) as started:
        path, url = url_file(port_of(started)), started.public_url
        assert path.exists()
    assert not path.exists()
    assert with_login(url) == url


def test_the_file_of_a_killed_process_is_ignored() -> None:
    url, login = "redis://127.0.0.1:5/3", "redis://:secret@127.0.0.1:5/0"
    words = [sys.executable, "-c", IN_ANOTHER_PROCESS, login]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert with_login(url) == "redis://:secret@127.0.0.1:5/3"
        process.kill()
    assert url_file(5).exists()
    assert with_login(url) == url
    with published(login):
        assert with_login(url) == "redis://:secret@127.0.0.1:5/3"


@pytest.mark.parametrize(
    "url",
    [
        *("redis://:other@127.0.0.1:5/0", "redis://user:pw@localhost:5/0"),
        *("rediss://127.0.0.1:5/0", "redis+sentinel://127.0.0.1:5/main", "redis://127.0.0.1:6/0"),
        *("redis://10.0.0.1:5/0", "redis://127.0.0.1:x/0", "redis://[::1", "localhost:5", ""),
    ],
)
def test_other_urls_stay_as_they_are(url: str) -> None:
    with published("redis://:secret@127.0.0.1:5/0"):
        assert with_login(url) == url


def server_program(path: Path, *options: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let OwnRedis start its server with more options, and count its starts in `path`.starts."""
    words = " ".join(options)
    path.write_text(f'#!/bin/sh\necho "$@" >> {path}.starts\nexec {find_server()} "$@" {words}\n')
    path.chmod(0o755)
    monkeypatch.setattr(module, "find_server", lambda: path)


def num_starts(path: Path) -> int:
    return path.with_name(f"{path.name}.starts").read_text().count("--port")


@pytest.fixture(autouse=True)
def default_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a default port of this test, because servers of other processes use the real one."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setattr(module, "DEFAULT_REDIS_URL", f"redis://127.0.0.1:{port}/0")


def test_it_uses_the_default_port_if_that_is_free(tmp_path: Path) -> None:
    first = OwnRedis(tmp_path / "first", syncs_always=False)
    try:
        assert first.public_url == module.DEFAULT_REDIS_URL
        second = OwnRedis(tmp_path / "second", syncs_always=False)
        second.stop()
        assert second.public_url != first.public_url
    finally:
        first.stop()


@pytest.mark.slow
async def test_a_server_that_loads_much_data_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, program = tmp_path / "data", tmp_path / "slow-server"
    first = start_redis(folder)
    client = connect(first.url)
    pipe = client.pipeline(transaction=False)
    for number in range(10_000):
        pipe.set(f"key:{number}", number)
    await pipe.execute()
    await client.aclose()
    first.stop()

    # The server answers after each 1024 commands, which it loads in a third of a second.
    server_program(program, "--key-load-delay 300", monkeypatch=monkeypatch)
    monkeypatch.setattr(embedded_redis, "START_TIMEOUT_S", 1.5)
    redis = OwnRedis(folder, syncs_always=False)
    redis.stop()
    assert num_starts(program) == 1


@pytest.mark.parametrize(("writer", "hints"), [(None, False), ("", False), ("old 1.0", True)])
def test_data_that_cannot_be_loaded_are_tried_once(
    writer: str | None, hints: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, program = tmp_path / "data", tmp_path / "server"
    OwnRedis(folder, syncs_always=False).stop()
    server_program(program, monkeypatch=monkeypatch)
    if writer is not None:
        (folder / WRITER_FILE).write_text(writer or program_version(program))
    else:
        (folder / WRITER_FILE).unlink()
    [base] = (folder / "appendonlydir").glob("*.base.rdb")
    base.write_bytes(b"damaged")
    with pytest.raises(SettingsError, match="doesn't start") as refused:
        OwnRedis(folder, syncs_always=False)
    assert ("old 1.0 wrote" in str(refused.value)) == hints
    assert num_starts(program) == 1


def test_a_folder_that_cannot_be_written_after_the_start_stops_the_server(tmp_path: Path) -> None:
    (tmp_path / f"{WRITER_FILE}.new").mkdir()  # so that the file can't be written
    with pytest.raises(SettingsError, match=r"--data-dir: .* can't be written"):
        OwnRedis(tmp_path, syncs_always=False)
    servers = [p for p in psutil.Process().children(recursive=True) if "server" in p.name()]
    assert not any(Path(server.cwd()) == tmp_path for server in servers)


def test_the_name_of_the_server_is_written_once(tmp_path: Path) -> None:
    OwnRedis(tmp_path, syncs_always=False).stop()
    (tmp_path / f"{WRITER_FILE}.new").mkdir()
    OwnRedis(tmp_path, syncs_always=False).stop()


SIZE = 2 << 20
HOLDER = """
import os, subprocess, sys
from pathlib import Path
from ops.local.data_folder import locked_folder
with locked_folder(Path(sys.argv[1])) as folder:
    subprocess.Popen(
        [sys.executable, "-c", "import sys; print('held', flush=True); sys.stdin.read()"],
        pass_fds=[folder.lock],
    )
    os.kill(os.getpid(), 9)
"""
"""Program whose child still holds the lock after the program was killed."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(os.urandom(SIZE))
    return folder


def test_each_pool_and_base_model_has_a_folder(model: Path) -> None:
    def folder(data_dir: str, base: Path | None = model, **settings: str) -> Path | None:
        worker = WorkerSettings(model=str(model), **settings)  # type: ignore[arg-type]
        return data_folder(Path(data_dir), worker, base)

    first = folder("/data")
    assert first is not None
    assert first.parent == Path("/data")
    assert folder("/data") == first
    others = [folder("/data", pool="b"), folder("/data", served_name="x y"), folder("/data", None)]
    (model / "config.json").write_text('{"changed": 1}')
    assert len({first, *others, folder("/data")}) == 5
    assert folder(str(NOTHING)) is None


@pytest.mark.parametrize("position", [0, SIZE // 2, SIZE - 1])
def test_the_quick_digest_depends_on_the_weights_and_not_on_times(
    model: Path, position: int
) -> None:
    digest = quick_digest(model)
    os.utime(model / "model.safetensors", (1, 1))
    assert quick_digest(model) == digest
    weights = bytearray((model / "model.safetensors").read_bytes())
    start = max(0, position - SIZE // 10)
    weights[start : start + SIZE // 5] = os.urandom(SIZE // 5)
    (model / "model.safetensors").write_bytes(weights[:SIZE])
    assert quick_digest(model) != digest


def test_it_is_used_by_one_process_at_a_time_and_read_by_its_user_alone(tmp_path: Path) -> None:
    with (
        locked_folder(tmp_path / "a" / "b") as folder,
        pytest.raises(SettingsError, match=rf"\(process {os.getpid()}\) uses {folder.path}"),
        locked_folder(folder.path),
    ):
        pass
    with locked_folder(folder.path):
        assert folder.path.stat().st_mode & 0o777 == 0o700


def test_the_redis_of_a_killed_process_is_waited_for(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    with holder.stdin, holder.stdout:
        assert holder.stdout.readline() == b"held\n"
        assert holder.wait() == -signal.SIGKILL
        # Its child lives on until its input ends.
        threading.Timer(0.3, holder.stdin.close).start()
        with locked_folder(tmp_path) as folder:
            assert holder.stdin.closed
            assert folder.path == tmp_path


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(
            SettingsError, match=r"--data-dir: .*/file/data can't be written .*make room"
        ),
        locked_folder(tmp_path / "file" / "data"),
    ):
        pass


def test_a_full_disk_is_reported(tmp_path: Path) -> None:
    with (
        full_disk(room=PROBE_BYTES // 2),
        pytest.raises(SettingsError, match=r"--data-dir: the disk of .* is full"),
        locked_folder(tmp_path),
    ):
        pass
