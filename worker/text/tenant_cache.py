"""A cache in which one tenant can't evict what others use."""

from collections import OrderedDict
from typing import Generic, TypeVar

V = TypeVar("V")


class TenantCache(Generic[V]):
    """Maps keys of tenants to values, up to a total number of values.

    A tenant's values are its own, since a shared one would show what other tenants send.
    """

    def __init__(self, max_values: int) -> None:
        """Create a cache of at most `max_values` values of all tenants together."""
        self._max_values = max_values
        self._values: OrderedDict[str, OrderedDict[bytes, V]] = OrderedDict()
        """Values of each tenant. Tenants and values are in the order of their last use."""
        self._num_values = 0

    def get(self, tenant: str, key: bytes) -> V | None:
        """Return a value and mark it as used, or return None if it isn't cached."""
        values = self._values.get(tenant)
        if values is None or key not in values:
            return None
        self._values.move_to_end(tenant)
        values.move_to_end(key)
        return values[key]

    def put(self, tenant: str, key: bytes, value: V) -> None:
        """Add a value that isn't cached.

        If there are too many values, the tenant with the most loses its least recently used one.
        """
        self._values.setdefault(tenant, OrderedDict())[key] = value
        self._values.move_to_end(tenant)
        self._num_values += 1
        if self._num_values > self._max_values:
            self._evict()

    def _evict(self) -> None:
        largest = max(self._values, key=lambda tenant: len(self._values[tenant]))
        self._values[largest].popitem(last=False)
        self._num_values -= 1
        if not self._values[largest]:
            del self._values[largest]
