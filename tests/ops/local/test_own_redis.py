"""The port and the data of the Redis of `lorikeet up`."""

import socket
from pathlib import Path

import pytest

from ops.local import own_redis
from ops.local.own_redis import OwnRedis


def test_it_uses_the_default_port_if_that_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        usual = free.getsockname()[1]
    monkeypatch.setattr(own_redis, "DEFAULT_REDIS_URL", f"redis://127.0.0.1:{usual}/0")
    first = OwnRedis(tmp_path / "first", syncs_always=False)
    try:
        assert first.url == own_redis.DEFAULT_REDIS_URL
        second = OwnRedis(tmp_path / "second", syncs_always=False)
        second.stop()
        assert second.url != first.url
    finally:
        first.stop()
