"""Collects one answer, from a stream's events or from a body. Does no I/O."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from ops.lab.chaos.load.sdks.sdk import FINISHES
from ops.lab.chaos.load.sse import Event

DONE = "[DONE]"
INTERRUPTION = "server_stopping"
"""Code of the error that interrupts a stream. The job continues."""


@dataclass(slots=True)
class Answer:
    """The part of an answer that a client has received."""

    texts: dict[int, str] = field(default_factory=dict)
    """Text of each choice."""
    finishes: dict[int, str] = field(default_factory=dict)
    """Finish reason of each choice that is complete."""
    error: str | None = None
    """Code of the error that ended the job."""
    last_id: str | None = None
    """Id of the last event."""
    is_ended: bool = False
    """Whether the answer is complete or has failed, so that nothing follows."""
    usage: list[int] = field(default_factory=list)
    """Prompt and completion tokens that the answer states; empty if it states none."""
    num_after_finish: int = 0
    """Number of characters that choices received after their finish reason."""

    def add_event(self, event: Event) -> int:
        """Add an event, and return how many characters of the answer it contains."""
        if event.id is not None:
            self.last_id = event.id
        if event.data == DONE:
            self.is_ended = True
            return 0
        body = orjson.loads(event.data)
        if "error" in body:
            if body["error"]["code"] != INTERRUPTION:
                self.error = str(body["error"]["code"])
                self.is_ended = True
            return 0
        self.usage = usage_of(body) or self.usage
        return sum(map(self._add_choice, body["choices"]))

    def add_body(self, body: Mapping[str, Any]) -> None:
        """Add the body of an answer that isn't streamed."""
        for choice in body["choices"]:
            self._add_choice(choice)
        self.usage = usage_of(body)
        self.is_ended = True

    def add_job(self, body: Mapping[str, Any]) -> None:
        """Add the answer of a job that is done. `body` is the reply of GET /v1/jobs/{id}."""
        viewed = body.get("answer")
        self.add_body({**body, "choices": [_only_choice(viewed)]} if viewed else body)

    def add(self, choice: int, text: str, finish: str | None) -> int:
        """Add a part of a choice, and return its number of characters."""
        if choice in self.finishes:
            self.num_after_finish += len(text)
        self.texts[choice] = self.texts.get(choice, "") + text
        if finish:
            self.finishes[choice] = finish
        return len(text)

    def _add_choice(self, choice: Mapping[str, Any]) -> int:
        return self.add(choice["index"], choice_text(choice), choice["finish_reason"])


def usage_of(body: Mapping[str, Any]) -> list[int]:
    """Return the prompt and completion tokens that a body or a chunk states, or an empty list."""
    usage = body.get("usage")
    return [usage["prompt_tokens"], usage["completion_tokens"]] if usage else []


def _only_choice(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answer of /v1/messages or /v1/responses as a choice."""
    if "content" in answer:
        parts, end = answer["content"], answer["stop_reason"]
    else:
        parts, end = (
            [part for item in answer["output"] for part in item["content"]],
            answer["status"],
        )
    text = "".join(part["text"] for part in parts)
    return {"index": 0, "text": text, "finish_reason": FINISHES[end]}


def choice_text(choice: Mapping[str, Any]) -> str:
    """Return the text of a choice of a chat or a completion, streamed or not."""
    message = choice.get("message") or choice.get("delta") or {}
    return choice.get("text") or message.get("content") or ""
