"""Gives turns to the open batches of a pool. Each turn is one arq job."""

import asyncio
from typing import Any

import structlog
from arq.connections import ArqRedis
from arq.worker import Function, func

from ops.control.batches.parts import Parts
from ops.control.batches.turn import BatchTurn
from shared.errors import JobFailed, LeaseLost, RedisUnavailable
from shared.protocol.ids import BatchId
from shared.store.batches.batches import PROMISE_MS, Turn

MAX_TURN_S = 600
"""Seconds after which arq cancels a turn. Only writing a huge batch's files takes that long."""
AWAY_S = 5.0
"""Seconds until the next turn of a batch if the file store was unavailable."""
FAILED_S = 10.0
"""Seconds until the next turn of a batch after a failed turn."""
MAX_REASON_CHARS = 300

log = structlog.get_logger()


class BatchTurns:
    """Starts and runs turns of batches in this process."""

    def __init__(self, parts: Parts, arq: ArqRedis) -> None:
        self._parts = parts
        self._arq = arq

    def function(self) -> Function:
        """Return the arq function that runs one turn. arq doesn't repeat an interrupted turn."""
        return func(self._run_job, name="run_batch", timeout=MAX_TURN_S, max_tries=1, keep_result=0)

    async def start(self) -> None:
        """Start turns of batches that are due, up to the maximum number of running turns."""
        while turn := await self._parts.batches.take_turn():
            job_id = f"{turn.batch}:{turn.number}"
            args = turn.batch, turn.number
            await self._arq.enqueue_job(
                "run_batch", *args, _job_id=job_id, _expires=PROMISE_MS / 1000
            )

    async def _run_job(self, _: dict[str, Any], batch_id: str, number: int) -> None:
        """Run one turn, and then start the turns that are due."""
        turn = Turn(BatchId(batch_id), number)
        try:
            await self._run(turn)
            await self.start()
        except LeaseLost as error:
            log.warning("batch_lost", batch_id=batch_id, error=str(error))
        except RedisUnavailable as error:
            log.warning("batch_interrupted", batch_id=batch_id, error=str(error))

    async def _run(self, turn: Turn) -> None:
        batches = self._parts.batches
        competition = await batches.begin(turn)
        batch = await batches.get(turn.batch)
        if batch is None:
            return
        try:
            wait_s = await BatchTurn(self._parts, turn, batch, competition).run()
            if wait_s is not None:
                await batches.release(turn, wait_s=wait_s)
        except (LeaseLost, RedisUnavailable):
            raise
        except asyncio.CancelledError:
            await batches.release(turn)
            raise
        except JobFailed as error:
            log.warning("batch_interrupted", batch_id=turn.batch, error=str(error))
            await batches.release(turn, wait_s=AWAY_S)
        except Exception as error:
            log.exception("batch_failed", batch_id=turn.batch)
            reason = f"{type(error).__name__}: {error}"[:MAX_REASON_CHARS]
            await batches.release(turn, wait_s=FAILED_S, failure=reason)
