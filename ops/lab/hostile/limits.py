"""Lets clients overrun a token limit, and checks the ledger after workers were killed.

The command is `python -m ops.lab.hostile.limits`. It exits with status 1 if a key got more tokens
than its limit allows, or if the ledger differs from the answers.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console

from ops.lab.hostile.ledger_run import MAX_TOKENS, LedgerResult, ledger_run
from ops.lab.hostile.limit_pool import LimitPool, limit_pool
from ops.lab.hostile.overruns import OverrunResult, overrun
from ops.lab.hostile.results import conclude
from ops.lab.options import RESULTS, ResultsFolder
from ops.terminal import progress

MAX_RATIO = 1.1
MAX_EXCESS = 0.6
"""Maximum number of tokens beyond the limits of all minutes, divided by one minute's limit.

It allows half a limit, and the tokens that are computed between two checkpoints.
"""
MAX_COST = 2 * MAX_TOKENS
"""Upper bound for the number of tokens of one request, its prompt included."""
MIN_MOVED_PER_KILL = 10
NUM_WORKERS = 2
QUICK_S, QUICK_KILLS = 10.0, 2


def main(
    minutes: Annotated[float, typer.Option(help="Minutes of overruns.")] = 10.0,
    kills: Annotated[int, typer.Option(help="SIGKILLs of workers.")] = 20,
    quick: Annotated[bool, typer.Option("--quick", help="A short run, for CI.")] = False,
    results: ResultsFolder = RESULTS,
) -> None:
    """Measure how many tokens a key gets in relation to its limit, and check the ledger."""
    seconds, kills = (QUICK_S, QUICK_KILLS) if quick else (60.0 * minutes, kills)
    console = Console()
    with progress(console) as shown:
        task = shown.add_task("starting", total=1)

        def report(what: str, done: int, total: int) -> None:
            shown.update(task, description=what, completed=done, total=max(1, total))

        over, ledger = _run(seconds, kills, report, aligned=not quick)
    faults = [*_overrun_faults(over), *_ledger_faults(ledger, kills)]
    figures = {"overruns": over, "ratio": over.ratio, "ledger": ledger, "faults": faults}
    conclude(
        *(console, "hostile-limits", figures, _lines(over, ledger, faults)),
        folder=None if quick else results,
        has_failed=bool(faults),
    )


def _run(
    seconds: float, kills: int, report: Callable[[str, int, int], None], *, aligned: bool
) -> tuple[OverrunResult, LedgerResult]:
    async def both(pool: LimitPool) -> tuple[OverrunResult, LedgerResult]:
        over = await overrun(pool, seconds, report, aligned=aligned)
        return over, await ledger_run(pool, kills, report)

    with (
        TemporaryDirectory(prefix="lorikeet-hostile-") as folder,
        limit_pool(Path(folder) / "pool", NUM_WORKERS) as pool,
    ):
        return asyncio.run(both(pool))


def _overrun_faults(over: OverrunResult) -> list[str]:
    faults = []
    if over.made > over.limit * (over.windows + MAX_EXCESS):
        faults.append(f"{over.made:,} tokens in {over.windows} minutes with {over.limit:,} each")
    if over.windows >= 1 / (MAX_RATIO - 1) and over.ratio > MAX_RATIO:
        faults.append(f"{over.ratio:.3f} times what the key allows")
    if over.made < over.limit:
        faults.append(f"{over.made:,} tokens only, so nothing overran the limit")
    return faults


def _ledger_faults(found: LedgerResult, kills: int) -> list[str]:
    faults = []
    if found.ledger != found.usage:
        faults.append(f"the ledger has {found.ledger}, the answers {found.usage}")
    tokens = found.usage.prompt_tokens + found.usage.completion_tokens
    excess = found.counted_tokens - tokens
    is_exact = 0 <= excess <= found.without_usage * MAX_COST and not found.reserved_tokens
    if not is_exact:
        faults.append(
            f"the limit counts {found.counted_tokens:,} tokens and reserves "
            f"{found.reserved_tokens:,}, the answers have {tokens:,}"
        )
    if found.differing_answers:
        faults.append(f"{found.differing_answers} answers differ from their jobs")
    if found.moved < MIN_MOVED_PER_KILL * kills:
        faults.append(f"only {found.moved} jobs were moved between workers")
    return faults


def _lines(over: OverrunResult, ledger: LedgerResult, faults: list[str]) -> list[str]:
    used = ledger.ledger
    return [
        f"{over.made:,} tokens in {over.windows} minutes with a limit of {over.limit:,} a minute: "
        f"{over.ratio:.3f} times what the key allows",
        *(f"  {kind}: {counts}" for kind, counts in over.answers.items()),
        f"{ledger.jobs:,} jobs and {ledger.answers:,} answers; {ledger.kills} workers were killed, "
        f"and {ledger.moved:,} jobs moved",
        f"ledger: {used.requests:,} requests, {used.prompt_tokens:,} + {used.completion_tokens:,} "
        f"tokens; the limit counts {ledger.counted_tokens:,}",
        *[f"fault: {fault}" for fault in faults],
        f"{len(faults)} faults" if faults else "no faults",
    ]


if __name__ == "__main__":
    typer.run(main)
