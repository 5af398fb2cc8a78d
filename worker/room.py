"""Who waits for adapter memory, and who makes room for them. Policy only."""

from collections.abc import Mapping

from shared.ids import AdapterVersion


class Room:
    """Adapters that found no room beside those in use, and those that take no more jobs for them.

    Adapters that always have jobs would never give their memory up. So for each one that is
    crowded out, one of them gets no new jobs until its last one has ended and somebody else is in
    its place.
    """

    def __init__(self) -> None:
        self.crowded_out: set[AdapterVersion] = set()
        """Not to be claimed: there is no room yet."""
        self.yielding: set[AdapterVersion] = set()
        """Resident, but not to be claimed either."""
        self._in_use: set[AdapterVersion] = set()
        """What had jobs when there was no room; any of them may go after its last one."""
        self._num_returning = 0
        """Jobs that found no room, and that no claim can see until they are back in the queue."""
        self._sees_all = False
        """Whether the present claim is offered whatever wants to be loaded."""

    def crowd_out(self, version: AdapterVersion, jobs: Mapping[AdapterVersion, int]) -> None:
        """Note that a job of `version` found no room; `jobs` are how many each resident one has.

        What follows is `returned`.
        """
        self.crowded_out.add(version)
        self._num_returning += 1
        self._sees_all = False
        self._in_use = {other for other, number in jobs.items() if number and other != version}
        if may_yield := [other for other in jobs if other in self._in_use - self.yielding]:
            self.yielding.add(min(may_yield, key=jobs.__getitem__))

    def returned(self) -> None:
        """Note that a job that found no room can be claimed again, here or elsewhere."""
        self._num_returning -= 1

    def job_gone(self, jobs: Mapping[AdapterVersion, int]) -> None:
        """Note that a job has ended; `jobs` are those that are left."""
        if not self._in_use or any(not jobs.get(version) for version in self._in_use):
            self.crowded_out.clear()

    def loaded(self) -> None:
        """Note that an adapter got memory: everything may be claimed again."""
        self.crowded_out.clear()
        self.yielding.clear()

    def memory_freed(self) -> None:
        """Note that memory was given up otherwise: it may do."""
        self.crowded_out.clear()

    def claim_begins(self) -> None:
        """Note that jobs are asked for."""
        self._sees_all = not self.crowded_out and not self._num_returning

    def claimed_no_cold(self) -> None:
        """Note that the claim brought nothing to load: if nothing waits, nobody makes room."""
        if self._sees_all:
            self.yielding.clear()
