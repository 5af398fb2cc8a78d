"""Adapters loaded, replaced, rolled back and unloaded while two workers serve."""

import asyncio
import os
import shutil
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest
from bad_adapters import BAD, save_bad, save_good
from peft import PeftModel
from queue_support import eventually
from reference import greedy
from served_tiny import BASE, TinyModels
from servers import Server, lorikeet_up
from tiny import save_adapter, tiny_model

from shared.protocol.ids import AdapterVersion
from shared.store.queue import Queue

LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
CONFIGS: dict[str, dict[str, Any]] = {
    "a": {"seed": 21, "r": 8, "target_modules": "all-linear"},
    "b": {"seed": 22, "r": 4, "lora_alpha": 12, "target_modules": ["q_proj", "v_proj"]},
}
SHARED = "The same long beginning of all prompts, several blocks of it. "
PROMPTS = [SHARED + end for end in ("One", "Two", "Three", "Four")]
NUM_TOKENS = 16
NUM_FLIPS = 100
NUM_CLIENTS = 6
PATIENCE_S = 30.0


@dataclass
class Folders:
    """Where the test's adapters are: `a` and `b`, and others made of them."""

    root: Path

    @classmethod
    def save(cls, root: Path) -> "Folders":
        for name, config in CONFIGS.items():
            save_adapter(root / name, **config)
        return cls(root)

    def copy(self, source: str, name: str) -> Path:
        """A folder `name` that holds what `source` does; its files are written over, in place."""
        target = self.root / name
        target.mkdir(exist_ok=True)
        for file in (self.root / source).iterdir():
            shutil.copyfile(file, target / file.name)
        return target


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders.save(tmp_path_factory.mktemp("adapters"))


