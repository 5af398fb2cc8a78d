"""Questions become bodies of each API, and are asked by clients that speak it."""

import random
from typing import Any

import pytest

from ops.lab.chaos.load.requests import Manner, Question, RequestSource
from ops.lab.chaos.load.sdk_exchange import api_of, fits
from ops.lab.chaos.load.sdks.in_process import AnthropicSdk, OpenaiSdk
from ops.lab.chaos.load.sdks.sdk import Api, fields_of

CHAT = Question(model="base", prompt="hi", is_chat=True, seed=7, n=1, num_tokens=20)
TEXT = Question(model="base", prompt="hi", is_chat=False, seed=7, n=2, num_tokens=20)
MESSAGES = [{"role": "user", "content": "hi"}]
SAME = {"model": "base", "seed": 7, "ignore_eos": True, "stream": True}


@pytest.mark.parametrize(
    ("api", "question", "fields"),
    [
        (Api.CHAT, CHAT, {"messages": MESSAGES, "max_tokens": 20, "n": 1}),
        (Api.COMPLETIONS, TEXT, {"prompt": "hi", "max_tokens": 20, "n": 2}),
        (Api.RESPONSES, CHAT, {"input": MESSAGES, "max_output_tokens": 20}),
        (Api.MESSAGES, CHAT, {"messages": MESSAGES, "max_tokens": 20}),
    ],
)
def test_bodies_have_the_fields_of_their_api(
    api: Api, question: Question, fields: dict[str, Any]
) -> None:
    assert fields_of(api, question) == {**SAME, **fields}


def test_each_client_gets_questions_that_its_apis_can_ask() -> None:
    source = RequestSource(7, 1, models=("base",), lengths=(10, 20))
    asked = set()
    for sdk in (OpenaiSdk(), AnthropicSdk()):
        for _ in range(50):
            request = source.draw(Manner.OFFICIAL, lambda question, sdk=sdk: fits(sdk, question))
            api = api_of(sdk, request.question, random.Random(request.key))
            assert api in sdk.apis
            assert fields_of(api, request.question)["stream"]
            asked.add(api)
    assert asked == set(Api)
