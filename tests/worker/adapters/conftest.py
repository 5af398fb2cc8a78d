"""Fixtures for workers whose adapters move between their tiers, and for sources of adapters."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from bad_adapters import save_good
from scripted_engine import ScriptedEngine, scripted_model
from scripted_tiers import Files, Serve, Tiers
from worker_support import running_with

from shared.settings import WorkerSettings
from shared.store.adapters.registry import Registry
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from worker.adapters.disk_store import AdapterStore
from worker.engine_simulated.adapters import SimulatedHostMemory
from worker.service import Worker


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a valid adapter."""
    return save_good(tmp_path_factory.mktemp("good") / "good")


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    return AdapterStore(tmp_path / "store", max_bytes=64 << 20)


@pytest.fixture
def tiers() -> Tiers:
    return Tiers(Files(), SimulatedHostMemory(1 << 20))


@pytest.fixture
def files(tiers: Tiers) -> Files:
    return tiers.files


@pytest.fixture
def registry(redis: Redis, keys: Keys) -> Registry:
    return Registry(redis, keys)


@pytest.fixture
def serve(redis: Redis, pool: str, engine: ScriptedEngine, tiers: Tiers) -> Serve:
    def serve_one(
        *, max_num_seqs: int = 64, **settings: object
    ) -> AbstractAsyncContextManager[Worker]:
        chosen = WorkerSettings(model="scripted", pool=pool, **settings)
        served = scripted_model(engine, tiers.files, tiers.host, max_num_seqs=max_num_seqs)
        return running_with(redis, chosen, served)

    return serve_one
