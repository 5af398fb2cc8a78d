"""Asks workers to convert between text and token ids."""

import asyncio
import contextlib
import secrets

from fastapi import Request

from api.answers.admission import admit
from api.answers.parts import Intake
from api.answers.submission import parse_request
from api.http.turns.fair_slots import FairSlots
from api.pools.pools import pools_of
from api.requests.viewed import ViewedRequest
from shared.errors import ErrorCode, JobFailed, failed
from shared.protocol.access.rights import Access
from shared.protocol.capabilities import Needs, why_unserved
from shared.protocol.ids import CallId
from shared.protocol.jobs import Job
from shared.protocol.tokenization import Call, EncodeChat, Reply
from shared.store.jobs.tokenizations import Tokenizations
from shared.store.views.pool_views import PoolViews

ATTEMPT_S = 4.0
"""Seconds to wait for a reply before the call is sent again.

The worker that has taken the call may have died.
"""
MAX_ATTEMPTS = 2
POLL_S = 0.5
"""Seconds between two checks whether a worker is alive."""
MAX_CALLS = 16
"""Maximum number of concurrent calls of one front end. Further calls wait.

Each call uses a Redis connection, and its text is in Redis until a worker takes it.
"""
MAX_CALLS_OF_TENANT = 8
"""Maximum number of concurrent calls for one tenant."""
LIMIT_S = 10.0
"""Maximum seconds for a call while a worker is alive, including the wait for other calls."""


class TokenizerCalls:
    """Sends tokenization calls to the workers of one pool."""

    def __init__(
        self, tokenizations: Tokenizations, views: PoolViews, slots: FairSlots, *, limit_s: float
    ) -> None:
        """Create an object. `slots` limits the number of concurrent calls.

        While no worker is alive, a call waits for at most `limit_s` seconds.
        """
        self._tokenizations = tokenizations
        self._views = views
        self._slots = slots
        self._limit_s = limit_s

    async def ask(self, tenant: str, call: Call) -> Reply:
        """Have any live worker answer a call of `tenant`, and return the reply.

        Raises:
            JobFailed: the worker refuses the input, no worker serves its images, or no
                worker has answered in time.
            RedisUnavailable: Redis can't be reached.
        """
        if isinstance(call, EncodeChat) and call.job.images:
            await self._check_images(call.job)
        reply = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limit_s):
                reply = await self._ask_in_turn(tenant, call)
                while reply is None and await self._waited_for_worker():
                    reply = await self._ask_in_turn(tenant, call)
        if reply is None:
            message = "no worker has answered in time; start a worker, or try again"
            raise failed(ErrorCode.UNAVAILABLE, message)
        if reply.error:
            raise JobFailed(reply.error)
        return reply

    async def count_tokens(self, chat: Job) -> int:
        """Return the number of tokens of the prompt of `chat`, a job that isn't queued.

        Raises:
            JobFailed: as in `ask`.
            RedisUnavailable: Redis can't be reached.
        """
        return len((await self.ask(chat.tenant, EncodeChat(job=chat))).ids)

    async def _check_images(self, job: Job) -> None:
        workers = [view.info.serves for view in await self._views.workers()]
        needs = Needs(features=job.features)
        if reason := why_unserved(f"model {job.model}", needs, workers):
            raise failed(ErrorCode.UNSUPPORTED_PARAMETER, reason, "messages")

    async def _waited_for_worker(self) -> bool:
        """Wait until a worker is alive. Return False if one was alive from the start."""
        has_waited = False
        while not await self._views.live_workers():
            has_waited = True
            await asyncio.sleep(POLL_S)
        return has_waited

    async def _ask_in_turn(self, tenant: str, call: Call) -> Reply | None:
        """Send a call in the tenant's turn. Return None if no worker answers within `LIMIT_S`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LIMIT_S), self._slots.slot(tenant):
                return await self._ask(call)
        return None

    async def _ask(self, call: Call) -> Reply | None:
        call_id = CallId(secrets.token_hex(16))
        # Images may take longer than an attempt. A second one would only double the work.
        has_images = isinstance(call, EncodeChat) and bool(call.job.images)
        attempts = [LIMIT_S] if has_images else [ATTEMPT_S] * MAX_ATTEMPTS
        for attempt_s in attempts:
            await self._tokenizations.send(call_id, call)
            if reply := await self._reply(call_id, attempt_s):
                return reply
            await self._tokenizations.withdraw(call_id, call)
        return None

    async def _reply(self, call_id: CallId, attempt_s: float) -> Reply | None:
        clock = asyncio.get_running_loop().time
        end_s = clock() + attempt_s
        while (left_s := end_s - clock()) > 0:
            if reply := await self._tokenizations.next_reply(call_id, timeout_s=left_s):
                return reply
        return None


async def count_prompt(
    request: Request, access: Access, viewed: ViewedRequest
) -> tuple[int, dict[str, str]]:
    """Return the number of tokens of a request's prompt, and headers for the response.

    `viewed` is the request in the form of a chat request.

    Raises:
        JobFailed: the request is invalid, or as in `TokenizerCalls.ask`.
        RedisUnavailable: Redis can't be reached.
    """
    chat, _, headers = parse_request(request, viewed.parse, viewed.others)
    pool = await pools_of(request).of_model(request, chat.model)
    job = viewed.job(chat, await admit(pool.part(Intake), access, chat.model))
    return await pool.part(TokenizerCalls).count_tokens(job), headers
