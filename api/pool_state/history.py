"""Keeps the pool's history in memory, so that each read needs only the newest samples."""

from collections.abc import Sequence

from api.pool_state.rates import Point, points
from shared.store.views.history import MAX_SAMPLES, HistoryView, Sample

NEW_SAMPLES = 30
"""Number of samples that a read asks for first. A reader that is up to date needs one or two."""


class History:
    """The samples of the last minutes, and the points of the plots that follow from them."""

    def __init__(self, view: HistoryView) -> None:
        self._view = view
        self.samples: list[Sample] = []
        """Samples, oldest first."""
        self.points: list[Point] = []
        """One point for each sample."""

    async def update(self) -> None:
        """Read the samples that are new since the last call."""
        newest = await self._view.newest(NEW_SAMPLES)
        known_ms = self.samples[-1].time_ms if self.samples else 0
        if not newest or newest[0].time_ms > known_ms or newest[-1].time_ms < known_ms:
            # There is a gap, Redis lost samples, or its clock was set back.
            self._replace(await self._view.newest(MAX_SAMPLES))
        else:
            self._append([sample for sample in newest if sample.time_ms > known_ms])

    def _replace(self, samples: Sequence[Sample]) -> None:
        self.samples = list(samples)
        self.points = points(self.samples, range(len(self.samples)))

    def _append(self, samples: Sequence[Sample]) -> None:
        first = len(self.samples)
        self.samples += samples
        # The lists are new each time, because callers keep those of an earlier update.
        self.points = [*self.points, *points(self.samples, range(first, len(self.samples)))]
        self.samples, self.points = self.samples[-MAX_SAMPLES:], self.points[-MAX_SAMPLES:]
