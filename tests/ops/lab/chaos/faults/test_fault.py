"""A fault is injected, observed, healed, and waited for."""

import random
from typing import cast

import pytest

from ops.lab.chaos.cluster.pool import Pool
from ops.lab.chaos.faults import fault as fault_module
from ops.lab.chaos.faults.fault import Fault, Scene, strike
from ops.lab.chaos.faults.kinds import KINDS, chosen_kinds, need_network
from ops.lab.chaos.load.fleet import Fleet
from shared.errors import RedisUnavailable, SettingsError

SCENE = Scene(pool=cast(Pool, None), fleet=cast(Fleet, None), rng=random.Random(1))


class ScriptedFault(Fault):
    """A fault whose evidence and recovery come at the second look."""

    kind = "scripted"
    subject = "worker"
    evidence_at = recovered_at = 2

    def __init__(self) -> None:
        super().__init__(SCENE)
        self.calls: list[str] = []
        self.target = "worker-0"

    async def inject(self) -> None:
        self.calls.append("inject")
        if self.calls.count("inject") == 1:
            raise RedisUnavailable("no master")

    async def evidence(self) -> str:
        self.calls.append("evidence")
        return "seen" if self.calls.count("evidence") >= self.evidence_at else ""

    async def heal(self) -> None:
        self.calls.append("heal")
        if self.calls.count("heal") == 1:
            raise RedisUnavailable("no master")

    async def has_recovered(self) -> bool:
        self.calls.append("recovered")
        return self.calls.count("recovered") >= self.recovered_at


async def test_each_step_is_repeated_until_it_succeeds() -> None:
    fault = ScriptedFault()
    record = await strike(fault, SCENE.rng)
    assert fault.calls == [*["inject"] * 2, *["evidence"] * 2, *["heal"] * 2, *["recovered"] * 2]
    assert (record.evidence, record.error) == ("seen", "")
    assert record.recovered_s is not None
    assert record.injected_s < record.healed_s < record.recovered_s


async def test_a_fault_that_does_not_take_place_is_healed_and_reported(monkeypatch) -> None:
    monkeypatch.setattr(fault_module, "EVIDENCE_S", 0.1)
    fault = ScriptedFault()
    fault.evidence_at = 10**9
    record = await strike(fault, SCENE.rng)
    assert "did not take place" in record.error
    assert record.evidence == ""
    assert "heal" in fault.calls


async def test_a_part_that_does_not_recover_is_reported(monkeypatch) -> None:
    monkeypatch.setattr(fault_module, "RECOVERY_S", 0.1)
    fault = ScriptedFault()
    fault.recovered_at = 10**9
    record = await strike(fault, SCENE.rng)
    assert "worker-0 recovered: not within 0.1 s" in record.error
    assert record.recovered_s is None


def test_all_kinds_are_chosen_by_default() -> None:
    assert chosen_kinds(None) == tuple(KINDS)
    assert chosen_kinds("kill-api,kill-worker") == ("kill-api", "kill-worker")


@pytest.mark.parametrize("names", ["kill-worker,none", ""])
def test_unknown_kinds_are_refused(names: str) -> None:
    with pytest.raises(SettingsError, match="--faults"):
        chosen_kinds(names)


def test_only_faults_of_the_network_need_remote_hosts() -> None:
    assert need_network(["kill-worker", "cut-network"])
    assert not need_network(["kill-worker", "kill-redis"])