@pytest.fixture(scope="module")
def server(
    models: TinyModels, folders: Folders, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    flags = (*models.flags, "--adapter-root", str(folders.root), "--max-num-seqs", "8")
    with lorikeet_up(tmp_path_factory.mktemp("server"), *flags, workers=2) as server:
        yield server
        assert "Traceback" not in server.log_text()


async def load(http: httpx.AsyncClient, name: str, folder: Path, **more: Any) -> dict[str, Any]:
    reply = await http.post(LOAD, json={"lora_name": name, "lora_path": str(folder), **more})
    assert reply.status_code == 200, reply.text
    body: dict[str, Any] = reply.json()
    return body


async def complete(http: httpx.AsyncClient, model: str, prompt: str, **more: Any) -> httpx.Response:
    body = {"model": model, "prompt": prompt, "max_tokens": NUM_TOKENS, "temperature": 0}
    return await http.post("/v1/completions", json={**body, **more})


async def text_of(
    http: httpx.AsyncClient, model: str, prompt: str = PROMPTS[0], **more: Any
) -> str:
    reply = await complete(http, model, prompt, **more)
    assert reply.status_code == 200, reply.text
    text: str = reply.json()["choices"][0]["text"]
    return text


async def is_gone(http: httpx.AsyncClient, name: str) -> bool:
    """Whether nothing of the adapter is left, not even in a worker's memory."""
    listed = (await http.get("/v1/adapters")).json()
    rest = [*listed["data"], *listed["draining"]]
    return not any(each["version"].startswith(f"{name}@") for each in rest)


async def memory(queue: Queue) -> list[tuple[int, int, int]]:
    """Bytes of adapters on each worker, on its device and its host, and their number."""
    workers = await queue.workers()
    return sorted(
        (w.info.adapter_bytes, w.info.host_adapter_bytes, len(w.residents)) for w in workers
    )


@dataclass
class Traffic:
    """Clients that ask one name again and again, and what they were answered."""

    http: httpx.AsyncClient
    model: str
    answers: list[tuple[str, str, str]] = field(default_factory=list)
    """Digest of the adapter by the fingerprint, prompt, text."""
    failures: list[str] = field(default_factory=list)

    async def run(self, number: int) -> None:
        for turn in range(10**6):
            prompt = PROMPTS[(turn + number) % len(PROMPTS)]
            reply = await complete(self.http, self.model, prompt)
            if reply.status_code == 200:
                body = reply.json()
                digest = body["system_fingerprint"].rpartition("_")[2]
                self.answers.append((digest, prompt, body["choices"][0]["text"]))
            else:
                self.failures.append(reply.text)

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """Inside, they ask; nobody is cut off in the end."""
        tasks = [asyncio.create_task(self.run(number)) for number in range(NUM_CLIENTS)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_hundred_flips_under_traffic_mix_no_two_versions(
    http: httpx.AsyncClient, queue: Queue, folders: Folders, models: TinyModels
) -> None:
    """And memory after unload, vLLM's #54839, is what it was before."""
    before = await memory(queue)
    expected: dict[str, dict[str, str]] = {}
    digests = {}
    for name in CONFIGS:
        version = (await load(http, name, folders.root / name))["version"]
        digests[name] = version.rpartition("@")[2]
        expected[digests[name]] = {p: await text_of(http, version, p) for p in PROMPTS}
        reference = PeftModel.from_pretrained(tiny_model(), str(folders.root / name)).eval()
        ids = greedy(reference, models.text_ids(PROMPTS[0]), NUM_TOKENS).tokens
        assert models.text(ids).startswith(expected[digests[name]][PROMPTS[0]])
    assert expected[digests["a"]] != expected[digests["b"]]

    live = folders.copy("a", "live")
    await load(http, "live", live)
    traffic = Traffic(http, "live")
    async with traffic.flowing():
        for flip in range(NUM_FLIPS):
            name = "ba"[flip % 2]
            body = await load(http, "live", folders.copy(name, "live"), load_inplace=True)
            assert body["version"] == f"live@{digests[name]}"
    assert traffic.failures == []
    for digest, prompt, text in traffic.answers:
        assert text == expected[digest][prompt]
    seen = Counter(digest for digest, _, _ in traffic.answers)
    assert min(seen[digest] for digest in expected) > NUM_FLIPS / 4

    for name in ("live", *CONFIGS):
        await http.post(UNLOAD, json={"lora_name": name})
        await eventually(lambda name=name: is_gone(http, name), within_s=PATIENCE_S)
    await eventually(lambda: is_as_before(queue, before), within_s=PATIENCE_S)


async def nobody_holds(queue: Queue, name: str) -> bool:
    held = [version for worker in await queue.workers() for version in worker.residents]
    return not any(version.startswith(f"{name}@") for version in held)


async def is_as_before(queue: Queue, before: Sequence[tuple[int, int, int]]) -> bool:
    return await memory(queue) == before


async def test_jobs_that_wait_at_the_flip_run_the_weights_that_were_written_over(
    http: httpx.AsyncClient, folders: Folders, queue: Queue
) -> None:
    live = folders.copy("a", "waiting")
    version = (await load(http, "waiting", live))["version"]
    long = {"max_tokens": 120, "ignore_eos": True}
    old = await text_of(http, "waiting", **long)
    requests = [asyncio.create_task(text_of(http, "waiting", **long)) for _ in range(50)]
    await eventually(lambda: num_waiting(queue, version), within_s=PATIENCE_S)
    folders.copy("b", "waiting")
    await load(http, "waiting", live, load_inplace=True)
    shutil.rmtree(live)
    assert await num_waiting(queue, version) > 0
    new = await text_of(http, "waiting", **long)
    assert set(await asyncio.gather(*requests)) == {old}
    assert new != old


async def num_waiting(queue: Queue, version: str) -> int:
    return (await queue.counts()).waiting_by_version.get(AdapterVersion(version), 0)


async def test_no_block_of_a_prefix_outlives_a_swap(
    http: httpx.AsyncClient, folders: Folders
) -> None:
    """vLLM's #42125 and #48352: the prefix cache was keyed by name and path."""
    answers = []
    for turn, name in enumerate(("a", "b", "a")):
        await load(http, "prefix", folders.copy(name, "prefix"), load_inplace=turn > 0)
        await load(http, f"fresh-{turn}", folders.root / name)
        answers.append(await text_of(http, "prefix"))
        assert answers[-1] == await text_of(http, f"fresh-{turn}")
    assert answers[0] == answers[2] != answers[1]


async def test_a_rollback_is_one_call_and_versions_have_names_of_their_own(
    http: httpx.AsyncClient, folders: Folders, client: openai.AsyncOpenAI
) -> None:
    first = await load(http, "back", folders.root / "a")
    second = await load(http, "back", folders.root / "b", load_inplace=True)
    new = await text_of(http, "back")
    old = await text_of(http, first["version"])
    assert new != old
    assert await text_of(http, f"{BASE}:back") == await text_of(http, second["version"]) == new
    body = (await http.post("/v1/adapters/back/rollback")).json()
    assert body["version"] == first["version"]
    assert await text_of(http, "back") == old
    assert "back" in [model.id async for model in client.models.list()]
    assert not [m.id async for m in client.models.list() if "@" in m.id or ":" in m.id]


async def test_unload_while_streaming_ends_the_stream_as_if_nothing_had_happened(
    http: httpx.AsyncClient, client: openai.AsyncOpenAI, folders: Folders, queue: Queue
) -> None:
    await load(http, "streamed", folders.root / "a")
    body = {"model": "streamed", "prompt": PROMPTS[0], "max_tokens": 150, "temperature": 0}
    more = {"extra_body": {"ignore_eos": True}}
    whole = await client.completions.create(**body, **more)
    stream = await client.completions.create(**body, **more, stream=True)
    chunks = [await anext(stream)]
    assert (await http.delete("/v1/adapters/streamed")).status_code == 200
    assert (await complete(http, "streamed", "x")).status_code == 404
    assert "streamed" not in [model.id async for model in client.models.list()]
    chunks += [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].text for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].text
    assert chunks[-1].choices[0].finish_reason == "length"
    await eventually(lambda: is_gone(http, "streamed"), within_s=PATIENCE_S)
    await eventually(lambda: nobody_holds(queue, "streamed"), within_s=PATIENCE_S)


async def test_unload_after_n_over_one_is_over_in_time_and_the_name_can_be_loaded_again(
    http: httpx.AsyncClient, folders: Folders
) -> None:
    """SGLang's #36894: unloading hung for ever after a request with n > 1."""
    await load(http, "many", folders.root / "a")
    asked = {"n": 4, "temperature": 0.8, "seed": 5}
    running = asyncio.create_task(complete(http, "many", PROMPTS[0], **asked, max_tokens=100))
    reply = await complete(http, "many", PROMPTS[0], **asked)
    assert len(reply.json()["choices"]) == 4
    assert (await http.post(UNLOAD, json={"lora_name": "many"})).status_code == 200
    assert len((await running).json()["choices"]) == 4
    await eventually(lambda: is_gone(http, "many"), within_s=PATIENCE_S)
    await load(http, "many", folders.root / "a")
    again = await complete(http, "many", PROMPTS[0], **asked)
    assert again.json()["choices"] == reply.json()["choices"]


async def test_a_dry_run_tells_what_fits_and_loads_nothing(
    http: httpx.AsyncClient, folders: Folders, queue: Queue
) -> None:
    before = [worker.residents for worker in await queue.workers()]
    reply = await http.post(
        "/v1/adapters/validate", json={"lora_path": str(folders.root / "b"), "lora_name": "x"}
    )
    body = reply.json()
    assert body["valid"]
    assert body["ranks"] == [{"rank": 4, "modules": 4}]
    assert (body["num_tensors"], body["num_unmatched"]) == (8, 0)
    assert body["base"]["name"] == BASE
    assert (await complete(http, "x", "x")).status_code == 404
    assert [worker.residents for worker in await queue.workers()] == before


async def test_a_hundred_bad_adapters_are_refused_with_a_reason_and_harm_nobody(
    http: httpx.AsyncClient, server: Server, folders: Folders
) -> None:
    good = save_good(folders.root / "good")
    await load(http, "good", good)
    expected = {prompt: await text_of(http, "good", prompt) for prompt in PROMPTS}
    pids, listed = server.pids(), (await http.get("/v1/models")).json()
    traffic = Traffic(http, "good")
    async with traffic.flowing():
        for number, bad in enumerate(BAD):
            folder = save_bad(good, folders.root / f"bad-{number}", bad)
            body = {"lora_name": f"bad-{number}", "lora_path": str(folder)}
            reply = await http.post(LOAD, json=body)
            assert reply.status_code == 400, (bad.name, reply.text)
            error = reply.json()["error"]
            assert (error["code"], error["param"]) == ("adapter_rejected", "lora_path"), bad.name
            with pytest.raises(AssertionError, match=bad.reason):
                raise AssertionError(error["message"])
            assert (await complete(http, body["lora_name"], "x")).status_code == 404
    assert traffic.failures == []
    assert traffic.answers
    assert all(text == expected[prompt] for _, prompt, text in traffic.answers)
    assert server.pids() == pids
    assert (await http.get("/v1/models")).json() == listed


async def test_paths_that_lead_out_are_refused(
    http: httpx.AsyncClient, folders: Folders, tmp_path: Path
) -> None:
    outside = save_good(tmp_path / "outside")
    link = folders.root / "link"
    link.symlink_to(outside)
    inside = folders.root / "a"
    for path, status in (
        (outside, 403),
        (link, 403),
        (link / ".." / "outside", 403),
        (inside / ".." / ".." / outside.parent.name / "outside", 403),
        ("/etc", 403),
        ("../../etc", 403),
        ("org/repo", 403),
        (tmp_path / "no-such", 403),
        (folders.root / "no-such", 404),
        (inside / "adapter_config.json", 404),
    ):
        reply = await http.post(LOAD, json={"lora_name": "out", "lora_path": str(path)})
        assert reply.status_code == status, (path, reply.text)
        assert reply.json()["error"]["param"] == "lora_path"
    assert (await load(http, "in", inside / ".." / "a"))["source"] == str(inside)


async def test_what_was_loaded_is_served_by_workers_that_start_later(
    http: httpx.AsyncClient, server: Server, folders: Folders
) -> None:
    kept = folders.copy("a", "kept")
    await load(http, "kept", kept)
    await load(http, "narrow", folders.root / "b", load_inplace=True)  # given at the start
    await http.post(UNLOAD, json={"lora_name": "wide"})  # this one, too
    before = [await text_of(http, name) for name in ("kept", "narrow")]
    shutil.rmtree(kept)
    workers = [p for p in psutil.Process(server.process.pid).children() if "worker" in p.cmdline()]
    assert len(workers) == 2
    for worker in workers:
        os.kill(worker.pid, signal.SIGKILL)
    await asyncio.to_thread(server._wait, lambda: not any(w.is_running() for w in workers))
    await asyncio.to_thread(server.wait_for_workers, 2)
    assert [await text_of(http, name) for name in ("kept", "narrow")] == before
    assert (await complete(http, "wide", "x")).status_code == 404
    for name in ("narrow", "polyglot"):
        assert (await http.post(f"/v1/adapters/{name}/rollback")).status_code in (200, 409)
