"""Requests and responses of /v1/keys."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from api.schema.base import Body, StrictBody
from shared.protocol.access.rights import Scope

MAX_DAYS = 36_500
MAX_PATTERNS = 256
TENANT, PATTERN = r"[A-Za-z0-9_-]{1,64}", r"[!-~]{1,200}"


def _check_tenant(name: str) -> str:
    if not re.fullmatch(TENANT, name):
        raise ValueError("must be a name of 1 to 64 letters, digits, _ and -")
    return name


def _check_pattern(pattern: str) -> str:
    if not re.fullmatch(PATTERN, pattern):
        raise ValueError("must be a pattern of 1 to 200 characters without spaces, such as sql-*")
    return pattern


Tenant = Annotated[
    str, AfterValidator(_check_tenant), Field(json_schema_extra={"pattern": f"^{TENANT}$"})
]
Pattern = Annotated[
    str, AfterValidator(_check_pattern), Field(json_schema_extra={"pattern": f"^{PATTERN}$"})
]
"""Name of a model, in which `*`, `?` and `[a-z]` are wildcards."""
Scopes = Annotated[
    list[Annotated[Scope, Field(strict=False)]],
    Field(min_length=1, max_length=len(Scope), fail_fast=True),
]
Limit = Annotated[int, Field(ge=1, le=2**53)]


class Limits(StrictBody):
    """Limits of a key; null for none. Minutes and days are those of the UTC clock."""

    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None
    """Tokens of prompts and answers."""
    requests_per_day: Limit | None = None
    tokens_per_day: Limit | None = None


class CreateKeyRequest(StrictBody):
    """Body of POST /v1/keys."""

    tenant: Tenant
    """Owner of the key in jobs, limits, logs and usage."""
    scopes: Scopes | None = None
    """What the key may do. By default `inference`; the first key of an open pool has all scopes."""
    models: (
        Annotated[list[Pattern], Field(min_length=1, max_length=MAX_PATTERNS, fail_fast=True)]
        | None
    ) = None
    """Patterns of the names of models that the key may use, such as `sql-*`. By default all."""
    limits: Limits | None = None
    expires_days: Annotated[int, Field(ge=1, le=MAX_DAYS)] | None = None
    """Days after which the key expires."""
    allow_lockout: bool | None = None
    """Whether the first key of an open pool may lack the scope `admin`. Nobody can then manage keys
    over HTTP."""


class KeyBody(Body):
    """A stored key, without its secret. Times are Unix times in seconds."""

    id: str
    object: Literal["key"] = "key"
    tenant: str
    scopes: list[Scope]
    models: list[str] = Field(description="Patterns of the models that the key may use.")
    limits: Limits
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    state: Literal["valid", "expired", "revoked"]


class CreatedKey(KeyBody):
    """A new key. Only this response has its secret."""

    secret: str


class KeyList(Body):
    """All stored keys, oldest first, including expired and revoked ones."""

    object: Literal["list"] = "list"
    data: list[KeyBody]


class RevokeKeyQuery(StrictBody):
    """Query of DELETE /v1/keys/{key_id}."""

    allow_lockout: Literal["true", "false"] = "false"
    """Whether the last key that can manage keys may be revoked."""


class OpenPoolQuery(StrictBody):
    """Query of DELETE /v1/keys."""

    opens_pool: Literal["true"]
    """Confirms that requests without a key are accepted again."""
