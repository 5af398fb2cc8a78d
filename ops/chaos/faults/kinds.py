"""All kinds of faults."""

from collections.abc import Mapping, Sequence

from ops.chaos.faults.claims import LoseClaims
from ops.chaos.faults.control import KillControl, StopControl
from ops.chaos.faults.fault import Fault
from ops.chaos.faults.front_ends import DrainApi, KillApi, StopApi
from ops.chaos.faults.network import CutNetwork, DelayPackets, DropPackets
from ops.chaos.faults.readers import StallReaders
from ops.chaos.faults.redis_servers import (
    FailOverRedis,
    FreezeRedis,
    KillRedis,
    PauseRedis,
    RestartMaster,
    RestartReplica,
    StallRedis,
)
from ops.chaos.faults.redis_state import ClockBackward, ClockForward, FillRedis, FlushScripts
from ops.chaos.faults.workers import HangEngine, HoldGil, KillWorker, LoseWorker, PauseWorker
from ops.chaos.options import EngineKind
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


def chosen_kinds(names: str | None, engine: EngineKind) -> tuple[str, ...]:
    """Return the kinds that a run injects: those in `names`, or all that the engine allows.

    Args:
        names: names separated by commas, or None.
        engine: engine of the workers.

    Raises:
        SettingsError: a name is unknown, or the engine doesn't allow it.
    """
    allowed = [
        name
        for name, cls in KINDS.items()
        if engine is EngineKind.SIMULATED or not cls.needs_simulation
    ]
    chosen = names.split(",") if names is not None else allowed
    for name in chosen:
        if name not in allowed:
            raise SettingsError(f"--faults {name}: choose from {', '.join(allowed)}")
    return tuple(chosen)


def need_network(kinds: Sequence[str]) -> bool:
    """Return whether any of the kinds needs processes on remote hosts."""
    return any(KINDS[kind].needs_network for kind in kinds)
