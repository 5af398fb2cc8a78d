"""Answers calls in which front ends ask for tokenization."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from shared.errors import (
    AdapterRejected,
    ErrorCode,
    JobError,
    JobFailed,
    ProtocolMismatch,
    RedisUnavailable,
)
from shared.protocol.ids import AdapterVersion, CallId
from shared.protocol.tokenization import (
    Call,
    Decode,
    Describe,
    EncodeChat,
    EncodeText,
    Reply,
    decode_call,
)
from shared.store.adapters.registry import Registry
from shared.store.jobs.tokenizations import Tokenizations
from shared.store.redis.retry import MAX_DELAY_S
from worker.adapters.loader_threads import LoaderThreads
from worker.adapters.residency import Residency
from worker.adapters.source.interface import AdapterSource
from worker.jobs.encoding import encode
from worker.text.interface import PromptTokenizer
from worker.text.prompt_style import PromptStyle

log = structlog.get_logger()

WAIT_S = 1.0
"""Maximum seconds to wait for the arrival of a call."""
MAX_CONCURRENT = 2
"""Maximum number of calls that a worker answers at the same time. Other calls wait in Redis."""
MAX_STYLES = 256
"""Maximum number of cached prompt styles of adapters that aren't loaded."""
FAULT = JobError(code=ErrorCode.INTERNAL, message="the worker failed to tokenize; see its log")


@dataclass(frozen=True, slots=True, eq=False)
class AdapterStyles:
    """Prompt styles of adapter versions. The versions needn't be loaded."""

    residency: Residency
    registry: Registry
    source: AdapterSource
    threads_for: Callable[[str], LoaderThreads]
    """Function that returns the threads on which adapters are read from a source."""
    _read: dict[AdapterVersion, PromptStyle] = field(default_factory=dict, init=False)

    async def style(self, version: AdapterVersion) -> PromptStyle:
        """Return a version's style, read from its files if necessary. Raises AdapterRejected."""
        style = self.residency.style(version) or self._read.get(version)
        if style is None:
            entry = await self.registry.adapter_by_version(version)
            if entry is None:
                raise AdapterRejected(f"adapter version {version} is no longer registered")
            threads = self.threads_for(entry.source)
            style = await threads.run(lambda: self.source.read_version(entry).style)
            while len(self._read) >= MAX_STYLES:
                del self._read[next(iter(self._read))]
            self._read[version] = style
        return style


@dataclass(frozen=True, slots=True, eq=False)
class TokenizationDesk:
    """Takes calls for tokenization and answers them."""

    calls: Tokenizations
    tokenizer: PromptTokenizer
    styles: AdapterStyles
    serves_images: bool = True

    async def run(self) -> None:
        """Answer calls until cancelled. While Redis is unavailable, wait for it."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._serve(with_images=self.serves_images))
            for _ in range(MAX_CONCURRENT - 1):  # images take long, and may not keep text waiting
                group.create_task(self._serve(with_images=False))

    async def _serve(self, *, with_images: bool) -> None:
        while True:
            try:
                raw = await self.calls.take(timeout_s=WAIT_S, with_images=with_images)
                if raw is not None:
                    await self._answer(raw)
            except RedisUnavailable as error:  # front ends ask again
                log.warning("calls_interrupted", error=str(error))
                await asyncio.sleep(MAX_DELAY_S)

    async def _answer(self, raw: bytes) -> None:
        try:
            call_id, call = decode_call(raw)
        except ProtocolMismatch as error:  # a later release has sent it
            log.warning("call_undecodable", error=str(error))
            return
        await self.calls.answer(call_id, await self._reply(call_id, call))

    async def _reply(self, call_id: CallId, call: Call) -> Reply:
        try:
            return await self._result(call)
        except JobFailed as failed:
            return Reply(error=failed.error)
        except AdapterRejected as error:
            code = ErrorCode.ADAPTER_UNAVAILABLE
            return Reply(error=JobError(code=code, message=str(error)))
        except RedisUnavailable:
            raise
        except Exception:  # per call: it becomes the call's error
            log.exception("call_failed", call=call_id)
            return Reply(error=FAULT)

    async def _result(self, call: Call) -> Reply:
        tokenizer = self.tokenizer
        match call:
            case EncodeText(text=text, add_special_tokens=adds):
                encode_text = tokenizer.encode_text
                ids = await asyncio.to_thread(encode_text, text, add_special_tokens=adds)
                return self._tokens(ids, with_names=call.with_names)
            case EncodeChat(job=job):
                style = await self.styles.style(job.version)
                (prompt,) = await encode(tokenizer, job, style)
                return self._tokens(prompt.ids, with_names=call.with_names)
            case Decode(ids=ids):
                return Reply(text=await asyncio.to_thread(tokenizer.decode, ids))
            case Describe():
                return Reply(description=tokenizer.describe())

    def _tokens(self, ids: list[int], *, with_names: bool) -> Reply:
        names = tuple(self.tokenizer.token_names(ids)) if with_names else None
        return Reply(ids=tuple(ids), names=names)
