"""The order in which the engine evicts resident adapters. Policy only."""

from collections.abc import Collection, Iterator, Sequence

from shared.protocol.ids import AdapterVersion


class AdapterLRU:
    """The resident adapters, least recently used first."""

    def __init__(self) -> None:
        self._weights_digests: dict[AdapterVersion, str] = {}

    def __contains__(self, version: object) -> bool:
        """Return whether the version is resident."""
        return version in self._weights_digests

    def __iter__(self) -> Iterator[AdapterVersion]:
        """Iterate over the versions, least recently used first."""
        return iter(self._weights_digests)

    def weights_digest(self, version: AdapterVersion) -> str:
        """Return the digest of a resident version's weights."""
        return self._weights_digests[version]

    def add(self, version: AdapterVersion, weights_digest: str) -> None:
        """Add a version as the most recently used one."""
        self._weights_digests[version] = weights_digest

    def record_use(self, version: AdapterVersion) -> None:
        """Make a version the most recently used one."""
        self._weights_digests[version] = self._weights_digests.pop(version)

    def discard(self, version: AdapterVersion) -> None:
        """Remove a version if it is resident."""
        self._weights_digests.pop(version, None)


def version_to_evict(
    idle: Sequence[AdapterVersion], surplus: Collection[AdapterVersion]
) -> AdapterVersion:
    """Return the least recently used of the idle versions in `surplus`.

    If no idle version is in `surplus`, return the least recently used of all idle versions.

    Args:
        idle: versions that no request uses, least recently used first. Must not be empty.
        surplus: versions that this worker no longer offers, because other workers hold them.
    """
    return next((version for version in idle if version in surplus), idle[0])
