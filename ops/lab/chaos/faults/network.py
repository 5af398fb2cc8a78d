"""Faults of the network between one worker or front end and everything else."""

from ops.lab.chaos.cluster.pool import Api
from ops.lab.chaos.cluster.supervised import Supervised
from ops.lab.chaos.faults.fault import Fault, Scene
from ops.lab.chaos.network.relay import FrameCounts, Rules
from shared.protocol.ids import WorkerId

LOSS = (0.1, 0.3)
DELAY_S = (0.1, 0.4)
JITTER_S = 0.1
MIN_FRAMES = 5
"""Minimum number of dropped or delayed frames that is evidence of a fault."""


class NetworkFault(Fault):
    """A fault of one link."""

    subject = "network"
    needs_network = True

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        number = self._rng.randrange(len(self._pool.hosts))
        self._host = self._pool.hosts[number]
        first: tuple[Supervised, Supervised] = (self._pool.workers[0], self._pool.apis[0])
        self._process = first[number]
        self.target = f"link of {self._process.name}"
        self._rules = Rules()
        self._before = FrameCounts()

    async def inject(self) -> None:
        """Apply the rules of the fault."""
        self._before = await self._host.apply(self._rules)

    async def heal(self) -> None:
        """Go back to forwarding all frames without delay."""
        await self._host.apply(Rules())

    async def has_recovered(self) -> bool:
        """Return whether the process at the end of the link works."""
        if isinstance(self._process, Api):
            return await self._process.is_ready()
        return await self._pool.view_of(self._process) is not None


class DropPackets(NetworkFault):
    """Drops a share of the frames."""

    kind = "drop-packets"
    hold_s = (5.0, 10.0)

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._rules = Rules(drop=round(self._rng.uniform(*LOSS), 2))

    async def evidence(self) -> str:
        """Return a note with the number of dropped frames; empty below `MIN_FRAMES`."""
        counts = await self._host.apply(self._rules)
        dropped = counts.dropped - self._before.dropped
        return f"{self._rules.drop:.0%} loss, {dropped} dropped" if dropped >= MIN_FRAMES else ""


class DelayPackets(NetworkFault):
    """Delays all frames by random times, so that some overtake others."""

    kind = "delay-packets"
    hold_s = (5.0, 10.0)

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        delay_s = round(self._rng.uniform(*DELAY_S), 2)
        self._rules = Rules(delay_s=delay_s, jitter_s=JITTER_S)

    async def evidence(self) -> str:
        """Return a note with the number of delayed frames; empty below `MIN_FRAMES`."""
        counts = await self._host.apply(self._rules)
        delayed = counts.delayed - self._before.delayed
        text = f"{1000 * self._rules.delay_s:.0f} ms, {delayed} delayed"
        return text if delayed >= MIN_FRAMES else ""


class CutNetwork(NetworkFault):
    """Cuts the link until the pool has given the worker up, or the front end is unreachable."""

    kind = "cut-network"
    hold_s = (0.0, 3.0)

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._rules = Rules(drop=1.0)
        self._id: WorkerId | None = None

    async def inject(self) -> None:
        """Cut the link."""
        view = await self._pool.view_of(self._process)
        self._id = view.id if view else None
        await super().inject()

    async def evidence(self) -> str:
        """Return a note if the process is unreachable, otherwise an empty text."""
        counts = await self._host.apply(self._rules)
        dropped = counts.dropped - self._before.dropped
        is_cut = dropped >= MIN_FRAMES and await self._is_out_of_reach()
        return f"out of reach, {dropped} dropped" if is_cut else ""

    async def _is_out_of_reach(self) -> bool:
        if isinstance(self._process, Api):
            return not await self._process.is_ready()
        ids = {view.id for view in await self._pool.views.workers()}
        return self._id is not None and self._id not in ids
