"""Who waits for adapter memory, and who makes room for them. Policy only."""

from collections.abc import Mapping

from shared.protocol.ids import AdapterVersion


class Room:
    """Adapters that found no room beside those in use, and those that take no more jobs for them.

    Adapters that always have jobs would never give their memory up. So for each time that one
    finds no room, one of them gets no new jobs until its last one has ended and somebody else is in
    its place.
    """

    def __init__(self) -> None:
        self.crowded_out: set[AdapterVersion] = set()
        """Not to be claimed: there is no room yet."""
        self.yielding: set[AdapterVersion] = set()
        """Resident, but not to be claimed either."""
        self._in_use: set[AdapterVersion] = set()
        """What had jobs when there was no room; any of them may go after its last one."""
        self._wanting: set[AdapterVersion] = set()
        """Claimed, and waiting for room."""
        self._num_returning = 0
        """Jobs that were crowded out, and that no claim can see until they are in the queue."""
        self._sees_all = False
        """Whether the present claim is offered whatever wants to be loaded."""

    def want(self, version: AdapterVersion, jobs: Mapping[AdapterVersion, int]) -> None:
        """Note that `version` found no room; `jobs` are how many each resident one has."""
        is_first = version not in self._wanting
        self._wanting.add(version)
        self._sees_all = False
        self._in_use = {other for other, number in jobs.items() if number and other != version}
        may_yield = [other for other in jobs if other in self._in_use - self.yielding]
        if may_yield and (is_first or not self.yielding & self._in_use):
            self.yielding.add(min(may_yield, key=jobs.__getitem__))

    def wait_no_more(self, version: AdapterVersion) -> None:
        """Note that `version` got memory, or gave up waiting for it."""
        self._wanting.discard(version)

    def crowd_out(self, version: AdapterVersion) -> None:
        """Note that a job of `version` goes back to the queue for want of room.

        What follows is `returned`.
        """
        self.crowded_out.add(version)
        self._num_returning += 1

    def returned(self) -> None:
        """Note that a job that found no room can be claimed again, here or elsewhere."""
        self._num_returning -= 1

    def job_gone(self, jobs: Mapping[AdapterVersion, int]) -> bool:
        """Note that a job has ended, of `jobs` that are left; whether there may be room by that."""
        may_be_room = not self._in_use or any(not jobs.get(version) for version in self._in_use)
        if may_be_room:
            self.crowded_out.clear()
        return may_be_room

    def loaded(self) -> None:
        """Note that an adapter is loaded: everything may be claimed again, unless others wait."""
        self.crowded_out.clear()
        if not self._wanting:
            self.yielding.clear()

    def memory_freed(self) -> None:
        """Note that memory was given up otherwise: it may do."""
        self.crowded_out.clear()

    def claim_begins(self) -> None:
        """Note that jobs are asked for."""
        self._sees_all = not (self._wanting or self.crowded_out or self._num_returning)

    def claimed_no_cold(self) -> None:
        """Note that the claim brought nothing to load: if nothing waits, nobody makes room."""
        if self._sees_all:
            self.yielding.clear()
