"""Scratch buffers: their lifetime, and reuse of idle ones."""

import psutil
import torch

from worker.lora.scratch_buffer import MAX_IDLE_BUFFER_BYTES, MAX_IDLE_BUFFERS, scratch

MIB = 1 << 20


def test_memory_is_returned_to_the_system_when_nothing_refers_to_it() -> None:
    process = psutil.Process()
    before = process.memory_info().rss
    part = torch.frombuffer(scratch(64 * MIB), dtype=torch.float32).fill_(1.0)[5:]
    assert process.memory_info().rss > before + 50 * MIB
    del part
    assert process.memory_info().rss < before + 10 * MIB


def test_memory_is_not_reused_while_a_view_refers_to_it() -> None:
    part = torch.frombuffer(scratch(4 * MIB), dtype=torch.uint8)[MIB:][:1000]
    part[:] = 7
    others = [scratch(4 * MIB) for _ in range(4)]
    for other in others:
        other[:] = 1
    assert part.eq(7).all()


def test_a_new_buffer_reuses_idle_memory() -> None:
    first = scratch(3 * MIB)
    place = first.ctypes.data
    del first
    assert scratch(2 * MIB).ctypes.data == place


def test_only_a_few_idle_buffers_of_bounded_size_are_kept() -> None:
    process = psutil.Process()
    sizes = [MAX_IDLE_BUFFER_BYTES] * 8
    held = [scratch(size) for size in sizes]
    for data in held:
        data[:] = 1
    with_all = process.memory_info().rss
    del held, data
    freed = with_all - process.memory_info().rss
    assert freed > (len(sizes) - MAX_IDLE_BUFFERS) * MAX_IDLE_BUFFER_BYTES - 10 * MIB
