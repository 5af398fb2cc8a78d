"""Adapters without files."""

import hashlib

import pytest

from shared.errors import AdapterRejected, ErrorCode
from shared.store.adapters.inspections import Inspection
from worker.engine_simulated.adapters import NUM_BYTES, SimulatedHostMemory, SimulatedSource

SOURCE = SimulatedSource(load_s=0)


def test_a_version_is_the_name_and_a_digest_of_the_source() -> None:
    adapter = SOURCE.read("a", "x").weights
    assert adapter.version == "a@" + hashlib.sha256(b"x").hexdigest()[:12]
    entry = adapter.registry_entry("x")
    assert SOURCE.read_version(entry).weights == adapter
    assert adapter.named("b").version == "b" + adapter.version[1:]


def test_a_client_may_load_from_any_source_but_only_under_a_valid_name() -> None:
    found = SOURCE.inspect(Inspection(name="a", source="../any"))
    assert found.adapter.source == found.source == "../any"
    error = SOURCE.inspect(Inspection(name="..", source="x")).error
    assert error.code is ErrorCode.ADAPTER_REJECTED
    with pytest.raises(AdapterRejected, match="bad adapter name"):
        SOURCE.read("..", "x")


def test_host_memory_keeps_the_copies_that_were_used_last() -> None:
    memory = SimulatedHostMemory(2 * NUM_BYTES)
    a, b, c = (SOURCE.read(name, name).weights for name in "abc")
    for adapter in (a, b):
        memory.put(adapter)
    memory.touch(a.version)
    assert memory.put(c, may_evict=False) is c
    assert c.version not in memory
    memory.put(c)
    assert memory.take(b.version) is None
    assert memory.take(a.version) is a
    assert memory.num_bytes == 2 * NUM_BYTES
    memory.drop(a.version)
    assert a.version not in memory
