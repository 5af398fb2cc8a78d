import asyncio
import contextlib
import socket
import ssl
from typing import Any

import pytest
from redis.asyncio.connection import Connection
from redis.exceptions import ResponseError

from shared.errors import RedisUnavailable, SettingsError
from shared.store.redis.connection import Redis, check_redis_at, connect
from shared.store.redis.keys import Keys
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
                await asyncio.wait_for(call(), 2)
        await client.aclose()


async def test_a_cancellation_that_redis_py_drops_is_raised(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def drop_cancellation(connection: Connection, *args: Any, **options: Any) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(10)
        await send(connection, *args, **options)

    send = Connection.send_packed_command
    await redis.ping()
    monkeypatch.setattr(Connection, "send_packed_command", drop_cancellation)
    call = asyncio.create_task(redis.ping())
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait({call}, timeout=5)
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
