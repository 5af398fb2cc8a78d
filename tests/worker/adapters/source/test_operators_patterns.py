"""Patterns that need backtracking: matched if the operator named the adapter, else refused."""

import shutil
from pathlib import Path

import pytest
from adapter_folders import set_field
from source_worker import source_reader
from tiny import save_adapter

from shared.errors import AdapterNotServed
from shared.store.adapters.inspections import Inspection
from worker.adapters.disk_store import AdapterStore
from worker.adapters.remote.pinned_connection import AddressCheck
from worker.adapters.source.reader import AdapterReader
from worker.lora.base.modules import BaseModules

LOOKAHEAD = r"(?!.*layers\.1).*self_attn\.q_proj"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("operators", "clients"):
        save_adapter(tmp_path / name, r=2, target_modules=r".*layers\.0\.self_attn\.q_proj")
        set_field(tmp_path / name, target_modules=LOOKAHEAD)
    return tmp_path


def reader(base: BaseModules, root: Path, *, at_start: list[str]) -> AdapterReader:
    store = AdapterStore(root / "store", max_bytes=64 << 20)
    return source_reader(base, store, [str(root)], AddressCheck(), at_start=at_start)


def test_an_adapter_of_the_settings_is_read_from_its_source_and_its_copy(
    base: BaseModules, root: Path
) -> None:
    source = str(root / "operators")
    at_start = reader(base, root, at_start=[source])
    adapter = at_start.read("a", source)
    assert [*adapter.weights.modules] == ["model.layers.0.self_attn.q_proj"]
    entry = adapter.registry_entry(source)
    assert at_start.read_version(entry).weights.version == entry.version
    assert at_start.inspect(Inspection(name="b", source=source)).error is None


def test_an_adapter_that_a_client_named_is_refused_with_advice(
    base: BaseModules, root: Path
) -> None:
    operators = reader(base, root, at_start=[str(root / "operators")])
    found = operators.inspect(Inspection(name="b", source=str(root / "clients")))
    assert found.error.status == 400
    for part in ("target_modules=", "a lookaround", "list the modules", "--adapters"):
        assert part in found.error.message


def test_a_worker_without_the_adapter_in_its_settings_refuses_it_and_leaves_its_copy(
    base: BaseModules, root: Path
) -> None:
    source = str(root / "operators")
    at_start = reader(base, root, at_start=[source])
    entry = at_start.read("a", source).registry_entry(source)
    shutil.rmtree(source)
    with pytest.raises(AdapterNotServed, match="a lookaround"):
        reader(base, root, at_start=[]).read_version(entry)
    assert at_start.read_version(entry).weights.version == entry.version
