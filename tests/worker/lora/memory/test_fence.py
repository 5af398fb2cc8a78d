"""Order of an adapter's copies and the kernels around them, on scripted streams of a GPU.

A scripted stream keeps its operations until a thread waits for an event. Then streams run in an
order that the test draws. Whatever the order, kernels must see the adapter that they were launched
for.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lora import CPU, empty_pool, random_adapter, small_base
from torch import Tensor

from worker.lora.memory.fence import StreamFence, fences_of
from worker.lora.memory.layout import AdapterImage
from worker.lora.memory.pool import LoRAPool

BASE = small_base()
PAGES_Q = 2 * 8 * (16 + 16) * 4
GPU = torch.device("cuda", 1)


@dataclass(eq=False)
class Stream:
    """Operations that haven't run yet. Each returns whether it could run."""

    device: torch.device
    waiting: deque[Callable[[], bool]] = field(default_factory=deque)

    def wait_event(self, event: "Event") -> None:
        self.waiting.append(lambda: event.is_reached)

    def launch(self, work: Callable[[], None]) -> None:
        self.waiting.append(lambda: work() is None)

    def run_one(self) -> bool:
        if not self.waiting or not self.waiting[0]():
            return False
        self.waiting.popleft()
        return True


class Machine:
    """A GPU with a stream for kernels and one for copies, in place of `torch.cuda`."""

    def __init__(self, draws: Sequence[bool] = ()) -> None:
        self.kernels = Stream(GPU)
        self.copies: Stream | None = None
        self._current = threading.local()
        self._draws = deque(draws)

    def make_stream(self, device: torch.device) -> Stream:
        self.copies = Stream(device)
        return self.copies

    def current_stream(self, device: torch.device) -> Stream:
        assert device == GPU
        found: Stream = getattr(self._current, "stream", self.kernels)
        return found

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        self._current.stream = stream
        try:
            yield
        finally:
            del self._current.stream

    def run_until(self, is_done: Callable[[], bool]) -> None:
        """Run operations of both streams in the drawn order, until `is_done`."""
        assert self.copies is not None
        while not is_done():
            order = [self.kernels, self.copies]
            if self._draws and self._draws.popleft():
                order.reverse()
            assert order[0].run_one() or order[1].run_one(), "the streams wait for each other"

    def finish(self) -> None:
        """Run all operations."""
        assert self.copies is not None
        both = self.kernels, self.copies
        self.run_until(lambda: not any(stream.waiting for stream in both))


class Event:
    machine: Machine

    def __init__(self, *, blocking: bool) -> None:
        assert blocking
        self.is_reached = False

    def record(self, stream: Stream) -> None:
        def reach() -> None:
            self.is_reached = True

        stream.launch(reach)

    def synchronize(self) -> None:
        self.machine.run_until(lambda: self.is_reached)


@contextmanager
def gpu(machine: Machine) -> Iterator[None]:
    """Replace `torch.cuda` by `machine`."""

    def refuse(*_: object) -> None:
        raise AssertionError("kernels need not run in the default stream")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "Stream", machine.make_stream)
        patch.setattr(torch.cuda, "Event", type("_", (Event,), {"machine": machine}))
        patch.setattr(torch.cuda, "current_stream", machine.current_stream)
        patch.setattr(torch.cuda, "stream", machine.stream)
        patch.setattr(torch.cuda, "default_stream", refuse)
        patch.setattr("worker.lora.memory.pool.fences_of", lambda _: fences_of(GPU))
        yield


def image_of(pool: LoRAPool, machine: Machine, name: str, source: Tensor) -> AdapterImage:
    """Return an image whose copies read `source`, one number, when they run."""
    adapter = random_adapter(BASE, name, {"layers.0.q": 8, "layers.1.q": 8})

    def copy_to(targets: Sequence[Tensor]) -> None:
        for target in targets:
            machine.current_stream(GPU).launch(partial(copy, source, target))

    return replace(pool.layout.image(adapter), copy_to=copy_to)


def copy(source: Tensor, target: Tensor) -> None:
    target.copy_(source)


def read(pool: LoRAPool, machine: Machine, seen: list[float]) -> None:
    """Launch a kernel that reads the pool's whole memory."""
    memory = pool._arena.data
    machine.kernels.launch(lambda: seen.extend({float(memory.min()), float(memory.max())}))


@given(st.lists(st.booleans(), max_size=40))
def test_kernels_see_the_adapter_that_they_were_launched_for(draws: list[bool]) -> None:
    machine = Machine(draws)
    seen: list[list[float]] = [[], [], []]
    with gpu(machine):
        pool = empty_pool(BASE, max_bytes=PAGES_Q)
        for number, kernel in enumerate(seen):
            source = torch.tensor([float(number)])
            image = image_of(pool, machine, f"a{number}", source)
            reserved = pool.reserve(image)
            assert reserved is not None
            pool.write(reserved, image)
            source.fill_(-1)  # the source's memory has another user now
            pool.activate(reserved)
            read(pool, machine, kernel)
            pool.remove(image.version)
        machine.finish()
    assert seen == [[0.0], [1.0], [2.0]]


def test_kernels_wait_for_the_copies_in_the_stream_of_their_thread() -> None:
    machine = Machine()
    with gpu(machine):
        fence = fences_of(GPU)()
        assert isinstance(fence, StreamFence)
        other = Stream(GPU)
        with fence.copying():
            pass
        assert not machine.kernels.waiting, "a step that doesn't use the adapter waits for nothing"
        with machine.stream(other):
            fence.let_kernels_wait()
        assert len(other.waiting) == 1
        assert not machine.kernels.waiting
    fence = fences_of(CPU)()
    with fence.copying():
        fence.let_kernels_wait()  # there is nothing to wait for


def test_a_copy_that_fails_has_ended_before_its_source_is_freed() -> None:
    machine = Machine()
    copied: list[str] = []
    with gpu(machine):
        fence = fences_of(GPU)()
        with suppress(OSError), fence.copying():
            machine.current_stream(GPU).launch(lambda: copied.append("first part"))
            raise OSError
        assert copied == ["first part"]
