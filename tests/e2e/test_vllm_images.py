"""Clients of all APIs send images to a vLLM worker, as streams and in a batch.

tests/vllm/test_images.py compares the answers with transformers. The tests run where `make vllm`
has installed vLLM.
"""

import asyncio
import base64
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import openai
import orjson
import pytest
from anthropic import AsyncAnthropic
from image_files import BLUE, RED, data_url, image_file
from queue_support import eventually
from servers import Server, lorikeet_up, lorikeet_worker
from tiny_vision import TOKENS_PER_IMAGE, save_tiny_vision_model, save_vision_adapter

from shared.protocol.capabilities import Feature
from shared.store.views.pool_views import PoolViews

pytestmark = [pytest.mark.timeout(900), pytest.mark.long]

VENV = Path(__file__).parents[2] / ".venv-vllm"
BASE, ADAPTER = "vision", "adapted"
PATIENCE_S = 300.0
NUM_TOKENS = 8
OPTIONS: dict[str, Any] = {"temperature": 0, "max_tokens": NUM_TOKENS}
IGNORE_END = {"ignore_eos": True}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run `lorikeet up --engine vllm` with a model that reads images and an adapter."""
    if not (VENV / ".ready").exists():
        pytest.skip("`make vllm` installs vLLM")
    folder = tmp_path_factory.mktemp("vision")
    save_tiny_vision_model(folder / BASE)
    save_vision_adapter(folder / ADAPTER, seed=1)
    flags = ["--model", str(folder / BASE), "--dtype", "float32", "--device", "cpu"]
    flags += ["--adapters", f"{ADAPTER}={folder / ADAPTER}", "--engine", "vllm"]
    flags += ["--max-num-seqs", "8", "--max-model-len", "256", "--kv-cache-mb", "64"]
    flags += ["--adapter-store", str(folder / "store"), "--file-store", str(folder / "files")]
    with lorikeet_up(folder, *flags, start_timeout_s=PATIENCE_S) as server:
        yield server


@pytest.fixture
def native_worker(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Run a native worker of the same model in the pool. It answers text alone."""
    folder = tmp_path_factory.getbasetemp() / "vision0"
    flags = [str(folder / BASE), "--dtype", "float32", "--device", "cpu"]
    flags += ["--adapters", f"{ADAPTER}={folder / ADAPTER}", "--kv-cache-mb", "64"]
    flags += ["--adapter-store", str(folder / "store"), "--max-model-len", "256"]
    with lorikeet_worker(server, folder, *flags):
        yield


@pytest.fixture
async def claude(server: Server) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(
        base_url=server.url, api_key="none", max_retries=0, timeout=100
    ) as client:
        yield client


def chat(*files: bytes) -> list[Any]:
    images = [{"type": "image_url", "image_url": {"url": data_url(file)}} for file in files]
    return [{"role": "user", "content": [*images, {"type": "text", "text": "what?"}]}]


async def answer(client: openai.AsyncOpenAI, model: str, *files: bytes) -> Any:
    return await client.chat.completions.create(
        model=model, messages=chat(*files), extra_body=IGNORE_END, **OPTIONS
    )


@pytest.mark.parametrize("model", [BASE, ADAPTER])
async def test_chats_depend_on_the_image_and_count_its_tokens(
    client: openai.AsyncOpenAI, model: str
) -> None:
    red, blue = [await answer(client, model, image_file(colour=c)) for c in (RED, BLUE)]
    text = await answer(client, model)
    assert red.choices[0].message.content != blue.choices[0].message.content
    assert red.usage.prompt_tokens == text.usage.prompt_tokens + TOKENS_PER_IMAGE
    assert red.usage.completion_tokens == NUM_TOKENS


async def test_a_stream_has_the_same_answer(client: openai.AsyncOpenAI) -> None:
    file = image_file("JPEG", (50, 20), BLUE)
    whole = await answer(client, ADAPTER, file)
    stream = await client.chat.completions.create(
        model=ADAPTER, messages=chat(file), stream=True, extra_body=IGNORE_END, **OPTIONS
    )
    parts = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
    assert "".join(parts) == whole.choices[0].message.content


