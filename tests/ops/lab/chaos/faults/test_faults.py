"""A fault is injected, observed, healed, and waited for; and the plan of a run's faults."""

import random
from collections import Counter
from typing import cast

import pytest

from ops.lab.chaos.cluster.pool import Pool
from ops.lab.chaos.faults import fault as fault_module
from ops.lab.chaos.faults.fault import Fault, Scene, strike
from ops.lab.chaos.faults.kinds import KINDS, chosen_kinds, need_network
from ops.lab.chaos.load.fleet import Fleet
from ops.lab.chaos.schedule import WARM_UP_S, plan_faults
from shared.errors import RedisUnavailable, SettingsError

SCENE = Scene(pool=cast(Pool, None), fleet=cast(Fleet, None), rng=random.Random(1))


class ScriptedFault(Fault):
    """A fault whose steps succeed at the second attempt, unless a step is in `never`."""

    kind = "scripted"
    subject = "worker"

    def __init__(self, never: str = "") -> None:
        super().__init__(SCENE)
        self.calls: list[str] = []
        self.target = "worker-0"
        self.never = never

    def _succeeds(self, step: str) -> bool:
        self.calls.append(step)
        return self.calls.count(step) > 1 and step != self.never

    async def inject(self) -> None:
        if not self._succeeds("inject"):
            raise RedisUnavailable("no master")

    async def evidence(self) -> str:
        return "seen" if self._succeeds("evidence") else ""

    async def heal(self) -> None:
        if not self._succeeds("heal"):
            raise RedisUnavailable("no master")

    async def has_recovered(self) -> bool:
        return self._succeeds("recovered")


async def test_each_step_is_repeated_until_it_succeeds() -> None:
    fault = ScriptedFault()
    record = await strike(fault, SCENE.rng)
    assert fault.calls == [*["inject"] * 2, *["evidence"] * 2, *["heal"] * 2, *["recovered"] * 2]
    assert (record.evidence, record.error) == ("seen", "")
    assert record.recovered_s is not None
    assert record.injected_s < record.healed_s < record.recovered_s


async def test_a_fault_that_does_not_take_place_is_healed_and_reported(monkeypatch) -> None:
    monkeypatch.setattr(fault_module, "EVIDENCE_S", 0.1)
    fault = ScriptedFault(never="evidence")
    record = await strike(fault, SCENE.rng)
    assert "did not take place" in record.error
    assert record.evidence == ""
    assert "heal" in fault.calls


async def test_a_part_that_does_not_recover_is_reported(monkeypatch) -> None:
    monkeypatch.setattr(fault_module, "RECOVERY_S", 0.1)
    record = await strike(ScriptedFault(never="recovered"), SCENE.rng)
    assert "worker-0 recovered: not within 0.1 s" in record.error
    assert record.recovered_s is None


def test_kinds_are_chosen_by_name_and_only_those_of_the_network_need_remote_hosts() -> None:
    assert chosen_kinds(None) == tuple(KINDS)
    assert chosen_kinds("kill-api,kill-worker") == ("kill-api", "kill-worker")
    for unknown in ("kill-worker,none", ""):
        with pytest.raises(SettingsError, match="--faults"):
            chosen_kinds(unknown)
    assert need_network(["kill-worker", "cut-network"])
    assert not need_network(["kill-worker", "kill-redis"])


def test_each_kind_comes_once_per_round_at_equal_distances_in_the_order_of_the_seed() -> None:
    kinds = ("a", "b", "c", "d", "e")
    plan, again, other = (
        plan_faults(kinds, each=2, total_s=WARM_UP_S + 100, seed=seed) for seed in (7, 7, 8)
    )
    assert [fault.at_s for fault in plan] == [WARM_UP_S + 10 * number for number in range(10)]
    for start in (0, 5):
        assert Counter(fault.kind for fault in plan[start : start + 5]) == Counter(kinds)
    assert plan == again != other
    assert plan_faults(kinds, each=0, total_s=60, seed=1) == []
