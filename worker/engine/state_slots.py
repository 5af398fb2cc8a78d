"""Allocates the slots of recurrent states. Policy only."""

from worker.engine.request import Request


class StateSlots:
    """Gives a slot to each request that has KV blocks. Slots are numbered from 1."""

    def __init__(self, num_slots: int) -> None:
        """Create `num_slots` free slots. With 0, requests need no slots."""
        self.num_slots = num_slots
        # Last in, first out, so that few requests use a small part of the memory.
        self._free = list(range(num_slots, 0, -1))

    @property
    def num_free(self) -> int:
        """Number of slots that no request has."""
        return len(self._free)

    def has_one_for(self, request: Request) -> bool:
        """Return whether `give` would find a slot."""
        return not self.num_slots or request.state_slot > 0 or bool(self._free)

    def give(self, request: Request) -> None:
        """Give the request a slot, unless it has one or needs none."""
        if self.num_slots and not request.state_slot:
            request.state_slot = self._free.pop()

    def take_back(self, request: Request) -> None:
        """Take the request's slot back, if it has one."""
        if request.state_slot:
            self._free.append(request.state_slot)
            request.state_slot = 0
