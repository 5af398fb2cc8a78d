"""Fixtures for adapters at URLs: valid adapters, and servers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from s3_server import S3Server, s3_server
from tiny import save_adapter
from web_server import WebServer, web_server


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
