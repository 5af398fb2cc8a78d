"""Renders chats with adapters' templates in child processes. Costly chats end their process."""

import asyncio
import atexit
import json
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import Pipe
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError

from shared.errors import ErrorCode, failed
from shared.protocol.jobs import PromptEnd
from shared.sandbox import TIMEOUT_S, TOO_COSTLY
from worker.text.tenant_turns import SpentTooMuch, TenantTurns

NUM_PROCESSES = 2
"""Number of processes. While one renders a tenant's costly chat, another serves other tenants."""
KILLED_CPU_S = 2.2
"""CPU seconds that a tenant is charged for a chat that exceeds a limit.

They include the start of a new process."""
_TRY_AGAIN = (
    "messages: the chat templates of this tenant's adapters have taken too much CPU time on the "
    "worker. Use simpler ones, and try again later."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateChat:
    """A chat, and the template of an adapter that renders it."""

    template: str
    messages: Sequence[Mapping[str, Any]]
    base_tokens: Mapping[str, Any]
    """Special tokens of the base model's tokenizer by their variable names, such as `bos_token`."""
    special_tokens: Mapping[str, str] = field(default_factory=dict)
    """Special tokens of the adapter. They override the base model's."""
    variables: Mapping[str, Any] = field(default_factory=dict)
    """Further variables of the template. They override the special tokens."""
    tools: Sequence[Mapping[str, Any]] | None = None
    is_generic: bool = False
    """Whether a message describes the tools, because the template doesn't show tools."""
    prompt_end: PromptEnd = PromptEnd.ANSWER

    def encode(self) -> bytes:
        """Return the chat as JSON."""
        names = (
            *("template", "base_tokens", "special_tokens", "variables"),
            *("is_generic", "prompt_end"),
        )
        fields = {name: getattr(self, name) for name in names}
        tools = None if self.tools is None else list(self.tools)
        return json.dumps({**fields, "messages": list(self.messages), "tools": tools}).encode()


@dataclass(frozen=True, slots=True)
class Rendered:
    """A rendered chat, or the reason why it couldn't be rendered."""

    text: str
    error: str
    """Reason why the chat couldn't be rendered; empty if it was rendered."""
    is_malformed: bool
    """Whether the template has a syntax error."""
    cpu_s: float
    """CPU time of the rendering, in seconds."""


class TemplateTooCostly(TemplateError):
    """A template exceeds a limit."""


class TemplateSandbox:
    """The template processes of a worker. Thread-safe. The first chat starts them."""

    def __init__(self) -> None:
        self._slots = threading.BoundedSemaphore(NUM_PROCESSES)
        self._lock = threading.Lock()
        self._idle: deque[_Process] = deque()
        self._has_started = False

    def render(self, chat: TemplateChat) -> Rendered:
        """Render a chat. Blocks until the chat is rendered or has exceeded a limit."""
        question = chat.encode()
        with self._slots:
            process, answer = self._take(), None
            try:
                answer = process.ask(question)
            finally:
                if answer is None:
                    process.end()
                    process = _Process()  # starts meanwhile, so that the next chat needn't wait
                self._idle.append(process)
        return answer or Rendered("", TOO_COSTLY, False, KILLED_CPU_S)

    def render_text(self, chat: TemplateChat) -> str:
        """Render a chat, and return its text.

        Raises:
            TemplateSyntaxError: the template has a syntax error.
            TemplateTooCostly: the template exceeds a limit.
            TemplateError: the template rejects the chat.
        """
        rendered = self.render(chat)
        if rendered.error == TOO_COSTLY:
            raise TemplateTooCostly(TOO_COSTLY)
        if rendered.is_malformed:
            raise TemplateSyntaxError(rendered.error, 0)
        if rendered.error:
            raise TemplateError(rendered.error)
        return rendered.text

    def close(self) -> None:
        """End the idle processes."""
        while self._idle:
            self._idle.pop().end()

    def _take(self) -> "_Process":
        with self._lock:
            if not self._has_started:
                self._idle.extend(_Process() for _ in range(NUM_PROCESSES))
                self._has_started = True
            process = self._idle.popleft() if self._idle else _Process()
        if process.has_ended:
            process.end()
            process = _Process()
        return process


class _Process:
    """A child process that renders chat templates. It ends when the worker ends."""

    def __init__(self) -> None:
        self._connection, end = Pipe()
        with end:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "worker.text.templates.process", str(end.fileno())],
                pass_fds=[end.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def ask(self, question: bytes) -> Rendered | None:
        """Return the process's answer; None if it has ended, or doesn't answer in time."""
        with suppress(EOFError, OSError):  # the process has ended
            self._connection.send_bytes(question)
            if self._connection.poll(TIMEOUT_S):
                return Rendered(**json.loads(self._connection.recv_bytes()))
        return None

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._connection.close()


TEMPLATES = TemplateSandbox()
"""The template processes of this worker. The worker's loader and its jobs share them."""
atexit.register(TEMPLATES.close)


class AdapterTemplates:
    """Renders the chats of one worker's jobs. All calls must come from one event loop."""

    def __init__(self) -> None:
        self._turns = TenantTurns(NUM_PROCESSES)
        self._threads = ThreadPoolExecutor(NUM_PROCESSES, thread_name_prefix="templates")

    async def render(self, tenant: str, chat: TemplateChat) -> Rendered:
        """Render a chat in its tenant's turn. Raises JobFailed if the tenant used too much CPU."""
        try:
            async with self._turns.turn(tenant) as turn:
                loop = asyncio.get_running_loop()
                rendered = await loop.run_in_executor(self._threads, TEMPLATES.render, chat)
                turn.cpu_s = rendered.cpu_s
                return rendered
        except SpentTooMuch:
            code = ErrorCode.RATE_LIMIT_EXCEEDED
            raise failed(code, _TRY_AGAIN, "messages") from None
