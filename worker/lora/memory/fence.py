"""Orders the operations that copy an adapter to the device, and kernels that use the same memory.

On a GPU, kernels and copy operations run after the call that launches them. Copy operations have a
stream of their own, so that they run at the same time as the kernels of a step. Events order the
two streams.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch


class Fence:
    """Lets one adapter be copied after earlier kernels have run and before later kernels run.

    A fence is created on the thread that launches the kernels, after the memory was freed. This
    class does nothing. It is for devices whose operations have ended when their calls return.
    """

    def copying(self) -> AbstractContextManager[None]:
        """Return a context in which the adapter is copied. Any thread may enter the context.

        Copying waits for all kernels that were launched before the fence was created, because they
        may still read the removed adapter that used this memory before. The context ends only when
        the adapter has been copied, because callers may then reuse the source.
        """
        return nullcontext()

    def let_kernels_wait(self) -> None:
        """Make kernels that the calling thread launches from now on wait for the copying to end."""


class StreamFence(Fence):
    """Fence of a GPU. Adapters are copied in the stream `copies`."""

    def __init__(self, copies: torch.cuda.Stream) -> None:
        self._copies = copies
        self._free = _event()
        self._free.record(torch.cuda.current_stream(copies.device))
        self._copied = _event()

    @contextmanager
    def copying(self) -> Iterator[None]:
        """See `Fence.copying`."""
        self._copies.wait_event(self._free)
        try:
            with torch.cuda.stream(self._copies):
                yield
        finally:
            self._copied.record(self._copies)
            self._copied.synchronize()

    def let_kernels_wait(self) -> None:
        """See `Fence.let_kernels_wait`."""
        torch.cuda.current_stream(self._copies.device).wait_event(self._copied)


def fences_of(device: torch.device) -> Callable[[], Fence]:
    """Return a function that creates fences for memory on `device`."""
    if device.type != "cuda":
        return Fence
    copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return lambda: StreamFence(copies)


def _event() -> Any:
    # A thread that waits for a blocking event sleeps, and leaves its core to the engine.
    return torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
