"""Reading for clients, from copies and at the start: what is refused, and which version is read."""

import asyncio
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import structlog
import torch
from adapter_folders import change_tensors, set_field
from bad_adapters import BAD, Bad, save_bad
from full_disk import full_disk
from safetensors.torch import load_file
from scripted_engine import ScriptedSource, read_scripted_adapter
from source_worker import source_reader
from tiny import save_adapter

from shared.adapter_flags import LEFT_OUT
from shared.errors import AdapterNotServed, AdapterRejected, ErrorCode, StoreFailed
from shared.guarded_fetch.pinned_connection import AddressCheck
from shared.protocol.adapter_files import PICKLED_FILE, WEIGHTS_FILE
from shared.protocol.adapters import Adapter
from shared.store.adapters.inspections import Findings, Inspection
from worker.adapters.disk_store import AdapterStore
from worker.adapters.source.interface import CheckedAdapter
from worker.adapters.source.load_at_start import read_each
from worker.adapters.source.reader import AdapterReader, Read
from worker.lora.base.modules import BaseModules
from worker.lora.checkpoint import adapter_files
from worker.lora.checkpoint.adapter import Digests, LoRAAdapter, read_checkpoint
from worker.lora.checkpoint.adapter_files import AdapterFiles
from worker.text.prompt_style import BASE_STYLE


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


Make = Callable[..., AdapterReader]


def read_with(
    base: BaseModules, name: str, files: AdapterFiles, checked: Digests | None = None
) -> CheckedAdapter:
    weights = read_checkpoint(name, files, base, dtype=torch.float32, checked=checked)
    return CheckedAdapter(weights, BASE_STYLE)


@pytest.fixture
def make(base: BaseModules, root: Path, store: AdapterStore) -> Make:
    def make_one(read: Read | None = None) -> AdapterReader:
        return source_reader(base, store, [str(root)], AddressCheck(), read=read)

    return make_one


@pytest.fixture
def reader(make: Make) -> AdapterReader:
    return make()


@pytest.fixture
def folder(good: Path, root: Path) -> Path:
    """Folder of a valid adapter, which a test may change."""
    return Path(shutil.copytree(good, root / "a"))


def inspect(reader: AdapterReader, folder: Path, name: str = "a") -> Findings:
    return reader.inspect(Inspection(name=name, source=str(folder)))


def found(reader: AdapterReader, folder: Path) -> Adapter:
    adapter = inspect(reader, folder).adapter
    assert adapter is not None
    return adapter


def write_over(folder: Path, other: Path) -> None:
    """As people swap adapters: file by file, in place."""
    for file in other.iterdir():
        shutil.copyfile(file, folder / file.name)


def test_a_good_adapter_is_described_in_full(reader: AdapterReader, root: Path) -> None:
    config = {"r": 4, "rank_pattern": {"v_proj": 12}, "target_modules": ["q_proj", "v_proj"]}
    folder = save_adapter(root / "a", **config)
    findings = inspect(reader, folder, "org/sql")
    adapter = findings.adapter
    assert findings.error is None
    assert (adapter.name, adapter.rank, adapter.source) == ("org/sql", 12, str(folder))
    assert adapter.version == f"org/sql@{adapter.digest[:12]}"
    assert (findings.num_tensors, findings.num_unmatched, findings.unmatched) == (8, 0, ())
    assert len(findings.matched) == 8
    assert findings.ranks == ((4, 2), (12, 2))


def test_there_are_a_hundred_bad_adapters() -> None:
    assert len({bad.name for bad in BAD}) == len(BAD) >= 100


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_a_bad_adapter_is_refused_with_its_reason_and_leaves_no_copy(
    reader: AdapterReader, good: Path, root: Path, store: AdapterStore, bad: Bad
) -> None:
    findings = inspect(reader, save_bad(good, root / "bad", bad))
    assert findings.adapter is None
    assert findings.error.code is ErrorCode.ADAPTER_REJECTED
    assert re.search(bad.reason, findings.error.message), findings.error.message
    assert str(root / "bad") in findings.error.message
    assert store.copies() == []
    if bad.name == "another layer":
        assert (findings.num_tensors, findings.num_unmatched) == (9, 1)
        assert ".layers.9." in findings.unmatched[0]
        assert findings.source == str(root / "bad")


