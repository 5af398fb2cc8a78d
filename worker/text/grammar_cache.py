"""Compiles the grammars of jobs, in fair turns between tenants, and caches the results."""

import asyncio
import hashlib
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from shared.errors import ErrorCode, GrammarRejected, JobFailed, failed
from shared.protocol.jobs import Job
from worker.engine.grammar import TOO_COMPLEX, Grammar, GrammarCompiler, GrammarSource
from worker.text.grammar_sandbox import build_grammar, encode_constraint
from worker.text.grammar_source import after_reasoning, constraint_of
from worker.text.interface import EncodedPrompt
from worker.text.tenant_turns import SpentTooMuch, TenantTurns

MAX_RUNNING = 4
"""Maximum number of compilations at the same time. Each is for a different tenant."""
MAX_CACHED = 64
"""Maximum number of cached results. A result is a grammar or the reason for its rejection."""
V = TypeVar("V")


class GrammarCache:
    """Compiles the grammars of one worker's jobs. All calls must come from one event loop."""

    def __init__(self, compiler: GrammarCompiler) -> None:
        self._compiler = compiler
        self._threads = ThreadPoolExecutor(MAX_RUNNING, thread_name_prefix="grammars")
        self._turns = TenantTurns(MAX_RUNNING)
        self._cached: TenantCache[Grammar | str] = TenantCache(MAX_CACHED)

    async def for_job(self, job: Job, prompt: EncodedPrompt) -> Grammar | None:
        """Return the grammar of the answers to `prompt`, or None if any text is allowed.

        Raises:
            JobFailed: the grammar can't be enforced, or the job's tenant has used too much CPU
                time for grammars. The error names the field.
        """
        constraint, param = constraint_of(job)
        if constraint is None:
            return None
        result = await self._get(job.tenant, encode_constraint(constraint), prompt, param)
        if isinstance(result, Grammar):
            if result.is_too_complex:
                raise JobFailed(TOO_COMPLEX)
            return result
        kind = "schema" if job.sampling.json_schema or param == "tools" else "constraint"
        path, _, reason = result.partition(": ")
        if job.tools and path.startswith("tools["):
            kind, param, result = "schema", path, reason
        message = f"{param}: the {kind} can't be enforced: {result}"
        raise failed(ErrorCode.INVALID_VALUE, message, param)

    async def _get(
        self, tenant: str, constraint: bytes, prompt: EncodedPrompt, param: str
    ) -> Grammar | str:
        """Return the compiled grammar of a constraint, or the reason why it can't be enforced.

        `param` is the field of the request that sets the constraint.

        Raises:
            JobFailed: the tenant has used too much CPU time for grammars.
        """
        key = _key(constraint, prompt)
        if (result := self._cached.get(tenant, key)) is not None:
            return result
        try:
            async with self._turns.turn(tenant) as turn:
                if (result := self._cached.get(tenant, key)) is None:  # from an earlier turn
                    loop = asyncio.get_running_loop()
                    compile_, threads = self._compile, self._threads
                    compiling = loop.run_in_executor(threads, compile_, constraint, prompt)
                    result, turn.cpu_s = await compiling
                    self._cached.put(tenant, key, result)
        except SpentTooMuch:
            raise _try_again(param) from None
        return result

    def _compile(self, constraint: bytes, prompt: EncodedPrompt) -> tuple[Grammar | str, float]:
        """Compile a constraint's grammar, first in the sandbox and then here.

        Returns:
            A pair: the grammar or the reason for refusing it, and the CPU time in seconds.
        """
        built = build_grammar(constraint)
        if built.error:
            return built.error, built.cpu_s
        start_s = time.thread_time()
        result = self._compile_here(GrammarSource(built.text), prompt)
        return result, built.cpu_s + time.thread_time() - start_s

    def _compile_here(self, source: GrammarSource, prompt: EncodedPrompt) -> Grammar | str:
        """Compile a grammar here, after the sandbox has compiled it. Its cost is therefore bounded.

        Return the grammar, or the reason for refusing it.
        """
        if (reasoning := prompt.reasoning) is not None:
            token_id, is_open = self._compiler.token_id, prompt.is_reasoning
            source = after_reasoning(source, reasoning, is_open=is_open, token_id=token_id)
        try:
            return self._compiler.compile(source)
        except GrammarRejected as error:
            return str(error)


def _key(constraint: bytes, prompt: EncodedPrompt) -> bytes:
    reasoning = f"{prompt.reasoning} {prompt.is_reasoning}\0"
    return hashlib.sha256(reasoning.encode() + constraint).digest()


def _try_again(param: str) -> JobFailed:
    message = (
        f"{param}: the schemas and grammars of this tenant have taken too much CPU time on the "
        "worker. Use fewer different ones, or simpler ones, and try again later."
    )
    code = ErrorCode.RATE_LIMIT_EXCEEDED
    return failed(code, message, param)


class TenantCache(Generic[V]):
    """Maps keys of tenants to values, up to a total number of values.

    Tenants share no values, because a cached value would show what another tenant has sent.
    """

    def __init__(self, max_values: int) -> None:
        """Create a cache of at most `max_values` values of all tenants together."""
        self._max_values = max_values
        self._values: OrderedDict[str, OrderedDict[bytes, V]] = OrderedDict()
        """Values of each tenant by key. Those that were used least recently come first."""
        self._num_values = 0

    def get(self, tenant: str, key: bytes) -> V | None:
        """Return a cached value, or None if there is none. Mark the value as recently used."""
        values = self._values.get(tenant)
        if values is None or key not in values:
            return None
        self._values.move_to_end(tenant)
        values.move_to_end(key)
        return values[key]

    def put(self, tenant: str, key: bytes, value: V) -> None:
        """Add a new value.

        If there are too many values, one is removed: the least recently used value of the tenant
        with the most values.
        """
        self._values.setdefault(tenant, OrderedDict())[key] = value
        self._values.move_to_end(tenant)
        self._num_values += 1
        if self._num_values > self._max_values:
            self._evict()

    def _evict(self) -> None:
        largest = max(self._values, key=lambda tenant: len(self._values[tenant]))
        self._values[largest].popitem(last=False)
        self._num_values -= 1
        if not self._values[largest]:
            del self._values[largest]
