"""Stored API keys: Redis has their digests, and refuses those that are revoked or expired."""

import re

import pytest
from key_support import new_key

from shared.protocol.access.rights import Access, KeyLimits, Scope
from shared.store.access.key_store import KeyStore
from shared.store.access.secret import digest_of, id_of
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

RIGHTS = Access(
    tenant="red", scopes=frozenset({Scope.INFERENCE, Scope.ADAPTERS}), models=("sql-*", "base")
)


@pytest.fixture
def store(redis: Redis, keys: Keys) -> KeyStore:
    return KeyStore(redis, keys)


async def test_a_new_key_is_found_by_its_secret_with_all_its_rights(store: KeyStore) -> None:
    key, secret = await store.create(RIGHTS, KeyLimits(tokens_per_day=7))
    assert re.fullmatch(r"lk-[0-9a-f]{12}-[A-Za-z0-9_-]{43}", secret)
    found = await store.find(secret)
    assert found == Access(tenant="red", scopes=RIGHTS.scopes, models=RIGHTS.models, key_id=key.id)
    assert key.limits == KeyLimits(tokens_per_day=7)
    assert await store.read(key.id) == key
    assert await store.all() == [key]


async def test_redis_has_the_digest_and_not_the_secret(
    store: KeyStore, redis: Redis, keys: Keys
) -> None:
    secret, key_id = await new_key(store)
    record = await redis.hgetall(keys.access_key(key_id))  # type: ignore[misc]
    assert record[b"digest"].decode() == digest_of(secret)
    assert secret.rpartition("-")[2] not in str(record)


async def test_only_the_exact_secret_is_accepted(store: KeyStore) -> None:
    secret, _ = await new_key(store)
    same_id = secret[:-43] + "x" * 43
    for wrong in (same_id, secret[:-1], secret + "x", secret.upper(), "", "lk-"):
        assert await store.find(wrong) is None
    assert id_of(same_id) == id_of(secret)


async def test_a_revoked_key_is_refused_and_stays_listed(store: KeyStore) -> None:
    secret, key_id = await new_key(store)
    kept, kept_id = await new_key(store)
    assert await store.revoke(key_id)
    listed = {key.id: key for key in await store.all()}
    assert await store.find(secret) is None
    assert listed[key_id].revoked_ms is not None
    assert listed[kept_id].revoked_ms is None
    assert await store.find(kept)
    assert await store.revoke(key_id)
    assert await store.read(key_id) == listed[key_id]  # the first time counts
    assert not await store.revoke("0" * 12)


async def test_an_expired_key_is_refused(store: KeyStore, redis: Redis, keys: Keys) -> None:
    key, secret = await store.create(RIGHTS, KeyLimits(), lifetime_ms=60_000)
    assert key.expires_ms == key.created_ms + 60_000
    assert await store.find(secret)
    await redis.hset(keys.access_key(key.id), "expires_ms", key.created_ms)  # type: ignore[misc]
    assert await store.find(secret) is None


async def test_a_scope_of_a_later_release_is_ignored(
    store: KeyStore, redis: Redis, keys: Keys
) -> None:
    secret, key_id = await new_key(store)
    await redis.hset(keys.access_key(key_id), "scopes", "inference telepathy")  # type: ignore[misc]
    found = await store.find(secret)
    assert found is not None
    assert found.scopes == {Scope.INFERENCE}


async def test_the_pool_has_keys_from_the_first_one_on(store: KeyStore) -> None:
    assert not await store.exist()
    _, key_id = await new_key(store)
    await store.revoke(key_id)
    assert await store.exist()


def test_patterns_match_whole_names() -> None:
    assert RIGHTS.allows("base")
    assert RIGHTS.allows("sql-2")
    assert not RIGHTS.allows("a-sql-2")
    assert not RIGHTS.allows("BASE")
