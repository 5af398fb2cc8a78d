"""Adapters that are loaded, sent, replaced, unloaded and evaluated while two workers serve."""

import asyncio
import json
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import httpx
import psutil
import pytest
from adapter_traffic import (
    CONFIGS,
    LOAD,
    NUM_TOKENS,
    PROMPTS,
    UNLOAD,
    Folders,
    Traffic,
    complete,
    files_of,
    load,
    send,
    text_of,
)
from bad_adapters import BAD, save_bad, save_good
from peft import PeftModel
from queue_support import eventually
from reference import greedy
from served_tiny import ANSWER, POLYGLOT, QUESTION, TinyModels
from servers import Server, run_lorikeet
from sse_events import sse_events
from tiny import save_adapter, tiny_model

from shared.store.audit.auditor import Auditor
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews

pytestmark = pytest.mark.slow

NUM_REPLACEMENTS = 100
PATIENCE_S = 30.0
LONG = {"max_tokens": 80, "ignore_eos": True}


def peft_text(folder: Path, models: TinyModels) -> str:
    """Return PEFT's greedy answer to the first prompt."""
    reference = PeftModel.from_pretrained(tiny_model(), str(folder)).eval()
    return models.text(greedy(reference, models.text_ids(PROMPTS[0]), NUM_TOKENS))


async def is_gone(http: httpx.AsyncClient, name: str) -> bool:
    """Return whether no version of the adapter is left, not even in a worker's memory."""
    listed = (await http.get("/v1/adapters")).json()
    rest = [*listed["data"], *listed["draining"]]
    return not any(each["version"].startswith(f"{name}@") for each in rest)


async def memory(views: PoolViews) -> list[tuple[int, int, int]]:
    """Return each worker's adapter bytes on the device and the host, and its resident versions."""
    workers = await views.workers()
    return sorted(
        (w.info.adapter_bytes, w.info.host_adapter_bytes, len(w.residents)) for w in workers
    )


@pytest.mark.long
async def test_a_hundred_replacements_under_traffic_never_mix_versions(
    http: httpx.AsyncClient, views: PoolViews, folders: Folders, models: TinyModels
) -> None:
    """Also check that unloading restores the memory (vLLM #54839)."""
    before = await memory(views)
    expected: dict[str, dict[str, str]] = {}
    digests = {}
    for name in CONFIGS:
        version = (await load(http, name, folders.root / name))["version"]
        digests[name] = version.rpartition("@")[2]
        expected[digests[name]] = {p: await text_of(http, version, p) for p in PROMPTS}
        text = peft_text(folders.root / name, models)
        assert text.startswith(expected[digests[name]][PROMPTS[0]])
    assert expected[digests["a"]] != expected[digests["b"]]

    live = folders.copy("a", "live")
    await load(http, "live", live)
    traffic = Traffic(http, "live")
    async with traffic.running():
        for number in range(NUM_REPLACEMENTS):
            name = "ba"[number % 2]
            body = await load(http, "live", folders.copy(name, "live"), load_inplace=True)
            assert body["version"] == f"live@{digests[name]}"
    assert traffic.failures == []
    for digest, prompt, text in traffic.answers:
        assert text == expected[digest][prompt]
    seen = Counter(digest for digest, _, _ in traffic.answers)
    assert min(seen[digest] for digest in expected) > NUM_REPLACEMENTS / 4

    for name in ("live", *CONFIGS):
        await http.post(UNLOAD, json={"lora_name": name})
        await eventually(lambda name=name: is_gone(http, name), within_s=PATIENCE_S)
    await eventually(lambda: is_as_before(views, before), within_s=PATIENCE_S)


async def is_as_before(views: PoolViews, before: Sequence[tuple[int, int, int]]) -> bool:
    return await memory(views) == before


async def test_a_hundred_bad_adapters_are_refused_with_a_reason_and_disturb_no_request(
    http: httpx.AsyncClient, server: Server, folders: Folders
) -> None:
    good = save_good(folders.root / "good")
    await load(http, "good", good)
    expected = {prompt: await text_of(http, "good", prompt) for prompt in PROMPTS}
    pids, listed = server.pids(), (await http.get("/v1/models")).json()
    traffic = Traffic(http, "good")
    async with traffic.running():
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


