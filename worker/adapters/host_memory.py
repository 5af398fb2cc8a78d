"""Interface of the host memory that keeps copies of adapters."""

from typing import Any, Protocol, TypeAlias, TypeVar

from shared.protocol.ids import AdapterVersion
from worker.adapters.source.interface import AdapterWeights
from worker.engine.interface import AdapterImage

WeightsT_contra = TypeVar("WeightsT_contra", bound=AdapterWeights, contravariant=True)
ImageT = TypeVar("ImageT", bound=AdapterImage)


class HostMemory(Protocol[WeightsT_contra, ImageT]):
    """LRU cache of adapter images within a budget of host memory.

    All methods may be called on any thread. Callers must `release` every image that `put` or
    `take` returns.
    """

    @property
    def num_bytes(self) -> int:
        """Memory used by all images, in bytes."""

    @property
    def max_bytes(self) -> int:
        """The budget in bytes."""

    def __contains__(self, version: AdapterVersion, /) -> bool:
        """Return whether `take` would return an image of the version."""

    def image(self, adapter: WeightsT_contra) -> ImageT:
        """Return the adapter's image without storing the image in this cache."""

    def has_room(self, num_bytes: int) -> bool:
        """Return whether an image of `num_bytes` fits without evicting other images."""

    def put(self, adapter: WeightsT_contra, *, may_evict: bool = True) -> ImageT:
        """Store an image of the adapter, if it fits, and return an image. Blocks.

        Images that aren't being read are evicted to make room, unless `may_evict` is false.
        """

    def take(self, version: AdapterVersion) -> ImageT | None:
        """Return a version's image, or None if there is none. Mark the image as recently used."""

    def release(self, image: ImageT) -> None:
        """End the caller's use of an image that `put` or `take` returned."""

    def touch(self, version: AdapterVersion) -> None:
        """Mark a version as recently used without reading its image."""

    def drop(self, version: AdapterVersion) -> None:
        """Remove a version's image, if any."""


AnyHostMemory: TypeAlias = HostMemory[Any, Any]
"""Host memory of any kind. Its weights and images must come from the worker's kind of engine."""
