"""A Redis that refuses a login is named, together with the way to log in."""

from collections.abc import Callable

import pytest

from ops.local.embedded_redis import EmbeddedRedis
from shared.errors import RedisUnavailable
from shared.store.redis.connection import Redis, check_redis_at

Open = Callable[[str], Redis]


@pytest.fixture
async def locked(own_server: EmbeddedRedis, open_client: Open) -> str:
    """Host and port of a server with the password `sesame`."""
    await open_client(own_server.url).config_set("requirepass", "sesame")
    return f"127.0.0.1:{own_server.port}"


async def test_a_missing_password_is_asked_for(locked: str) -> None:
    with pytest.raises(RedisUnavailable) as caught:
        await check_redis_at(f"redis://{locked}/0")
    message = str(caught.value)
    assert message.startswith(f"the Redis at {locked} needs a password: set LORIKEET_REDIS_URL to")
    assert "redis://[USER]:PASSWORD@HOST:PORT/0" in message


async def test_a_wrong_password_is_not_shown(locked: str) -> None:
    with pytest.raises(RedisUnavailable) as caught:
        await check_redis_at(f"redis://:open%20it@{locked}/0")
    message = str(caught.value)
    assert f"the Redis at {locked} doesn't accept the password or the user of its URL" in message
    assert "open" not in message


async def test_the_right_password_is_accepted(locked: str) -> None:
    await check_redis_at(f"redis://:sesame@{locked}/0")


async def test_a_password_that_the_server_does_not_have_is_named(
    own_server: EmbeddedRedis,
) -> None:
    url = f"redis://:sesame@127.0.0.1:{own_server.port}/0"
    with pytest.raises(RedisUnavailable, match="has no password, but its URL contains one"):
        await check_redis_at(url)


async def test_a_user_without_rights_is_named(own_server: EmbeddedRedis, open_client: Open) -> None:
    await open_client(own_server.url).execute_command(
        *("ACL SETUSER", "guest", "on", ">sesame", "~*", "+ping")
    )
    url = f"redis://guest:sesame@127.0.0.1:{own_server.port}/0"
    with pytest.raises(RedisUnavailable, match=r"doesn't let this user run a command .*\+@all"):
        await check_redis_at(url)


async def test_commands_after_the_start_also_name_the_password(
    locked: str, open_client: Open
) -> None:
    client = open_client(f"redis://{locked}/0")
    for call in (client.ping, client.pipeline().ping().execute):
        with pytest.raises(RedisUnavailable, match=f"{locked} needs a password"):
            await call()
