"""Caches checked adapters in host memory, ready to be copied to the device."""

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
class _HostImage:
    """An adapter's image in host memory."""

    image: AdapterImage
    runs: list[Run]
    num_users: int
    """Number of callers that are reading the image. Images with users aren't evicted."""
    is_wanted: bool = True
    """Whether the cache still offers the image. False after `drop`.

    The memory of a dropped image is freed when its last user releases it."""


class HostTier:
    """The `HostMemory` of the native engine."""

    def __init__(self, layout: PoolLayout, max_bytes: int, device: torch.device) -> None:
        """Allocate memory for images that are copied to `device` later.

        Raises:
            SettingsError: there is too little memory.
        """
        self._layout = layout
        self._arena = Arena(
            max_bytes,
            dtype=layout.dtype,
            device=torch.device("cpu"),
            setting=SETTING,
            is_pinned=device.type == "cuda",
        )
        self._images: OrderedDict[AdapterVersion, _HostImage] = OrderedDict()
        """Images by version, least recently used first."""
        self._lock = Lock()

    @property
    def num_bytes(self) -> int:
        """Memory used by all images, in bytes."""
        return self._arena.num_bytes_used

    @property
    def max_bytes(self) -> int:
        """Maximum memory for all images, in bytes, rounded down to whole units."""
        return self._arena.num_bytes

    def __contains__(self, version: AdapterVersion) -> bool:
        """Return whether `take` would return an image of the version."""
        held = self._images.get(version)
        return held is not None and held.is_wanted

    def image(self, adapter: LoRAAdapter) -> AdapterImage:
        """Return the adapter's image without storing the image in this cache."""
        return self._layout.image(adapter)

    def has_room(self, num_bytes: int) -> bool:
        """Return whether an image of `num_bytes` fits without evicting other images."""
        units = self._arena.units
        return units_of(num_bytes) <= units.num_units - units.num_used

    def put(self, adapter: LoRAAdapter, *, may_evict: bool = True) -> AdapterImage:
        """Store an image of the adapter, if it fits. Blocks while the weights are copied.

        Images that aren't being read are evicted to make room, unless `may_evict` is false.

        Returns:
            The stored image. If there is no memory for it, or if the version already has an image,
            `put` stores nothing and returns a temporary image.
        """
        temporary = self._layout.image(adapter)
        with self._lock:
            is_new = adapter.version not in self._images
            runs = self._allocate(temporary.num_bytes, may_evict=may_evict) if is_new else None
        if runs is None:
            return temporary
        try:
            pieces = self._arena.pieces(runs)
            temporary.copy_to(pieces)
        except BaseException:
            self._release(runs)
            raise
        image = replace(temporary, copy_to=partial(copy_pieces, pieces))
        with self._lock:
            if image.version not in self._images:
                self._images[image.version] = _HostImage(image, runs, num_users=1)
                return image
        self._release(runs)  # another thread has put the same version meanwhile
        return temporary

    def take(self, version: AdapterVersion) -> AdapterImage | None:
        """Return a version's image, or None if there is none. Mark the image as recently used."""
        with self._lock:
            held = self._images.get(version)
            if held is None or not held.is_wanted:
                return None
            self._images.move_to_end(version)
            held.num_users += 1
            return held.image

    def release(self, image: AdapterImage) -> None:
        """End the caller's use of an image that `put` or `take` returned."""
        with self._lock:
            held = self._images.get(image.version)
            if held is not None and held.image is image:
                held.num_users -= 1
                if not held.is_wanted:
                    self._remove_unused(held)

    def touch(self, version: AdapterVersion) -> None:
        """Mark a version as recently used without reading its image."""
        with self._lock:
            if version in self._images:
                self._images.move_to_end(version)

    def drop(self, version: AdapterVersion) -> None:
        """Remove a version's image, if any. The memory is freed when no caller uses the image."""
        with self._lock:
            held = self._images.get(version)
            if held is not None:
                held.is_wanted = False
                self._remove_unused(held)

    def _allocate(self, num_bytes: int, *, may_evict: bool) -> list[Run] | None:
        """Allocate memory for `num_bytes`. With `may_evict`, evict unused images if necessary.

        Return None if there still is too little free memory.
        """
        num_units = units_of(num_bytes)
        idle = [held for held in self._images.values() if may_evict and held.num_users == 0]
        units = self._arena.units
        free = units.num_units - units.num_used
        if free + sum(run.units for held in idle for run in held.runs) < num_units:
            return None
        while (runs := units.allocate([Blocks(num_units, 1)])) is None:
            self._remove_unused(idle.pop(0))
        return runs[0]

    def _release(self, runs: list[Run]) -> None:
        with self._lock:
            self._arena.units.release(runs)

    def _remove_unused(self, held: _HostImage) -> None:
        """Remove an image and free its memory, unless a caller is reading the image."""
        if held.num_users == 0:
            del self._images[held.image.version]
            self._arena.units.release(held.runs)
