"""What `lorikeet up` keeps over restarts, and what its ready message says of adapters."""

import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from served_tiny import TinyModels
from servers import POLL_S, STOP_TIMEOUT_S, Process, start_lorikeet, wait_for

from ops.local.embedded_redis import EmbeddedRedis

pytestmark = pytest.mark.slow

NUM_JOBS = 20
DEADLINE_S = 200
JOB = {"prompt": "hello", "ignore_eos": True, "background": True}


class Up:
    """A running `lorikeet up` with a Redis of its own."""

    def __init__(self, process: Process, log: Path) -> None:
        self.process = process
        self.log = log
        self.http = httpx.Client(timeout=60, verify=False)

    def wait_for(self, pattern: str) -> re.Match[str]:
        def found() -> re.Match[str] | None:
            return re.search(pattern, self.log.read_text(), re.MULTILINE)

        wait_for(lambda: found() is not None, self.log.read_text, self.process, DEADLINE_S)
        match = found()
        assert match is not None
        return match

    @property
    def ready_message(self) -> str:
        """Everything that was printed when the server became ready."""
        self.wait_for(r"Stop: Ctrl-C")
        return self.log.read_text().partition("Lorikeet is ready")[2]

    @property
    def url(self) -> str:
        return self.wait_for(r"^Lorikeet is ready at (\S+)")[1]

    def get(self, path: str) -> Any:
        return self.http.get(f"{self.url}{path}").raise_for_status().json()

    def post(self, path: str, body: dict[str, Any]) -> Any:
        reply = self.http.post(f"{self.url}{path}", json=body)
        assert reply.is_success, reply.text
        return reply.json() if "json" in reply.headers.get("content-type", "") else reply.text

    def names(self) -> set[str]:
        """Names of the served models."""
        return {card["id"] for card in self.get("/v1/models")["data"]}

    def states(self, jobs: list[str]) -> list[str]:
        """States of jobs that run in the background."""
        return [self.get(f"/v1/jobs/{job}")["state"] for job in jobs]

    def kill(self) -> None:
        """Kill the process with SIGKILL, and wait until its children have ended, too."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        self.process.wait()
        _, alive = psutil.wait_procs(children, STOP_TIMEOUT_S)
        assert alive == []

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(STOP_TIMEOUT_S) == 0, self.log.read_text()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + STOP_TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(POLL_S)


@contextmanager
def running_up(log: Path, *words: str, **variables: str) -> Iterator[Up]:
    process = start_lorikeet(["up", *words, "--port", "0"], log, **variables)
    up = Up(process, log)
    try:
        yield up
    finally:
        process.kill()
        process.wait()
        up.http.close()


@pytest.fixture(autouse=True)
def no_adapter_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `lorikeet up` choose the folder for copies of adapters."""
    monkeypatch.delenv("LORIKEET_ADAPTER_STORE")


