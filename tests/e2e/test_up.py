"""`lorikeet up` as a process: what it starts, prints, restarts, keeps and cleans up."""

import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from servers import POLL_S, STOP_TIMEOUT_S, Process, start_lorikeet, wait_for
from tiny import save_adapter, save_tiny_model

from ops.local.embedded_redis import EmbeddedRedis
from ops.local.ports import free_port

NUM_JOBS = 20
DEADLINE_S = 200
JOB = {"prompt": "hello", "ignore_eos": True, "background": True}
BUDGETS = ("--kv-cache-mb", "64", "--adapter-memory-mb", "64")
SIMULATED = ("base", "--engine", "simulated", "--workers", "1")
"""A base model that needs no files, so that a start takes seconds."""


class Up:
    """A running `lorikeet up`, by default with a Redis of its own."""

    def __init__(self, process: Process, log: Path) -> None:
        self.process = process
        self.log = log
        self.http = httpx.Client(timeout=DEADLINE_S, verify=False)

    def wait_for(self, pattern: str, times: int = 1) -> re.Match[str]:
        """Wait for `times` matches of `pattern` in the output, and return the last one."""

        def found() -> list[re.Match[str]]:
            return list(re.finditer(pattern, self.log.read_text(), re.MULTILINE))

        wait_for(lambda: len(found()) >= times, self.log.read_text, self.process, DEADLINE_S)
        return found()[-1]

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

    def children(self, *, recursive: bool = False) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=recursive)

    def kill_child(self, pattern: str) -> None:
        """Kill the one child whose command line matches `pattern`."""
        [child] = [c for c in self.children() if re.search(pattern, " ".join(c.cmdline()))]
        child.kill()

    def kill(self) -> None:
        """Kill the process with SIGKILL, and wait until its children have ended, too."""
        children = self.children(recursive=True)
        self.process.kill()
        self.process.wait()
        _, alive = psutil.wait_procs(children, STOP_TIMEOUT_S)
        assert alive == []

    def stop(self) -> None:
        """Stop the process as Ctrl-C does. No child may be left."""
        children = self.children(recursive=True)
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(STOP_TIMEOUT_S) == 0, self.log.read_text()
        assert [child for child in children if child.is_running()] == []


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + STOP_TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(POLL_S)


@contextmanager
def running_up(log: Path, *words: str, **variables: str) -> Iterator[Up]:
    process = start_lorikeet(["up", "--port", "0", *words], log, **variables)
    up = Up(process, log)
    try:
        yield up
    finally:
        process.kill()
        process.wait()
        up.http.close()


def is_ready(http: httpx.Client) -> bool:
    try:
        return http.get("/ready").is_success
    except httpx.TransportError:
        return False


def needing_a_worker(http: httpx.Client, adapter: Path) -> list[Callable[[], httpx.Response]]:
    """Requests of each kind that a worker must answer."""
    weights = (adapter / "adapter_model.safetensors").read_bytes()
    query = {"name": "uploaded", "config": (adapter / "adapter_config.json").read_text()}
    load = {"lora_name": "loaded", "lora_path": str(adapter), "load_inplace": True}
    chat = {"model": "tiny", "max_tokens": 4, "messages": [{"role": "user", "content": "hello"}]}
    score = {"model": "tiny", "text_1": "one", "text_2": "two"}
    return [
        partial(http.post, "/v1/adapters", params=query, content=weights),
        partial(http.post, "/v1/load_lora_adapter", json=load),
        partial(http.post, "/v1/chat/completions", json=chat),
        partial(http.post, "/v1/embeddings", json={"model": "tiny", "input": "hello"}),
        partial(http.post, "/v1/score", json=score),
        partial(http.post, "/tokenize", json={"prompt": "hello"}),
    ]


def test_it_serves_recovers_and_leaves_no_processes(tmp_path: Path) -> None:
    words = [*SIMULATED, "--adapters", "a=v1", "--durability", "strict"]
    with running_up(tmp_path / "log", *words) as up:
        assert up.wait_for(rf"^curl {up.url}/v1/chat/completions .*\"model\":\"(\S+?)\"")
        up.kill_child(r"ops\.cli worker")
        up.wait_for(r"worker-1 .* ended \(SIGKILL\), restarts")
        up.kill_child(r"(redis|valkey)-server")
        up.wait_for("redis .* ended unexpectedly, restarts")
        up.wait_for(r"worker-1 .* worker_ready", times=2)
        name = up.get("/v1/models")["data"][-1]["id"]
        up.post("/v1/completions", {"model": name, "prompt": "hello", "max_tokens": 4})
        up.stop()


def test_wrong_files_are_named_before_anything_is_started(tmp_path: Path) -> None:
    base, good, log = save_tiny_model(tmp_path / "tiny"), tmp_path / "good", tmp_path / "log"
    save_adapter(good, r=4, target_modules=["q_proj"])
    short = shutil.copytree(good, tmp_path / "short")
    weights = short / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    adapters = ["--adapters", "lost=/no/adapter", f"good={good}", f"short={short}"]
    with running_up(log, str(base), *adapters) as up:
        assert up.process.wait(DEADLINE_S) == 2, log.read_text()
    printed = log.read_text()
    assert printed.startswith("lorikeet: 2 of 3 adapters can't be served")
    assert "Traceback" not in printed
    for part in ("adapter lost from /no/adapter", "adapter short from", "truncated"):
        assert part in printed


