"""Renders the chats of jobs by the templates of adapters, in fair turns between tenants."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from shared.errors import ErrorCode, JobError, JobFailed
from worker.text.templates.sandbox import NUM_PROCESSES, TEMPLATES, Rendered, TemplateChat
from worker.text.tenant_turns import SpentTooMuch, TenantTurns

_TRY_AGAIN = (
    "messages: the chat templates of this tenant's adapters have taken too much CPU time on the "
    "worker. Use simpler ones, and try again later."
)


class AdapterTemplates:
    """Renders the chats of one worker's jobs. All calls must come from one event loop."""

    def __init__(self) -> None:
        self._turns = TenantTurns(NUM_PROCESSES)
        self._threads = ThreadPoolExecutor(NUM_PROCESSES, thread_name_prefix="templates")

    async def render(self, tenant: str, chat: TemplateChat) -> Rendered:
        """Render a chat when it is the tenant's turn.

        Raises:
            JobFailed: the tenant has used too much CPU time for templates.
        """
        try:
            async with self._turns.turn(tenant) as turn:
                loop = asyncio.get_running_loop()
                rendered = await loop.run_in_executor(self._threads, TEMPLATES.render, chat)
                turn.cpu_s = rendered.cpu_s
                return rendered
        except SpentTooMuch:
            code = ErrorCode.RATE_LIMIT_EXCEEDED
            raise JobFailed(JobError(code=code, message=_TRY_AGAIN, param="messages")) from None
