"""`python -m ops.lab.hostile.requests`: sends generated requests while another tenant works.

The requests are generated from the pool's OpenAPI document: half of them follow it, half don't.
The program needs the `dev` extra. The run fails in these cases:

- A request gets a status of 500 or above, other than a 504 or a 503 with Retry-After.
- The other tenant waits more than a second longer than before. With --quick, this isn't checked.
- A process ends, or uses much more memory.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import schemathesis
import typer
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from rich.console import Console
from schemathesis import GenerationMode

from ops.demo.model import demo_model
from ops.lab.hostile.adapter_pool import AdapterPool, adapter_pool
from ops.lab.hostile.observation import AttackReport, observe
from ops.lab.hostile.results import conclude, figures_of
from ops.lab.options import RESULTS, ResultsFolder
from ops.terminal import progress

RIGHTS = ("--scopes", "adapters", "--scopes", "inference")
ENDLESS = {"GET /v1/pool/events"}
"""Operations whose responses don't end."""
UNDISTURBED_S = 60.0
QUICK_CASES, QUICK_S = 80, 2.0
EACH = 10
"""Number of consecutive requests of one kind (valid or invalid) to one operation."""
WARM_UP_SHARE = 0.2
TIMEOUT_S = 60.0

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(slots=True, kw_only=True)
class Report(AttackReport):
    """Findings of one run."""

    slowest_s: float = 0.0
    slowest_operation: str = ""


@app.command()
def requests(
    cases: Annotated[int, typer.Option(min=1, help="Requests, at least.")] = 3000,
    seed_number: Annotated[int, typer.Option("--seed", help="Seed of the requests.")] = 1,
    model: Annotated[Path | None, typer.Option(help="Base model. By default the demo's.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A short run, for CI.")] = False,
    results: ResultsFolder = RESULTS,
) -> None:
    """Send generated requests to a pool, and check that another tenant isn't disturbed."""
    console = Console()
    report = Report(seed=seed_number)
    number, undisturbed_s = (QUICK_CASES, QUICK_S) if quick else (cases, UNDISTURBED_S)
    folder = (model or demo_model()).absolute()
    with (
        TemporaryDirectory(prefix="lorikeet-hostile-") as scratch,
        progress(console) as shown,
        adapter_pool(folder, Path(scratch), RIGHTS) as pool,
    ):
        bar = shown.add_task("undisturbed", total=number)

        async def attack(warmed_up: Callable[[], None]) -> None:
            shown.update(bar, description="generated requests")
            sender = Sender(pool, report, number, warmed_up, lambda: shown.advance(bar))
            await asyncio.to_thread(sender.run)

        report.observation = asyncio.run(observe(pool, asyncio.sleep(undisturbed_s), attack))
    report.failures += report.observation.faults(compares=not quick)
    conclude(
        *(console, "hostile-requests", figures_of(report), _says(report)),
        folder=None if quick else results,
        has_failed=bool(report.failures),
    )


class Sender:
    """Sends requests to all operations of the pool's OpenAPI document in turn."""

    def __init__(
        self,
        pool: AdapterPool,
        report: Report,
        number: int,
        warmed_up: Callable[[], None],
        advance: Callable[[], None],
    ) -> None:
        self._headers = {"Authorization": f"Bearer {pool.hostile_key}"}
        self._document: Any = schemathesis.openapi.from_url(f"{pool.url}/openapi.json")
        self._report = report
        self._number = number
        self._warmed_up = warmed_up
        self._advance = advance
        self._num_sent = 0

    def run(self) -> None:
        """Send all requests."""
        found = [each.ok() for each in self._document.get_all_operations()]
        operations = [each for each in found if each.label not in ENDLESS]
        for round_number in count():
            for operation in operations:
                for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                    if self._num_sent >= self._number:
                        return
                    with suppress(Unsatisfiable):  # some operations have no invalid requests
                        self._try(operation, mode, self._report.seed + round_number)

    def _try(self, operation: Any, mode: GenerationMode, seed_number: int) -> None:
        @seed(seed_number)
        @settings(
            max_examples=EACH,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def run(case: Any) -> None:
            self._send(operation.label, case)

        run()

    def _send(self, label: str, case: Any) -> None:
        report, start_s = self._report, time.monotonic()
        try:
            case.headers = {**(case.headers or {}), **self._headers}  # keys are generated as well
            reply = case.call(timeout=TIMEOUT_S)
        except OSError as error:  # the HTTP client raises subclasses of OSError
            report.fail(f"{label}: {error!r}")
            return
        if (taken_s := time.monotonic() - start_s) > report.slowest_s:
            report.slowest_s, report.slowest_operation = taken_s, label
        report.count(label, reply, may_be_late=True)
        self._num_sent += 1
        if self._num_sent == int(WARM_UP_SHARE * self._number):
            self._warmed_up()
        self._advance()


def _says(report: Report) -> list[str]:
    """Return the findings as sentences."""
    statuses = ", ".join(f"{number} x {status}" for status, number in report.statuses.items())
    return [
        f"seed {report.seed}: {report.statuses.total()} requests: {statuses}",
        f"slowest request: {report.slowest_s:.2f} s, {report.slowest_operation}",
        *report.observation.says(),
        *(f"FAILED: {reason}" for reason in report.failures),
    ]


if __name__ == "__main__":
    app()
