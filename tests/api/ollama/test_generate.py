"""/api/generate: prompts in a chat, raw prompts, and what is refused."""

from base64 import b64encode
from dataclasses import replace
from typing import Any

import httpx
import orjson
import pytest
from api_support import BASE, ScriptedWorker, error_of
from image_files import image_file
from json_lines import joined, json_lines

from shared.protocol.jobs import Endpoint
from shared.protocol.logprobs import PositionLogprobs, TokenLogprob
from shared.protocol.results import Choice, FinishReason
from shared.store.adapters.registry import Registry

URL = "/api/generate"
BODY: dict[str, Any] = {"model": "extract", "prompt": "Why?"}
WHOLE: dict[str, Any] = {**BODY, "stream": False}


async def test_a_prompt_is_a_chat_with_one_message(answered: Any) -> None:
    reply, job = await answered(URL, {**WHOLE, "system": "Be brief."})
    assert job.job.endpoint is Endpoint.CHAT
    messages = [(each["role"], each["content"]) for each in job.job.messages or ()]
    assert messages == [("system", "Be brief."), ("user", "Why?")]
    body = reply.json()
    assert (body["response"], body["done"], body["done_reason"]) == ("hello", True, "stop")
    assert "message" not in body
    streamed, _ = await answered(URL, BODY)
    assert streamed.headers["content-type"] == "application/x-ndjson; charset=utf-8"
    assert joined(json_lines(streamed.text))["response"] == "hello"


async def test_a_raw_prompt_is_a_completion_without_a_limit(answered: Any) -> None:
    options = {"temperature": 0, "stop": ["x"], "repeat_penalty": 1.1}
    reply, job = await answered(URL, {**WHOLE, "raw": True, "options": options})
    sampling = job.job.sampling
    assert (job.job.endpoint, job.job.prompts) == (Endpoint.COMPLETIONS, ("Why?",))
    assert (sampling.max_tokens, sampling.temperature, sampling.stop) == (None, 0, ("x",))
    assert reply.json()["response"] == "hello"
    streamed, job = await answered(URL, {**BODY, "raw": True, "options": {"num_predict": 3}})
    assert joined(json_lines(streamed.text))["response"] == "hello"
    assert job.job.sampling.max_tokens == 3


@pytest.mark.parametrize("raw", [True, False])
async def test_formats(answered: Any, raw: bool) -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}}
    for given, expected in (("json", {"type": "object"}), (schema, schema)):
        _, job = await answered(URL, {**WHOLE, "raw": raw, "format": given})
        assert orjson.loads(job.job.sampling.json_schema or "") == expected


@pytest.mark.parametrize("raw", [True, False])
async def test_log_probabilities(
    http: httpx.AsyncClient, worker: ScriptedWorker, raw: bool
) -> None:
    body = {**WHOLE, "raw": raw, "logprobs": True}
    posting, job = await worker.sent(http.post(URL, json=body))
    token = TokenLogprob(token="hello", logprob=-0.5, bytes=None)
    position = PositionLogprobs(chosen=token, top=(), offset=0)
    choice = Choice(text="hello", finish=FinishReason.STOP, ids=(1,), logprobs=(position,))
    await worker.finish(job, choice)
    (logprob,) = (await posting).json()["logprobs"]
    assert (logprob["token"], logprob["logprob"]) == ("hello", -0.5)


async def test_images(http: httpx.AsyncClient, answered: Any, registry: Registry) -> None:
    file = b64encode(image_file()).decode()
    refused = await http.post(URL, json={**BODY, "images": [file]})
    assert error_of(refused) == (400, "unsupported_parameter", "images[0]")
    await registry.set_base(replace(BASE, takes_images=True))
    _, job = await answered(URL, {**WHOLE, "images": [f"data:image/png;base64,{file}"]})
    assert job.job.images == (file,)


@pytest.mark.parametrize("keep_alive", ["5m", 0])
@pytest.mark.parametrize("prompt", ["", None])
async def test_a_request_without_a_prompt_is_answered_at_once(
    http: httpx.AsyncClient, registry: Registry, prompt: str | None, keep_alive: Any
) -> None:
    body = {"model": "extract", "prompt": prompt, "keep_alive": keep_alive}
    loaded = (await http.post(URL, json=body)).json()
    assert loaded.pop("created_at")
    reason = "load" if keep_alive else "unload"
    assert loaded == {"model": "extract", "response": "", "done": True, "done_reason": reason}


NEUTRAL = {"suffix": "", "template": "", "context": [], "images": [], "system": "", "width": 0}


@pytest.mark.parametrize("raw", [True, False])
async def test_fields_that_are_not_used_may_be_empty(answered: Any, raw: bool) -> None:
    reply, _ = await answered(URL, {**WHOLE, **NEUTRAL, "raw": raw})
    assert (reply.status_code, "x-lorikeet-warning" in reply.headers) == (200, False)


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"suffix": "end"}, "suffix", "isn't supported"),
        ({"template": "{{ .Prompt }}"}, "template", "raw: true"),
        ({"context": [1, 2]}, "context", "POST /api/chat"),
        ({"width": 64}, "width", "isn't supported"),
        ({"raw": True, "system": "x"}, "system", "raw"),
        ({"raw": True, "images": ["x"]}, "images", "raw"),
        ({"prompt": 5}, "prompt", "string"),
        ({"prompt": "x" * 9000}, "prompt", "context"),
        ({"prompt": "x" * 9000, "raw": True}, "prompt", "context"),
        ({"raw": True, "logprobs": True, "top_logprobs": 6}, "top_logprobs", "5"),
    ],
)
async def test_what_is_refused(
    http: httpx.AsyncClient, registry: Registry, fields: dict[str, Any], param: str, words: str
) -> None:
    await registry.set_base(replace(BASE, max_token_bytes=8))
    reply = await http.post(URL, json={**BODY, **fields})
    body = reply.json()
    assert reply.status_code == 400, body
    assert body["param"] in (param, None)
    assert words in body["error"]


async def test_a_raw_prompt_does_not_think(answered: Any) -> None:
    reply, _ = await answered(URL, {**WHOLE, "raw": True, "think": True})
    assert reply.headers["x-lorikeet-warning"] == "not used: think"
    assert "thinking" not in reply.json()