def test_files_that_cannot_be_looked_at_are_the_adapters_fault(
    reader: AdapterReader, root: Path
) -> None:
    (root / "a").mkdir()
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        (root / "a" / file).symlink_to("x" * 300)  # the system refuses this name
    for folder in (root / "a", root / ("x" * 300)):
        with pytest.raises(AdapterRejected, match=r"adapter a from .*File name too long"):
            reader.read("a", str(folder))


def test_a_version_is_read_after_its_folder_was_written_over(
    reader: AdapterReader, root: Path, folder: Path
) -> None:
    old = found(reader, folder)
    write_over(folder, save_adapter(root / "b", seed=9, r=2, target_modules=["q_proj"]))
    new = found(reader, folder)
    assert old.version != new.version
    assert old.source == new.source
    for entry, rank in ((old, 4), (new, 2)):
        adapter = reader.read_version(entry).weights
        assert (adapter.version, adapter.rank, adapter.source) == (entry.version, rank, str(folder))


def test_another_machine_reads_the_source_only_while_it_holds_the_version(
    reader: AdapterReader, root: Path, store: AdapterStore, folder: Path
) -> None:
    entry = found(reader, folder)
    store.discard(entry.digest)
    assert reader.read_version(entry).weights.version == entry.version
    assert [copy.digest for copy in store.copies()] == [entry.digest]
    store.discard(entry.digest)
    write_over(folder, save_adapter(root / "b", seed=9, r=4, target_modules=["q_proj", "v_proj"]))
    with pytest.raises(AdapterRejected, match=f"not {entry.version}, and this worker has no copy"):
        reader.read_version(entry)
    shutil.rmtree(folder)
    with pytest.raises(AdapterRejected, match="neither a folder nor a hub id"):
        reader.read_version(entry)


def test_a_copy_that_was_tampered_with_is_not_used(
    reader: AdapterReader, store: AdapterStore, folder: Path
) -> None:
    entry = found(reader, folder)
    copy = store.folder_of(entry.digest)
    assert copy is not None
    change_tensors(copy, lambda tensors: [tensor.add_(1) for tensor in tensors.values()])
    adapter = reader.read_version(entry).weights
    assert adapter.version == entry.version
    assert reader.read_version(entry).weights.version == entry.version  # from a fresh copy
    (copy / WEIGHTS_FILE).write_bytes(b"")
    shutil.rmtree(folder)
    with pytest.raises(AdapterRejected, match="neither a folder"):
        reader.read_version(entry)


def test_only_a_copy_that_nobody_has_touched_since_is_taken_for_checked(
    make: Make, base: BaseModules, store: AdapterStore, folder: Path
) -> None:
    given: list[Digests | None] = []

    def read(name: str, files: AdapterFiles, *, checked: Digests | None = None) -> CheckedAdapter:
        given.append(checked)
        return read_with(base, name, files, checked)

    reader = make(read)
    entry = found(reader, folder)
    copy = store.folder_of(entry.digest)
    assert copy is not None
    digests = Digests(entry.digest, entry.weights_digest)
    first, again = (reader.read_version(entry).weights for _ in range(2))
    assert given == [None, None, digests], "of the source, of its copy, of the copy again"
    for adapter in (first, again):
        assert Digests(adapter.digest, adapter.weights_digest) == digests
        assert adapter.version == entry.version
    content = (copy / WEIGHTS_FILE).read_bytes()
    (copy / WEIGHTS_FILE).write_bytes(content)
    reader.read_version(entry)
    reader.read_version(entry)
    assert given[3:] == [None, digests]
    make(read).read_version(entry)  # another process
    assert given[5:] == [None]


def test_an_adapter_that_changes_while_it_is_read_or_causes_any_fault_is_refused(
    make: Make, base: BaseModules, root: Path, folder: Path
) -> None:
    other = save_adapter(root / "b", seed=9, r=4, target_modules=["q_proj", "v_proj"])

    def read(name: str, files: AdapterFiles) -> CheckedAdapter:
        adapter = read_with(base, name, files)
        write_over(files.folder, other)
        return adapter

    def fail(name: str, files: AdapterFiles) -> CheckedAdapter:
        raise ZeroDivisionError("of all things")

    for reads, part in ((read, "was changed while it was read"), (fail, "of all things")):
        error = inspect(make(reads), folder).error
        assert error.code is ErrorCode.ADAPTER_REJECTED
        assert part in error.message


