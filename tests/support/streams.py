"""Concurrent greedy streams, whose answers are compared with the reference."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import openai
from engines import random_prompt
from reference import check_greedy_along, check_logprobs_along, logits_along
from served_tiny import NAMES, TinyModels

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


def greedy_streams(
    count: int, *, lengths: tuple[int, int], seed: int, may_stop: bool = False
) -> list[GreedyStream]:
    """Return requests for the base model and each adapter in turn, with random prompts and lengths.

    With `may_stop`, every seventh request ends at an end-of-sequence token if the model predicts
    one. Every third request asks for logprobs.
    """
    rng = random.Random(seed)
    return [
        GreedyStream(
            model=NAMES[i % len(NAMES)],
            prompt=random_prompt(1000 * seed + i, rng.randint(3, 60)),
            num_tokens=rng.randint(*lengths),
            ignore_eos=not may_stop or i % 7 > 0,
            asks_logprobs=i % 3 == 0,
        )
        for i in range(count)
    ]


@asynccontextmanager
async def followed(api_url: str, streams: Sequence[GreedyStream]) -> AsyncIterator[None]:
    """Follow all streams concurrently, and wait for their ends at exit.

    The clients run on a separate thread, so that they don't delay the test's event loop.
    """
    following = asyncio.create_task(asyncio.to_thread(_follow_all, api_url, streams))
    yield
    await following


def _follow_all(api_url: str, streams: Sequence[GreedyStream]) -> None:
    async def follow_all() -> None:
        async with (
            openai.AsyncOpenAI(
                base_url=api_url, api_key="none", max_retries=0, timeout=100
            ) as client,
            asyncio.TaskGroup() as group,
        ):
            for stream in streams:
                group.create_task(stream.follow(client))

    asyncio.run(follow_all())


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
