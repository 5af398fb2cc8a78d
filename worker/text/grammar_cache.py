"""What the answers to a job must follow, compiled off the event loop and the engine thread."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial

from shared.errors import ErrorCode, GrammarRejected, JobError, JobFailed
from shared.protocol.jobs import Job
from shared.protocol.tools import ToolChoice
from worker.engine.grammar import Grammar, GrammarCompiler, GrammarSource, json_source
from worker.text.tool_grammar import tool_source

MAX_COMPILED = 64
"""Compiled grammars kept, and reasons why there is none."""
TRIAL_TIMEOUT_S = 60.0
"""The trial limits its own CPU time to far less: this is for a machine that stands still."""


class Grammars:
    """The compiled grammars of one worker. Use it on one event loop."""

    def __init__(self, compiler: GrammarCompiler) -> None:
        self._compiler = compiler
        # One thread: the same schema isn't compiled twice, and bad ones can't take all cores.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="grammars")
        self._compiled = lru_cache(MAX_COMPILED)(self._compile)

    async def of(self, job: Job) -> Grammar | None:
        """What each answer to the job must follow; None if it may be any text.

        Raises:
            JobFailed: that can't be enforced; names the field.
        """
        make, param = _source_of(job)
        if make is None:
            return None
        loop = asyncio.get_running_loop()
        compiled = await loop.run_in_executor(self._thread, self._get, make)
        if isinstance(compiled, Grammar):
            return compiled
        message = f"{param}: the schema can't be enforced: {compiled}"
        raise JobFailed(JobError(code=ErrorCode.INVALID_VALUE, message=message, param=param))

    def _get(self, make: Callable[[], GrammarSource]) -> Grammar | str:
        try:
            return self._compiled(make())
        except GrammarRejected as error:
            return str(error)

    def _compile(self, source: GrammarSource) -> Grammar | str:
        """The grammar, or why there is none: both are worth keeping."""
        try:
            try_out(source)
            return self._compiler.compile(source)
        except GrammarRejected as error:
            return str(error)


def _source_of(job: Job) -> tuple[Callable[[], GrammarSource] | None, str]:
    """What makes the job's grammar, if it has one, and the field that asks for it."""
    if job.tools and job.tools.choice is ToolChoice.REQUIRED:
        return partial(tool_source, job.tools), "tools"
    if job.sampling.json_schema is not None:
        return partial(json_source, job.sampling.json_schema), "response_format"
    return None, ""


def try_out(source: GrammarSource) -> None:
    """Compile in another process, so that what takes too much doesn't take this one along.

    Raises:
        GrammarRejected: it can't be compiled, or takes too much.
    """
    command = [sys.executable, "-P", "-m", "worker.text.grammar_sandbox"]
    try:
        trial = subprocess.run(
            command, input=source.encode(), capture_output=True, timeout=TRIAL_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise GrammarRejected(_TOO_LARGE) from None
    if trial.returncode < 0:  # killed at one of its limits
        raise GrammarRejected(_TOO_LARGE)
    trial.check_returncode()
    if reason := trial.stdout.decode():
        raise GrammarRejected(reason)


_TOO_LARGE = "it takes too much time or memory to compile"
