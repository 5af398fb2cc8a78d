"""Renders the result of a job for scores. Pure."""

import math
from collections.abc import Sequence
from typing import Any

import orjson

from api.follow.transcript import ChoiceTranscript, Delta
from api.render.answer_format import Format
from shared.protocol.answers import AnswerSpec
from shared.protocol.ids import SCORE_PREFIX
from shared.protocol.scoring import ScoreKind


class ScoreFormat(Format):
    """Format of /v1/score, as in vLLM. Scores are in the result of a job, and never streamed."""

    object = "list"
    chunk_object = "list"
    choices_field = "data"

    def __init__(self, spec: AnswerSpec) -> None:
        self.id = f"{SCORE_PREFIX}{spec.id}"

    def choice(self, index: int, choice: ChoiceTranscript) -> dict[str, Any]:
        """Return the score of one pair."""
        return {"index": index, "object": "score", "score": relevance(_logprobs(choice))}

    def delta(self, delta: Delta) -> list[dict[str, Any]]:
        """Return an empty list, because scores aren't streamed."""
        return []


class LikelihoodFormat(ScoreFormat):
    """Format of /v1/score if the scores are log-likelihoods."""

    def choice(self, index: int, choice: ChoiceTranscript) -> dict[str, Any]:
        """Return the log-likelihood of one text."""
        return {"index": index, "object": "score", "score": _logprobs(choice)[0]}


class LabelFormat(ScoreFormat):
    """Format of /v1/score with label_token_ids, as in SGLang."""

    object = "scoring"
    choices_field = "scores"

    def __init__(self, spec: AnswerSpec, *, softmax: bool) -> None:
        super().__init__(spec)
        self._softmax = softmax

    def all_choices(self, choices: Sequence[ChoiceTranscript]) -> list[Any]:
        """Return the probabilities of the labels for each item."""
        probabilities = softmax if self._softmax else _exponentials
        return [probabilities(_logprobs(choice)) for choice in choices]


class RankingFormat(ScoreFormat):
    """Format of /v1/rerank, as in vLLM and in the APIs of Jina and Cohere."""

    choices_field = "results"

    def __init__(self, spec: AnswerSpec, *, top_n: int, documents: Sequence[str] | None) -> None:
        super().__init__(spec)
        self._top_n = top_n
        self._documents = documents

    def choice(self, index: int, choice: ChoiceTranscript) -> dict[str, Any]:
        """Return the relevance of one document."""
        shown = {"document": {"text": self._documents[index]}} if self._documents else {}
        return {"index": index, **shown, "relevance_score": relevance(_logprobs(choice))}

    def all_choices(self, choices: Sequence[ChoiceTranscript]) -> list[Any]:
        """Return the most relevant documents. Equally relevant ones keep the request's order."""
        ranked = super().all_choices(choices)
        ranked.sort(key=lambda document: -document["relevance_score"])
        return ranked[: self._top_n]


def score_format(spec: AnswerSpec) -> Format:
    """Return the format of an answer with scores."""
    request = spec.request or {}
    if "top_n" in request:
        return RankingFormat(spec, top_n=request["top_n"], documents=request["documents"])
    match request.get("kind"):
        case ScoreKind.LABELS:
            return LabelFormat(spec, softmax=request["softmax"])
        case ScoreKind.LIKELIHOOD:
            return LikelihoodFormat(spec)
    return ScoreFormat(spec)


def relevance(logprobs: Sequence[float]) -> float:
    """Return the probability that the model answers yes, given that it answers yes or no.

    `logprobs` are the log-probabilities of yes and of no.
    """
    return softmax(logprobs)[0]


def softmax(logprobs: Sequence[float]) -> list[float]:
    """Return the probabilities of the tokens with these `logprobs`, divided by their sum."""
    largest = max(logprobs)
    weights = [math.exp(logprob - largest) for logprob in logprobs]
    return [weight / sum(weights) for weight in weights]


def _exponentials(logprobs: Sequence[float]) -> list[float]:
    return [math.exp(logprob) for logprob in logprobs]


def _logprobs(choice: ChoiceTranscript) -> list[float]:
    """Return the values that the worker has computed for one prompt."""
    values: list[float] = orjson.loads(choice.text)
    return values