async def test_loaded_adapters_are_served_by_workers_that_start_later(
    http: httpx.AsyncClient, server: Server, folders: Folders, store: Path
) -> None:
    kept = folders.copy("a", "kept")
    await load(http, "kept", kept)
    await load(http, "narrow", folders.root / "b", load_inplace=True)  # also given at the start
    await http.post(UNLOAD, json={"lora_name": "wide"})  # given at the start as well
    save_adapter(folders.root / "sent", seed=77, r=4, target_modules=["q_proj"])
    sent = (await send(http, "sent", folders.root / "sent"))["version"]
    names = ("kept", "narrow", "sent")
    before = [await text_of(http, name) for name in names]
    shutil.rmtree(kept)
    await asyncio.to_thread(delete_copies, store, sent)  # as on another machine
    workers = server.children("worker")
    assert len(workers) == 2
    for worker in workers:
        worker.kill()
    await asyncio.to_thread(psutil.wait_procs, workers)
    await asyncio.to_thread(server.wait_for_workers, 2)
    assert [await text_of(http, name) for name in names] == before
    assert (await complete(http, "wide", "x")).status_code == 404


def delete_copies(store: Path, version: str) -> None:
    """Delete a version's copies on the workers' disk, so that they must read it from Redis."""
    found = [path for path in store.glob("main/*/.version") if path.read_text() == version]
    assert found
    for path in found:
        shutil.rmtree(path.parent)


NAME = "questions"
ASKED = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 200}
Command = Callable[..., tuple[int, str]]


@pytest.fixture
def adapters(server: Server, models: TinyModels) -> Iterator[Command]:
    """Run `lorikeet adapters`, with an adapter of random weights loaded as `NAME`."""

    def run(*words: str) -> tuple[int, str]:
        done = run_lorikeet("adapters", "--url", server.url, *words)
        return done.returncode, done.stdout + done.stderr

    assert run("load", NAME, str(models.folder / "narrow"))[0] == 0
    yield run
    run("unload", NAME)


@pytest.fixture
def cases(tmp_path: Path) -> str:
    file = tmp_path / "cases.jsonl"
    rows = [{**ASKED, "expected": ANSWER}, {"prompt": "x", "max_tokens": 2, "pattern": ""}]
    file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    return str(file)


def current(server: Server) -> str:
    body = httpx.get(f"{server.url}/v1/adapters/{NAME}").json()
    return str(body["version"])


def test_a_better_candidate_is_promoted_and_a_worse_one_is_not(
    server: Server, models: TinyModels, adapters: Command, cases: str
) -> None:
    first = current(server)
    evaluate = ("evaluate", NAME, "--file", cases)
    assert adapters("canary", NAME, str(models.folder / POLYGLOT), "--percent", "0")[0] == 0
    status, shown = adapters(*evaluate)
    assert status == 0, shown
    assert "1 of 2" in shown
    assert "2 of 2" in shown
    assert "line 1" in shown
    assert current(server) == first, "nothing changes without --promote"
    assert adapters(*evaluate, "--promote")[0] == 0
    second = current(server)
    assert second != first

    assert adapters("canary", NAME, "--version", first, "--percent", "0")[0] == 0
    status, shown = adapters(*evaluate, "--promote")
    assert (status, current(server)) == (1, second)
    assert "the candidate is worse than the current version" in shown
    assert adapters("drop", NAME)[0] == 0
    status, shown = adapters(*evaluate, "--promote")
    assert status == 2
    assert "aren't both evaluated" in shown
    status, shown = adapters(*evaluate, "--version", first, "--version", second)
    assert (status, "previous" in shown) == (0, True)


