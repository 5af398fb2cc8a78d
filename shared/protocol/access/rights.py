"""Rights of a request: the groups of routes and the models that its API key allows."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase

_WILDCARDS = frozenset("*?[")
ALL_MODELS = "*"
"""Pattern that matches the names of all models."""


class Scope(StrEnum):
    """Group of routes that a key may use."""

    INFERENCE = "inference"
    """Requests for answers, their jobs, lists of models, and the usage of the key's tenant."""
    ADAPTERS = "adapters"
    """Loading, replacing, trying out, pinning, unloading and rolling back adapters."""
    METRICS = "metrics"
    """Metrics and load of the front end and its pool."""
    ADMIN = "admin"
    """State of the pool, its pauses, the usage of all tenants, and the audit log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLimits:
    """Maximum numbers of requests and tokens in one minute and one day; None for no limit.

    Minutes and days are those of the UTC clock. The tokens of prompts and of answers count.
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
    """Id of the stored key. Its limits apply. Empty for other keys, which have no limits."""
    is_anonymous: bool = False
    """Whether the request has no key, and the server accepts such requests."""
    books_pool: str = field(default="", compare=False)
    """Name of the pool that stores the key, the key's limits, and the tenant's ledger. Empty if the
    request's own pool stores them."""

    @property
    def actor(self) -> str:
        """Name that the audit log shows for a change that was made with these rights."""
        return f"{self.tenant}/{self.key_id}" if self.key_id else self.tenant

    @property
    def allows_all(self) -> bool:
        """Whether all models may be used and seen."""
        return ALL_MODELS in self.models

    def covers(self, models: Sequence[str]) -> bool:
        """Return whether these rights include all models that the patterns `models` match.

        A pattern with wildcards is included only if these rights have an equal pattern or `*`,
        because other patterns with wildcards can't be compared.
        """
        return self.allows_all or all(
            each in self.models or (_WILDCARDS.isdisjoint(each) and self.allows(each))
            for each in models
        )

    def allows(self, name: str) -> bool:
        """Return whether the model with this name may be used and seen.

        `name` is the plain name of an adapter or of the base model, and not another form that
        requests may use, such as `base:name`. The time is linear in the length of the name, because
        `fnmatch` never goes back to an earlier wildcard.
        """
        return self.allows_all or any(fnmatchcase(name, each) for each in self.models)
