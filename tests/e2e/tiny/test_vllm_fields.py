"""vLLM's fields change answers as its documentation says, complete and streamed."""

import asyncio
import re
from typing import Any

import httpx
import orjson
import pytest
from posted import chunks, whole
from served_tiny import BASE, TinyModels

CHAT: dict[str, Any] = {
    "model": BASE,
    "messages": [{"role": "user", "content": "Once upon a time"}],
    "temperature": 0,
    "max_tokens": 12,
    "ignore_eos": True,
}
PROMPT = "Once upon a time"
COMPLETION: dict[str, Any] = {
    **{name: CHAT[name] for name in ("model", "temperature", "max_tokens", "ignore_eos")},
    "prompt": PROMPT,
}


async def text_of(http: httpx.AsyncClient, **fields: Any) -> str:
    """Return the text of a chat's answer. Its stream must have the same text and end."""
    answer, streamed = await asyncio.gather(
        whole(http, {**CHAT, **fields}), chunks(http, {**CHAT, **fields})
    )
    [choice] = answer["choices"]
    deltas = [each for chunk in streamed for each in chunk["choices"]]
    text: str = choice["message"]["content"]
    assert "".join(each["delta"].get("content", "") for each in deltas) == text
    assert deltas[-1]["finish_reason"] == choice["finish_reason"]
    return text


def token_of(models: TinyModels, text: str) -> int:
    """Return the only token of a text."""
    [token_id] = models.tokenizer(text, add_special_tokens=False)["input_ids"]
    return int(token_id)


async def test_a_stop_token_ends_the_answer_and_is_shown_only_on_request(
    http: httpx.AsyncClient, models: TinyModels
) -> None:
    x, y = token_of(models, "x"), token_of(models, "y")
    biased = {"logit_bias": {str(x): 100}, "max_tokens": 4}
    assert await text_of(http, **biased) == "xxxx"
    stop: dict[str, Any] = {"stop_token_ids": [x], "min_tokens": 2, "allowed_token_ids": [x, y]}
    assert await text_of(http, **biased, **stop) == "yy"
    assert await text_of(http, **biased, **stop, include_stop_str_in_output=True) == "yyx"


async def test_a_request_may_have_128_answers_and_a_seed_of_63_bits(
    http: httpx.AsyncClient,
) -> None:
    many = {**CHAT, "n": 128, "max_tokens": 2, "temperature": 1}
    first, again, other = [
        await whole(http, {**many, "seed": seed}) for seed in (2**63 - 1, 2**63 - 1, 2**63 - 2)
    ]
    texts = [[each["message"]["content"] for each in a["choices"]] for a in (first, again, other)]
    assert len(texts[0]) == 128
    assert texts[0] == texts[1] != texts[2]


async def test_a_chats_token_ids_are_beside_its_choices(
    http: httpx.AsyncClient, models: TinyModels
) -> None:
    body = {**CHAT, "return_token_ids": True}
    answer, streamed = await whole(http, body), await chunks(http, body)
    assert answer["prompt_token_ids"] == models.chat_ids(PROMPT)
    assert (
        models.text(answer["choices"][0]["token_ids"]) == answer["choices"][0]["message"]["content"]
    )
    assert [c["prompt_token_ids"] for c in streamed if "prompt_token_ids" in c] == [
        answer["prompt_token_ids"]
    ]
    ids = [i for c in streamed for each in c["choices"] for i in each.get("token_ids", [])]
    assert ids == answer["choices"][0]["token_ids"]
    stored = await http.get(f"/v1/jobs/{answer['id'].removeprefix('chatcmpl-')}")
    for name in ("choices", "prompt_token_ids"):
        assert stored.json()[name] == answer[name]


async def test_special_tokens_are_shown_on_request(
    http: httpx.AsyncClient, models: TinyModels
) -> None:
    bias = {str(models.tokenizer.eos_token_id): 100}
    limits = {"logit_bias": bias, "max_tokens": 2}
    assert await text_of(http, **limits) == ""
    assert await text_of(http, **limits, skip_special_tokens=False) == "<|end|><|end|>"


async def test_a_truncated_prompt_keeps_its_end(
    http: httpx.AsyncClient, models: TinyModels
) -> None:
    end = models.text_ids(PROMPT)[-4:]
    [choice] = (await whole(http, {**COMPLETION, "prompt": end}))["choices"]
    truncated = {**COMPLETION, "truncate_prompt_tokens": 4, "echo": True}
    [cut] = (await whole(http, truncated))["choices"]
    assert cut["text"] == PROMPT[-4:] + choice["text"]
    long = {**COMPLETION, "prompt": PROMPT * 2000}
    assert (await http.post("/v1/completions", json=long)).status_code == 400
    await whole(http, {**long, "truncate_prompt_tokens": -1})


FREE = {"ignore_eos": False, "temperature": 1.5, "seed": 3, "max_tokens": 60}
LARK = 'start: "<" WORD ("," WORD)~1..3 ">"\nWORD: /[a-c]{2,4}/'
GBNF = 'root ::= "<" word ("," word)* ">"\nword ::= [a-c] [a-c]'
SCHEMA = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"]}


@pytest.mark.parametrize(
    ("fields", "pattern"),
    [
        ({"guided_regex": "[ab]{3,9}x/"}, "[ab]{3,9}x/"),
        ({"structured_outputs": {"choice": ['a "b" \\', "é/%"]}}, r'a "b" \\|é/%'),
        ({"structured_outputs": {"grammar": LARK}}, "<[a-c]{2,4}(,[a-c]{2,4}){1,3}>"),
        ({"guided_grammar": GBNF}, "<[a-c]{2}(,[a-c]{2})*>"),
        ({"guided_json": orjson.dumps(SCHEMA).decode()}, r'\{\s*"n": ?[12](,(.|\n)*)?\s*\}'),
        ({"structured_outputs": {"json_object": True}}, r"\{(.|\n)*"),
    ],
)
async def test_answers_of_both_endpoints_match_their_constraint(
    http: httpx.AsyncClient, fields: dict[str, Any], pattern: str
) -> None:
    text = await text_of(http, **FREE, **fields)
    [choice] = (await whole(http, {**COMPLETION, **FREE, **fields}))["choices"]
    for each, reason in ((text, None), (choice["text"], choice["finish_reason"])):
        is_cut = reason == "length" or len(each.encode()) >= 60
        assert is_cut or re.fullmatch(pattern, each), each
