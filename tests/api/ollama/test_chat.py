"""/api/chat: conversations, options, formats, tools, thinking, streams and errors."""

import asyncio
from base64 import b64encode
from dataclasses import replace
from typing import Any

import httpx
import orjson
import pytest
from api_support import ADAPTER, BASE, ScriptedWorker, error_of
from image_files import image_file
from json_lines import joined, json_lines
from pydantic import SecretStr
from queue_support import LIMITS, make_job
from raw_client import with_settings
from weather_tool import ANSWER, OSAKA, OSLO, TOOLS

from api.answers import delivery
from shared.errors import ErrorCode, JobError
from shared.protocol.ids import AdapterVersion
from shared.protocol.jobs import JobState, PromptEnd
from shared.protocol.logprobs import PositionLogprobs, TokenLogprob
from shared.protocol.queue_replies import MailKind
from shared.protocol.results import Choice, FinishReason
from shared.reasoning_form import ReasoningForm
from shared.store.adapters.registry import Registry
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

URL = "/api/chat"
HI = [{"role": "user", "content": "hi"}]
BODY: dict[str, Any] = {"model": "extract", "messages": HI}
WHOLE: dict[str, Any] = {**BODY, "stream": False}
DURATIONS = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")


async def test_an_answer(answered: Any) -> None:
    reply, job = await answered(URL, WHOLE)
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-lorikeet-job"] == job.job.id
    body = reply.json()
    took = {name: body.pop(name, 0) for name in DURATIONS}
    assert 0 < took["load_duration"] <= took["total_duration"] < 60e9
    assert sum(took.values()) <= 2 * took["total_duration"]
    assert body.pop("created_at").endswith("Z")
    assert body == {
        "model": "extract",
        "message": {"role": "assistant", "content": "hello"},
        "done": True,
        "done_reason": "stop",
        "prompt_eval_count": 3,
        "eval_count": 2,
    }


async def test_a_request_streams_by_default(http: httpx.AsyncClient, answered: Any) -> None:
    reply, job = await answered(URL, BODY)
    assert reply.headers["content-type"] == "application/x-ndjson; charset=utf-8"
    lines = json_lines(reply.text)
    assert "".join(line["message"]["content"] for line in lines) == "hello"
    assert [line["done"] for line in lines][-1]
    stored = (await http.get(f"/v1/jobs/{job.job.id}")).json()["answer"]
    whole = joined(lines)
    assert {k: v for k, v in whole.items() if k not in DURATIONS} == stored
    again = await http.get(f"/v1/jobs/{job.job.id}/stream")
    assert again.headers["content-type"].startswith("application/x-ndjson")
    assert joined(json_lines(again.text)) == stored
    after = await http.get(f"/v1/jobs/{job.job.id}/stream", params={"after": "5-0"})
    assert (after.status_code, after.json()["error"]["param"]) == (400, "after")


async def test_options_become_sampling_parameters(answered: Any) -> None:
    options = {
        "num_predict": 9.0,
        "temperature": 0.5,
        "top_k": 40.0,
        "top_p": 0.9,
        "min_p": 0.1,
        "seed": 7,
        "stop": ["\n", "user:"],
        "repeat_penalty": 1.1,
        "presence_penalty": 0.2,
        "frequency_penalty": 0.3,
    }
    reply, job = await answered(URL, {**WHOLE, "options": options})
    sampling = job.job.sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_k) == (9, 0.5, 40)
    assert (sampling.top_p, sampling.min_p, sampling.seed) == (0.9, 0.1, 7)
    assert sampling.stop == ("\n", "user:")
    assert sampling.repetition_penalty == 1.1
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (0.2, 0.3)
    assert sampling.left_out == ()
    assert "x-lorikeet-warning" not in reply.headers


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        *[({"num_predict": n}, {"max_tokens": None}) for n in (0, -1, -2)],
        ({"stop": "x"}, {"stop": ("x",)}),
        ({"repeat_penalty": 0}, {"repetition_penalty": 1.0}),  # what clients send for "off"
        ({"repeat_penalty": 1.5, "repeat_last_n": 0}, {"repetition_penalty": 1.0}),
        ({"repeat_penalty": 1.5, "repeat_last_n": -1}, {"repetition_penalty": 1.5}),
        ({"typical_p": 1.0, "mirostat": 0, "tfs_z": 1}, {}),
    ],
)
async def test_values_that_switch_an_option_off(
    answered: Any, options: dict[str, Any], expected: dict[str, Any]
) -> None:
    reply, job = await answered(URL, {**WHOLE, "options": options})
    assert {name: getattr(job.job.sampling, name) for name in expected} == expected
    assert "x-lorikeet-warning" not in reply.headers


