"""Reading many adapters at the start, of which some share a folder."""

import asyncio
from collections.abc import Mapping

import pytest
import structlog
from scripted_engine import ScriptedSource, read_scripted_adapter

from shared.adapter_flags import LEFT_OUT
from shared.errors import AdapterRejected
from worker.adapters.source.interface import CheckedAdapter
from worker.adapters.source.load_at_start import read_each
from worker.lora.checkpoint.adapter import LoRAAdapter


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
