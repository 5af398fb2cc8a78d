"""Fixtures for adapters at URLs: a base model, valid adapters, and servers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from bad_adapters import save_good
from s3_server import S3Server, s3_server
from tiny import save_adapter, tiny_model
from web_server import WebServer, web_server

from worker.adapters.disk_store import AdapterStore
from worker.lora.base.modules import BaseModules, base_modules


@pytest.fixture(scope="module")
def base() -> BaseModules:
    return base_modules(tiny_model("llama"))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a valid adapter."""
    return save_good(tmp_path_factory.mktemp("good") / "good")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of another valid adapter."""
    folder = tmp_path_factory.mktemp("other") / "other"
    return save_adapter(folder, seed=9, r=2, target_modules=["q_proj"])


@pytest.fixture(scope="module")
def files(good: Path) -> dict[str, bytes]:
    """The files of a valid adapter, by name."""
    names = "adapter_config.json", "adapter_model.safetensors"
    return {name: (good / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def web() -> Iterator[WebServer]:
    with web_server() as server:
        yield server


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    return AdapterStore(tmp_path / "store", max_bytes=64 << 20)
