"""Faults of clients."""

from ops.lab.chaos.faults.fault import Fault

NUM_READERS = 6


class StallReaders(Fault):
    """Makes clients stop reading while their streams continue."""

    kind = "stall-readers"
    subject = "clients"
    hold_s = (0.0, 2.0)

    async def inject(self) -> None:
        """Make clients request streams that they stop reading."""
        self.target = f"{NUM_READERS} clients"
        await self._fleet.stall(NUM_READERS)

    async def evidence(self) -> str:
        """Return a note with the numbers of stalled clients and of unread bytes.

        The note is empty if too few clients have stalled, or too few bytes are unread.
        """
        status = self._fleet.status
        is_stalled = status.stalled >= NUM_READERS // 2 and status.unread_bytes > 0
        return f"{status.stalled} stalled, {status.unread_bytes} B unread" if is_stalled else ""

    async def has_recovered(self) -> bool:
        """Return whether all clients read again."""
        return self._fleet.status.stalled == 0
