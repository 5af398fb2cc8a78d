"""Errors suggest a similar model, and say what the first worker is doing."""

import time

import httpx
import pytest
from api_support import ADAPTER, client_of, error_of
from key_support import bearer, new_key
from raw_client import BODY, CHAT

from api.app import create_app
from api.pools.error_hints import LOADING_RETRY_S
from api.pools.model_names import MAX_NAMES, most_similar
from shared.settings import ApiSettings
from shared.store.access.key_store import KeyStore
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views.starts import StartStep, WorkerStarts

NAMES = ["base", "extract", "sentiment", "sql-berlin", "sql-paris"]


def message_of(reply: httpx.Response) -> str:
    return str(reply.json()["error"]["message"])


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ("extrct", "extract"),
        ("Extract", "extract"),
        ("sentimant", "sentiment"),
        ("sql-berlni", "sql-berlin"),
        ("gpt-4o", None),
        ("", None),
        ("x" * 101, None),
    ],
)
def test_the_most_similar_name_is_found_and_no_other(wrong: str, expected: str | None) -> None:
    assert most_similar(wrong, NAMES, lambda _: True) == expected


def test_the_work_is_bounded_however_many_names_are_similar() -> None:
    names = [f"customer-{number:04}-{'x' * 80}" for number in range(MAX_NAMES)]
    asked = []
    start_s = time.process_time()
    most_similar(f"customer-0815-{'x' * 79}y", names, lambda name: bool(asked.append(name)))
    most_similar(f"customer-0815-{'x' * 79}y", names, lambda _: True)
    assert time.process_time() - start_s < 0.1
    assert len(asked) == 512


async def test_an_unknown_model_gets_a_suggestion_of_those_that_the_key_may_use(
    server: object, http: httpx.AsyncClient, store: KeyStore
) -> None:
    wrong = {**BODY, "model": "extrakt"}
    for reply in (await http.post(CHAT, json=wrong), await http.get("/v1/models/extrakt")):
        assert error_of(reply) == (404, "model_not_found", "model")
        assert message_of(reply).startswith("The model 'extrakt' does not exist or you do not have")
        assert f"Did you mean {ADAPTER.name!r}? GET /v1/models" in message_of(reply)
    assert "Did you mean" not in message_of(await http.get("/v1/models/unknown"))
    secret, _ = await new_key(store, models=("sql-*",))
    reply = await http.post(CHAT, json=wrong, headers=bearer(secret))
    assert reply.status_code == 404
    assert "Did you mean" not in message_of(reply)


async def test_a_pool_whose_first_worker_loads_says_what_it_does_and_when_to_ask_again(
    settings: ApiSettings, redis: Redis, keys: Keys
) -> None:
    async with client_of(create_app(settings)) as http:  # no fixture has registered a base model
        reply = await http.post(CHAT, json=BODY)
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "2")
        assert "no worker has registered a base model" in message_of(reply)
        step = StartStep(step="compiling the CPU kernels", done=2, total=7, elapsed_s=12.4)
        await WorkerStarts(redis, keys).report(step)
        for reply in (await http.post(CHAT, json=BODY), await http.get("/v1/adapters/x")):
            assert (reply.status_code, reply.headers["retry-after"]) == (503, str(LOADING_RETRY_S))
            assert message_of(reply) == (
                "the first worker is loading: compiling the CPU kernels (2 of 7), 12 s after its "
                "start; try again in 5 s"
            )
