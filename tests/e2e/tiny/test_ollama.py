"""Ollama's client for Python, against a server of the tiny models."""

from collections.abc import AsyncIterator
from typing import Any

import ollama
import openai
import pytest
from json_schemas import is_valid
from served_tiny import ANSWER, BASE, NAMES, POLYGLOT, QUESTION
from servers import Server

ASKED = [{"role": "user", "content": QUESTION}]
GREEDY = {"temperature": 0, "num_predict": 16}
SCHEMA = {
    "type": "object",
    "properties": {"y": {"type": "integer", "minimum": -99, "maximum": 99}},
    "required": ["y"],
    "additionalProperties": False,
}
DURATIONS = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")


@pytest.fixture
async def programme(server: Server) -> AsyncIterator[ollama.AsyncClient]:
    async with ollama.AsyncClient(host=server.url) as client:
        yield client


@pytest.mark.parametrize("model", [BASE, f"{BASE}:latest", f"{BASE}:{POLYGLOT}"])
async def test_a_chat_is_the_chat_of_openais_client(
    programme: ollama.AsyncClient, client: openai.AsyncOpenAI, model: str
) -> None:
    expected = await client.chat.completions.create(
        model=model.removesuffix(":latest"),
        messages=ASKED,  # type: ignore[arg-type]
        temperature=0,
        max_tokens=16,
        extra_body={"chat_template_kwargs": {"enable_thinking": True}},
    )
    answer = await programme.chat(model, ASKED, options=GREEDY)
    choice, usage = expected.choices[0], expected.usage
    assert answer.message.content == choice.message.content
    assert (answer.model, answer.done_reason) == (model, choice.finish_reason)
    assert usage is not None
    assert answer.prompt_eval_count == usage.prompt_tokens
    assert answer.eval_count == usage.completion_tokens
    total, *parts = (getattr(answer, name) for name in DURATIONS)
    assert all(0 < part < total for part in parts)
    assert sum(parts) <= total


async def test_a_stream_has_the_same_text(programme: ollama.AsyncClient) -> None:
    whole = await programme.chat(BASE, ASKED, options=GREEDY)
    stream = await programme.chat(BASE, ASKED, options=GREEDY, stream=True)
    parts = [part async for part in stream]
    assert "".join(part.message.content or "" for part in parts) == whole.message.content
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert parts[-1].eval_count == whole.eval_count
    assert parts[-1].total_duration


async def test_a_prompt_is_one_message_and_a_raw_prompt_is_the_whole_prompt(
    programme: ollama.AsyncClient, client: openai.AsyncOpenAI
) -> None:
    expected = (await programme.chat(BASE, ASKED, options=GREEDY)).message.content
    answer = await programme.generate(BASE, QUESTION, options=GREEDY)
    assert answer.response == expected
    stream = await programme.generate(BASE, QUESTION, options=GREEDY, stream=True)
    assert "".join([part.response or "" async for part in stream]) == expected
    completion = await client.completions.create(
        model=BASE, prompt=QUESTION, temperature=0, max_tokens=40
    )
    options = {**GREEDY, "num_predict": 40}
    raw = await programme.generate(BASE, QUESTION, options=options, raw=True)
    assert raw.response == completion.choices[0].text
    assert completion.usage is not None
    assert raw.prompt_eval_count == completion.usage.prompt_tokens


async def test_an_adapter_answers_as_it_was_trained(programme: ollama.AsyncClient) -> None:
    prompt = f"<|user|>{QUESTION}<|end|><|assistant|>"
    answer = await programme.generate(POLYGLOT, prompt, raw=True, options={"temperature": 0})
    assert (answer.response, answer.done_reason) == (ANSWER, "stop")


@pytest.mark.parametrize("is_raw", [True, False])
async def test_json_and_schemas_are_enforced(programme: ollama.AsyncClient, is_raw: bool) -> None:
    options = {"temperature": 1, "seed": 3, "num_predict": 200}
    answer = await programme.generate(BASE, "hi", format=SCHEMA, options=options, raw=is_raw)
    assert is_valid(SCHEMA, answer.response)
    chat = await programme.chat(BASE, ASKED, format=SCHEMA, options=options)
    assert is_valid(SCHEMA, chat.message.content or "")
    cut = await programme.chat(BASE, ASKED, format="json", options={**options, "num_predict": 9})
    assert (cut.message.content or "").lstrip().startswith("{")


