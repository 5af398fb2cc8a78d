"""How events of torch's profiler are counted."""

from types import SimpleNamespace

from ops.lab.bench.gpu.launches import launches_of


def event(name: str, us: float) -> SimpleNamespace:
    return SimpleNamespace(name=name, time_range=SimpleNamespace(elapsed_us=lambda: us))


def test_kernels_are_told_from_copies() -> None:
    events = [
        event("ampere_gemm", 500.0),
        event("lora_shrink", 250.0),
        event("Memcpy HtoD (Pageable -> Device)", 100.0),
        event("Memcpy DtoH (Device -> Pageable)", 100.0),
        event("Memcpy DtoD (Device -> Device)", 25.0),
        event("Memset (Device)", 25.0),
    ]
    found = launches_of(32, 8, events, num_syncs=3)
    assert (found.kernels, found.copies_to_device, found.copies_to_host) == (2, 1, 1)
    assert (found.other_copies, found.syncs, found.busy_ms) == (2, 3, 1.0)
