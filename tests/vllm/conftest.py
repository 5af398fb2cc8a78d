"""Starts vLLM with the demo model. These tests need the environment that `make vllm` creates."""

import logging
import os
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

from ops.demo.model import SERVED_NAME
from ops.demo.tasks import ADAPTERS
from shared.cache_folder import cache_folder
from shared.settings import WorkerSettings
from worker.engine_vllm.environment import set_environment
from worker.served_model import ServedModel

collect_ignore_glob = [] if find_spec("vllm") else ["*"]
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the tests of this folder ignore the warnings of vLLM's libraries."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.filterwarnings("ignore"))


@pytest.fixture(scope="session")
def demo_folder() -> Path:
    """Return the demo model's folder, which the other environment's tests have made."""
    folder = cache_folder() / "demo-1" / SERVED_NAME
    assert folder.is_dir(), "`make test-vllm` makes the demo model"
    return folder


@pytest.fixture(scope="session")
def served(demo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedModel]:
    """Serve the demo model in bfloat16, with its adapters read but not loaded."""
    settings = WorkerSettings(
        engine="vllm",
        model=str(demo_folder),
        device="cpu",
        max_num_seqs=16,
        max_model_len=1024,
        kv_cache_mb=256,
        max_lora_rank=16,
        adapters=tuple(f"{folder.name}={folder}" for folder in sorted(ADAPTERS.iterdir())),
        adapter_store=tmp_path_factory.mktemp("store"),
    )
    set_environment(settings, os.environ)
    from worker.engine_vllm.load_model import load_vllm

    report = partial(logging.getLogger(__name__).error, "vLLM's engine core has ended")
    served = load_vllm(settings, on_lost=report)
    yield served
    served.close()
