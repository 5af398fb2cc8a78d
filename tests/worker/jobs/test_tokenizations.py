"""Workers answer calls for tokenization."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest
from scripted_engine import BASE, HF
from worker_support import Client, until

from shared.cancel_tasks import cancel_tasks
from shared.errors import AdapterRejected, ErrorCode
from shared.protocol.adapters import Adapter
from shared.protocol.ids import AdapterVersion, CallId
from shared.protocol.jobs import Endpoint, Job
from shared.protocol.tokenization import Call, Decode, Describe, EncodeChat, EncodeText, Reply
from shared.store.adapters.registry import Registry
from shared.store.jobs.tokenizations import Tokenizations
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from worker.adapters.loader_threads import LoaderThreads
from worker.adapters.residency import Residency
from worker.adapters.source.interface import CheckedAdapter
from worker.engine_simulated.text import SimulatedTokenizer
from worker.jobs.tokenizations import AdapterStyles, TokenizationDesk
from worker.text.interface import EncodedPrompt
from worker.text.prompt_style import BASE_STYLE, PromptStyle
from worker.text.tokenizer import Tokenizer

SHOUTING = AdapterVersion("shouting@1")
STYLE = PromptStyle(
    templates={"default": "{% for m in messages %}{{ m.content|upper }}{% endfor %}"}
)
MESSAGES = ({"role": "user", "content": "hi"},)


@pytest.fixture
def calls(redis: Redis, keys: Keys) -> Tokenizations:
    return Tokenizations(redis, keys)


async def ask(calls: Tokenizations, call: Call) -> Reply:
    call_id = CallId(secrets.token_hex(16))
    await calls.send(call_id, call)
    async with asyncio.timeout(60):
        while (reply := await calls.next_reply(call_id, timeout_s=1)) is None:
            pass
    return reply


def chat(client: Client, version: AdapterVersion) -> EncodeChat:
    job = client.make(version=version, endpoint=Endpoint.CHAT, messages=MESSAGES)
    return EncodeChat(job=job)


def read_version(entry: Adapter) -> CheckedAdapter[Any]:
    if entry.source == "broken":
        raise AdapterRejected("scripted to be rejected")
    return CheckedAdapter(None, STYLE)


@pytest.fixture
def source() -> Mock:
    """`AdapterSource` of one adapter with its own template, which counts its reads."""
    return Mock(**{"read_version.side_effect": read_version})


@pytest.fixture
async def desk(redis: Redis, keys: Keys, source: Mock, calls: Tokenizations) -> AsyncIterator[None]:
    """A running desk whose worker has loaded no adapter."""
    threads = LoaderThreads(1, spare_cores=lambda: None, is_engine_busy=lambda: False)
    styles = AdapterStyles(
        Residency(BASE.version, BASE_STYLE), Registry(redis, keys), source, lambda _: threads
    )
    desk = TokenizationDesk(calls, Tokenizer(HF, vocab_size=len(HF)), styles)
    task = asyncio.create_task(desk.run())
    yield
    await cancel_tasks(task)
    threads.close()


async def test_a_worker_converts_texts_and_tokens_while_its_engine_is_busy(
    calls: Tokenizations, client: Client
) -> None:
    client.engine.may_step.clear()
    async with client.worker(max_num_seqs=1):
        for _ in range(3):
            await client.send(max_tokens=5)
        await until(lambda: client.engine.requests)
        reply = await ask(calls, EncodeText(text="hello", with_names=True))
        ids = HF("hello")["input_ids"]
        assert (list(reply.ids), reply.names) == (ids, tuple(HF.convert_ids_to_tokens(ids)))
        assert (await ask(calls, Decode(ids=tuple(ids)))).text == HF.decode(ids)
        described = (await ask(calls, Describe())).description
        assert described["eos_token"] == HF.eos_token
        client.engine.may_step.set()


@pytest.mark.usefixtures("desk")
async def test_an_adapters_own_template_renders_its_chats(
    calls: Tokenizations, client: Client, source: Mock
) -> None:
    await client.register(SHOUTING)
    for _ in range(2):
        reply = await ask(calls, chat(client, SHOUTING))
        assert HF.decode(list(reply.ids)) == "HI"
    assert source.read_version.call_count == 1


@pytest.mark.usefixtures("desk")
async def test_an_adapter_that_cannot_be_read_is_an_error(
    calls: Tokenizations, client: Client
) -> None:
    await client.register(SHOUTING, source="broken")
    for version in (SHOUTING, AdapterVersion("unknown@1")):
        error = (await ask(calls, chat(client, version))).error
        assert error.code is ErrorCode.ADAPTER_UNAVAILABLE


@pytest.mark.usefixtures("desk")
async def test_no_text_has_no_tokens_unknown_tokens_are_refused_and_other_calls_are_skipped(
    calls: Tokenizations, redis: Redis, keys: Keys
) -> None:
    await redis.rpush(keys.calls, b'{"v": 99, "id": "a", "kind": "text"}')  # type: ignore[misc]
    await redis.rpush(keys.calls, b'{"v": 1, "id": "a", "kind": "other"}')  # type: ignore[misc]
    assert (await ask(calls, EncodeText(text="", add_special_tokens=False))).ids == ()
    error = (await ask(calls, Decode(ids=(1, 10**6)))).error
    assert (error.code, error.param) == (ErrorCode.INVALID_VALUE, "tokens[1]")


async def test_calls_with_images_do_not_keep_texts_waiting(
    redis: Redis, keys: Keys, source: Mock, calls: Tokenizations, client: Client
) -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()

    class SlowImages(SimulatedTokenizer):
        async def encode_images(self, job: Job, *_: Any) -> list[EncodedPrompt]:
            begun.set()
            await may_end.wait()
            return self.encode(job)

    styles = Mock(style=AsyncMock(return_value=BASE_STYLE))
    task = asyncio.create_task(TokenizationDesk(calls, SlowImages(), styles).run())
    image = client.make(endpoint=Endpoint.CHAT, messages=MESSAGES, images=("aGk=",))
    asked = [asyncio.create_task(ask(calls, EncodeChat(job=image))) for _ in range(3)]
    await begun.wait()
    assert (await ask(calls, EncodeText(text="hello"))).ids
    assert not any(each.done() for each in asked)
    may_end.set()
    assert all([(await each).ids for each in asked])
    await cancel_tasks(task)
