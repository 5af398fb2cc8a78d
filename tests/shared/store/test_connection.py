import socket
import ssl

import pytest
from redis.exceptions import ResponseError

from shared.errors import RedisUnavailable, SettingsError
from shared.store.connection import check_redis_at, connect, redis_errors
from shared.store.sentinel import FORM, SentinelPool, TlsMasterConnection


def test_what_is_no_redis_url_is_a_wrong_setting() -> None:
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
def test_what_is_no_sentinel_url_is_a_wrong_setting(url: str) -> None:
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


def test_time_limits_hold_behind_sentinels_and_nothing_is_tried_twice() -> None:
    plain = connect("redis://localhost").connection_pool
    pool = connect("redis+sentinel://localhost/main").connection_pool
    for name in ("socket_timeout", "socket_connect_timeout", "socket_keepalive"):
        assert pool.connection_kwargs[name] == plain.connection_kwargs[name]
    assert pool.timeout == plain.timeout
    assert pool.max_connections == plain.max_connections
    assert pool.make_connection().retry._retries == 0


def test_tls_goes_to_the_master_and_to_the_sentinels() -> None:
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
async def test_the_password_isnt_told(form: str, shown: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(RedisUnavailable) as caught:
        await check_redis_at(form.format(port))
    assert shown.format(port) in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("answer", ["MOVED 866 10.0.0.2:6379", "ASK 866 10.0.0.2:6379"])
def test_another_node_of_a_cluster_is_named(answer: str) -> None:
    named = pytest.raises(RedisUnavailable, match=r"set --redis-url to 10\.0\.0\.2:6379")
    with named, redis_errors():
        raise ResponseError(answer)


def test_a_wrong_command_is_a_fault_of_ours() -> None:
    with pytest.raises(ResponseError, match="wrong kind"), redis_errors():
        raise ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")
