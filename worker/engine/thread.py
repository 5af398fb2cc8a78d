"""Runs an engine on a thread of its own."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import TypeVar

import structlog

from shared.errors import EngineBroken, ErrorCode, JobError
from worker.engine.interface import AdapterImage, AnyEngine
from worker.engine.request import Request, RequestId, StepOutput

log = structlog.get_logger()
T = TypeVar("T")

STOP_TIMEOUT_S = 5.0
FAILURES_UNTIL_BROKEN = 3
ENGINE_FAILED = JobError(code=ErrorCode.INTERNAL, message="the engine failed; see the log")


class EngineThread:
    """Runs an engine's steps while the engine has work, and handles messages between steps.

    Any thread may call any method. All methods except `stop` and `write_adapter` return at once.
    """

    def __init__(self, engine: AnyEngine, *, take_cores: Callable[[], None]) -> None:
        """Create a thread for `engine`, without starting it.

        The thread calls `take_cores` at its start and before each step, since OpenMP may have
        started new threads.
        """
        self._engine = engine
        self._take_cores = take_cores
        self._on_outputs: Callable[[list[StepOutput]], object] = lambda _: None  # until `start`
        self._inbox: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._in_flight: set[RequestId] = set()
        self._busy_since: float | None = None
        """Monotonic time at which the thread began the current step or message; None while idle."""
        self._thread: threading.Thread | None = None
        self.stats = engine.stats()
        """Statistics of the engine as of its last step."""

    @property
    def is_busy(self) -> bool:
        """Whether requests are queued or running."""
        return bool(self._in_flight)

    @property
    def step_s(self) -> float:
        """Seconds spent on the current step or message; 0 while idle."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def start(
        self, *, on_outputs: Callable[[list[StepOutput]], object], on_broken: Callable[[], object]
    ) -> None:
        """Start the thread; call this once.

        It calls `on_outputs` with each step's outputs, and `on_broken` if an error ends it.
        """
        self._on_outputs = on_outputs
        self._thread = threading.Thread(
            target=self._run, args=(on_broken,), name="engine", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End the thread once its current step is done.

        It still handles the messages that were queued before this call. Blocks for at most
        `STOP_TIMEOUT_S` seconds. Requests in flight get no further output.
        """
        self._inbox.put(None)
        if self._thread is not None:
            self._thread.join(STOP_TIMEOUT_S)

    def add(self, request: Request) -> None:
        """Queue a request. Later steps produce its outputs."""
        self._inbox.put(lambda: self._add(request))

    def abort(self, request_id: RequestId) -> None:
        """End a request before the next step. The current step may still produce outputs for it."""
        self._inbox.put(lambda: self._abort(request_id))

    def call(self, function: Callable[[AnyEngine], T]) -> Future[T]:
        """Call `function` with the engine between two steps, and return a future of the result."""
        future: Future[T] = Future()

        def run() -> None:
            if future.set_running_or_notify_cancel():
                _resolve(future, lambda: function(self._engine))

        self._inbox.put(run)
        return future

    def write_adapter(self, reserved: object, image: AdapterImage) -> None:
        """Copy an adapter to memory that the engine has reserved. Blocks only the caller."""
        self._engine.write_adapter(reserved, image)

    def _run(self, on_broken: Callable[[], object]) -> None:
        try:
            self._serve()
        except Exception:  # per worker: it must not stay in the pool without an engine
            log.exception("engine_thread_ended")
            self._fail_all()
            on_broken()

    def _serve(self) -> None:
        is_idle = True
        self._take_cores()
        while self._take_messages(wait=is_idle):
            # After a failed step no request is in flight, so the thread waits for messages.
            is_idle = not self._engine.has_work or not self._step()
            self.stats = self._engine.stats()
            if self._engine.num_failures_in_a_row >= FAILURES_UNTIL_BROKEN:
                raise EngineBroken(f"{FAILURES_UNTIL_BROKEN} steps in a row failed")

    def _take_messages(self, *, wait: bool) -> bool:
        """Handle all messages. With `wait`, wait for one first. Return False to end the thread."""
        self._busy_since = None if wait else time.monotonic()
        try:
            message = self._inbox.get(block=wait)
            while message is not None:
                self._busy_since = time.monotonic()
                message()
                message = self._inbox.get_nowait()
        except Empty:
            return True
        return False

    def _step(self) -> bool:
        """Run one step and deliver its outputs. Return False if the engine failed."""
        self._take_cores()
        self._busy_since = time.monotonic()
        try:
            outputs = self._engine.step()
        except Exception:  # per step: an error for every request in flight
            log.exception("engine_failed", requests=sorted(self._in_flight))
            self._fail_all()
            return False
        self._in_flight.difference_update(o.request_id for o in outputs if o.finish or o.error)
        if outputs:
            self._on_outputs(outputs)
        return True

    def _fail_all(self) -> None:
        failed = sorted(self._in_flight)
        for request_id in failed:
            self._abort(request_id)
        self._on_outputs([StepOutput(request_id=id_, error=ENGINE_FAILED) for id_ in failed])

    def _add(self, request: Request) -> None:
        self._in_flight.add(request.id)
        try:
            self._engine.add(request)
        except Exception:  # per job: it becomes the request's error
            log.exception("request_refused", request=request.id)
            self._in_flight.discard(request.id)
            self._on_outputs([StepOutput(request_id=request.id, error=ENGINE_FAILED)])

    def _abort(self, request_id: RequestId) -> None:
        self._in_flight.discard(request_id)
        try:
            self._engine.abort(request_id)
        except Exception:  # per job: other jobs go on
            log.exception("abort_failed", request=request_id)


def _resolve(future: Future[T], function: Callable[[], T]) -> None:
    try:
        future.set_result(function())
    except Exception as error:  # noqa: BLE001  (the caller handles it where it waits)
        future.set_exception(error)