def test_a_full_disk_refuses_new_adapters_but_runs_registered_ones(
    reader: AdapterReader, store: AdapterStore, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    entry = reader.read("a", str(folder)).registry_entry(str(folder))
    store.discard(entry.digest)

    def fail(*_: object) -> None:
        raise StoreFailed("--adapter-store: No space left on device")

    monkeypatch.setattr(store, "keep", fail)
    error = inspect(reader, folder).error
    assert (error.code, error.message) == (
        ErrorCode.UNAVAILABLE,
        "--adapter-store: No space left on device",
    )
    assert reader.read_version(entry).weights.version == entry.version


def test_a_load_resolves_its_source_and_parses_its_files_once(
    reader: AdapterReader, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def count(name: str) -> None:
        function = getattr(adapter_files, name)

        def counted(*args: object) -> object:
            calls.append(name)
            return function(*args)

        monkeypatch.setattr(adapter_files, name, counted)

    folder = save_adapter(root / "a", r=11, target_modules=["q_proj"])
    for name in ("adapter_folder", "read_config", "read_header"):
        count(name)
    assert inspect(reader, folder).adapter is not None
    assert sorted(calls) == ["adapter_folder", "read_config", "read_header"]
    calls.clear()
    reader.read("a", str(folder))
    assert sorted(calls) == ["adapter_folder", "read_config", "read_header"]


LOOKAHEAD = r"(?!.*layers\.1).*self_attn\.q_proj"


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for name in ("operators", "clients"):
        save_adapter(tmp_path / name, r=2, target_modules=r".*layers\.0\.self_attn\.q_proj")
        set_field(tmp_path / name, target_modules=LOOKAHEAD)
    return tmp_path


def test_only_adapters_of_the_settings_may_need_backtracking_also_those_of_copies(
    base: BaseModules, folders: Path
) -> None:
    def reader_with(*at_start: str) -> AdapterReader:
        store = AdapterStore(folders / "store", max_bytes=64 << 20)
        return source_reader(base, store, [str(folders)], AddressCheck(), at_start=at_start)

    source = str(folders / "operators")
    at_start = reader_with(source)
    adapter = at_start.read("a", source)
    assert [*adapter.weights.modules] == ["model.layers.0.self_attn.q_proj"]
    entry = adapter.registry_entry(source)
    assert at_start.read_version(entry).weights.version == entry.version
    assert at_start.inspect(Inspection(name="b", source=source)).error is None
    found = at_start.inspect(Inspection(name="b", source=str(folders / "clients")))
    assert found.error.status == 400
    for part in ("target_modules=", "a lookaround", "list the modules", "--adapters"):
        assert part in found.error.message
    shutil.rmtree(source)
    with pytest.raises(AdapterNotServed, match="a lookaround"):
        reader_with().read_version(entry)  # which leaves the copy
    assert at_start.read_version(entry).weights.version == entry.version


def read_all(
    sources: Mapping[str, str], *, skips_bad: bool = False
) -> tuple[list[LoRAAdapter], list[str]]:
    """Return the adapters, and the folders in the order in which they were read."""
    folders: list[str] = []
    scripted = ScriptedSource(read_scripted_adapter)

    async def read(name: str, source: str) -> CheckedAdapter:
        folders.append(source)
        return scripted.read(name, source)

    async def collect() -> list[LoRAAdapter]:
        each = read_each(sources, read, skips_bad=skips_bad)
        return [adapter.weights async for adapter in each]

    return asyncio.run(collect()), folders


def test_names_of_one_folder_are_read_once_and_come_in_the_order_given() -> None:
    sources = {"a": "one", "b": "two", "c": "one", "d": "three", "e": "one"}
    adapters, folders = read_all(sources)
    assert [(adapter.name, adapter.source) for adapter in adapters] == list(sources.items())
    assert [adapter.version for adapter in adapters] == [f"{n}@{s}" for n, s in sources.items()]
    assert folders == ["one", "two", "three"]


def test_no_more_folders_are_remembered_than_fit_into_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    size = read_scripted_adapter("a", "folder").num_bytes
    monkeypatch.setattr("worker.adapters.source.load_at_start.MAX_SHARED_BYTES", 4 * size)
    sources = {f"a{n}": f"folder-{n % 12}" for n in range(24)}
    adapters, folders = read_all(sources)
    assert [adapter.source for adapter in adapters] == list(sources.values())
    assert len(folders) == 24 - 4


def test_all_that_cannot_be_served_are_named() -> None:
    with pytest.raises(AdapterRejected, match=r"^adapter b from broken"):
        read_all({"a": "one", "b": "broken", "c": "two"})
    with pytest.raises(AdapterRejected) as refusal:
        read_all({"a": "one", "b": "broken", "c": "two", "d": "broken"})
    first, *lines = str(refusal.value).splitlines()
    assert first.startswith("2 of 4 adapters can't be served")
    assert [line.split(":")[0] for line in lines] == [
        f"  adapter {name} from broken" for name in ("b", "d")
    ]


def test_those_that_cannot_be_served_may_be_left_out() -> None:
    sources = {"a": "broken", "b": "one", "c": "broken", "d": "one"}
    with structlog.testing.capture_logs() as logs:
        adapters, _ = read_all(sources, skips_bad=True)
    assert [adapter.name for adapter in adapters] == ["b", "d"]
    left_out = [line for line in logs if line["event"] == LEFT_OUT]
    assert [(line["name"], "from broken" in line["reason"]) for line in left_out] == [
        ("a", True),
        ("c", True),
    ]


def pickle_weights(folder: Path) -> Path:
    """Save the adapter's weights as PEFT did before safetensors."""
    torch.save(load_file(folder / WEIGHTS_FILE), folder / PICKLED_FILE)
    (folder / WEIGHTS_FILE).unlink()
    return folder


def test_pickled_weights_are_read_for_the_settings_alone_and_become_a_copy_in_safetensors(
    base: BaseModules, store: AdapterStore, reader: AdapterReader, good: Path, root: Path
) -> None:
    folder = pickle_weights(Path(shutil.copytree(good, root / "old")))
    error = inspect(reader, folder).error
    assert error.code is ErrorCode.ADAPTER_REJECTED
    assert "only for adapters that --adapters names; convert it by" in error.message
    operators = source_reader(base, store, [str(root)], AddressCheck(), at_start=[str(folder)])
    adapter = operators.read("a", str(folder)).weights
    assert adapter.digest == found(reader, Path(shutil.copytree(good, root / "new"))).digest
    assert adapter.source == str(folder)
    copy = store.folder_of(adapter.digest)
    assert (copy / WEIGHTS_FILE).is_file()
    assert not (copy / PICKLED_FILE).exists()
    shutil.rmtree(folder)
    assert reader.read_version(adapter.registry_entry(str(folder))).weights.digest == adapter.digest


def test_a_pickle_that_runs_code_is_refused_for_the_settings_too(
    base: BaseModules, store: AdapterStore, good: Path, root: Path
) -> None:
    folder = pickle_weights(Path(shutil.copytree(good, root / "old")))
    marker = root / "ran"

    class Attack:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(marker),)

    torch.save({"a": Attack()}, folder / PICKLED_FILE)
    operators = source_reader(base, store, [str(root)], AddressCheck(), at_start=[str(folder)])
    with pytest.raises(AdapterRejected, match=r"adapter a from .*adapter_model\.bin can't be read"):
        operators.read("a", str(folder))
    assert not marker.exists()
    assert store.copies() == []


def test_a_pickle_with_sparse_tensors_is_refused(
    base: BaseModules, store: AdapterStore, good: Path, root: Path
) -> None:
    folder = pickle_weights(Path(shutil.copytree(good, root / "old")))
    torch.save({"a": torch.eye(2).to_sparse()}, folder / PICKLED_FILE)
    operators = source_reader(base, store, [str(root)], AddressCheck(), at_start=[str(folder)])
    with pytest.raises(AdapterRejected, match=r"adapter a from .*\.bin can't be converted"):
        operators.read("a", str(folder))


def test_a_full_disk_does_not_reject_a_pickled_adapter(
    base: BaseModules, store: AdapterStore, good: Path, root: Path
) -> None:
    folder = pickle_weights(Path(shutil.copytree(good, root / "old")))
    operators = source_reader(base, store, [str(root)], AddressCheck(), at_start=[str(folder)])
    with full_disk(room=1000), pytest.raises(StoreFailed, match="--adapter-store: can't write to"):
        operators.read("a", str(folder))
