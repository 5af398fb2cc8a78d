"""The tasks of the demo's adapters by name."""

from pathlib import Path

from ops.demo import extract, pirate, sentiment
from ops.demo.sql import task as sql

TASKS = {task.name: task for task in (extract.TASK, pirate.TASK, sentiment.TASK, sql.TASK)}
ADAPTERS = Path(__file__).parent / "adapters"
