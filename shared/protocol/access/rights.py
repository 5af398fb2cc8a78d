"""Rights of the clients that send an API key."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase

_WILDCARDS = frozenset("*?[")
ALL_MODELS = "*"
"""Pattern that every model's name matches."""


class Scope(StrEnum):
    """Group of routes that a key may use."""

    INFERENCE = "inference"
    """Requests for answers, their jobs, lists of models, and the usage of the key's tenant."""
    ADAPTERS = "adapters"
    """Loading, replacing, trying out, pinning, unloading and rolling back adapters."""
    METRICS = "metrics"
    """Metrics and load of the front end and its pool."""
    ADMIN = "admin"
    """State of the pool, the usage of all tenants, and the audit log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLimits:
    """Numbers of requests and tokens that a key may use in one window; None for no limit.

    A minute and a day are those of the UTC clock. Tokens are those of prompts and answers.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    requests_per_day: int | None = None
    tokens_per_day: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Rights of one request."""

    tenant: str
    """Name of the tenant in jobs, limits, logs and metrics."""
    scopes: frozenset[Scope]
    models: tuple[str, ...] = (ALL_MODELS,)
    """Patterns of the names of models that may be used, such as `sql-*`."""
    key_id: str = ""
    """Id of the stored key whose limits apply. Empty for other keys, which have no limits."""
    is_anonymous: bool = False
    """Whether the server accepts requests without a key."""
    books_pool: str = field(default="", compare=False)
    """Name of the pool that has the key, its limits and the ledger of its tenant.

    Empty for the pool that the request is for.
    """

    @property
    def actor(self) -> str:
        """Who makes a change with these rights, in the audit log."""
        return f"{self.tenant}/{self.key_id}" if self.key_id else self.tenant

    @property
    def allows_all(self) -> bool:
        """Whether every model may be used and seen."""
        return ALL_MODELS in self.models

    def covers(self, models: Sequence[str]) -> bool:
        """Return whether these rights include those to the models of other patterns.

        A pattern with wildcards is covered by an equal one and by `*`. The rights to everything
        that it may match can't be compared otherwise.
        """
        return self.allows_all or all(
            each in self.models or (_WILDCARDS.isdisjoint(each) and self.allows(each))
            for each in models
        )

    def allows(self, name: str) -> bool:
        """Return whether the model with this name may be used and seen.

        `name` is the name of an adapter or of the base model, not another form that requests may
        have, such as `base:name`. The time is linear in the length of the name, because `fnmatch`
        never tries a second place for a part of a pattern between two wildcards.
        """
        return self.allows_all or any(fnmatchcase(name, each) for each in self.models)