async def test_log_probabilities(programme: ollama.AsyncClient) -> None:
    answer = await programme.chat(BASE, ASKED, options=GREEDY, logprobs=True, top_logprobs=2)
    assert len(answer.logprobs or ()) == answer.eval_count
    for position in answer.logprobs or ():
        assert position.logprob < 0
        first, _ = position.top_logprobs or ()
        assert first.token == position.token


async def test_embeddings(programme: ollama.AsyncClient, client: openai.AsyncOpenAI) -> None:
    expected = await client.embeddings.create(model=BASE, input=["a", "b c"])
    answer = await programme.embed(f"{BASE}:latest", ["a", "b c"], truncate=True)
    for mine, theirs in zip(answer.embeddings, expected.data, strict=True):
        assert list(mine) == pytest.approx(theirs.embedding, abs=1e-5)
    assert answer.prompt_eval_count == expected.usage.prompt_tokens
    (one,) = (await programme.embed(BASE, "a")).embeddings
    older = (await programme.embeddings(BASE, "a")).embedding
    length = sum(value**2 for value in older) ** 0.5
    assert [value / length for value in older] == pytest.approx(list(one), abs=1e-5)
    long = await programme.embed(BASE, "word " * 2000)
    assert len(long.embeddings[0]) == len(one)


async def test_models_are_listed_and_shown(programme: ollama.AsyncClient) -> None:
    listed = (await programme.list()).models
    assert {f"{name}:latest" for name in NAMES} <= {model.model for model in listed}
    assert all(model.digest and model.modified_at for model in listed)
    assert all((model.size or 0) > 0 for model in listed)
    shown = await programme.show(f"{POLYGLOT}:latest")
    assert shown.capabilities == ["completion", "tools", "embedding"]
    assert shown.details is not None
    assert shown.details.parent_model == f"{BASE}:latest"
    info: Any = shown.modelinfo
    assert info[f"{info['general.architecture']}.context_length"] > 0
    await programme.chat(POLYGLOT, ASKED, options={"num_predict": 1})
    running = (await programme.ps()).models
    assert {f"{BASE}:latest", f"{POLYGLOT}:latest"} <= {model.name for model in running}


async def test_models_are_loaded_and_pulled_at_once(programme: ollama.AsyncClient) -> None:
    assert (await programme.generate(BASE)).done_reason == "load"
    assert (await programme.chat(BASE, keep_alive=0)).done_reason == "unload"
    assert (await programme.pull(BASE)).status == "success"
    stream = await programme.pull(BASE, stream=True)
    assert [part.status async for part in stream] == ["success"]


async def test_errors_have_their_status_and_message(programme: ollama.AsyncClient) -> None:
    async def refused(request: Any) -> ollama.ResponseError:
        with pytest.raises(ollama.ResponseError) as raised:
            await request
        return raised.value

    async def read(stream: Any) -> None:
        async for _ in await stream:
            pass

    unknown = await refused(programme.chat("llama3.2", ASKED))
    assert (unknown.status_code, "not found" in unknown.error) == (404, True)
    streamed = await refused(read(programme.generate("llama3.2", "hi", stream=True)))
    assert streamed.status_code == 404
    pulled = await refused(programme.pull("llama3.2"))
    assert "lorikeet adapters load" in pulled.error
    bad = await refused(programme.chat(BASE, ASKED, options={"temperature": 5}))
    assert (bad.status_code, "options.temperature" in bad.error) == (400, True)
    thinking = await refused(programme.chat(BASE, ASKED, think=True))
    assert thinking.error == f'"{BASE}" does not support thinking'
    for changed in (
        programme.delete(BASE),
        programme.copy(BASE, "other"),
        programme.create("other", from_=BASE),
        programme.push(BASE),
    ):
        assert "isn't available" in (await refused(changed)).error