@pytest.mark.slow
def test_keys_from_the_environment_allow_network_access_and_stay_secret(tmp_path: Path) -> None:
    key, metrics_key = "secret-of-red-" + "r" * 20, "secret-of-metrics-" + "m" * 20
    keys = {"LORIKEET_API_KEYS": f"red:{key}", "LORIKEET_METRICS_KEY": metrics_key}
    with running_up(tmp_path / "log", *SIMULATED, "--host", "0.0.0.0", **keys) as up:
        url, children = up.url, up.children()
        assert [child for child in children if "api" in child.cmdline()]
        assert key not in str([child.cmdline() for child in children])
        [worker] = [child for child in children if "worker" in child.cmdline()]
        assert key not in str(worker.environ())
        assert metrics_key not in str(worker.environ())

        assert httpx.get(f"{url}/health").status_code == 200
        assert httpx.get(f"{url}/v1/models").status_code == 401
        headers = {"Authorization": f"Bearer {key}"}
        assert httpx.get(f"{url}/v1/models", headers=headers).status_code == 200
        assert httpx.get(f"{url}/metrics", headers=headers).status_code == 403
        headers = {"Authorization": f"Bearer {metrics_key}"}
        assert httpx.get(f"{url}/metrics", headers=headers).status_code == 200
        up.stop()
    printed = (tmp_path / "log").read_text()
    assert key not in printed
    assert "Authorization: Bearer KEY" in printed


@pytest.mark.slow
def test_waiting_jobs_and_changes_of_adapters_survive_a_kill_and_the_message_names_the_changes(
    tmp_path: Path,
) -> None:
    data, log = tmp_path / "data", tmp_path / "log"
    words = [*SIMULATED, "--data-dir", str(data), "--max-num-seqs", "1"]
    named = ["--adapters", "unloaded=v1", "replaced=v1", "same=v1"]
    with running_up(log, *words, "--simulated-step-ms", "10", *named, "dropped=v1") as up:
        assert "But:" not in up.ready_message
        up.post("/v1/unload_lora_adapter", {"lora_name": "unloaded"})
        body = {"lora_name": "replaced", "lora_path": "v2", "load_inplace": True}
        up.post("/v1/load_lora_adapter", body)
        up.post("/v1/load_lora_adapter", {"lora_name": "extra", "lora_path": "v1"})
        first = up.post("/v1/completions", JOB | {"model": "same", "max_tokens": 2000})["id"]
        waiting = [
            up.post("/v1/completions", JOB | {"model": model, "max_tokens": 8})["id"]
            for model in ("extra", "same") * (NUM_JOBS // 2)
        ]
        assert up.states(waiting) == ["queued"] * NUM_JOBS
        with running_up(tmp_path / "log2", *words) as second:
            assert second.process.wait(STOP_TIMEOUT_S) == 2
            line = (tmp_path / "log2").read_text()
            assert f"another `lorikeet up` (process {up.process.pid}) uses" in line
        up.kill()
    [folder] = data.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700

    log = tmp_path / "log3"
    with running_up(log, *words, "--simulated-step-ms", "0", *named) as up:
        message = up.ready_message
        assert f"Data: {folder}" in message
        assert up.names() == {"base", "unloaded", "replaced", "same", "extra"}
        [note] = re.findall(r"^- (.*)$", message, re.MULTILINE)
        assert note.startswith("replaced is served as replaced@")
        assert note.endswith("lorikeet adapters load replaced v1 --replace")
        jobs = [first, *waiting]
        wait_until(lambda: not {"queued", "running"} & set(up.states(jobs)))
        assert up.states(jobs) == ["done"] * len(jobs)
        up.stop()


@pytest.mark.slow
def test_requests_in_the_moment_of_readiness_are_answered_at_a_first_and_a_second_start(
    tmp_path: Path,
) -> None:
    base, port = save_tiny_model(tmp_path / "tiny"), free_port()
    folder = save_adapter(tmp_path / "adapters" / "a", r=4, target_modules=["q_proj"])
    words = [str(base), "--adapter-root", str(folder.parent), "--port", str(port), *BUDGETS]
    for start in ("first", "second"):
        log = tmp_path / start
        with running_up(log, *words, "--data-dir", str(tmp_path / "data")) as up:
            up.http.base_url = httpx.URL(f"http://127.0.0.1:{port}")
            wait_for(partial(is_ready, up.http), log.read_text, up.process, DEADLINE_S)
            sends = needing_a_worker(up.http, folder)
            with ThreadPoolExecutor(len(sends)) as pool:
                replies = list(pool.map(lambda send: send(), sends))
            assert [reply.text for reply in replies if not reply.is_success] == []
            up.stop()


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends the children")
def test_a_killed_server_without_data_leaves_no_folder(tmp_path: Path) -> None:
    words = [*SIMULATED, "--data-dir", "none", "--adapters", "base=v1", "a=v1"]
    log = tmp_path / "log"
    with running_up(log, *words, "--skip-bad-adapters", TMPDIR=str(tmp_path)) as up:
        assert "- base is left out: adapter base from v1: this is the base" in up.ready_message
        assert "Data:" not in up.ready_message
        assert up.names() == {"base", "a"}
        assert list(tmp_path.glob("lorikeet-redis-*"))
        up.kill()
        wait_until(lambda: not list(tmp_path.glob("lorikeet-redis-*")))
