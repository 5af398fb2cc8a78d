"""`lorikeet up` without a model serves the demo in bfloat16."""

import asyncio
import re
import shlex
from collections.abc import Iterator

import httpx
import openai
import pytest
from servers import Server, lorikeet_up

from ops.demo.model import SERVED_NAME, demo_model
from ops.demo.task import Example
from ops.demo.tasks import TASKS

pytestmark = pytest.mark.demo

NUM_ASKED = 50
"""Examples per task, or all if there are fewer."""
MIN_SHARE = 0.8


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    demo_model()  # converts the model once per machine
    with lorikeet_up(tmp_path_factory.mktemp("demo"), "--kv-cache-mb", "256") as server:
        yield server


@pytest.mark.slow
async def test_the_base_and_the_shipped_adapters_are_served(client: openai.AsyncOpenAI) -> None:
    cards = (await client.models.list()).data
    assert [card.id for card in cards] == [SERVED_NAME, *TASKS]


@pytest.mark.long
@pytest.mark.parametrize("name", TASKS)
async def test_an_adapter_does_what_it_was_trained_for_and_the_base_does_not(
    client: openai.AsyncOpenAI, name: str
) -> None:
    task = TASKS[name]
    held_out = task.held_out()
    examples = held_out[:: max(1, len(held_out) // NUM_ASKED)][:NUM_ASKED]
    asked = [answer_of(client, model, e) for model in (name, SERVED_NAME) for e in examples]
    answers = await asyncio.gather(*asked)
    is_right = [task.is_right(e, a) for e, a in zip(examples * 2, answers, strict=True)]
    assert sum(is_right[: len(examples)]) >= MIN_SHARE * len(examples), answers
    assert sum(is_right[len(examples) :]) == 0, answers


@pytest.mark.slow
def test_the_curl_line_that_is_printed_works(server: Server) -> None:
    found = re.search(r"^curl .*$", server.log_text(), re.MULTILINE)
    assert found
    _, url, _, header, _, data = shlex.split(found[0])
    name, _, value = header.partition(": ")
    reply = httpx.post(url, content=data, headers={name: value}, timeout=60)
    assert reply.status_code == 200
    assert reply.json()["choices"][0]["finish_reason"] == "stop"


async def answer_of(client: openai.AsyncOpenAI, model: str, example: Example) -> str:
    answer = await client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": example.prompt}],
        temperature=0,
        max_tokens=96,
    )
    return answer.choices[0].message.content or ""
