import psutil
import pytest
import torch

from worker.lora.scratch_buffer import MAX_SPARE_BYTES, MAX_SPARES, scratch

MIB = 1 << 20


@pytest.mark.parametrize("num_bytes", [0, 1, 511, 4096, 5 * MIB + 3])
def test_it_is_as_long_as_asked_for_and_may_be_written(num_bytes: int) -> None:
    data = scratch(num_bytes)
    assert len(data) == num_bytes
    data[:] = 1
    assert data.sum() == num_bytes


def test_the_system_has_it_back_once_nothing_refers_to_it() -> None:
    process = psutil.Process()
    before = process.memory_info().rss
    part = torch.frombuffer(scratch(64 * MIB), dtype=torch.float32).fill_(1.0)[5:]
    assert process.memory_info().rss > before + 50 * MIB
    del part
    assert process.memory_info().rss < before + 10 * MIB


def test_nobody_else_has_it_as_long_as_a_part_of_it_is_referred_to() -> None:
    part = torch.frombuffer(scratch(4 * MIB), dtype=torch.uint8)[MIB:][:1000]
    part[:] = 7
    others = [scratch(4 * MIB) for _ in range(4)]
    for other in others:
        other[:] = 1
    assert part.eq(7).all()


def test_the_next_one_has_memory_that_was_given_up() -> None:
    first = scratch(3 * MIB)
    place = first.ctypes.data
    del first
    assert scratch(2 * MIB).ctypes.data == place


def test_only_a_few_of_bounded_size_stay() -> None:
    process = psutil.Process()
    sizes = [MAX_SPARE_BYTES] * 8
    held = [scratch(size) for size in sizes]
    for data in held:
        data[:] = 1
    with_all = process.memory_info().rss
    del held, data
    freed = with_all - process.memory_info().rss
    assert freed > (len(sizes) - MAX_SPARES) * MAX_SPARE_BYTES - 10 * MIB
