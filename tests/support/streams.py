"""Concurrent greedy streams, whose answers are compared with the reference."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import openai
from engines import random_prompt
from own_reader import OwnReader
from reference import check_greedy_along, check_logprobs_along, logits_along
from served_tiny import NAMES, TinyModels, prompt_of_chat

from ops.lab.chaos.load.sdks.available import AvailableSdks
from ops.lab.chaos.load.sdks.sdk import Api, Sdk, SdkRequest
from shared.protocol.ids import JobId
from shared.protocol.results import Choice, FinishReason
from shared.store.views.pool_views import PoolViews


@dataclass
class GreedyStream:
    """A request for `num_tokens` tokens, with the part of its answer that was received."""

    model: str
    prompt: list[int]
    num_tokens: int
    ignore_eos: bool
    """Whether the model may not end the answer earlier."""
    asks_logprobs: bool
    message: str | None = None
    """Message of the user, if the prompt is that of a chat."""
    text: str = ""
    logprobs: list[float] = field(default_factory=list)
    finish: str | None = None
    job: JobId | None = None

    @property
    def is_in_progress(self) -> bool:
        """Whether text was received and more will follow."""
        return bool(self.text) and self.finish is None

    async def follow(self, client: openai.AsyncOpenAI) -> None:
        """Send the request and collect its stream to the end."""
        stream = await client.completions.create(
            model=self.model,
            prompt=self.prompt,
            max_tokens=self.num_tokens,
            temperature=0,
            stream=True,
            logprobs=0 if self.asks_logprobs else None,
            extra_body={"ignore_eos": self.ignore_eos},
        )
        async for chunk in stream:
            self.job = JobId(chunk.id.removeprefix("cmpl-"))
            assert self.finish is None
            self.text += chunk.choices[0].text
            if chunk.choices[0].logprobs:
                self.logprobs += chunk.choices[0].logprobs.token_logprobs
            self.finish = chunk.choices[0].finish_reason

    @property
    def api(self) -> Api:
        return Api.COMPLETIONS if self.message is None else Api.MESSAGES

    async def read(self, sdk: Sdk, url: str) -> None:
        """Send the request with any client library, and collect its stream to the end."""
        prompt: dict[str, Any] = {"prompt": self.prompt}
        if self.message is not None:
            prompt = {"messages": [{"role": "user", "content": self.message}]}
        fields = {
            "model": self.model,
            "max_tokens": self.num_tokens,
            "temperature": 0,
            "stream": True,
            "ignore_eos": self.ignore_eos,
            **prompt,
        }
        asked = SdkRequest(api=self.api, url=url, fields=fields, headers={})
        async for part in sdk.stream(asked):
            assert self.finish is None
            self.job = JobId(part.job) if part.job else self.job
            self.text += part.text
            self.finish = part.finish


def greedy_streams(
    count: int,
    *,
    lengths: tuple[int, int],
    seed: int,
    may_stop: bool = False,
    has_chats: bool = False,
) -> list[GreedyStream]:
    """Return requests for the base model and each adapter in turn, with random prompts and lengths.

    With `may_stop`, every seventh request ends at an end-of-sequence token if the model predicts
    one. Every third request asks for logprobs. With `has_chats`, every other third is a chat.
    """
    rng = random.Random(seed)
    streams = [
        GreedyStream(
            model=NAMES[i % len(NAMES)],
            prompt=random_prompt(1000 * seed + i, rng.randint(3, 60)),
            num_tokens=rng.randint(*lengths),
            ignore_eos=not may_stop or i % 7 > 0,
            asks_logprobs=i % 3 == 0,
        )
        for i in range(count)
    ]
    for number, stream in enumerate(streams[1::3] if has_chats else ()):
        stream.message = f"Question {number} of {seed}"
        # The Messages API turns thinking off, which this template shows.
        stream.prompt = prompt_of_chat(stream.message, enable_thinking=False)
    return streams


@asynccontextmanager
async def followed(api_url: str, streams: Sequence[GreedyStream]) -> AsyncIterator[None]:
    """Follow all streams concurrently, and wait for their ends at exit.

    OpenAI's client reads those with logprobs. The others are read in turn by all official clients
    that speak their API, and by the reader of this project. The clients run on a separate thread,
    so that they don't delay the test's event loop.
    """
    following = asyncio.create_task(asyncio.to_thread(_follow_all, api_url, streams))
    yield
    await following


def _follow_all(api_url: str, streams: Sequence[GreedyStream]) -> None:
    async def follow_all(log: Path) -> None:
        sdks = await AvailableSdks.start(log)
        readers = (OwnReader(), *sdks.all)
        url = api_url.removesuffix("/v1")
        async with (
            openai.AsyncOpenAI(
                base_url=api_url, api_key="none", max_retries=0, timeout=100
            ) as client,
            asyncio.TaskGroup() as group,
        ):
            for number, stream in enumerate(streams):
                fitting = [reader for reader in readers if stream.api in reader.apis]
                reader = fitting[number // 3 % len(fitting)]
                group.create_task(
                    stream.follow(client) if stream.asks_logprobs else stream.read(reader, url)
                )
        await sdks.close()

    with TemporaryDirectory() as folder:
        asyncio.run(follow_all(Path(folder) / "clients.log"))


async def check_exact(
    streams: Sequence[GreedyStream], views: PoolViews, models: TinyModels
) -> None:
    """Check that each stream has the requested length and the tokens of the reference."""
    for stream in streams:
        assert stream.job is not None
        result = (await views.job_and_result(stream.job))[1]
        assert result is not None
        [choice] = result.choices
        assert stream.finish == choice.finish
        check_length(stream, choice, models.tokenizer.eos_token_id)
        assert stream.text == models.text(choice.ids)
        model = models.references[stream.model]
        logits = logits_along(model, stream.prompt, choice.ids)
        check_greedy_along(logits, choice.ids)
        # The token that ends an answer isn't reported.
        num_reported = len(choice.ids) - (choice.finish is FinishReason.STOP)
        assert len(stream.logprobs) == (num_reported if stream.asks_logprobs else 0)
        check_logprobs_along(logits, choice.ids, stream.logprobs)


def check_length(stream: GreedyStream, choice: Choice, eos: int) -> None:
    """Check that it stopped at its first end-of-sequence token, or else after `num_tokens`."""
    if choice.finish is FinishReason.STOP:
        assert not stream.ignore_eos
        assert choice.ids.index(eos) == len(choice.ids) - 1
    else:
        assert choice.finish is FinishReason.LENGTH
        assert len(choice.ids) == stream.num_tokens
        assert stream.ignore_eos or eos not in choice.ids
