"""All kinds of faults."""

from collections.abc import Mapping, Sequence

from ops.lab.chaos.faults.claims import LoseClaims
from ops.lab.chaos.faults.control import KillControl, StopControl
from ops.lab.chaos.faults.fault import Fault
from ops.lab.chaos.faults.front_ends import DrainApi, KillApi, StopApi
from ops.lab.chaos.faults.network import CutNetwork, DelayPackets, DropPackets
from ops.lab.chaos.faults.readers import StallReaders
from ops.lab.chaos.faults.redis_servers import (
    FailOverRedis,
    FreezeRedis,
    KillRedis,
    PauseRedis,
    RestartMaster,
    RestartReplica,
    StallRedis,
)
from ops.lab.chaos.faults.redis_state import ClockBackward, ClockForward, FillRedis, FlushScripts
from ops.lab.chaos.faults.workers import HangEngine, HoldGil, KillWorker, LoseWorker, PauseWorker
from shared.errors import SettingsError

_ALL: Sequence[type[Fault]] = (
    *(KillWorker, PauseWorker, LoseWorker, HangEngine, HoldGil, LoseClaims),
    *(KillApi, DrainApi, StopApi),
    *(KillControl, StopControl),
    *(PauseRedis, FreezeRedis, KillRedis, StallRedis, RestartMaster, RestartReplica),
    *(FailOverRedis, FillRedis, FlushScripts, ClockForward, ClockBackward),
    *(DropPackets, DelayPackets, CutNetwork),
    StallReaders,
)
KINDS: Mapping[str, type[Fault]] = {cls.kind: cls for cls in _ALL}
"""Every kind of fault, by name."""


def chosen_kinds(names: str | None) -> tuple[str, ...]:
    """Return the kinds that a run injects.

    `names` lists them, separated by commas. If it is None, the run injects all kinds.

    Raises:
        SettingsError: a name is unknown.
    """
    chosen = names.split(",") if names is not None else KINDS
    for name in chosen:
        if name not in KINDS:
            raise SettingsError(f"--faults {name}: choose from {', '.join(KINDS)}")
    return tuple(chosen)


def need_network(kinds: Sequence[str]) -> bool:
    """Return whether any of the kinds needs processes on remote hosts."""
    return any(KINDS[kind].needs_network for kind in kinds)