async def test_a_negative_seed_is_random(answered: Any) -> None:
    seeds = [
        (await answered(URL, {**WHOLE, "options": {"seed": -1}}))[1].job.sampling.seed
        for _ in range(2)
    ]
    assert seeds[0] != seeds[1]


async def test_fields_without_an_effect_are_listed(answered: Any) -> None:
    ignored = {
        "keep_alive": "5m",
        "truncate": True,
        "top_logprobs": 3,
        "options": {"num_ctx": 8192, "repeat_last_n": 64, "new_topic_penalty": 1},
        "colour": 1,
    }
    reply, _ = await answered(URL, {**WHOLE, **ignored})
    assert reply.headers["x-lorikeet-warning"] == (
        "not used: keep_alive, truncate, top_logprobs, options.num_ctx, options.repeat_last_n, "
        "colour, options.new_topic_penalty"
    )


async def test_strict_handling_refuses_unknown_fields(http: httpx.AsyncClient) -> None:
    messages = [{"role": "user", "content": "hi", "colour": 1}]
    for body, path in (
        ({**BODY, "option": {}}, "option"),
        ({**BODY, "options": {"temprature": 1}}, "options.temprature"),
        ({**BODY, "messages": messages}, "messages[0].colour"),
    ):
        reply = await http.post(URL, json=body, headers={"Prefer": "handling=strict"})
        assert error_of(reply) == (400, "unknown_parameter", path)
        assert reply.headers["preference-applied"] == "handling=strict"


SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("given", "schema"),
    [("json", {"type": "object"}), (SCHEMA, SCHEMA), ("", None), (None, None)],
)
async def test_formats(answered: Any, given: Any, schema: Any) -> None:
    _, job = await answered(URL, {**WHOLE, "format": given})
    text = job.job.sampling.json_schema
    assert (orjson.loads(text) if text else None) == schema


async def test_a_conversation_with_tools(http: httpx.AsyncClient, answered: Any) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "User", "content": "weather?"},
        {
            "role": "assistant",
            "content": "",
            "thinking": "hm",
            "images": None,
            "tool_calls": [
                {"function": {"name": "weather", "arguments": {"city": "Osaka"}}},
                {"function": {"index": 1, "name": "time", "arguments": {}}},
            ],
        },
        {"role": "tool", "content": "noon", "tool_name": "time"},
        {"role": "tool", "content": "sunny", "tool_name": "weather"},
    ]
    tools = [{"function": TOOLS[0]["function"]}]  # Ollama's tools need no type
    reply, job = await answered(URL, {**WHOLE, "messages": messages, "tools": tools}, ANSWER)
    system, user, assistant, first, second = job.job.messages or ()
    assert (system["content"], user["role"]) == ("Be brief.", "user")
    assert assistant["reasoning_content"] == "hm"
    called, other = assistant["tool_calls"]
    assert called["function"] == {"name": "weather", "arguments": {"city": "Osaka"}}
    assert (first["tool_call_id"], first["name"]) == (other["id"], "time")
    assert (second["tool_call_id"], second["name"]) == (called["id"], "weather")
    message = reply.json()["message"]
    assert message["content"] == "Let me see."
    functions = [call["function"] for call in message["tool_calls"]]
    assert [f["arguments"] for f in functions] == [orjson.loads(OSAKA), orjson.loads(OSLO)]
    assert [(f["name"], f["index"]) for f in functions] == [("weather", 0), ("weather", 1)]
    assert reply.json()["done_reason"] == "stop"
    assert reply.headers["x-lorikeet-tool-form"] == "hermes"
    streamed, _ = await answered(URL, {**BODY, "tools": tools}, ANSWER)
    names = [
        call["function"]["name"]
        for line in json_lines(streamed.text)
        for call in line["message"].get("tool_calls", ())
    ]
    assert names == ["weather", "weather"]


