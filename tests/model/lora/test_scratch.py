import psutil
import pytest
import torch

from worker.lora.scratch import scratch

MIB = 1 << 20


@pytest.mark.parametrize("num_bytes", [0, 1, 511, 4096, 5 * MIB + 3])
def test_it_is_as_long_as_asked_for_and_zero_and_may_be_written(num_bytes: int) -> None:
    data = scratch(num_bytes)
    assert len(data) == num_bytes
    assert not data.any()
    data[:] = 1
    assert data.sum() == num_bytes


def test_the_system_has_it_back_once_nothing_refers_to_it() -> None:
    process = psutil.Process()
    before = process.memory_info().rss
    part = torch.frombuffer(scratch(64 * MIB), dtype=torch.float32).fill_(1.0)[5:]
    assert process.memory_info().rss > before + 50 * MIB
    del part
    assert process.memory_info().rss < before + 10 * MIB
