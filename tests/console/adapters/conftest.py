"""Fixtures of the Adapters page: a real engine with a tiny model, and a tab that shows the page."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from console_adapters import CONFIG
from console_browser import ConsolePage, OpenPage
from servers import Server, lorikeet_up
from tiny import save_adapter, save_tiny_model


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with adapters for `tiny`, of which `bad` can't be loaded."""
    root = tmp_path_factory.mktemp("adapters")
    for seed, name in enumerate(("first", "second", "third", "start", "bad")):
        save_adapter(root / name, seed=seed, r=4, target_modules=["q_proj", "v_proj"])
    config = json.loads((root / "bad" / CONFIG).read_text())
    (root / "bad" / CONFIG).write_text(json.dumps({**config, "peft_type": "LOHA"}))
    return root


@pytest.fixture(scope="session")
def tiny(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real engine with a tiny model and the adapter `start`. All tests share it."""
    folder = tmp_path_factory.mktemp("tiny")
    model = save_tiny_model(folder / "tiny")
    flags = ["--model", str(model), "--dtype", "float32", "--adapters", f"start={root / 'start'}"]
    with lorikeet_up(folder, *flags, "--kv-cache-mb", "64", "--adapter-memory-mb", "64") as server:
        yield server


@pytest_asyncio.fixture(loop_scope="session")
async def console(open_page: OpenPage, tiny: Server) -> ConsolePage:
    """A tab that shows the Adapters page of `tiny`."""
    console = await open_page(tiny.url)
    await console.open("adapters")
    return console
