"""Evaluates the demo: sends held-out prompts to a running server and judges the answers."""

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import httpx
import orjson

from ops.demo.task import Example, Task
from ops.load.answers import client
from shared.errors import LorikeetError


class EvaluationFailed(LorikeetError):
    """Requests failed, so the scores aren't valid."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One held-out prompt, and the answers that the base model and the adapter gave to it."""

    prompt: str
    wanted: str
    base: str
    adapter: str
    is_base_right: bool
    is_adapter_right: bool


@dataclass(frozen=True, slots=True)
class Score:
    """Judged answers of the base model and of one task's adapter to the same prompts."""

    task: str
    answers: Sequence[Answered]

    @property
    def base_share(self) -> float:
        """Share of the base model's answers that are right, from 0 to 1."""
        return sum(answer.is_base_right for answer in self.answers) / len(self.answers)

    @property
    def adapter_share(self) -> float:
        """Share of the adapter's answers that are right, from 0 to 1."""
        return sum(answer.is_adapter_right for answer in self.answers) / len(self.answers)


@dataclass(frozen=True, slots=True)
class _Request:
    task: Task
    example: Example
    model: str


def held_out_of(tasks: Sequence[Task], most: int | None) -> dict[str, list[Example]]:
    """Return the held-out examples by task name: all, or `most` evenly spaced ones per task."""
    found = {}
    for task in tasks:
        examples = task.held_out()
        step = max(1, -(-len(examples) // most)) if most else 1
        found[task.name] = examples[::step]
    return found


async def evaluate(
    url: str,
    api_key: str | None,
    *,
    base: str,
    tasks: Sequence[Task],
    held_out: Mapping[str, Sequence[Example]],
    num_clients: int,
    on_done: Callable[[], None],
) -> list[Score]:
    """Send each prompt to `base` and to its task's adapter, and judge the answers.

    The requests are sent in random order.

    Raises:
        EvaluationFailed: requests failed.
    """
    requests = [
        _Request(task, example, model)
        for task in tasks
        for example in held_out[task.name]
        for model in (base, task.name)
    ]
    random.Random(0).shuffle(requests)
    texts: dict[_Request, str] = {}
    errors: list[str] = []

    async def ask_each(rest: Iterator[_Request]) -> None:
        for one in rest:
            try:
                texts[one] = await _ask(http, url, one)
            except (httpx.HTTPError, EvaluationFailed) as error:
                errors.append(f"{one.model}: {str(error) or type(error).__name__}")
            on_done()

    rest = iter(requests)
    async with client(url, api_key) as http, asyncio.TaskGroup() as clients:
        for _ in range(num_clients):
            clients.create_task(ask_each(rest))
    if errors:
        reasons = "\n".join(sorted(set(errors)))
        raise EvaluationFailed(f"{len(errors)} of {len(requests)} requests failed:\n{reasons}")
    return [
        Score(task.name, [_answered(task, e, texts, base) for e in held_out[task.name]])
        for task in tasks
    ]


async def _ask(http: httpx.AsyncClient, url: str, request: _Request) -> str:
    body = {
        "model": request.model,
        "messages": [{"role": "user", "content": request.example.prompt}],
        "temperature": 0,
        "max_tokens": request.task.max_tokens,
    }
    reply = await http.post(f"{url}/v1/chat/completions", json=body)
    if reply.status_code != 200:
        raise EvaluationFailed(f"HTTP {reply.status_code}: {reply.text[:200]}")
    text: str = orjson.loads(reply.content)["choices"][0]["message"]["content"]
    return text


def _answered(task: Task, example: Example, texts: Mapping[_Request, str], base: str) -> Answered:
    plain, adapted = (texts[_Request(task, example, model)] for model in (base, task.name))
    return Answered(
        prompt=example.prompt,
        wanted=example.answer,
        base=plain,
        adapter=adapted,
        is_base_right=task.is_right(example, plain),
        is_adapter_right=task.is_right(example, adapted),
    )
