"""Splits requests for scores into requests that vLLM can run. Importing this file needs no vLLM.

vLLM reports the log-probability of the token that it samples, so each label is sampled by a request
of its own. These requests share the prompt's blocks of the KV cache. (vLLM's `logprob_token_ids`
isn't used. With it, vLLM would lose the likeliest tokens of other requests in the same batch.)
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from shared.protocol.ids import AdapterVersion
from worker.engine.request import Request, RequestId, StepOutput

MAX_STARTED = 16
"""A further request for scores starts only while fewer parts than this are unfinished.

vLLM runs requests in the order of their arrival, and one job may have thousands of requests for
scores."""


@dataclass(slots=True, eq=False)
class _Score:
    """A request for a score, after its start."""

    request: Request
    parts: dict[RequestId, int | None]
    """Maps the id of each unfinished part to the token id of the label that the part samples.

    The value is None if the part scores the prompt itself."""
    logprobs: dict[int, float] = field(default_factory=dict)
    """Log-probabilities of the finished labels, by token id."""
    has_failed: bool = False


class ScoringRequests:
    """Splits requests for scores into parts, starts a few at a time, and joins their outputs."""

    def __init__(self) -> None:
        self._waiting: deque[Request] = deque()
        self._scores: dict[RequestId, _Score] = {}
        """Started requests, by the ids of their unfinished parts."""

    @property
    def num_waiting(self) -> int:
        """Number of requests that haven't started."""
        return len(self._waiting)

    @property
    def versions(self) -> set[AdapterVersion | None]:
        """Adapter versions of the waiting requests."""
        return {request.version for request in self._waiting}

    def add(self, request: Request) -> None:
        """Queue a request."""
        self._waiting.append(request)

    def start(self) -> Iterator[Request]:
        """Start as many requests as may run, and yield their parts for vLLM."""
        while self._waiting and len(self._scores) < MAX_STARTED:
            request = self._waiting.popleft()
            parts = [_part(request, label) for label in _labels(request)]
            ids = dict(zip((part.id for part in parts), _labels(request), strict=True))
            self._scores |= dict.fromkeys(ids, _Score(request, ids))
            yield from parts

    def abort(self, request_id: RequestId) -> list[RequestId]:
        """Forget a request, and return the ids of its unfinished parts."""
        self._waiting = deque(r for r in self._waiting if r.id != request_id)
        parts = [id_ for id_, score in self._scores.items() if score.request.id == request_id]
        for part in parts:
            del self._scores[part]
        return parts

    def remove(self, version: AdapterVersion) -> list[Request]:
        """Forget the waiting requests of an adapter version, and return them."""
        removed = [request for request in self._waiting if request.version == version]
        self._waiting = deque(r for r in self._waiting if r.version != version)
        return removed

    def joined(self, outputs: Iterable[StepOutput]) -> Iterator[StepOutput]:
        """Yield `outputs`, but join the outputs of all parts of a request into one.

        If a part fails, its error is the output of the request.
        """
        for output in outputs:
            score = self._scores.pop(output.request_id, None)
            if score is None:
                yield output
            elif (joined := _join(score, output)) is not None:
                yield joined


def _join(score: _Score, output: StepOutput) -> StepOutput | None:
    """Record a part's output, and return the request's output or None.

    The request has an output as soon as all of its parts have finished or one part has failed.
    """
    label = score.parts.pop(output.request_id)
    if score.has_failed:
        return None
    score.has_failed = output.error is not None
    whole = replace(output, request_id=score.request.id)
    if score.has_failed or label is None:
        return whole
    assert output.logprobs is not None
    score.logprobs[label] = output.logprobs.logprob
    top = tuple(score.logprobs.items())
    return None if score.parts else replace(whole, logprobs=replace(output.logprobs, top=top))


def _labels(request: Request) -> list[int | None]:
    """Return the label of each part, or `[None]` if the request scores the prompt itself."""
    return [*dict.fromkeys(request.sampling.logprob_token_ids)] or [None]


def _part(request: Request, label: int | None) -> Request:
    """Return the part that samples `label`, or `request` itself if `label` is None."""
    if label is None:
        return request
    sampling = replace(request.sampling, allowed_token_ids=(label,), logprob_token_ids=())
    return replace(request, id=RequestId(f"{request.id}:{label}"), sampling=sampling, output_ids=[])
