"""Many greedy streams at a time, what their clients saw, and whether that was right."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import openai
from engines import random_prompt
from reference import count_ties_along
from served_tiny import NAMES, TinyModels

from shared.protocol import FinishReason, JobId
from shared.queue import Queue

TOKENS_PER_TIE = 5000
"""One near tie is allowed in so many tokens."""


@dataclass
class GreedyStream:
    """A request for exactly `num_tokens` tokens, and what was seen of its answer so far."""

    model: str
    prompt: list[int]
    num_tokens: int
    text: str = ""
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
            extra_body={"ignore_eos": True},
        )
        async for chunk in stream:
            self.job = JobId(chunk.id.removeprefix("cmpl-"))
            assert self.finish is None
            self.text += chunk.choices[0].text
            self.finish = chunk.choices[0].finish_reason


def greedy_streams(count: int, *, lengths: tuple[int, int], seed: int = 0) -> list[GreedyStream]:
    """Requests to the base and to each adapter in turn, with random prompts and lengths."""
    draw = random.Random(seed)
    return [
        GreedyStream(
            model=NAMES[i % len(NAMES)],
            prompt=random_prompt(1000 * seed + i, draw.randint(3, 60)),
            num_tokens=draw.randint(*lengths),
        )
        for i in range(count)
    ]


async def check_exact(streams: Sequence[GreedyStream], queue: Queue, models: TinyModels) -> None:
    """Each stream has the length that was asked for, and shows the reference's tokens."""
    num_ties = 0
    for stream in streams:
        assert stream.finish == FinishReason.LENGTH
        assert stream.job is not None
        result = await queue.result(stream.job)
        assert result is not None
        [choice] = result.choices
        assert len(choice.ids) == stream.num_tokens
        assert stream.text == models.text(choice.ids)
        num_ties += count_ties_along(models.references[stream.model], stream.prompt, choice.ids)
    num_tokens = sum(stream.num_tokens for stream in streams)
    assert num_ties <= max(1, num_tokens // TOKENS_PER_TIE), f"{num_ties} near ties"