async def test_results_whose_ids_no_call_has_answer_calls_in_order(answered: Any) -> None:
    """LiteLLM's provider keeps the ids of results, but not those of calls."""
    call = {"function": {"name": "weather", "arguments": {}}}
    messages = [
        *HI,
        {"role": "assistant", "tool_calls": [call, call]},
        *({"role": "tool", "content": text, "tool_call_id": f"id-{text}"} for text in "ab"),
        {"role": "tool", "content": "c", "tool_call_id": "id-c"},
    ]
    _, job = await answered(URL, {**WHOLE, "messages": messages})
    _, assistant, *results = job.job.messages or ()
    ids = [each["id"] for each in assistant["tool_calls"]]
    assert [each["tool_call_id"] for each in results] == [*ids, "id-c"]
    assert [each.get("name") for each in results] == ["weather", "weather", None]


async def test_images(http: httpx.AsyncClient, answered: Any, registry: Registry) -> None:
    file = b64encode(image_file("JPEG")).decode()
    shown = {"role": "user", "content": "What is it?", "images": [file, file]}
    refused = await http.post(URL, json={**BODY, "messages": [*HI, shown]})
    assert error_of(refused) == (400, "unsupported_parameter", "messages[1].images[0]")
    await registry.set_base(replace(BASE, takes_images=True))
    _, job = await answered(URL, {**WHOLE, "messages": [*HI, shown]})
    assert job.job.images == (file, file)
    assert [part["type"] for part in (job.job.messages or ())[1]["content"]] == [
        "image",
        "image",
        "text",
    ]
    broken = {**shown, "images": [file, "nothing"]}
    reply = await http.post(URL, json={**BODY, "messages": [broken]})
    assert error_of(reply) == (400, "invalid_value", "messages[0].images[1]")


@pytest.fixture
async def thinks(registry: Registry) -> None:
    """Let the adapter's model think."""
    thinking = AdapterVersion("extract@999999999999")
    await registry.load_adapter(
        replace(ADAPTER, version=thinking, reasoning=ReasoningForm.THINK), replace=True
    )


@pytest.mark.usefixtures("thinks")
@pytest.mark.parametrize(
    ("think", "switch", "effort", "thought"),
    [
        (None, True, None, "Hm."),
        (True, True, None, "Hm."),
        (False, False, None, None),
        ("high", True, "high", "Hm."),
    ],
)
async def test_thinking(
    http: httpx.AsyncClient,
    registry: Registry,
    queue: Queue,
    think: bool | str | None,
    switch: bool,
    effort: str | None,
    thought: str | None,
) -> None:
    version = AdapterVersion("extract@999999999999")
    worker = await ScriptedWorker.start(queue, residents=(BASE.version, version))
    text = "<think>Hm.</think>hello"
    reply, job = await worker.serve(http.post(URL, json={**WHOLE, "think": think}), text)
    message = reply.json()["message"]
    assert (message["content"], message.get("thinking")) == ("hello", thought)
    kwargs = job.job.template_kwargs or {}
    assert (kwargs["enable_thinking"], kwargs["thinking"]) == (switch, switch)
    assert kwargs.get("reasoning_effort") == effort


@pytest.mark.parametrize("think", [True, "low"])
async def test_a_model_that_does_not_think_says_so_in_ollamas_words(
    http: httpx.AsyncClient, registry: Registry, think: bool | str
) -> None:
    reply = await http.post(URL, json={**BODY, "think": think})
    assert error_of(reply) == (400, "unsupported_parameter", "think")
    assert reply.json()["error"] == '"extract" does not support thinking'


