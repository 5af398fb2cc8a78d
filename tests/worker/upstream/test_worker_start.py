"""A worker whose transformers or PEFT lacks a name exits with status 2, and its jobs wait."""

import signal
from importlib.metadata import version
from pathlib import Path

import pytest
from engines import random_prompt
from native_workers import native_worker
from tiny import save_tiny_model
from worker_support import Client, has_workers, until

from ops.local.supervisor import EXIT_REFUSED
from shared.protocol.jobs import JobState

pytestmark = pytest.mark.slow

START_S = 120.0


def without(folder: Path, module: str, name: str) -> str:
    """Return a folder for PYTHONPATH. It takes a name out of a module as soon as Python starts."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(f"import {module} as changed\ndel changed.{name}\n")
    return str(folder)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("transformers.quantizers.auto", "register_quantizer"),
        ("peft.utils.other", "EMBEDDING_LAYER_NAMES"),
    ],
)
@pytest.mark.timeout(400)
async def test_a_worker_without_a_name_refuses_to_start_and_another_one_answers(
    module: str,
    name: str,
    client: Client,
    redis_url: str,
    pool: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    base = save_tiny_model(tmp_path / "base")
    with native_worker(redis_url, pool, base) as worker:
        await until(lambda: has_workers(client.views, 1), START_S)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(START_S) == 0
    registered = await client.registry.base()
    assert registered is not None
    job = await client.send(tuple(random_prompt(1, 8)), version=registered.version)
    path = without(tmp_path / "path", module, name)
    capfd.readouterr()
    with native_worker(redis_url, pool, base, PYTHONPATH=path) as worker:
        assert worker.wait(START_S) == EXIT_REFUSED
    package = module.partition(".")[0]
    printed = " ".join(capfd.readouterr().err.split())
    assert f"{package} {version(package)} (tested: >=" in printed
    assert f"cannot import name '{name}' from '{module}'" in printed
    assert "Traceback" not in printed
    assert (await client.views.job_and_result(job.id))[0].state == JobState.QUEUED
    with native_worker(redis_url, pool, base):
        end = await client.end_of(job, START_S)
    assert (end.state, end.try_) == (JobState.DONE, 1)
