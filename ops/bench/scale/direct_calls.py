"""Calls a simulated engine directly, as a program does that contains the engine."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared.settings import WorkerSettings, load_settings
from worker.engine.request import ChoiceSampling, Request, RequestId, StepOutput
from worker.engine.thread import EngineThread
from worker.engine_simulated.load_model import load_simulated
from worker.engine_simulated.tokens import prompt_ids


class DirectEngine:
    """An engine in this process, whose outputs arrive in the event loop."""

    def __init__(self, engine: EngineThread) -> None:
        self._engine = engine
        self._numbers = itertools.count()
        self._outputs: dict[RequestId, asyncio.Queue[StepOutput]] = {}

    def accept(self, outputs: list[StepOutput]) -> None:
        """Pass a step's outputs to their requests. Called in the event loop."""
        for output in outputs:
            if queue := self._outputs.get(output.request_id):
                queue.put_nowait(output)

    async def first_token_s(self, text: str, tokens: int) -> float:
        """Run a request to its end, and return the seconds until its first token."""
        request_id = RequestId(str(next(self._numbers)))
        request = Request(
            id=request_id,
            prompt_ids=prompt_ids(text),
            version=None,
            sampling=ChoiceSampling(seed=0),
            max_tokens=tokens,
            claim_epoch=1,
        )
        outputs = self._outputs[request_id] = asyncio.Queue()
        start_s = time.monotonic()
        self._engine.add(request)
        output = await outputs.get()
        first_s = time.monotonic() - start_s
        while not output.finish:
            output = await outputs.get()
        del self._outputs[request_id]
        return first_s


@asynccontextmanager
async def direct_engine(*, step_ms: int, sequences: int) -> AsyncIterator[DirectEngine]:
    """Run an engine in this process."""
    settings = load_settings(
        WorkerSettings,
        engine="simulated",
        model="base",
        simulated_step_ms=step_ms,
        max_num_seqs=sequences,
    )
    served, loop = load_simulated(settings), asyncio.get_running_loop()
    thread = EngineThread(served.engine, take_cores=served.cpu.take_cores)
    direct = DirectEngine(thread)

    def pass_on(outputs: list[StepOutput]) -> None:
        loop.call_soon_threadsafe(direct.accept, outputs)

    thread.start(on_outputs=pass_on, on_broken=lambda: None)
    try:
        yield direct
    finally:
        await asyncio.to_thread(thread.stop)
