"""`lorikeet keys` against a real Redis."""

from collections.abc import Awaitable, Callable

import pytest

from shared.errors import SettingsError
from shared.protocol.access.rights import KeyLimits, Scope
from shared.store.access.key_store import KeyStore
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

Run = Callable[..., Awaitable[str]]
ALL_FLAGS = (
    *("--tenant", "red", "--scopes", "inference", "--scopes", "adapters"),
    *("--adapters", "sql-*", "--adapters", "base"),
    *("--requests-per-minute", "1", "--tokens-per-minute", "2"),
    *("--requests-per-day", "3", "--tokens-per-day", "4", "--expires-days", "5"),
)


@pytest.fixture
def store(redis: Redis, keys: Keys) -> KeyStore:
    return KeyStore(redis, keys)


def secret_in(output: str) -> str:
    (secret,) = (line for line in output.splitlines() if line.startswith("lk-"))
    return secret


async def test_a_key_is_created_with_all_flags_or_for_every_model(
    run: Run, store: KeyStore
) -> None:
    access = await store.find(secret_in(await run("keys", "create", *ALL_FLAGS)))
    assert access is not None
    assert (access.tenant, access.models) == ("red", ("sql-*", "base"))
    assert access.scopes == {Scope.INFERENCE, Scope.ADAPTERS}
    (key,) = await store.all()
    assert key.limits == KeyLimits(
        requests_per_minute=1, tokens_per_minute=2, requests_per_day=3, tokens_per_day=4
    )
    assert key.expires_ms == key.created_ms + 5 * 86_400_000
    access = await store.find(secret_in(await run("keys", "create", "--tenant", "red")))
    assert access is not None
    assert (access.scopes, access.models) == ({Scope.INFERENCE}, ("*",))


async def test_the_list_has_everything_but_secrets(run: Run) -> None:
    assert await run("keys", "list") == "the pool has no stored keys\n"
    secret = secret_in(await run("keys", "create", *ALL_FLAGS))
    listed = await run("keys", "list")
    key_id = secret.split("-")[1]
    for word in (key_id, "red", "adapters inference", "sql-* base", "4 tokens/day", "valid until"):
        assert word in listed
    assert secret.split("-", 2)[2] not in listed


async def test_a_revoked_key_is_refused_and_listed_as_revoked(run: Run, store: KeyStore) -> None:
    secret = secret_in(await run("keys", "create", "--tenant", "red"))
    key_id = secret.split("-")[1]
    with pytest.raises(Exception, match="no key has the id nothing"):
        await run("keys", "revoke", "nothing")
    assert await run("keys", "revoke", key_id) == f"{key_id}: revoked\n"
    assert await store.find(secret) is None
    assert "revoked 2" in await run("keys", "list")


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--tenant", "a b"), "--tenant"),
        (("--tenant", "a:b"), "--tenant"),
        (("--tenant", "red", "--adapters", "a b"), "--adapters"),
        (("--tenant", "red", "--scopes", "admin", "--adapters", "a"), "scope admin"),
        (("--tenant", "red", "--scopes", "metrics", "--adapters", "a"), "scope metrics"),
    ],
)
async def test_invalid_flags_store_nothing(
    run: Run, store: KeyStore, flags: tuple[str, ...], named: str
) -> None:
    with pytest.raises(SettingsError, match=named):
        await run("keys", "create", *flags)
    assert not await store.exist()
