import socket

import pytest

from shared.connection import check_redis_at, connect
from shared.errors import RedisUnavailable, SettingsError


def test_what_is_no_redis_url_is_a_wrong_setting() -> None:
    with pytest.raises(SettingsError, match=r"--redis-url: .*redis://"):
        connect("localhost:6379")


async def test_the_password_isnt_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(RedisUnavailable) as caught:
        await check_redis_at(f"redis://me:secret@127.0.0.1:{port}/0")
    assert f"redis://me:***@127.0.0.1:{port}/0" in str(caught.value)
    assert "secret" not in str(caught.value)