async def test_log_probabilities(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    body = {**WHOLE, "logprobs": True, "top_logprobs": 1}
    posting, job = await worker.sent(http.post(URL, json=body))
    assert job.job.sampling.logprobs == 1
    token = TokenLogprob(token="hello", logprob=-0.5, bytes=None)
    position = PositionLogprobs(chosen=token, top=(token,), offset=0)
    choice = Choice(text="hello", finish=FinishReason.STOP, ids=(1,), logprobs=(position,))
    await worker.finish(job, choice)
    (logprob,) = (await posting).json()["logprobs"]
    assert (logprob["token"], logprob["logprob"]) == ("hello", -0.5)
    assert logprob["top_logprobs"] == [{"token": "hello", "logprob": -0.5, "bytes": None}]


async def test_an_answer_that_is_too_long(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    posting, job = await worker.sent(http.post(URL, json=WHOLE))
    await worker.finish(job, Choice(text="hello", finish=FinishReason.LENGTH, ids=(1, 2)))
    assert (await posting).json()["done_reason"] == "length"


async def test_the_tag_latest_is_optional_and_the_answer_repeats_the_name(answered: Any) -> None:
    for sent, name in (("extract:latest", "extract"), ("tiny/base:latest", "tiny/base")):
        reply, job = await answered(URL, {**WHOLE, "model": sent})
        assert (job.job.model, reply.json()["model"]) == (name, sent)
    named = f"{BASE.name}:extract"
    reply, job = await answered(URL, {**WHOLE, "model": named})
    assert (job.job.version, reply.json()["model"]) == (ADAPTER.version, named)


async def test_a_tag_that_is_part_of_a_name_stays(answered: Any, registry: Registry) -> None:
    latest = replace(ADAPTER, name="latest", version=AdapterVersion("latest@111111111111"))
    await registry.load_adapter(latest, replace=False)
    await registry.load_adapter(
        replace(ADAPTER, name="other", version=AdapterVersion("other@111111111111")), replace=False
    )
    sending = asyncio.create_task(answered(URL, {**WHOLE, "model": "tiny/base:latest"}))
    _, job = await sending
    assert job.job.version == latest.version


@pytest.mark.parametrize("model", ["none", "none:latest", "extract:7b", ":latest"])
async def test_an_unknown_model_is_not_found(http: httpx.AsyncClient, model: str) -> None:
    for body in ({**BODY, "model": model}, {"model": model}):
        reply = await http.post(URL, json=body)
        assert error_of(reply) == (404, "model_not_found", "model")
        assert "not found" in reply.json()["error"]


@pytest.mark.parametrize(
    ("keep_alive", "reason"),
    [(None, "load"), ("5m", "load"), (-1, "load"), (0, "unload"), ("0s", "unload")],
)
async def test_a_request_without_messages_is_answered_at_once(
    http: httpx.AsyncClient, registry: Registry, keep_alive: Any, reason: str
) -> None:
    for messages in ([], None):
        body = {"model": "extract:latest", "messages": messages, "keep_alive": keep_alive}
        reply = await http.post(URL, json=body)
        loaded = reply.json()
        assert loaded.pop("created_at")
        assert loaded == {
            "model": "extract:latest",
            "message": {"role": "assistant", "content": ""},
            "done": True,
            "done_reason": reason,
        }
        assert reply.headers["content-type"] == "application/json"
    bad = await http.post(URL, json={"model": "extract", "tools": [{"type": "x"}]})
    assert error_of(bad)[::2] == (400, "tools[0].type")


BAD_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"model": None}, "model"),
    ({"model": ""}, "model"),
    ({"stream": "no"}, "stream"),
    ({"keep_alive": "soon"}, "keep_alive"),
    ({"keep_alive": True}, "keep_alive"),
    ({"think": "much"}, "think"),
    ({"format": "xml"}, "format"),
    ({"format": {"type": "object", "pattern": float("inf")}}, "format"),
    ({"options": []}, "options"),
    ({"options": {"num_predict": -3}}, "options.num_predict"),
    ({"options": {"num_predict": 1.5}}, "options.num_predict"),
    ({"options": {"temperature": 3}}, "options.temperature"),
    ({"options": {"stop": [1]}}, "options.stop"),
    ({"options": {"typical_p": 0.7}}, "options.typical_p"),
    ({"options": {"top_p": 0}}, "options.top_p"),
    ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
    ({"messages": [1]}, "messages[0]"),
    ({"messages": [{"content": "hi"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": [1]}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "images": "x"}]}, "messages[0].images"),
    ({"messages": [{"role": "tool", "tool_name": 1}]}, "messages[0].tool_name"),
    ({"messages": [{"role": "assistant", "thinking": 1}]}, "messages[0].thinking"),
    ({"messages": [{"role": "assistant", "tool_calls": 1}]}, "messages[0].tool_calls"),
    (
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}]}]},
        "messages[0].tool_calls[0].function",
    ),
    (
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": "{}"}}]}]},
        "messages[0].tool_calls[0].function.arguments",
    ),
    ({"tools": [{"type": "function"}]}, "tools[0].function"),
    ({"tools": [{"function": {"name": "a b"}}]}, "tools[0].function.name"),
]


@pytest.mark.parametrize(("fields", "param"), BAD_FIELDS, ids=[str(case) for case in BAD_FIELDS])
async def test_a_bad_field_is_refused_in_ollamas_format(
    http: httpx.AsyncClient, fields: dict[str, Any], param: str
) -> None:
    content = orjson.dumps({**BODY, **fields}) if "pattern" not in str(fields) else b""
    content = content or b'{"model":"extract","messages":[{}],"format":{"a":Infinity}}'
    reply = await http.post(URL, content=content)
    body = reply.json()
    assert (reply.status_code, body["param"]) == (400, param), body
    assert param in body["error"]


