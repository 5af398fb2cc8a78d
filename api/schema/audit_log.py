"""Responses of /v1/audit_log."""

from typing import Literal

from pydantic import Field

from api.schema.base import Body


class ChangeBody(Body):
    """One change of an adapter or of an API key."""

    id: str
    object: Literal["change"] = "change"
    time_ms: int = Field(description="Unix time in milliseconds.")
    action: str
    """loaded, unloaded, rolled_back, released, candidate_set, candidate_promoted,
    candidate_dropped, pinned, paused, continued, key_created, key_revoked or keys_opened."""
    adapter: str | None = Field(description="null for changes of API keys, and for pauses.")
    by: str | None
    """Author of the change: the tenant of an API key, with the key's id after a slash if it is
    stored; `.worker` for adapters that a worker's settings name, `.operator` for commands that use
    Redis, or `.pool`."""
    before: str | None = Field(description="Version or value before the change.", alias="from")
    after: str | None = Field(description="Version or value after the change.", alias="to")


class ChangeList(Body):
    """One page of the audit log, newest change first."""

    object: Literal["list"] = "list"
    data: list[ChangeBody]
    last_id: str | None = Field(description="`after` of the next page; null for an empty page.")
    has_more: bool
