"""Generates the random requests of the chaos clients."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Any


class Manner(StrEnum):
    """How a client behaves while it waits for its answer."""

    STREAM = "stream"
    """Reads a stream to its end."""
    WHOLE = "whole"
    """Requests an answer that isn't streamed."""
    PAUSE = "pause"
    """Stops reading its stream for some seconds."""
    LEAVE = "leave"
    """Closes its connection, and comes back within the grace period."""
    STAY_AWAY = "stay away"
    """Asks that its job continues, disconnects, and comes back after the grace period."""
    CANCEL = "cancel"
    """Cancels its job."""
    TWICE = "twice"
    """Sends its request to two front ends at the same moment."""
    BACKGROUND = "background"
    """Starts a background job and asks for its answer later."""
    OFFICIAL = "official client"
    """Reads a stream with an official client, which doesn't continue it."""
    STALL = "stall"
    """Stops reading a stream of several choices for a long time. A fault of the run causes this."""


WEIGHTS: Mapping[Manner, int] = {
    Manner.STREAM: 35,
    Manner.WHOLE: 15,
    Manner.PAUSE: 8,
    Manner.LEAVE: 14,
    Manner.STAY_AWAY: 5,
    Manner.CANCEL: 7,
    Manner.TWICE: 10,
    Manner.BACKGROUND: 6,
}
"""Relative frequencies of the manners of a client."""
STREAMED = frozenset(Manner) - {Manner.WHOLE, Manner.TWICE, Manner.BACKGROUND}
STALLED_CHOICES = 4
WORDS = ("river", "stone", "lamp", "green", "seven", "north", "paper", "wind", "Straße", "数")
MAX_WORDS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The part of a request that determines its answer."""

    model: str
    prompt: str
    is_chat: bool
    seed: int
    n: int
    num_tokens: int

    @property
    def path(self) -> str:
        """Path of the endpoint to which the request is sent."""
        return "/v1/chat/completions" if self.is_chat else "/v1/completions"

    @property
    def messages(self) -> list[dict[str, str]]:
        """The messages of the request if it is a chat: the prompt as one message."""
        return [{"role": "user", "content": self.prompt}]

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of the request's body that determine the answer."""
        prompt = {"messages": self.messages} if self.is_chat else {"prompt": self.prompt}
        size = {"max_tokens": self.num_tokens, "n": self.n, "ignore_eos": True}
        return {"model": self.model, "seed": self.seed, **prompt, **size}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChaosRequest:
    """One request of a client."""

    key: str
    """Value of the request's header Idempotency-Key."""
    manner: Manner
    question: Question
    is_stream: bool

    @property
    def body(self) -> dict[str, Any]:
        """The request's body."""
        extra: dict[str, Any] = {"background": True} if self.manner is Manner.BACKGROUND else {}
        if self.is_stream:
            extra["stream_options"] = {"include_usage": True}
        return {**self.question.fields, "stream": self.is_stream, **extra}

    @property
    def headers(self) -> dict[str, str]:
        """The request's headers."""
        stays = {"X-Lorikeet-On-Disconnect": "continue"}
        return {"Idempotency-Key": self.key} | (stays if self.manner is Manner.STAY_AWAY else {})


class RequestSource:
    """Generates one client's random requests from a seed."""

    def __init__(
        self,
        seed: int,
        client: int,
        *,
        models: Sequence[str],
        lengths: tuple[int, int],
    ) -> None:
        """Create the source of client number `client`.

        Args:
            seed: seed of the run.
            client: number of the client, unique in the run.
            models: names of the base model and the adapters.
            lengths: minimum and maximum number of tokens of an answer.
        """
        self._rng = Random(f"{seed}:{client}")
        self._client = client
        self._seed = seed
        self._models = models
        self._lengths = lengths
        self._num_drawn = 0

    def draw(
        self, manner: Manner | None = None, fits: Callable[[Question], bool] = lambda _: True
    ) -> ChaosRequest:
        """Return the next request. Its manner is random if `manner` is None.

        `fits` returns whether the client can ask a question.
        """
        rng = self._rng
        self._num_drawn += 1
        if manner is None:
            (manner,) = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))
        is_stream = manner in STREAMED or (manner is Manner.TWICE and rng.random() < 0.5)
        return ChaosRequest(
            key=f"chaos-{self._seed}-{self._client}-{self._num_drawn}",
            manner=manner,
            question=next(filter(fits, iter(lambda: self._question(manner), None))),
            is_stream=is_stream,
        )

    def _question(self, manner: Manner) -> Question:
        rng = self._rng
        number = self._client * 1_000_000 + self._num_drawn
        return random_question(
            rng,
            number,
            models=self._models,
            lengths=self._lengths,
            n=STALLED_CHOICES if manner is Manner.STALL else rng.choice((1, 1, 1, 1, 2)),
        )


def random_question(
    rng: Random, number: int, *, models: Sequence[str], lengths: tuple[int, int], n: int
) -> Question:
    """Return a random question. Its prompt contains `number`, so that no other prompt equals it."""
    words = rng.choices(WORDS, k=rng.randint(1, MAX_WORDS))
    return Question(
        model=rng.choice(models),
        prompt=f"{number}: {' '.join(words)}",
        is_chat=rng.random() < 0.4,
        seed=rng.randrange(1 << 31),
        n=n,
        num_tokens=rng.randint(*lengths),
    )


def simulated_version(name: str, source: str) -> str:
    """Return the version that the simulated engine gives to an adapter or to the base model."""
    return f"{name}@{hashlib.sha256(source.encode()).hexdigest()[:12]}"