async def test_a_failed_job_is_an_error_with_its_status(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    for body in (BODY, WHOLE):
        posting, job = await worker.sent(http.post(URL, json=body))
        await worker.fail(job, JobError(code=ErrorCode.CONTEXT_LENGTH_EXCEEDED, message="long"))
        reply = await posting
        assert (reply.status_code, reply.json()["error"]) == (400, "long")
        assert reply.headers["content-type"] == "application/json"


async def test_an_error_after_the_first_token_is_the_last_line(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    posting = asyncio.create_task(http.post(URL, json=BODY))
    job = await worker.begin("one")
    await worker.fail(job, JobError(code=ErrorCode.INTERNAL, message="broken"))
    first, last = json_lines((await posting).text)
    assert first["message"]["content"] == "one"
    assert last == {"error": "broken", "code": "internal_error", "param": None}


async def test_whitespace_keeps_a_waiting_stream_alive(
    http: httpx.AsyncClient, worker: ScriptedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "KEEP_ALIVE_S", 0.02)
    async with http.stream("POST", URL, json=BODY) as response:
        pieces = response.aiter_raw()
        assert await anext(pieces) == b" "
        assert (await anext(pieces)).strip() == b""
        job = await worker.take()
        await worker.answer(job)
        rest = b"".join([piece async for piece in pieces])
    assert joined(json_lines(rest.decode()))["message"]["content"] == "hello"


@with_settings(disconnect_grace_s=0)
async def test_a_client_that_leaves_cancels_its_job(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    request = asyncio.create_task(http.post(URL, json=BODY))
    job = await worker.begin("one")
    request.cancel()
    mail = await worker.mail()
    assert (mail.kind, mail.job) == (MailKind.CANCEL, job.job.id)


KEY = "red:" + "r" * 20


@with_settings(api_keys=(SecretStr(KEY),), max_waiting=1)
async def test_keys_and_full_queues_have_ollamas_errors(
    http: httpx.AsyncClient, queue: Queue
) -> None:
    refused = await http.post(URL, json=BODY)
    assert error_of(refused) == (401, "invalid_api_key", None)
    await queue.enqueue(make_job(ADAPTER.version), LIMITS)
    headers = {"Authorization": f"Bearer {'r' * 20}"}
    full = await http.post(URL, json=BODY, headers=headers)
    assert error_of(full) == (429, "queue_full", None)
    assert int(full.headers["retry-after"]) > 0


async def test_an_unknown_url_and_a_wrong_method(direct: httpx.AsyncClient) -> None:
    assert error_of(await direct.get("/api/nothing")) == (404, "unknown_url", None)
    wrong = await direct.get(URL)
    assert error_of(wrong) == (405, "method_not_allowed", None)
    assert wrong.headers["allow"] == "POST"


async def test_before_the_first_worker_has_started(
    http: httpx.AsyncClient, redis: Redis, keys: Keys
) -> None:
    await redis.delete(keys.base)
    for model in ("extract", "extract:latest"):
        reply = await http.post(URL, json={**BODY, "model": model})
        assert error_of(reply) == (503, "service_unavailable", None)
        assert reply.headers["retry-after"]
    assert (await http.get("/api/tags")).json() == {"models": []}


async def test_an_idempotency_key_repeats_the_answer(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    headers = {"Idempotency-Key": "one"}
    first, job = await worker.serve(http.post(URL, json=BODY, headers=headers))
    again = await http.post(URL, json=BODY, headers=headers)
    assert again.headers["idempotent-replayed"] == "true"
    contents = [joined(json_lines(reply.text))["message"] for reply in (first, again)]
    assert contents[0] == contents[1]
    view = await http.get(f"/v1/jobs/{job.job.id}")
    assert view.json()["state"] == JobState.DONE


@pytest.mark.parametrize(
    ("text", "end", "num_messages"), [("{", PromptEnd.MESSAGE, 2), ("", PromptEnd.ANSWER, 1)]
)
async def test_the_last_message_of_the_assistant_is_continued(
    answered: Any, text: str, end: PromptEnd, num_messages: int
) -> None:
    prefilled = [*HI, {"role": "assistant", "content": text}]
    _, job = await answered(URL, {**WHOLE, "messages": prefilled})
    assert job.job.prompt_end is end
    assert len(job.job.messages or ()) == num_messages
