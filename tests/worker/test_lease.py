from shared.protocol.ids import WorkerId
from worker.lease import Lease


class Pool:
    """What a lease tells the pool."""

    def __init__(self) -> None:
        self.registered: list[WorkerId] = []
        self.left: list[WorkerId] = []
        self.loses_while_registering = False
        self.lease = Lease(
            lease_ms=300,
            register=self.register,
            leave=self.leave,
            beat=self.register,
            on_lost=lambda: None,
        )

    async def register(self, wid: WorkerId) -> None:
        self.registered.append(wid)
        if self.loses_while_registering:
            self.loses_while_registering = False
            self.lease.lose(wid)

    async def leave(self, wid: WorkerId) -> None:
        self.left.append(wid)


async def test_a_lease_that_is_lost_while_it_is_taken_leaves_no_ghost() -> None:
    pool = Pool()
    pool.loses_while_registering = True
    await pool.lease.take()
    assert pool.left == pool.registered
    assert not pool.lease.is_held.is_set()
    assert pool.lease.wid not in pool.registered
    await pool.lease.take()
    assert pool.lease.is_held.is_set()
    assert pool.registered[-1] == pool.lease.wid
    assert pool.lease.wid not in pool.left