@pytest.mark.timeout(600)
def test_waiting_jobs_and_loaded_adapters_survive_a_kill(
    models: TinyModels, tmp_path: Path
) -> None:
    data, log, source = tmp_path / "data", tmp_path / "log", tmp_path / "roots" / "wide"
    shutil.copytree(models.folder / "wide", source)
    words = ["--model", str(models.folder / "tiny"), "--dtype", "float32"]
    words += [
        "--adapters",
        f"narrow={models.folder / 'narrow'}",
        "--kv-cache-mb",
        "64",
        "--threads",
        "1",
    ]
    words += ["--adapter-root", str(source.parent), "--max-num-seqs", "1", "--data-dir", str(data)]
    with running_up(log, *words) as up:
        up.post("/v1/load_lora_adapter", {"lora_name": "extra", "lora_path": str(source)})
        first = up.post("/v1/completions", JOB | {"model": "narrow", "max_tokens": 400})["id"]
        waiting = [
            up.post("/v1/completions", JOB | {"model": model, "max_tokens": 8})["id"]
            for model in ("extra", "narrow") * (NUM_JOBS // 2)
        ]
        assert up.states(waiting) == ["queued"] * NUM_JOBS
        up.kill()
    shutil.rmtree(source)
    [folder] = data.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700

    with running_up(log, *words) as up:
        assert f"Data: {folder}" in up.ready_message
        assert up.names() == {"tiny", "narrow", "extra"}
        jobs = [first, *waiting]
        wait_for(
            lambda: not {"queued", "running"} & set(up.states(jobs)),
            log.read_text,
            up.process,
            DEADLINE_S,
        )
        assert up.states(jobs) == ["done"] * len(jobs)
        assert up.post("/v1/completions", {"model": "extra", "prompt": "a", "max_tokens": 2})
        up.stop()


SIMULATED = ("base", "--engine", "simulated", "--workers", "1")
"""A base model that needs no files, so that a start takes seconds."""


def test_adapters_of_a_start_are_served_and_the_message_names_those_that_clients_changed(
    tmp_path: Path,
) -> None:
    words = [*SIMULATED, "--data-dir", str(tmp_path / "data")]
    named = ["--adapters", "unloaded=v1", "replaced=v1", "same=v1"]
    with running_up(tmp_path / "log", *words, *named, "dropped=v1") as up:
        up.post("/v1/unload_lora_adapter", {"lora_name": "unloaded"})
        body = {"lora_name": "replaced", "lora_path": "v2", "load_inplace": True}
        up.post("/v1/load_lora_adapter", body)
        up.post("/v1/load_lora_adapter", {"lora_name": "extra", "lora_path": "v1"})
        assert "But:" not in up.ready_message
        up.stop()

    with running_up(tmp_path / "log2", *words, *named) as up:
        message = up.ready_message
        assert up.names() == {"base", "unloaded", "replaced", "same", "extra"}
        [note] = re.findall(r"^- (.*)$", message, re.MULTILINE)
        assert note.startswith("replaced is served as replaced@")
        assert note.endswith("lorikeet adapters load replaced v1 --replace")
        up.stop()


def test_in_a_shared_redis_an_unloaded_adapter_stays_unloaded_and_the_message_says_so(
    tmp_path: Path, own_server: EmbeddedRedis
) -> None:
    words = [*SIMULATED, "--adapters", "a=v1", "b=v1", "--redis-url", own_server.url]
    with running_up(tmp_path / "log", *words) as up:
        up.post("/v1/unload_lora_adapter", {"lora_name": "a"})
        up.stop()
    with running_up(tmp_path / "log2", *words, "--data-dir", str(tmp_path / "data")) as up:
        message = up.ready_message
        assert up.names() == {"base", "b"}
        assert "- a isn't served: a client has unloaded it. To load it again: " in message
        assert "--data-dir isn't used, because --redis-url names" in up.log.read_text()
        up.stop()
    assert not (tmp_path / "data").exists()


def test_one_folder_serves_one_server_at_a_time(tmp_path: Path) -> None:
    words = [*SIMULATED, "--data-dir", str(tmp_path / "data")]
    with running_up(tmp_path / "log", *words) as up:
        assert up.ready_message
        with running_up(tmp_path / "log2", *words) as second:
            assert second.process.wait(STOP_TIMEOUT_S) == 2
            line = (tmp_path / "log2").read_text()
            assert f"another `lorikeet up` (process {up.process.pid}) uses" in line
        with running_up(tmp_path / "log3", *SIMULATED, "--data-dir", "none") as third:
            assert "Data:" not in third.ready_message
        up.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends the children")
def test_a_killed_server_without_data_leaves_no_folder(tmp_path: Path) -> None:
    words = [*SIMULATED, "--data-dir", "none"]
    with running_up(tmp_path / "log", *words, TMPDIR=str(tmp_path)) as up:
        assert up.ready_message
        assert list(tmp_path.glob("lorikeet-redis-*"))
        up.kill()
        wait_until(lambda: not list(tmp_path.glob("lorikeet-redis-*")))


def test_data_that_the_redis_cannot_read_are_named(tmp_path: Path) -> None:
    words = [*SIMULATED, "--data-dir", str(tmp_path / "data")]
    with running_up(tmp_path / "log", *words) as up:
        assert up.ready_message
        up.stop()
    # The files are now as a later Redis would write them.
    [file] = tmp_path.glob("data/*/redis/appendonlydir/*.base.rdb")
    file.write_bytes(b"REDIS9999" + file.read_bytes()[9:])
    [writer] = tmp_path.glob("data/*/redis/written-by")
    writer.write_text("redis-server 99.0")
    with running_up(tmp_path / "log2", *words) as up:
        assert up.process.wait(STOP_TIMEOUT_S) == 2
    printed = (tmp_path / "log2").read_text()
    assert re.search(r"can't use the data in \S*/data/\S*, which redis-server 99.0 wrote", printed)
    assert "Traceback" not in printed


def test_adapters_that_cannot_be_served_may_be_left_out(tmp_path: Path) -> None:
    words = [*SIMULATED, "--data-dir", "none", "--adapters", "base=v1", "a=v1"]
    with running_up(tmp_path / "log", *words, "--skip-bad-adapters") as up:
        assert "- base is left out: adapter base from v1: this is the base" in up.ready_message
        assert up.names() == {"base", "a"}
        up.stop()


def test_a_left_out_adapter_is_not_served_from_the_kept_data(
    models: TinyModels, tmp_path: Path
) -> None:
    shutil.copytree(models.folder / "narrow", tmp_path / "a")
    words = [str(models.folder / "tiny"), "--device", "cpu", "--kv-cache-mb", "64"]
    words += ["--data-dir", str(tmp_path / "data"), "--adapters", f"a={tmp_path / 'a'}"]
    with running_up(tmp_path / "log", *words) as up:
        assert up.ready_message
        assert up.names() == {"tiny", "a"}
        up.stop()
    (tmp_path / "a" / "adapter_config.json").write_text("{")
    with running_up(tmp_path / "log2", *words, "--skip-bad-adapters") as up:
        assert "- a is left out: adapter a from" in up.ready_message
        assert up.names() == {"tiny"}
        up.stop()
