"""What a control process does for batches."""

from collections.abc import Sequence
from dataclasses import dataclass

from arq.worker import Function

from ops.control.tasks import ControlTask


@dataclass(frozen=True, slots=True)
class BatchWork:
    """Tasks and arq functions that run batches."""

    tasks: Sequence[ControlTask] = ()
    functions: Sequence[Function] = ()
