"""Compiles the grammars of jobs, in fair turns between tenants, and caches the results."""

import asyncio
import hashlib
import time
from concurrent.futures import ThreadPoolExecutor

from shared.errors import ErrorCode, GrammarRejected, JobError, JobFailed
from shared.protocol.jobs import Job
from worker.engine.grammar import TOO_COMPLEX, Grammar, GrammarCompiler, GrammarSource
from worker.text.combined_grammar import after_reasoning
from worker.text.grammar_sandbox import build_grammar, encode_constraint
from worker.text.grammar_source import constraint_of
from worker.text.interface import EncodedPrompt
from worker.text.tenant_cache import TenantCache
from worker.text.tenant_turns import SpentTooMuch, TenantTurns

MAX_RUNNING = 4
"""Maximum number of compilations at a time, each of another tenant."""
MAX_CACHED = 64
"""Maximum number of cached results. A result is a grammar or the reason for its rejection."""


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
            JobFailed: the grammar can't be enforced, and the error names the field; or the job's
                tenant has used too much CPU time for grammars.
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
        message = f"{param}: the {kind} can't be enforced: {result}"
        raise JobFailed(JobError(code=ErrorCode.INVALID_VALUE, message=message, param=param))

    async def _get(
        self, tenant: str, constraint: bytes, prompt: EncodedPrompt, param: str
    ) -> Grammar | str:
        """Return the grammar, or the reason why the grammar can't be enforced."""
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
        """Return a grammar or the reason for its rejection, and the CPU time that it took."""
        built = build_grammar(constraint)
        if built.error:
            return built.error, built.cpu_s
        start_s = time.thread_time()
        result = self._compile_here(GrammarSource(built.text), prompt)
        return result, built.cpu_s + time.thread_time() - start_s

    def _compile_here(self, source: GrammarSource, prompt: EncodedPrompt) -> Grammar | str:
        """Compile a grammar that the sandbox has compiled, so that its cost is bounded."""
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
    return JobFailed(JobError(code=code, message=message, param=param))
