"""Obtains the undisturbed answers of the native engine."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random

import httpx

from ops.chaos.load.answer import Answer
from ops.chaos.load.requests import Question, random_question

NUM_QUESTIONS = 24
TIMEOUT_S = 300.0
AT_ONCE = 8


def draw_questions(seed: int, *, models: Sequence[str], lengths: tuple[int, int]) -> list[Question]:
    """Draw the questions of a run. Every API can ask the first one."""
    rng = Random(f"{seed}:questions")
    first, *others = [
        random_question(rng, number, models=models, lengths=lengths, n=rng.choice((1, 1, 1, 2)))
        for number in range(NUM_QUESTIONS)
    ]
    return [replace(first, is_chat=True, n=1), *others]


async def ask_undisturbed(
    url: str, questions: Sequence[Question]
) -> list[tuple[Question, Mapping[int, str]]]:
    """Return each question with the texts of its choices.

    Raises:
        httpx.HTTPError: a request failed.
    """
    turns = asyncio.Semaphore(AT_ONCE)
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, trust_env=False) as http:

        async def ask(question: Question) -> tuple[Question, Mapping[int, str]]:
            async with turns:
                response = await http.post(question.path, json=question.fields)
            answer = Answer()
            answer.add_body(response.raise_for_status().json())
            return question, answer.texts

        return list(await asyncio.gather(*map(ask, questions)))
