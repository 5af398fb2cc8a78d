"""The port and the data of the Redis of `lorikeet up`."""

import socket
from pathlib import Path

import psutil
import pytest

from ops.local import embedded_redis, own_redis
from ops.local.embedded_redis import find_server, program_version, start_redis
from ops.local.own_redis import WRITER_FILE, OwnRedis
from shared.errors import SettingsError
from shared.store.redis.connection import connect


def server_program(path: Path, *options: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let OwnRedis start its server with more options, and count its starts in `path`.starts."""
    words = " ".join(options)
    path.write_text(f'#!/bin/sh\necho "$@" >> {path}.starts\nexec {find_server()} "$@" {words}\n')
    path.chmod(0o755)
    monkeypatch.setattr(own_redis, "find_server", lambda: path)


def num_starts(path: Path) -> int:
    return path.with_name(f"{path.name}.starts").read_text().count("--port")


@pytest.fixture(autouse=True)
def default_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a default port of this test, because servers of other processes use the real one."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setattr(own_redis, "DEFAULT_REDIS_URL", f"redis://127.0.0.1:{port}/0")


def test_it_uses_the_default_port_if_that_is_free(tmp_path: Path) -> None:
    first = OwnRedis(tmp_path / "first", syncs_always=False)
    try:
        assert first.public_url == own_redis.DEFAULT_REDIS_URL
        second = OwnRedis(tmp_path / "second", syncs_always=False)
        second.stop()
        assert second.public_url != first.public_url
    finally:
        first.stop()


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
