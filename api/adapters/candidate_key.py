"""Computes the key that decides whether an adapter's candidate version takes a request. Pure.

`shared/store/adapters/candidates.py` makes the decision with this key.
"""

import secrets
from collections.abc import Mapping
from typing import Any

from shared.protocol.access.rights import Access

USER_FIELDS = ("user", "safety_identifier")
"""Fields of OpenAI's APIs that name the user of a request."""
USER_ID = "user_id"
"""Part of `metadata` that names the user in Anthropic's API."""


def request_key(access: Access, raw: Mapping[str, Any]) -> str:
    """Return the key of a request with the JSON body `raw`.

    All requests of one user have the same key, so that the user always gets the same version. The
    key of a request that names no user is random.
    """
    user = next((raw[name] for name in USER_FIELDS if raw.get(name)), _anthropics_user(raw))
    if isinstance(user, str) and user:
        return f"{access.tenant}\0{user}"
    return secrets.token_hex(16)


def _anthropics_user(raw: Mapping[str, Any]) -> object:
    metadata = raw.get("metadata")
    return metadata.get(USER_ID) if isinstance(metadata, dict) else None
