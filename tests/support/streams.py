"""Many greedy streams at a time, what their clients saw, and whether that was right."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import openai
from engines import random_prompt
from reference import check_logprobs_along, count_ties_along, logits_along
from served_tiny import NAMES, TinyModels

from shared.protocol.ids import JobId
from shared.protocol.results import Choice, FinishReason
from shared.store.queue import Queue

TOKENS_PER_TIE = 5000
"""One near tie is allowed in so many tokens."""


@dataclass
class GreedyStream:
    """A request for `num_tokens` tokens, and what was seen of its answer so far."""

    model: str
    prompt: list[int]
    num_tokens: int
    ignore_eos: bool
    """If not, the answer may be shorter."""
    asks_logprobs: bool
    text: str = ""
    logprobs: list[float] = field(default_factory=list)
    finish: str | None = None
    job: JobId | None = None

    @property
    def is_going_on(self) -> bool:
        """Whether it has shown text and will show more."""
        return bool(self.text) and self.finish is None

    async def follow(self, client: openai.AsyncOpenAI) -> None:
        """Send the request, and gather its stream to the end."""
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
    """Requests to the base and to each adapter in turn, with random prompts and lengths.

    With `may_stop`, every seventh ends at an end-of-sequence token, should one come. Every third
    asks for logprobs.
    """
    draw = random.Random(seed)
    return [
        GreedyStream(
            model=NAMES[i % len(NAMES)],
            prompt=random_prompt(1000 * seed + i, draw.randint(3, 60)),
            num_tokens=draw.randint(*lengths),
            ignore_eos=not may_stop or i % 7 > 0,
            asks_logprobs=i % 3 == 0,
        )
        for i in range(count)
    ]


@asynccontextmanager
async def followed(api_url: str, streams: Sequence[GreedyStream]) -> AsyncIterator[None]:
    """Follow all streams at once, and wait for their ends.

    On a thread of their own: a test that is as busy as its clients would see too late what is
    going on.
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


async def check_exact(streams: Sequence[GreedyStream], queue: Queue, models: TinyModels) -> None:
    """Each stream has the length that was asked for, and shows the reference's tokens."""
    num_ties = 0
    for stream in streams:
        assert stream.job is not None
        result = await queue.result(stream.job)
        assert result is not None
        [choice] = result.choices
        assert stream.finish == choice.finish
        check_length(stream, choice, models.tokenizer.eos_token_id)
        assert stream.text == models.text(choice.ids)
        model = models.references[stream.model]
        logits = logits_along(model, stream.prompt, choice.ids)
        num_ties += count_ties_along(logits, choice.ids)
        # The token that ends an answer isn't told.
        num_told = len(choice.ids) - (choice.finish is FinishReason.STOP)
        assert len(stream.logprobs) == (num_told if stream.asks_logprobs else 0)
        check_logprobs_along(logits, choice.ids, stream.logprobs)
    num_tokens = sum(stream.num_tokens for stream in streams)
    assert num_ties <= max(1, num_tokens // TOKENS_PER_TIE), f"{num_ties} near ties"


def check_length(stream: GreedyStream, choice: Choice, eos: int) -> None:
    """It stopped at its first end-of-sequence token if it was to, else where it was told to."""
    if choice.finish is FinishReason.STOP:
        assert not stream.ignore_eos
        assert choice.ids.index(eos) == len(choice.ids) - 1
    else:
        assert choice.finish is FinishReason.LENGTH
        assert len(choice.ids) == stream.num_tokens
        assert stream.ignore_eos or eos not in choice.ids
