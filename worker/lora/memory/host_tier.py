"""Checked adapters in the host's memory, ready to be copied to the device."""

from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import partial
from threading import Lock

import torch

from shared.protocol.ids import AdapterVersion
from worker.lora.checkpoint.adapter import LoRAAdapter
from worker.lora.memory.arena import Arena, copy_pieces
from worker.lora.memory.layout import AdapterImage, PoolLayout
from worker.lora.memory.pages import Blocks, Run, units_of

SETTING = "--adapter-host-mb"


@dataclass(slots=True, eq=False)
class _Copy:
    image: AdapterImage
    runs: list[Run]
    num_users: int
    """Who reads it; it stays meanwhile."""
    is_wanted: bool = True
    """False: it goes with its last user."""


class HostTier:
    """Copies of adapters within a budget of bytes; the least recently used ones make room.

    Any thread may call any method. What `put` and `take` give is to be given back by `release`.
    """

    def __init__(self, layout: PoolLayout, max_bytes: int, device: torch.device) -> None:
        """Take the memory; `device` is the one that it is copied to.

        Raises:
            SettingsError: there isn't so much memory.
        """
        self._layout = layout
        self._arena = Arena(
            max_bytes,
            dtype=layout.dtype,
            device=torch.device("cpu"),
            setting=SETTING,
            is_pinned=device.type == "cuda",
        )
        self._copies: OrderedDict[AdapterVersion, _Copy] = OrderedDict()
        """The most recently used last."""
        self._lock = Lock()

    @property
    def num_bytes(self) -> int:
        """Bytes of all copies."""
        return self._arena.num_bytes_used

    @property
    def max_bytes(self) -> int:
        """The budget, in whole units."""
        return self._arena.num_bytes

    @property
    def versions(self) -> list[AdapterVersion]:
        """What there are copies of."""
        with self._lock:
            return list(self._copies)

    def __contains__(self, version: AdapterVersion) -> bool:
        """Whether `take` would give a copy of the version."""
        copy = self._copies.get(version)
        return copy is not None and copy.is_wanted

    def image(self, adapter: LoRAAdapter) -> AdapterImage:
        """The adapter's image, which isn't kept."""
        return self._layout.image(adapter)

    def has_room(self, num_bytes: int) -> bool:
        """Whether an image of so many bytes fits beside all copies."""
        units = self._arena.units
        return units_of(num_bytes) <= units.num_units - units.num_used

    def put(self, adapter: LoRAAdapter, *, may_evict: bool = True) -> AdapterImage:
        """Keep a copy of the adapter, if it fits beside those that are read. Takes long.

        Without `may_evict` it has to fit beside all others.

        Returns:
            The copy, or an image that nobody keeps.
        """
        made = self._layout.image(adapter)
        with self._lock:
            is_new = adapter.version not in self._copies
            runs = self._allocate(made.num_bytes, may_evict=may_evict) if is_new else None
        if runs is None:
            return made
        try:
            pieces = self._arena.pieces(runs)
            made.copy_to(pieces)
        except BaseException:
            self._release(runs)
            raise
        copy = replace(made, copy_to=partial(copy_pieces, pieces))
        with self._lock:
            if copy.version not in self._copies:
                self._copies[copy.version] = _Copy(copy, runs, num_users=1)
                return copy
        self._release(runs)  # somebody was faster
        return made

    def _release(self, runs: list[Run]) -> None:
        with self._lock:
            self._arena.units.release(runs)

    def take(self, version: AdapterVersion) -> AdapterImage | None:
        """The copy of a version, which is used most recently then; None if there is none."""
        with self._lock:
            copy = self._copies.get(version)
            if copy is None or not copy.is_wanted:
                return None
            self._copies.move_to_end(version)
            copy.num_users += 1
            return copy.image

    def release(self, image: AdapterImage) -> None:
        """Say that nobody reads the image any more that `put` or `take` has given."""
        with self._lock:
            copy = self._copies.get(image.version)
            if copy is not None and copy.image is image:
                copy.num_users -= 1
                if not copy.is_wanted:
                    self._drop_unused(copy)

    def touch(self, version: AdapterVersion) -> None:
        """Say that a version is used, wherever it is."""
        with self._lock:
            if version in self._copies:
                self._copies.move_to_end(version)

    def drop(self, version: AdapterVersion) -> None:
        """Forget a version, if there is a copy; its memory is free once nobody reads it."""
        with self._lock:
            copy = self._copies.get(version)
            if copy is not None:
                copy.is_wanted = False
                self._drop_unused(copy)

    def _allocate(self, num_bytes: int, *, may_evict: bool) -> list[Run] | None:
        """Memory, after others have made room; None if those that stay leave too little."""
        num_units = units_of(num_bytes)
        idle = [copy for copy in self._copies.values() if may_evict and copy.num_users == 0]
        units = self._arena.units
        free = units.num_units - units.num_used
        if free + sum(run.units for copy in idle for run in copy.runs) < num_units:
            return None
        while (found := units.allocate([Blocks(num_units, 1)])) is None:
            self._drop_unused(idle.pop(0))
        return found[0]

    def _drop_unused(self, copy: _Copy) -> None:
        if copy.num_users == 0:
            del self._copies[copy.image.version]
            self._arena.units.release(copy.runs)
