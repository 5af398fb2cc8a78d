"""vLLM's `prompt_logprobs` and `logprob_token_ids` equal transformers' log-softmax."""

from typing import Any

import httpx
import orjson
import pytest
from served_tiny import BASE, NAMES, TinyModels

PROMPT = "Once upon a time, 你好"
LIMITS: dict[str, Any] = {"ignore_eos": True, "max_tokens": 8, "seed": 3}
SAMPLED = {**LIMITS, "temperature": 0.8, "presence_penalty": 1.5, "logit_bias": {"70": 3}}
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": PROMPT}], **SAMPLED}
COMPLETION: dict[str, Any] = {"prompt": PROMPT, **SAMPLED}
IDS = [70, 200, 9]
LISTED = "logprob_token_ids"


def route(body: dict[str, Any]) -> str:
    return f"/v1/{'chat/completions' if 'messages' in body else 'completions'}"


async def answer(http: httpx.AsyncClient, body: dict[str, Any]) -> Any:
    response = await http.post(route(body), json={"model": BASE, **body})
    assert response.status_code == 200, response.text
    return response.json()


async def error_of(http: httpx.AsyncClient, body: dict[str, Any]) -> dict[str, Any]:
    response = await http.post(route(body), json={"model": BASE, **body})
    assert response.status_code == 400, response.text
    error: dict[str, Any] = response.json()["error"]
    return error


def check_scores(models: TinyModels, name: str, ids: list[int], scores: Any, num_top: int) -> None:
    """Check `prompt_logprobs` of a prompt against the definition."""
    assert len(scores) == len(ids)
    assert scores[0] is None
    rows = models.log_softmax(name, ids)
    for row, token, found in zip(rows, ids[1:], scores[1:], strict=False):
        assert next(iter(found)) == str(token)
        best = sorted(found.values(), key=lambda each: each["rank"])
        assert num_top <= len(found) <= num_top + 1
        assert [each["rank"] for each in best][:num_top] == list(range(1, num_top + 1))
        assert [each["logprob"] for each in best][:num_top] == pytest.approx(
            row.topk(num_top).values.tolist(), abs=1e-4
        )
        for other, each in found.items():
            assert each["logprob"] == pytest.approx(float(row[int(other)]), abs=1e-4)
            assert each.keys() == {"logprob", "rank", "decoded_token"}
            text = models.tokenizer.decode([int(other)])
            assert "\ufffd" in text or each["decoded_token"] == text
        rank = found[str(token)]["rank"]
        own = float(row[token])
        assert int((row > own + 1e-4).sum()) < rank <= int((row > own - 1e-4).sum())


@pytest.mark.parametrize("name", NAMES)
async def test_the_prompt_of_a_chat_has_the_models_own_logprobs(
    http: httpx.AsyncClient, models: TinyModels, name: str
) -> None:
    body = {"model": name, "prompt_logprobs": 20, "n": 2, **CHAT}
    plain = await answer(http, {"model": name, "n": 2, **CHAT})
    for _ in range(2):  # the second time, the prefix is in the cache
        got = await answer(http, body)
        check_scores(models, name, models.chat_ids(PROMPT), got["prompt_logprobs"], 20)
        assert got["choices"] == plain["choices"]
    assert "prompt_logprobs" not in plain


async def test_each_prompt_of_a_completion_has_logprobs(
    http: httpx.AsyncClient, models: TinyModels
) -> None:
    one = models.text_ids(PROMPT)[:1]
    body = {**COMPLETION, "model": "wide", "prompt_logprobs": 0, "n": 2}
    got = await answer(http, {**body, "prompt": [models.text_ids(PROMPT), one]})
    first, other, *singles = [choice["prompt_logprobs"] for choice in got["choices"]]
    check_scores(models, "wide", models.text_ids(PROMPT), first, 0)
    assert first == other
    assert singles == [[None], [None]]
    stored = await http.get(f"/v1/jobs/{got['id'].removeprefix('cmpl-')}")
    assert stored.json()["choices"] == got["choices"]


async def test_an_echo_and_the_prompts_logprobs_have_their_own_numbers_of_tokens(
    http: httpx.AsyncClient, models: TinyModels
) -> None:
    body = {**COMPLETION, "model": "narrow", "echo": True, "return_tokens_as_token_ids": True}
    [alone] = (await answer(http, {**body, "logprobs": 2}))["choices"]
    for num_top in (0, 4):
        [both] = (await answer(http, {**body, "logprobs": 2, "prompt_logprobs": num_top}))[
            "choices"
        ]
        scores = both.pop("prompt_logprobs")
        check_scores(models, "narrow", models.text_ids(PROMPT), scores, num_top)
        assert both["logprobs"]["tokens"] == alone["logprobs"]["tokens"]
        assert [top and top.keys() for top in both["logprobs"]["top_logprobs"]] == [
            top and top.keys() for top in alone["logprobs"]["top_logprobs"]
        ]


