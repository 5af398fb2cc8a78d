"""A server of a pool with stored keys."""

import pytest

from shared.store.access.key_store import KeyStore
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys


@pytest.fixture
def store(redis: Redis, keys: Keys) -> KeyStore:
    return KeyStore(redis, keys)