async def test_anthropics_client_sends_images_and_counts_their_tokens(
    client: openai.AsyncOpenAI, claude: AsyncAnthropic
) -> None:
    file = image_file(colour=RED)
    source = {
        "type": "base64",
        "media_type": "image/png",
        "data": base64.b64encode(file).decode(),
    }
    content = [{"type": "image", "source": source}, {"type": "text", "text": "what?"}]
    request: Any = {"model": ADAPTER, "messages": [{"role": "user", "content": content}]}
    expected = (await answer(client, ADAPTER, file)).choices[0].message.content
    extra = {**IGNORE_END, "temperature": 0}
    given: Any = {**request, "max_tokens": NUM_TOKENS, "extra_body": extra}
    message = await claude.messages.create(**given)
    assert [block.text for block in message.content if block.type == "text"] == [expected]
    async with claude.messages.stream(**given) as stream:
        assert await stream.get_final_text() == expected
    counted = await claude.messages.count_tokens(**request)
    usage = message.usage
    assert counted.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)


async def test_responses_continue_a_conversation_with_an_image(client: openai.AsyncOpenAI) -> None:
    file = image_file(colour=RED)
    content: Any = [
        {"type": "input_image", "image_url": data_url(file), "detail": "auto"},
        {"type": "input_text", "text": "what?"},
    ]
    options: Any = {"temperature": 0, "max_output_tokens": NUM_TOKENS, "extra_body": IGNORE_END}
    first = await client.responses.create(
        model=BASE, input=[{"role": "user", "content": content}], **options
    )
    assert first.output_text == (await answer(client, BASE, file)).choices[0].message.content
    assert first.usage is not None
    second = await client.responses.create(
        model=BASE, input="more", previous_response_id=first.id, **options
    )
    assert second.usage is not None
    assert second.usage.input_tokens > first.usage.input_tokens + NUM_TOKENS


async def test_a_batchs_line_has_an_image(client: openai.AsyncOpenAI) -> None:
    file = image_file(colour=BLUE)
    body = {"model": ADAPTER, "messages": chat(file), **OPTIONS, **IGNORE_END}
    path = "/v1/chat/completions"
    line = orjson.dumps({"custom_id": "one", "method": "POST", "url": path, "body": body})
    given = await client.files.create(file=("in.jsonl", line), purpose="batch")
    batch = await client.batches.create(
        input_file_id=given.id, endpoint=path, completion_window="24h"
    )

    async def ended() -> Any:
        found = await client.batches.retrieve(batch.id)
        return found if found.status in ("completed", "failed") else None

    output = (await eventually(ended, within_s=120)).output_file_id
    reply = orjson.loads((await client.files.content(output)).content)["response"]["body"]
    expected = (await answer(client, ADAPTER, file)).choices[0].message.content
    assert reply["choices"][0]["message"]["content"] == expected


@pytest.mark.usefixtures("native_worker")
async def test_in_a_pool_with_both_engines_images_find_the_worker_that_reads_them(
    client: openai.AsyncOpenAI, views: PoolViews
) -> None:
    file = image_file(colour=RED)
    expected = {model: await answer(client, model, file) for model in (BASE, ADAPTER)}
    asked = [(model, files) for model in expected for files in ((file,), ())] * 4
    replies = await asyncio.gather(*(answer(client, model, *files) for model, files in asked))
    for (model, files), reply in zip(asked, replies, strict=True):
        if files:
            assert reply.choices[0].message == expected[model].choices[0].message
        assert reply.usage.completion_tokens == NUM_TOKENS
    workers = await views.workers()
    assert sorted(Feature.IMAGES in worker.info.serves.features for worker in workers) == [
        False,
        True,
    ]


async def test_a_truncated_image_is_a_400(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="the images can't be read"):
        await answer(client, BASE, image_file(size=(200, 200))[:200])