@pytest.mark.parametrize("body", [CHAT, COMPLETION])
async def test_streams_have_no_logprobs_of_the_prompt(
    http: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    streamed = {**body, "stream": True}
    assert (await error_of(http, {**streamed, "prompt_logprobs": 1}))["param"] == "prompt_logprobs"
    response = await http.post(
        route(body), json={"model": BASE, **streamed, "prompt_logprobs": 0, "n": 2}
    )
    assert response.status_code == 200
    assert "prompt_logprobs" not in response.text


@pytest.mark.parametrize("body", [CHAT, COMPLETION])
async def test_invalid_values_are_refused_by_name(
    http: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    for value in (-1, 21, True, "1"):
        error = await error_of(http, {**body, "prompt_logprobs": value})
        assert error["param"] == "prompt_logprobs"
    assert (await error_of(http, {**body, LISTED: [5]}))["param"] == LISTED
    with_logprobs = {**body, "logprobs": True if "messages" in body else 1}
    for ids, param in (
        ([-1], f"{LISTED}[0]"),
        ([5, 2**31 - 1], f"{LISTED}[1]"),
        ([5, 2**31], f"{LISTED}[1]"),
        ([5] * 129, LISTED),
        (5, LISTED),
    ):
        assert (await error_of(http, {**with_logprobs, LISTED: ids}))["param"] == param


@pytest.mark.parametrize("name", NAMES)
async def test_named_tokens_of_a_chat_replace_the_likeliest_ones(
    http: httpx.AsyncClient, models: TinyModels, name: str
) -> None:
    body = {**CHAT, "model": name, "logprobs": True, "top_logprobs": 2, "return_token_ids": True}
    body |= {"logprob_token_ids": IDS, "return_tokens_as_token_ids": True}
    got = await answer(http, body)
    [choice] = got["choices"]
    ids, prompt = choice["token_ids"], models.chat_ids(PROMPT)
    rows = models.log_softmax(name, prompt + ids)[len(prompt) - 1 : -1]
    content = choice["logprobs"]["content"]
    assert len(content) == len(ids)
    for row, token, position in zip(rows, ids, content, strict=True):
        assert position["token"] == f"token_id:{token}"
        top = {each["token"]: each["logprob"] for each in position["top_logprobs"]}
        names = dict.fromkeys((token, *IDS))
        assert list(top) == [f"token_id:{each}" for each in names]
        assert [*top.values()] == pytest.approx([float(row[each]) for each in names], abs=1e-4)
    response = await http.post(route(body), json={**body, "stream": True})
    lines = [line.removeprefix("data: ") for line in response.text.splitlines()]
    streamed = [c for line in lines if line.startswith("{") for c in orjson.loads(line)["choices"]]
    found = [each for c in streamed if c["logprobs"] for each in c["logprobs"]["content"]]
    assert [[top["token"] for top in each["top_logprobs"]] for each in found] == [
        [top["token"] for top in each["top_logprobs"]] for each in content
    ]


async def test_named_tokens_of_a_completion_cover_its_end_but_not_an_echo(
    http: httpx.AsyncClient, models: TinyModels
) -> None:
    end = models.tokenizer.eos_token_id
    body = {**COMPLETION, "echo": True, "logprobs": 1, "logprob_token_ids": IDS, "min_tokens": 2}
    body |= {"logit_bias": {str(end): 100}, "ignore_eos": False}
    [choice] = (await answer(http, {**body, "return_tokens_as_token_ids": True}))["choices"]
    assert choice["finish_reason"] == "stop"
    top = choice["logprobs"]["top_logprobs"]
    num_prompt = len(models.text_ids(PROMPT))
    assert len(top) == num_prompt + 3
    assert top[0] is None
    assert {len(each) for each in top[1:num_prompt]} <= {1, 2}
    for each in top[num_prompt:]:
        assert each.keys() >= {f"token_id:{token}" for token in IDS}
    assert choice["logprobs"]["tokens"][-1] == f"token_id:{end}"
    plain = {key: value for key, value in body.items() if key not in {"logprob_token_ids", "echo"}}
    [choice] = (await answer(http, plain))["choices"]
    assert len(choice["logprobs"]["tokens"]) == 2
