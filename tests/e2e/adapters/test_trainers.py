"""Updates of an adapter with the calls of trainers, and SGLang's /generate, by real workers."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from adapter_traffic import PROMPTS, UNLOAD, Folders, complete, files_of
from peft import PeftModel
from queue_support import eventually
from reference import greedy
from served_tiny import TinyModels
from sse_events import sse_events
from tiny import tiny_model
from trainer_calls import TRAINERS, Trained, Trainer

from shared.store.audit.auditor import Auditor
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews

pytestmark = pytest.mark.slow

NUM_TOKENS = 8
LONG = {"max_new_tokens": 400, "ignore_eos": True}


def trained(folders: Folders, name: str, step: int) -> Trained:
    config, weights = files_of(folders.root / name)
    root = folders.root / "shared"
    return Trained(step=step, config=json.loads(config), weights=weights, root=root)


def expected_ids(folder: Path, ids: list[int]) -> list[int]:
    """Return the first tokens of PEFT's greedy answer."""
    reference = PeftModel.from_pretrained(tiny_model(), str(folder)).eval()
    return greedy(reference, ids, NUM_TOKENS)


@pytest.fixture
async def clean(http: httpx.AsyncClient) -> AsyncIterator[None]:
    """Unload the adapters that a test has loaded."""
    before = {each["id"] for each in (await http.get("/v1/adapters")).json()["data"]}
    yield
    await http.post("/continue_generation", json={})
    for each in (await http.get("/v1/adapters")).json()["data"]:
        if each["id"] not in before:
            await http.post(UNLOAD, json={"lora_name": each["id"]})


@pytest.mark.parametrize("trainer", TRAINERS, ids=lambda trainer: trainer.name)
@pytest.mark.usefixtures("clean")
async def test_each_answer_after_an_update_is_that_of_the_new_weights(
    http: httpx.AsyncClient, folders: Folders, models: TinyModels, trainer: Trainer
) -> None:
    ids, versions = models.text_ids(PROMPTS[0]), []
    for step, adapter in enumerate(("a", "b", "a"), start=1):
        name = await trainer.publish(http, trained(folders, adapter, step))
        answer = await trainer.ask(http, name, ids, NUM_TOKENS)
        assert answer["output_ids"] == expected_ids(folders.root / adapter, ids)
        versions.append(answer["weight_version"])
    digests = [version.rpartition("@")[2] for version in versions]
    assert digests[0] == digests[2] != digests[1]


@pytest.mark.usefixtures("clean")
async def test_generate_reports_what_completions_report(
    http: httpx.AsyncClient, folders: Folders, models: TinyModels
) -> None:
    ids, weights = models.text_ids(PROMPTS[1]), trained(folders, "a", 1)
    name = await TRAINERS[1].publish(http, weights)
    sampling = {"max_new_tokens": NUM_TOKENS, "temperature": 0, "stop": ["zzz"]}
    body = {"input_ids": ids, "lora_path": name, "sampling_params": sampling}
    asked = {"return_logprob": True, "logprob_start_len": 0, "top_logprobs_num": 2}
    answer = (await http.post("/generate", json={**body, **asked})).json()
    options = {"logprobs": 2, "prompt_logprobs": 2, "return_token_ids": True}
    options |= {"return_tokens_as_token_ids": True}
    reply = await complete(http, name, ids, max_tokens=NUM_TOKENS, **options)  # type: ignore[arg-type]
    choice, meta = reply.json()["choices"][0], answer["meta_info"]
    assert (answer["text"], answer["output_ids"]) == (choice["text"], choice["token_ids"])
    logprobs = choice["logprobs"]["token_logprobs"]
    assert [entry[0] for entry in meta["output_token_logprobs"]] == pytest.approx(logprobs)
    assert [entry[1] for entry in meta["output_token_logprobs"]] == answer["output_ids"]
    for entries, top in zip(
        meta["output_top_logprobs"], choice["logprobs"]["top_logprobs"], strict=True
    ):
        assert len(entries) == 2
        assert {f"token_id:{entry[1]}" for entry in entries} <= top.keys()
    scored = meta["input_token_logprobs"]
    assert [entry[1] for entry in scored] == ids
    assert [entry[0] for entry in scored[1:]] == pytest.approx(
        [
            position[str(token_id)]["logprob"]
            for token_id, position in zip(ids[1:], choice["prompt_logprobs"][1:], strict=True)
        ]
    )
    assert meta["prompt_tokens"] == len(ids)
    assert meta["completion_tokens"] == len(answer["output_ids"])

    streamed = await http.post("/generate", json={**body, "return_logprob": True, "stream": True})
    *chunks, done = sse_events(streamed.text)
    assert done.data == "[DONE]"
    last = chunks[-1].json
    assert (last["text"], last["output_ids"]) == (answer["text"], answer["output_ids"])
    assert last["meta_info"]["output_token_logprobs"] == meta["output_token_logprobs"]


async def test_the_ids_include_the_token_that_ends_the_answer(
    http: httpx.AsyncClient, models: TinyModels
) -> None:
    end = models.tokenizer.eos_token_id
    biased = {"logit_bias": {str(end): 100}}
    body = {"text": "hi", "return_logprob": True, "sampling_params": biased}
    answer = (await http.post("/generate", json=body)).json()
    assert (answer["text"], answer["output_ids"]) == ("", [end])
    meta = answer["meta_info"]
    assert meta["finish_reason"] == {"type": "stop", "matched": end}
    assert [entry[1] for entry in meta["output_token_logprobs"]] == [end]


async def test_an_abort_returns_what_was_generated(http: httpx.AsyncClient, redis: Redis) -> None:
    body = {"text": "hi", "rid": "long", "return_logprob": True, "sampling_params": LONG}
    posting = asyncio.create_task(http.post("/generate", json=body))

    async def is_running() -> bool:
        jobs = (await http.get("/v1/jobs", params={"state": "running"})).json()["data"]
        return bool(jobs)

    await eventually(is_running)
    await http.post("/abort_request", json={"rid": "long"})
    answer = (await posting).json()
    meta = answer["meta_info"]
    assert meta["finish_reason"]["type"] in ("abort", "length")  # it may have ended meanwhile
    ids = [entry[1] for entry in meta["output_token_logprobs"]]
    assert ids == answer["output_ids"]
    assert len(ids) == meta["completion_tokens"]


async def test_a_paused_pool_keeps_new_requests_until_it_continues(
    http: httpx.AsyncClient, views: PoolViews, redis: Redis
) -> None:
    await http.post("/pause_generation", json={"mode": "in_place"})
    body = {"text": "hi", "sampling_params": {"max_new_tokens": 2}}
    waiting = [asyncio.create_task(http.post("/generate", json=body)) for _ in range(20)]

    async def all_wait() -> bool:
        return (await views.counts()).waiting == len(waiting)

    await eventually(all_wait)
    await asyncio.sleep(1.2)  # workers look for jobs once a second
    assert not any(each.done() for each in waiting)
    assert (await Auditor(redis, Keys("main")).audit(settle_s=0)).strays == ()
    await http.post("/continue_generation", json={})
    replies = await asyncio.gather(*waiting)
    assert {reply.status_code for reply in replies} == {200}
