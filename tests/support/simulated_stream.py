"""A stream of the simulated engine that a client library reads, and the check of its text."""

import time
from dataclasses import dataclass

from simulated_workers import BASE, NAME

from ops.lab.chaos.load.requests import Question
from ops.lab.chaos.load.sdks.sdk import Api, Sdk, SdkRequest, fields_of
from ops.lab.chaos.load.text_checks import SimulatedTexts


@dataclass
class SimulatedStream:
    """A request of one client, and the part of its answer that was received."""

    sdk: Sdk
    api: Api
    url: str
    seed: int
    num_tokens: int
    text: str = ""
    finish: str | None = None
    job: str | None = None
    longest_s: float = 0.0
    """Longest time between two parts with text."""

    @property
    def name(self) -> str:
        return f"{self.sdk.name}, {self.api}"

    @property
    def question(self) -> Question:
        return Question(
            model=NAME,
            prompt=self.name,
            is_chat=self.api is not Api.COMPLETIONS,
            seed=self.seed,
            n=1,
            num_tokens=self.num_tokens,
        )

    async def follow(self) -> None:
        fields = fields_of(self.api, self.question)
        asked = SdkRequest(api=self.api, url=self.url, fields=fields, headers={})
        last_s = None
        async for part in self.sdk.stream(asked):
            self.job = part.job or self.job
            self.finish = part.finish or self.finish
            if part.text:
                now_s = time.monotonic()
                self.longest_s = max(self.longest_s, now_s - (last_s or now_s))
                last_s = now_s
                self.text += part.text

    def problem(self) -> str | None:
        """Return what is wrong with the whole text, or None."""
        return SimulatedTexts({NAME: BASE}).problem(self.question, 0, self.text, is_whole=True)
