"""Copies of adapters that other workers hold as well, and when to give them up. Policy only."""

from collections.abc import Iterable, Mapping

from shared.protocol.ids import AdapterVersion
from shared.store.queue_replies import Copy

KEPT_STEALS = 20
"""A copy is given up when it was surplus for so many times the wait after which others load one.

That is 30 times its load at least, however often a load comes and goes.
"""


class Spread:
    """Which copies this worker loaded beside another holder, and since when each is surplus.

    A copy that was given up stays in memory until somebody needs that, but the pool knows nothing
    of it: the worker gets jobs for it as if it had to load it.
    """

    def __init__(self) -> None:
        self.surplus: set[AdapterVersion] = set()
        """Given up, and not used since: they make room before all others."""
        self.num_spread = 0
        """Copies that came so far."""
        self.num_given_up = 0
        self._surplus_since_ms: dict[AdapterVersion, float | None] = {}

    @property
    def copies(self) -> list[AdapterVersion]:
        """Those that may become surplus."""
        return list(self._surplus_since_ms)

    def due(self, now_ms: float, steal_ms: float) -> set[AdapterVersion]:
        """Copies that were surplus for long enough; jobs wait `steal_ms` before others load."""
        last_ms = now_ms - KEPT_STEALS * steal_ms
        since_ms = self._surplus_since_ms.items()
        return {version for version, ms in since_ms if ms is not None and ms <= last_ms}

    def came(self, versions: Iterable[AdapterVersion]) -> None:
        """Note that others hold these as well, which this worker holds from now on."""
        for version in versions:
            self.surplus.discard(version)
            self._surplus_since_ms[version] = None
            self.num_spread += 1

    def used(self, version: AdapterVersion) -> None:
        """Note that jobs came for a version: if it was given up, it is held again."""
        self.surplus.discard(version)

    def left(self, versions: Iterable[AdapterVersion]) -> None:
        """Note that these are in memory no more."""
        for version in versions:
            self.surplus.discard(version)
            self._surplus_since_ms.pop(version, None)

    def note(self, standing: Mapping[AdapterVersion, Copy], now_ms: float) -> set[AdapterVersion]:
        """Note how copies stand; returns those that this worker doesn't hold any more."""
        for version, copy in standing.items():
            if version in self._surplus_since_ms:
                self._note(version, copy, now_ms)
        return {version for version, copy in standing.items() if copy is Copy.GONE}

    def _note(self, version: AdapterVersion, copy: Copy, now_ms: float) -> None:
        since_ms = self._surplus_since_ms.pop(version)
        if copy is Copy.GONE:
            self.surplus.add(version)
            self.num_given_up += 1
        elif copy is not Copy.SOLE:
            kept_ms = now_ms if since_ms is None else since_ms
            self._surplus_since_ms[version] = kept_ms if copy is Copy.SURPLUS else None
