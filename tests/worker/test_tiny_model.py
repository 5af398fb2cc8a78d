"""Tests of a worker with a real engine, which serves a tiny random model with adapters."""

import json
import shutil
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
from json_schemas import is_valid
from reference import greedy, with_adapter
from tiny import save_adapter, save_adapters, save_tiny_model, tiny_model, tiny_tokenizer
from worker_support import Client, has_workers, running_with

from shared.protocol.ids import AdapterVersion
from shared.protocol.jobs import Endpoint, JobState, SamplingParams
from shared.protocol.logprobs import PositionLogprobs
from shared.protocol.results import Choice, FinishReason, Result
from shared.settings import WorkerSettings
from worker.service import Worker
from worker.startup.load_model import load_served

MIB = 1 << 20
NUM_TOKENS = 24


def sampled(temperature: float, *, n: int = 1, num_tokens: int = NUM_TOKENS) -> SamplingParams:
    """Return sampling parameters of an answer that has exactly `num_tokens` tokens."""
    return SamplingParams(
        seed=5, temperature=temperature, n=n, max_tokens=num_tokens, ignore_eos=True
    )


def changed(settings: WorkerSettings, changes: dict[str, Any]) -> WorkerSettings:
    """Return other settings, checked as those of a new process are."""
    return WorkerSettings(**{**settings.model_dump(), **changes})


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tiny")
    config = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "down_proj"]}
    return {
        "base": save_tiny_model(folder / "base"),
        "one": save_adapter(folder / "one", seed=1, **config),
        "two": save_adapter(folder / "two", seed=2, **config),
    }


@pytest.fixture
def settings(folders: dict[str, Path], pool: str, redis_url: str) -> WorkerSettings:
    return WorkerSettings(
        redis_url=redis_url,
        pool=pool,
        model=str(folders["base"]),
        adapters=(f"one={folders['one']}", f"two={folders['two']}"),
        dtype="float32",
        device="cpu",
        kv_cache_mb=16,
        adapter_memory_mb=16,
        threads=1,
        drain_s=0,
    )


def serving(client: Client, settings: WorkerSettings) -> AbstractAsyncContextManager[Worker]:
    return running_with(client.redis, settings, load_served(settings, lambda *_: None))


async def versions(client: Client) -> dict[str, AdapterVersion]:
    base = await client.registry.base()
    return {"base": base.version, **{a.name: a.version for a in await client.registry.adapters()}}


async def test_every_model_answers_as_transformers_and_peft_do(
    settings: WorkerSettings, folders: dict[str, Path], client: Client
) -> None:
    prompt = "hello 你好"
    ids = tiny_tokenizer()(prompt)["input_ids"]
    async with serving(client, settings):
        jobs = {
            name: await client.send(prompt, version=version, sampling=sampled(0))
            for name, version in (await versions(client)).items()
        }
        results = {name: await client.result_of(job) for name, job in jobs.items()}
    answers = set()
    for name, result in results.items():
        (choice,) = result.choices
        model = tiny_model() if name == "base" else with_adapter(tiny_model(), folders[name])
        assert list(choice.ids) == greedy(model, ids, NUM_TOKENS)
        assert choice.text == tiny_tokenizer().decode(choice.ids, skip_special_tokens=True)
        answers.add(choice.ids)
    assert len(answers) == 3


async def test_on_a_cpu_adapters_fill_both_memory_budgets(
    settings: WorkerSettings, tmp_path: Path, client: Client
) -> None:
    wide = {"r": 128, "target_modules": "all-linear"}
    names = [f"wide{seed}" for seed in range(8)]
    folders = save_adapters(tmp_path, dict.fromkeys(names, wide))
    made = [f"{name}={folder}" for name, folder in folders.items()]
    small = changed(
        settings, {"adapters": tuple(made), "adapter_memory_mb": 1, "adapter_host_mb": 32}
    )
    async with serving(client, small):
        found = await versions(client)
        jobs = [await client.send(version=found[name]) for name in names]
        for job in jobs:
            assert (await client.end_of(job)).state is JobState.DONE
        (worker,) = await client.views.workers()
    assert set(found.values()) == set(worker.residents)
    assert worker.info.counters["evictions"] == 0
    assert worker.info.adapter_bytes == worker.info.adapter_bytes_max == MIB
    assert 0 < worker.info.host_adapter_bytes <= worker.info.host_adapter_bytes_max == 32 * MIB


ITEM = {"type": "string", "minLength": 4, "maxLength": 8}
SCHEMA = {"type": "array", "items": ITEM, "minItems": 20, "maxItems": 20}


