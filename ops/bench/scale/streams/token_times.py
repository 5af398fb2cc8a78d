"""Records when the engines of a process produce the tokens of sampled jobs."""

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, cast

from ops.bench.scale.streams.received_stream import is_sampled
from ops.bench.scale.streams.stream_load import Arrival
from worker.engine.interface import AnyEngine
from worker.engine.request import RequestId, StepOutput


class TokenTimes:
    """Production times of sampled tokens, and the number of all tokens and steps.

    Any thread may call its methods.
    """

    def __init__(self) -> None:
        self.num_steps = 0
        """Number of steps that have produced tokens."""
        self.num_tokens = 0
        self._times: list[Arrival] = []
        self._num_tokens: defaultdict[RequestId, int] = defaultdict(int)

    def record(self, outputs: Sequence[StepOutput]) -> None:
        """Record the tokens of a step that has just ended."""
        now_s = time.monotonic()
        self.num_steps += bool(outputs)
        self.num_tokens += len(outputs)
        for output in outputs:
            job = output.request_id.partition(":")[0]
            if is_sampled(job) and output.token_id is not None:
                self._times.append((job, self._num_tokens[output.request_id], now_s))
                self._num_tokens[output.request_id] += 1
                if output.finish:
                    del self._num_tokens[output.request_id]

    def take(self) -> list[Arrival]:
        """Return the times that were recorded since the last call."""
        taken, self._times = self._times, []
        return taken


class _RecordedEngine:
    """An engine whose steps are recorded. All other calls go to the engine unchanged."""

    def __init__(self, engine: AnyEngine, times: TokenTimes) -> None:
        self._engine = engine
        self._times = times

    def step(self) -> list[StepOutput]:
        """Run a step of the engine."""
        outputs = self._engine.step()
        self._times.record(outputs)
        return outputs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


def recorded(engine: AnyEngine, times: TokenTimes) -> AnyEngine:
    """Return an engine that does the same and records its tokens in `times`."""
    return cast(AnyEngine, _RecordedEngine(engine, times))


def delays_s(produced: Iterable[Arrival], arrived: Iterable[Arrival]) -> list[float]:
    """Return the seconds from producing each token to its arrival at the client.

    Tokens of which only one of the two times is known are left out.
    """
    times = {(job, index): at_s for job, index, at_s in produced}
    return [at_s - times[job, index] for job, index, at_s in arrived if (job, index) in times]
