"""`lorikeet adapters`: what can be named as `model`."""

from typing import Any

from rich.console import Console
from rich.table import Table

from ops.commands.flags import settings_flags
from ops.commands.pool import Pool, on_pool
from shared.registry import Adapter
from shared.settings import PoolSettings
from shared.views import WorkerView


@settings_flags(PoolSettings)
def adapters(**given: Any) -> None:
    """List the adapters that can be named as `model`."""

    async def read(pool: Pool) -> Table:
        return _table(await pool.registry.adapters(), await pool.queue.workers())

    Console().print(on_pool(given, read))


def _table(found: list[Adapter], workers: list[WorkerView]) -> Table:
    table = Table("name")
    table.add_column("version", no_wrap=True)
    for column in ("rank", "MB", "source", "state", "on workers"):
        table.add_column(column, overflow="fold")
    for adapter in found:
        holders = sum(adapter.version in worker.residents for worker in workers)
        table.add_row(
            adapter.name,
            adapter.version,
            str(adapter.rank),
            f"{adapter.num_bytes / 1e6:.1f}",
            adapter.source,
            adapter.state,
            f"{holders} of {len(workers)}",
        )
    return table
