"""Which adapters are resident, and which of them goes first. Policy only."""

from collections.abc import Collection, Iterator, Sequence

from shared.protocol.ids import AdapterVersion


class Residents:
    """Resident adapters, the least recently used first."""

    def __init__(self) -> None:
        self._weights_digests: dict[AdapterVersion, str] = {}

    def __contains__(self, version: AdapterVersion) -> bool:
        """Whether requests of the version can be computed."""
        return version in self._weights_digests

    def __iter__(self) -> Iterator[AdapterVersion]:
        """The least recently used first."""
        return iter(self._weights_digests)

    def weights_digest(self, version: AdapterVersion) -> str:
        """What tells the weights of a resident version from any others."""
        return self._weights_digests[version]

    def add(self, version: AdapterVersion, weights_digest: str) -> None:
        """Note a version that is written, as the most recently used one."""
        self._weights_digests[version] = weights_digest

    def note_use(self, version: AdapterVersion) -> None:
        """Note that a resident version took part in a step."""
        self._weights_digests[version] = self._weights_digests.pop(version)

    def discard(self, version: AdapterVersion) -> None:
        """Note that a version is gone; it need not have been resident."""
        self._weights_digests.pop(version, None)


def first_to_go(
    idle: Sequence[AdapterVersion], surplus: Collection[AdapterVersion]
) -> AdapterVersion:
    """Which of `idle` goes, the least recently used first; those that are `surplus` before others.

    There is at least one.
    """
    return next((version for version in idle if version in surplus), idle[0])
