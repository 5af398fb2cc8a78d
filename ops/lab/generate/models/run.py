"""Tries model types in separate processes, so that a crash or a hang affects no other type.

`python -m ops.lab.generate.models.run` tries all types in a few minutes, stores their outcomes, and
writes the page. If arguments name model types, it tries only those.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence

import transformers

from ops.lab.generate.models.attempt import ARCHITECTURES
from ops.lab.generate.models.outcome import (
    FILE,
    Outcome,
    Outcomes,
    Status,
    read_outcomes,
    write_outcomes,
)
from ops.lab.generate.models.page import write_page

_LIMIT_S = 120.0
"""Seconds for one type. For the first type of a process, they include the process's start."""
_GROUP = 25
"""Number of types that one process tries, so that its memory stays small."""


async def try_all(
    model_types: Sequence[str], *, limit_s: float = _LIMIT_S
) -> AsyncIterator[Outcome]:
    """Yield the outcome of each type, in order.

    A type whose process crashes or exceeds the time limit is reported as failed, and a new process
    continues with the next type.
    """
    remaining = list(model_types)
    while remaining:
        process = await _start(remaining[:_GROUP])
        for model_type in remaining[:_GROUP]:
            outcome = await _next_outcome(process, limit_s)
            remaining.remove(model_type)
            if isinstance(outcome, str):
                yield Outcome(
                    model_type=model_type,
                    architecture=ARCHITECTURES[model_type],
                    status=Status.FAILED,
                    reason=outcome,
                )
                break
            yield outcome
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _start(model_types: Sequence[str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "ops.lab.generate.models.attempt", *model_types),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )


async def _next_outcome(process: asyncio.subprocess.Process, limit_s: float) -> Outcome | str:
    """Return the next outcome of a process, or the reason why there is none."""
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), limit_s)
    except TimeoutError:
        return f"takes more than {limit_s:.0f} s"
    if not line:
        return f"ends the process with status {await process.wait()}"
    fields = json.loads(line)
    return Outcome(**{**fields, "status": Status(fields["status"])})


async def main(model_types: Sequence[str]) -> None:
    """Try `model_types` and update their stored outcomes.

    If none are given, try all model types and replace all stored outcomes.
    """
    stored = read_outcomes().outcomes if model_types and FILE.exists() else ()
    found = {outcome.model_type: outcome for outcome in stored}
    async for outcome in try_all(model_types or list(ARCHITECTURES)):
        print(outcome.model_type, outcome.status, outcome.reason, flush=True)
        found[outcome.model_type] = outcome
    outcomes = tuple(found[name] for name in sorted(found))
    write_outcomes(Outcomes(version=transformers.__version__, outcomes=outcomes))
    write_page()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