def test_a_bad_file_names_its_line(adapters: Command, tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text('{"prompt": "x", "expected": "y"}\n{"prompt": "x"}')
    status, shown = adapters("evaluate", NAME, "--file", str(file))
    assert (status, "line 2: it must have exactly one of" in shown) == (2, True)
    status, shown = adapters("evaluate", NAME, "--file", str(tmp_path / "none"))
    assert (status, "--file: can't read" in shown) == (2, True)


async def test_each_version_answers_as_peft_does_and_running_requests_keep_theirs(
    http: httpx.AsyncClient, folders: Folders, models: TinyModels
) -> None:
    texts, versions = [], []
    for name in ("a", "b"):
        versions.append((await send(http, "policy", folders.root / name))["version"])
        reply = (await complete(http, "policy", PROMPTS[0])).json()
        texts.append(reply["choices"][0]["text"])
        assert reply["weight_version"] == versions[-1]
        assert peft_text(folders.root / name, models).startswith(texts[-1])
    assert texts[0] != texts[1]

    old = await text_of(http, "policy", **LONG)
    body = {"model": "policy", "prompt": PROMPTS[0], "temperature": 0, "stream": True, **LONG}
    async with http.stream("POST", "/v1/completions", json=body) as stream:
        parts = stream.aiter_text()
        first = await anext(parts)
        assert (await send(http, "policy", folders.root / "a"))["version"] == versions[0]
        text = "".join([first, *[part async for part in parts]])
    chunks = [event.json for event in sse_events(text) if event.data not in ("", "[DONE]")]
    assert {chunk["weight_version"] for chunk in chunks} == {versions[1]}
    assert "".join(c["choices"][0]["text"] for c in chunks if c["choices"]) == old
    assert await text_of(http, "policy") == texts[0]


async def test_versions_beyond_keep_versions_are_deleted_everywhere(
    http: httpx.AsyncClient,
    folders: Folders,
    redis: Redis,
    store: Path,
) -> None:
    made = []
    for seed in range(4):
        folder = folders.root / f"seed-{seed}"
        save_adapter(folder, seed=100 + seed, r=4, target_modules=["q_proj"])
        made.append((await send(http, "rolling", folder))["version"])
        await text_of(http, "rolling")

    async def sources() -> set[str]:
        return {key async for key in redis.scan_iter("*}:upload:*")}

    def copies() -> set[str]:
        names = {path.read_text() for path in store.glob("main/*/.version")}
        return {name for name in names if name.startswith("rolling@")}

    async def is_small() -> bool:
        listed = (await http.get("/v1/adapters")).json()
        rest = [*listed["data"], *(v for each in listed["data"] for v in each["previous"])]
        rest += listed["draining"]
        kept = {each["version"] for each in rest if each["version"].startswith("rolling@")}
        uploads = {each["source"] for each in rest if each["source"].startswith("upload:")}
        return kept == copies() == set(made[-2:]) and len(await sources()) == len(uploads)

    await eventually(is_small, within_s=2 * PATIENCE_S)
    assert (await complete(http, made[0], "x")).status_code == 404
    assert (await complete(http, made[-2], "x")).status_code == 200
    assert (await Auditor(redis, Keys("main")).audit(settle_s=0)).strays == ()


async def test_bad_bodies_are_refused_before_the_name_changes(
    http: httpx.AsyncClient, folders: Folders, redis: Redis
) -> None:
    """tests/worker/adapters/remote/test_attacks.py has the bad files."""
    version = (await send(http, "strict", folders.root / "a"))["version"]
    config, weights = files_of(folders.root / "a")
    num_uploads = len([key async for key in redis.scan_iter("*}:upload:*")])

    async def unending() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield bytes(1 << 18)

    for query, body, status, reason in (
        ({"config": config}, weights[:-100], 400, "adapter_rejected"),
        ({"config": config}, b"", 400, "the body is empty"),
        ({}, weights, 400, "adapter_config.json is missing"),
        ({"config": config, "nme": "x"}, weights, 400, "unknown field: nme"),
        ({"config": config, "name": "a b"}, weights, 400, "name: must be a name"),
        ({"config": config, "name": "tiny"}, weights, 409, "name of the base model"),
        ({"config": config}, weights + bytes(1 << 20), 413, "--max-adapter-mb"),
        ({"config": config}, unending(), 413, "--max-adapter-mb"),
    ):
        reply = await http.post("/v1/adapters", params={"name": "strict", **query}, content=body)
        assert (reply.status_code, reason in reply.text) == (status, True), reply.text
    reply = await http.post("/v1/adapters", params={"name": "strict"}, json={})
    assert (reply.status_code, "/v1/load_lora_adapter" in reply.text) == (400, True)
    stolen = {"lora_name": "thief", "lora_path": f"upload:{'0' * 32}"}
    assert (await http.post("/v1/load_lora_adapter", json=stolen)).status_code == 400
    assert (await complete(http, "strict", "x")).json()["weight_version"] == version
    assert len([key async for key in redis.scan_iter("*}:upload:*")]) == num_uploads


async def test_redis_without_room_refuses_the_adapter_and_takes_jobs(
    http: httpx.AsyncClient, folders: Folders, redis: Redis
) -> None:
    used = (await redis.info("memory"))["used_memory"]
    await redis.config_set("maxmemory", int(used / 0.72))
    try:
        config, weights = files_of(folders.root / "a")
        query = {"name": "full", "config": config}
        reply = await http.post("/v1/adapters", params=query, content=weights)
        assert (reply.status_code, "too little free memory" in reply.text) == (503, True)
        assert (await complete(http, "tiny", "x")).status_code == 200
    finally:
        await redis.config_set("maxmemory", 0)
    assert (await http.get("/v1/adapters/full")).status_code == 404


async def test_trainers_for_vllm_may_ask_for_a_pause_that_keeps_requests(
    http: httpx.AsyncClient,
) -> None:
    reply = await http.post("/pause", params={"mode": "keep"})
    assert (reply.status_code, reply.json()["paused"]) == (200, False)
    assert (await http.post("/resume")).status_code == 200
    for query in ({}, {"mode": "abort"}, {"mode": "wait"}):
        reply = await http.post("/pause", params=query)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "mode")
