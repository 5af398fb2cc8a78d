"""Runs work whose cost depends on clients, in a child process with limited CPU time and memory.

The module that does the work calls `answer_once` when it is run. Callers run it with `ask_sandbox`.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

MAX_CPU_S = 0.5
"""Maximum CPU time of the work, in seconds, not including the start of the process."""
START_CPU_S = 0.2
"""Estimated CPU time of starting the process, in seconds. A killed process reports no time."""
MAX_BYTES = 256 << 20
"""Maximum address space of the process in bytes, including the interpreter."""
TIMEOUT_S = 60.0
"""Maximum wall-clock time in seconds, for a process that hangs without using CPU time."""
NICENESS = 5
"""Niceness of the process. If the process shares a CPU core with the engine's thread, it gets a
quarter of the core's time."""
TOO_COSTLY = "it takes too much time or memory"


@dataclass(frozen=True, slots=True)
class SandboxAnswer:
    """Result of the work in the child process."""

    text: str
    """Result of the work; empty after an error."""
    error: str
    """Reason why the work has no result; empty if it has a result."""
    cpu_s: float


def ask_sandbox(module: str, question: bytes) -> SandboxAnswer:
    """Run `python -m MODULE` with the input `question`, within the limits of this file. Blocks."""
    command = [sys.executable, "-P", "-m", module]
    too_costly = SandboxAnswer("", TOO_COSTLY, START_CPU_S + MAX_CPU_S)
    try:
        done = subprocess.run(command, input=question, capture_output=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return too_costly
    if done.returncode < 0:  # killed for exceeding a limit
        return too_costly
    done.check_returncode()
    return SandboxAnswer(**json.loads(done.stdout))


def limit_process(max_bytes: int) -> None:
    """Lower this process's priority, and limit its address space to `max_bytes`."""
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_AS, (max_bytes, max_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def end_after_cpu_s(seconds: float) -> None:
    """End this process after `seconds` more seconds of CPU time; 0 removes the limit."""
    # The default action of SIGPROF ends the process. RLIMIT_CPU counts only whole seconds.
    signal.setitimer(signal.ITIMER_PROF, seconds)


def answer_once(
    work: Callable[[bytes], str],
    rejections: tuple[type[Exception], ...],
    max_cpu_s: float = MAX_CPU_S,
) -> None:
    """Call `work` with the text of standard input, and write the result to standard output.

    `rejections` are the exceptions of `work` whose messages are returned to the client.
    """
    question = sys.stdin.buffer.read()
    limit_process(MAX_BYTES)
    end_after_cpu_s(max_cpu_s)
    text = error = ""
    try:
        text = work(question)
    except rejections as rejection:
        error = str(rejection)
    except RecursionError:
        error = "it is nested too deeply"
    except MemoryError:
        os.abort()
    answer = SandboxAnswer(text, error, time.process_time())
    sys.stdout.write(json.dumps(asdict(answer)))
