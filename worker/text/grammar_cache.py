"""Compiles the grammars of jobs on a separate thread, and caches the results."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial

from shared.errors import ErrorCode, GrammarRejected, JobError, JobFailed
from shared.protocol.jobs import Job, SamplingParams
from shared.protocol.tools import ToolChoice, ToolUse
from shared.reasoning_form import ReasoningForm
from worker.engine.grammar import (
    Grammar,
    GrammarCompiler,
    GrammarSource,
    choice_source,
    json_source,
    lark_source,
    regex_source,
)
from worker.text.combined_grammar import after_reasoning, either
from worker.text.interface import EncodedPrompt
from worker.text.tool_grammar import tool_source

MAX_CACHED = 64
"""Maximum number of cached results. A result is a grammar or the reason for its rejection."""
SANDBOX_TIMEOUT_S = 60.0
"""Time limit of one compilation in the sandbox, in seconds of wall-clock time.

The sandbox's own limit of CPU time is far lower, but can't end a process that hangs without using
CPU time.
"""


class GrammarCache:
    """Compiles the grammars of one worker's jobs. All calls must come from one event loop."""

    def __init__(self, compiler: GrammarCompiler) -> None:
        self._compiler = compiler
        # One thread never compiles a schema twice at once, and uses one core for costly schemas.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="grammars")
        self._cached_compile = lru_cache(MAX_CACHED)(self._compile)

    async def for_job(self, job: Job, prompt: EncodedPrompt) -> Grammar | None:
        """Return the grammar of the answers to `prompt`, or None if any text is allowed.

        Raises:
            JobFailed: the grammar can't be enforced; the error names the field.
        """
        make_source, param = _source_of(job)
        if make_source is None:
            return None
        loop = asyncio.get_running_loop()
        result = await loop.run_in_executor(self._thread, self._get, make_source, prompt)
        if isinstance(result, Grammar):
            return result
        kind = "schema" if job.sampling.json_schema or param == "tools" else "constraint"
        message = f"{param}: the {kind} can't be enforced: {result}"
        raise JobFailed(JobError(code=ErrorCode.INVALID_VALUE, message=message, param=param))

    def _get(
        self, make_source: Callable[[], GrammarSource], prompt: EncodedPrompt
    ) -> Grammar | str:
        """Return the grammar, or the reason why the grammar can't be enforced."""
        try:
            return self._cached_compile(make_source(), prompt.reasoning, prompt.is_reasoning)
        except GrammarRejected as error:
            return str(error)

    def _compile(
        self, source: GrammarSource, reasoning: ReasoningForm | None, is_open: bool
    ) -> Grammar | str:
        # The reason is returned, not raised, because lru_cache doesn't cache exceptions.
        try:
            check_in_sandbox(source)
            if reasoning is not None:
                token_id = self._compiler.token_id
                source = after_reasoning(source, reasoning, is_open=is_open, token_id=token_id)
            return self._compiler.compile(source)
        except GrammarRejected as error:
            return str(error)


def _source_of(job: Job) -> tuple[Callable[[], GrammarSource] | None, str]:
    """Return two values: a function that builds the job's grammar source, and a field name.

    The name is that of the field that requires the grammar. For a job without a grammar, the
    values are None and an empty string.
    """
    if job.tools and job.tools.choice is ToolChoice.REQUIRED:
        return partial(tool_source, job.tools), "tools"
    if not job.sampling.is_constrained:
        return None, ""
    param = job.sampling.constrained_by or "response_format"
    if job.tools:
        return partial(_call_or_answer_source, job.tools, job.sampling), param
    return partial(_answer_source, job.sampling), param


def _call_or_answer_source(tools: ToolUse, sampling: SamplingParams) -> GrammarSource:
    """Return the grammar of answers that either call tools or match the constraint."""
    return either(tool_source(tools), _answer_source(sampling))


def _answer_source(sampling: SamplingParams) -> GrammarSource:
    """Return the grammar of answers that match the constraint of `sampling`."""
    if sampling.regex is not None:
        return regex_source(sampling.regex)
    if sampling.choice:
        return choice_source(sampling.choice)
    if sampling.grammar is not None:
        return lark_source(sampling.grammar)
    assert sampling.json_schema is not None
    return json_source(sampling.json_schema)


def check_in_sandbox(source: GrammarSource) -> None:
    """Compile a grammar in another process, so that a costly grammar can't harm this process.

    Raises:
        GrammarRejected: the grammar is invalid, or takes too much time or memory to compile.
    """
    command = [sys.executable, "-P", "-m", "worker.text.grammar_sandbox"]
    try:
        done = subprocess.run(
            command, input=source.encode(), capture_output=True, timeout=SANDBOX_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise GrammarRejected(_TOO_COSTLY) from None
    if done.returncode < 0:  # killed for exceeding a resource limit
        raise GrammarRejected(_TOO_COSTLY)
    done.check_returncode()
    if reason := done.stdout.decode():
        raise GrammarRejected(reason)


_TOO_COSTLY = "it takes too much time or memory to compile"
