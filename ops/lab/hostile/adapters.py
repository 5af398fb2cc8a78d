"""`python -m ops.lab.hostile.adapters`: sends mutated adapters while another tenant works.

The run fails in these cases:

- A request gets a status of 500 or above, other than a 503 with Retry-After.
- An accepted adapter doesn't answer.
- The other tenant waits more than a second longer than before. With --quick, this isn't checked.
- A process ends, or uses much more memory.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import httpx
import typer
from rich.console import Console
from rich.progress import Progress, TaskID

from ops.demo.model import demo_model
from ops.lab.hostile.adapter_mutations import Sent, mutated, read_adapter
from ops.lab.hostile.adapter_pool import AdapterPool, adapter_pool
from ops.lab.hostile.observation import AttackReport, observe
from ops.lab.hostile.results import conclude, figures_of
from ops.lab.options import RESULTS, ResultsFolder
from ops.terminal import progress
from shared.cancel_tasks import cancel_tasks

GOOD = Path(__file__).parents[2] / "demo/adapters/pirate"
RIGHTS = ("--scopes", "adapters", "--scopes", "inference", "--adapters", "red-*")
WARM_UP_SHARE = 0.2
UNDISTURBED_SHARE = 0.15
QUICK_MINUTES = 0.4
MAX_QUERY_BYTES = 6_000
"""Maximum size of a configuration that is sent as a query parameter."""
TIMEOUT_S = 60.0
NUM_ATTACKERS = 2

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(slots=True, kw_only=True)
class Report(AttackReport):
    """Findings of one run."""

    minutes: float
    mutations: Counter[str] = field(default_factory=Counter)
    """Number of uploads with each mutation, by the mutation's name."""
    num_answered: int = 0
    """Number of accepted adapters that then answered a request."""
    slowest_upload_s: float = 0.0
    slowest_changes: tuple[str, ...] = ()
    """Names of the mutations of the adapter whose upload took longest."""


@app.command()
def adapters(
    minutes: Annotated[float, typer.Option(min=0.1, help="Length of the run.")] = 20,
    seed: Annotated[int | None, typer.Option(help="Seed of the mutations.")] = None,
    model: Annotated[Path | None, typer.Option(help="Base model. By default the demo's.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A short run, for CI.")] = False,
    results: ResultsFolder = RESULTS,
) -> None:
    """Send mutated adapters to a pool, and check that another tenant isn't disturbed."""
    console = Console()
    minutes = QUICK_MINUTES if quick else minutes
    seed = random.randrange(10**6) if seed is None else seed
    report = Report(seed=seed, minutes=minutes)
    folder = (model or demo_model()).absolute()
    with (
        TemporaryDirectory(prefix="lorikeet-hostile-") as scratch,
        progress(console) as shown,
        adapter_pool(folder, Path(scratch), RIGHTS) as pool,
    ):
        asyncio.run(_run(pool, report, shown))
    report.failures += report.observation.faults(compares=not quick)
    if not report.num_answered:
        report.fail("no adapter was accepted")
    conclude(
        *(console, "hostile-adapters", figures_of(report), _says(report)),
        folder=None if quick else results,
        has_failed=bool(report.failures),
    )


async def _run(pool: AdapterPool, report: Report, shown: Progress) -> None:
    length_s = 60 * report.minutes
    good = read_adapter(
        *((GOOD / f"adapter_{name}").read_bytes() for name in ("config.json", "model.safetensors"))
    )
    bar = shown.add_task("undisturbed", total=round(length_s))
    attack_s = (1 - UNDISTURBED_SHARE) * length_s

    async def wait(seconds: float) -> None:
        await _wait(seconds, shown, bar)

    async def attack(warmed_up: Callable[[], None]) -> None:
        shown.update(bar, description="mutated adapters")
        async with httpx.AsyncClient(timeout=TIMEOUT_S) as client:
            attackers = [
                asyncio.create_task(Attacker(pool, client, report, good, number).run())
                for number in range(NUM_ATTACKERS)
            ]
            await wait(WARM_UP_SHARE * attack_s)
            warmed_up()
            await wait((1 - WARM_UP_SHARE) * attack_s)
            for attacker in attackers:
                if attacker.done():
                    attacker.result()  # raises, because only an error ends an attacker
            await cancel_tasks(*attackers)

    report.observation = await observe(pool, wait(UNDISTURBED_SHARE * length_s), attack)


class Attacker:
    """Client of the hostile tenant. It uploads one mutated adapter after another."""

    def __init__(
        self, pool: AdapterPool, client: httpx.AsyncClient, report: Report, good: Sent, number: int
    ) -> None:
        self._url = pool.url
        self._client = client
        self._report = report
        self._good = good
        self._name = f"red-{number}"
        self._rng = random.Random(f"{report.seed}-{number}")
        self._headers = {"Authorization": f"Bearer {pool.hostile_key}"}

    async def run(self) -> None:
        """Send adapters until cancelled."""
        while True:
            sent = mutated(self._rng, self._good)
            try:
                await self._send(sent)
            except httpx.HTTPError as error:
                self._report.fail(f"{sent.changes}: {error!r}")

    async def _send(self, sent: Sent) -> None:
        start_s = time.monotonic()
        config = sent.config_bytes().decode(errors="replace")
        is_short = len(config.encode()) <= MAX_QUERY_BYTES
        query = {"name": self._name} | ({"config": config} if is_short else {})
        reply = await self._client.post(
            f"{self._url}/v1/adapters",
            params=query,
            content=sent.weights(None if is_short else config),
            headers={**self._headers, "Content-Type": "application/octet-stream"},
        )
        report = self._report
        if (taken_s := time.monotonic() - start_s) > report.slowest_upload_s:
            report.slowest_upload_s, report.slowest_changes = taken_s, sent.changes
        report.count(str(sent.changes), reply)
        report.mutations.update(sent.changes)
        if reply.status_code == 200:
            await self._ask(sent)

    async def _ask(self, sent: Sent) -> None:
        """Send a request to the adapter, and unload it."""
        body = {"model": self._name, "prompt": "Ahoy", "max_tokens": 2}
        url = f"{self._url}/v1/completions"
        reply = await self._client.post(url, json=body, headers=self._headers)
        if reply.status_code == 200:
            self._report.num_answered += 1
        else:
            self._report.fail(
                f"{sent.changes}: accepted, but {reply.status_code} {reply.text[:200]}"
            )
        await self._client.delete(f"{self._url}/v1/adapters/{self._name}", headers=self._headers)


async def _wait(seconds: float, shown: Progress, bar: TaskID) -> None:
    start_s = time.monotonic()
    while (passed_s := time.monotonic() - start_s) < seconds:
        step_s = min(1.0, seconds - passed_s)
        await asyncio.sleep(step_s)
        shown.advance(bar, step_s)


def _says(report: Report) -> list[str]:
    """Return the findings as sentences."""
    statuses = ", ".join(f"{number} x {status}" for status, number in report.statuses.items())
    return [
        f"seed {report.seed}: {report.statuses.total()} adapters: {statuses}",
        f"{report.num_answered} accepted adapters answered; slowest upload "
        f"{report.slowest_upload_s:.2f} s ({', '.join(report.slowest_changes)})",
        *report.observation.says(),
        *(f"FAILED: {reason}" for reason in report.failures),
    ]


if __name__ == "__main__":
    app()
