"""Interface of the cache that keeps copies of adapters in host memory."""

from typing import Any, Protocol

from shared.protocol.ids import AdapterVersion


class HostMemory(Protocol):
    """LRU cache of adapter images that takes at most `max_bytes` of host memory.

    An image is an adapter in the form that the engine copies to the device.

    The types of weights and images depend on the engine. All methods may be called on any thread.
    Callers must `release` every image that `put` or `take` returns.
    """

    @property
    def num_bytes(self) -> int:
        """Memory used by all images, in bytes."""

    @property
    def max_bytes(self) -> int:
        """Maximum memory for all images, in bytes."""

    def __contains__(self, version: AdapterVersion, /) -> bool:
        """Return whether `take` would return an image of the version."""

    def image(self, adapter: Any) -> Any:
        """Create and return the adapter's image without storing it in this cache."""

    def has_room(self, num_bytes: int) -> bool:
        """Return whether an image of `num_bytes` fits without evicting other images."""

    def put(self, adapter: Any, *, may_evict: bool = True) -> Any:
        """Return an image of the adapter, and store it in this cache if it fits. Blocks.

        Images that aren't being read are evicted to make room, unless `may_evict` is false.
        """

    def take(self, version: AdapterVersion) -> Any | None:
        """Return a version's image, or None if there is none. Mark the image as recently used."""

    def release(self, image: Any) -> None:
        """End the caller's use of an image that `put` or `take` returned."""

    def touch(self, version: AdapterVersion) -> None:
        """Mark a version as recently used without reading its image."""

    def drop(self, version: AdapterVersion) -> None:
        """Remove a version's image, if any."""
