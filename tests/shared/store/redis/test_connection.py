"""Connections to Redis: URLs, logins, lost connections and repeated calls."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Any

import pytest
import structlog
from redis.asyncio.connection import Connection
from redis.exceptions import ResponseError

from ops.local.embedded_redis import EmbeddedRedis
from shared.errors import RedisUnavailable, SettingsError
from shared.store.redis import retry
from shared.store.redis.connection import Redis, check_redis_at, connect
from shared.store.redis.keys import Keys
from shared.store.redis.retry import retry_until_available
from shared.store.redis.sentinel import FORM, SentinelPool, TlsMasterConnection


def test_an_invalid_redis_url_is_a_settings_error() -> None:
    with pytest.raises(SettingsError, match=r"--redis-url: .*redis://"):
        connect("localhost:6379")


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://127.0.0.1:26379",
        "redis+sentinel://127.0.0.1:26379/",
        "redis+sentinel:///main",
        "redis+sentinel://127.0.0.1:26379,/main",
        "redis+sentinel://127.0.0.1:port/main",
        "redis+sentinel://127.0.0.1:99999/main",
        "redis+sentinel://127.0.0.1/main/zero",
        "redis+sentinel://127.0.0.1/main/0/1",
        "redis+sentinel://:se/cret@127.0.0.1/main",
        "redis+sentinel://:se#cret@127.0.0.1/main",
        "rediss+sentinel://[::1/main",
        "redis+sentinel://127.0.0.1/main?socket_timeout=soon",
    ],
)
def test_an_invalid_sentinel_url_is_a_settings_error(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        connect(url)
    assert str(caught.value).startswith("--redis-url: ")
    assert FORM in str(caught.value)
    assert "cret" not in str(caught.value)


def test_a_sentinel_url_names_user_password_hosts_service_and_database() -> None:
    pool = connect("redis+sentinel://me:se%40cret@one:1,[::1],three/my%20pool/2").connection_pool
    assert isinstance(pool, SentinelPool)
    options = pool.connection_kwargs
    assert (options["username"], options["password"], options["db"]) == ("me", "se@cret", 2)
    sentinels = options["sentinels"]
    assert sentinels.addresses == [("one", 1), ("::1", 26379), ("three", 26379)]
    assert sentinels.service == "my pool"


def test_connections_by_sentinels_have_time_limits_and_no_retries() -> None:
    plain = connect("redis://localhost").connection_pool
    pool = connect("redis+sentinel://localhost/main").connection_pool
    for name in ("socket_connect_timeout", "socket_keepalive"):
        assert pool.connection_kwargs[name] == plain.connection_kwargs[name]
    assert pool.max_connections == plain.max_connections
    assert pool.make_connection().retry._retries == 0


def test_tls_is_used_for_the_master_and_for_the_sentinels() -> None:
    pool = connect("rediss+sentinel://localhost/main?ssl_cert_reqs=none").connection_pool
    master = pool.make_connection()
    assert isinstance(master, TlsMasterConnection)
    sentinel = pool.connection_kwargs["sentinels"].connection_to(("localhost", 1))
    for connection in (master, sentinel):
        assert connection.ssl_context.cert_reqs == ssl.CERT_NONE


@pytest.mark.parametrize(
    ("form", "shown"),
    [
        ("redis://me:secret@127.0.0.1:{}/0", "redis://me:***@127.0.0.1:{}/0"),
        ("redis://127.0.0.1:{}/0?password=secret", "redis://127.0.0.1:{}/0?password=***"),
        ("redis+sentinel://:secret@127.0.0.1:{}/m", "redis+sentinel://:***@127.0.0.1:{}/m"),
    ],
)
async def test_messages_do_not_contain_the_password(form: str, shown: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(RedisUnavailable) as caught:
        await check_redis_at(form.format(port))
    assert shown.format(port) in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("answer", ["MOVED 866 10.0.0.2:6379", "ASK 866 10.0.0.2:6379"])
async def test_another_node_of_a_cluster_is_named(redis: Redis, answer: str) -> None:
    named = pytest.raises(RedisUnavailable, match=r"set --redis-url to 10\.0\.0\.2:6379")
    with named:
        await redis.eval("return redis.error_reply(ARGV[1])", 0, answer)


async def test_an_error_of_a_command_is_raised_unchanged(redis: Redis, keys: Keys) -> None:
    await redis.set(keys.counters, "not a hash")
    with pytest.raises(ResponseError, match="wrong kind"):
        await redis.hgetall(keys.counters)
    with pytest.raises(ResponseError, match="wrong kind"):
        await redis.pipeline(transaction=False).hgetall(keys.counters).execute()


async def test_a_silent_server_is_unavailable_after_the_time_limit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
        client = connect(url, timeout_s=0.2)
        for call in (client.ping, client.pipeline().ping().execute):
            with pytest.raises(RedisUnavailable, match="out of reach"):
                await asyncio.wait_for(call(), 60)
        await client.aclose()


async def test_a_cancellation_that_redis_py_drops_is_raised(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def drop_cancellation(connection: Connection, *args: Any, **options: Any) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(120)
        await send(connection, *args, **options)

    send = Connection.send_packed_command
    await redis.ping()
    monkeypatch.setattr(Connection, "send_packed_command", drop_cancellation)
    call = asyncio.create_task(redis.ping())
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait({call}, timeout=60)
    assert call.cancelled()


async def test_a_connection_that_is_lost_while_keys_are_watched_is_an_outage(
    redis: Redis, keys: Keys
) -> None:
    async with redis.pipeline() as pipe:
        await pipe.watch(keys.base)
        (number,) = [
            client["id"] for client in await redis.client_list() if client.get("watch") == "1"
        ]
        await redis.client_kill_filter(_id=number)
        with pytest.raises(RedisUnavailable):
            await pipe.exists(keys.base)


Open = Callable[[str], Redis]


@pytest.fixture
async def locked(own_server: EmbeddedRedis, open_client: Open) -> str:
    """Host and port of a server with the password `sesame`."""
    await open_client(own_server.url).config_set("requirepass", "sesame")
    return f"127.0.0.1:{own_server.port}"


async def test_a_wrong_password_is_not_shown(locked: str) -> None:
    with pytest.raises(RedisUnavailable) as caught:
        await check_redis_at(f"redis://:open%20it@{locked}/0")
    message = str(caught.value)
    assert f"the Redis at {locked} doesn't accept the password or the user of its URL" in message
    assert "open" not in message


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


async def test_a_call_is_repeated_until_redis_is_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_DELAY_S", 0.001)
    failures = [RedisUnavailable("first"), RedisUnavailable("second")]

    async def call() -> str:
        if failures:
            raise failures.pop(0)
        return "done"

    with structlog.testing.capture_logs() as lines:
        assert await retry_until_available(call) == "done"
    assert [line["error"] for line in lines] == ["first", "second"]


async def test_other_errors_are_raised() -> None:
    async def call() -> None:
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        await retry_until_available(call)