@pytest.mark.slow
async def test_penalties_echoes_logprobs_and_schemas_continue_on_the_next_worker(
    settings: WorkerSettings, client: Client
) -> None:
    penalised = replace(
        sampled(0.8, n=2, num_tokens=300),
        presence_penalty=0.6,
        frequency_penalty=0.4,
        repetition_penalty=1.3,
        logit_bias=((40, 2.0),),
        logprobs=2,
        prompt_logprobs=3,
    )
    prompts = "hello", tuple(tiny_tokenizer()("你好")["input_ids"])
    schema = SamplingParams(seed=5, n=2, max_tokens=450, json_schema=json.dumps(SCHEMA))
    asked: list[dict[str, Any]] = [
        {"sampling": penalised, "echo": True, "prompts": prompts},
        {"sampling": schema},
    ]
    async with serving(client, settings):
        version = (await versions(client))["two"]
        jobs = [await client.send(version=version, **fields) for fields in asked]
        undisturbed = [await client.result_of(job) for job in jobs]
        moved = [await client.send(version=version, **fields) for fields in asked]
        for job in moved:
            await client.until_published(job, 10)
    assert await has_workers(client.views, 0)
    async with serving(client, settings):
        results = [await client.result_of(job) for job in moved]
    assert [(await client.end_of(job)).try_ for job in moved] == [2, 2]
    for choice, expected in zip(results[1].choices, undisturbed[1].choices, strict=True):
        assert choice.ids == expected.ids
        assert choice.finish is FinishReason.STOP
        assert is_valid(SCHEMA, choice.text)
    assert len(results[0].choices) == 4
    both = zip(results[0].choices, undisturbed[0].choices, strict=True)
    for number, (ours, theirs) in enumerate(both):
        assert client.answers_of(moved[0])[number] == (ours.ids, ours.text)
        assert (ours.ids, ours.text) == (theirs.ids, theirs.text)
        assert ours.text.startswith(("hello", "你好")[number // 2])
        check_same_logprobs(ours.prompt_logprobs, theirs.prompt_logprobs)
        assert {len(position.top) for position in ours.prompt_logprobs} == {0, 2}
        assert bool(ours.prompt_scores) is (number % 2 == 0)
        assert scores_of(ours) == scores_of(theirs)
        assert {len(scores) for scores in scores_of(ours)[1:]} <= {3, 4}
        check_same_logprobs(ours.logprobs, theirs.logprobs)
        events = [event for event in client.tokens_of(moved[0]) if event.choice == number]
        check_same_logprobs([p for event in events for p in event.logprobs], theirs.logprobs)
        published = [event.prompt_logprobs for event in events if event.prompt_logprobs]
        assert published == [ours.prompt_logprobs]
        scored = [event.prompt_scores for event in events if event.prompt_scores]
        assert scored == [scores for scores in [ours.prompt_scores] if scores]


def scores_of(choice: Choice) -> list[list[tuple[str, int]]]:
    """Return the token ids and ranks at each position of the prompt."""
    positions = json.loads(choice.prompt_scores or "[]")
    return [[(i, s["rank"]) for i, s in (position or {}).items()] for position in positions]


def check_same_logprobs(
    ours: Sequence[PositionLogprobs], theirs: Sequence[PositionLogprobs]
) -> None:
    """Fail unless the logprobs are equal up to rounding.

    The next worker computes the published tokens in one prefill, which rounds differently.
    """
    assert [(p.chosen.token, p.chosen.bytes, p.offset) for p in ours] == [
        (p.chosen.token, p.chosen.bytes, p.offset) for p in theirs
    ]
    for mine, other in zip(ours, theirs, strict=True):
        pairs = zip((mine.chosen, *mine.top), (other.chosen, *other.top), strict=True)
        assert all(one.logprob == pytest.approx(two.logprob, abs=1e-4) for one, two in pairs)


async def test_an_adapter_is_served_with_its_own_template_and_defaults(
    settings: WorkerSettings, folders: dict[str, Path], client: Client, tmp_path: Path
) -> None:
    ids = tiny_tokenizer()("<bos>Q: 你好 A:")["input_ids"]
    expected = greedy(with_adapter(tiny_model(), folders["one"]), ids, 40)
    end = expected[20]
    folder = Path(shutil.copytree(folders["one"], tmp_path / "own"))
    template = "{{ bos_token }}Q: {{ messages[0].content }} A:"
    (folder / "chat_template.jinja").write_text(template)
    defaults = {"do_sample": False, "top_p": 0.5, "eos_token_id": [end]}
    (folder / "generation_config.json").write_text(json.dumps(defaults))
    left_out = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
    sampling = SamplingParams(seed=5, max_tokens=40, left_out=left_out)

    async def answer(version: AdapterVersion, sampling: SamplingParams = sampling) -> Result:
        messages = ({"role": "user", "content": "你好"},)
        chat = {"endpoint": Endpoint.CHAT, "messages": messages, "sampling": sampling}
        return await client.result_of(await client.send(version=version, **chat))

    named = (*settings.adapters, f"own={folder}", f"again={folder}")
    async with serving(client, changed(settings, {"adapters": named})):
        own, again = itemgetter("own", "again")(await versions(client))
        results = [await answer(own), await answer(again)]
    assert await has_workers(client.views, 0)
    # A worker that has not read the adapter yet must do so before it tokenizes the chat.
    async with serving(client, changed(settings, {"adapters": ()})):
        results.append(await answer(own))
        warm = replace(sampling, temperature=1.5, left_out=left_out[1:])
        overridden = await answer(own, warm)
    for result in results:
        (choice,) = result.choices
        assert result.usage.prompt_tokens == len(ids)
        assert list(choice.ids) == expected[: expected.index(end) + 1]
        assert choice.finish is FinishReason.STOP
    assert overridden.choices[0].ids != results[0].choices[0].ids
