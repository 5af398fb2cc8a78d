"""Stored API keys for tests."""

from typing import Any

from shared.protocol.access.rights import Access, KeyLimits, Scope
from shared.store.access.key_store import KeyStore


async def new_key(
    store: KeyStore,
    *scopes: Scope,
    tenant: str = "red",
    models: tuple[str, ...] = ("*",),
    **limits: Any,
) -> tuple[str, str]:
    """Create a key, by default with the scope `inference`, and return its secret and its id."""
    granted = frozenset(scopes or (Scope.INFERENCE,))
    access = Access(tenant=tenant, scopes=granted, models=models)
    key, secret = await store.create(access, KeyLimits(**limits))
    return secret, key.id


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}
