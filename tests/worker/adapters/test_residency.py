"""States of adapter versions and the view that claims use, in examples and random transitions."""

import ast
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeGuard

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from shared.protocol.ids import AdapterVersion
from shared.protocol.queue_replies import ReplicaStanding
from worker.adapters.load_policy import MAX_LOADING, REFUSED_S
from worker.adapters.records import AdapterRecord, State
from worker.adapters.residency import Change, Residency
from worker.text.prompt_style import BASE_STYLE

ROOT = Path(__file__).parents[3]
RECORD_FIELDS = {field.name for field in fields(AdapterRecord)}
BASE = AdapterVersion("base@1")
A, B, C = (AdapterVersion(f"{name}@1") for name in "abc")


def residency_with(*residents: AdapterVersion) -> Residency:
    residency = Residency(BASE, BASE_STYLE)
    for version in residents:
        load(residency, version)
    return residency


def load(residency: Residency, version: AdapterVersion) -> None:
    residency.reading(version)
    residency.was_read(version, BASE_STYLE, host={version})
    residency.placing(version)
    residency.became_resident(version)


def run_short(
    residency: Residency, version: AdapterVersion, jobs: dict[AdapterVersion, int]
) -> None:
    """Let a job of `version` find no memory, stop waiting and return to the queue."""
    residency.found_no_memory(version, jobs)
    residency.memory_wait_ended(version)
    residency.crowded_out(version)


def yielding(residency: Residency) -> set[AdapterVersion]:
    view = residency.claim_view(0)
    return set(view.held) - set(view.residents)


def test_the_style_of_a_version_stays_known_until_the_version_is_forgotten() -> None:
    residency = residency_with(A)
    residency.evicted([A], host=())
    assert residency.style(A) is BASE_STYLE
    residency.forgotten(A)
    assert residency.style(A) is None


def test_a_claim_may_take_fewer_cold_versions_while_others_load() -> None:
    residency = Residency(BASE, BASE_STYLE)
    assert residency.claim_view(0).max_cold == MAX_LOADING
    residency.job_waits(A)
    residency.job_waits(A)
    assert residency.claim_view(0).max_cold == MAX_LOADING - 1
    residency.queued_for_memory(A)
    assert residency.claim_view(0).max_cold == MAX_LOADING


def test_a_refused_version_is_left_to_others_for_a_while() -> None:
    residency = Residency(BASE, BASE_STYLE)
    residency.refuse(A, now_s=100)
    assert residency.claim_view(100 + REFUSED_S - 1).refused == (A,)
    assert residency.claim_view(100 + REFUSED_S).refused == ()


def test_a_crowded_out_version_is_not_claimed_until_a_version_in_use_has_no_jobs() -> None:
    residency = residency_with(A, B)
    run_short(residency, C, {A: 3, B: 2})
    assert set(residency.claim_view(0).refused) == {B, C}
    residency.job_finished({A: 2, B: 2})
    residency.job_finished({A: 2, B: 1})
    assert residency.is_crowded_out(C)
    residency.job_finished({A: 2})
    assert not residency.is_crowded_out(C)
    assert yielding(residency) == {B}, "not claimed before the version that it yields to"
    run_short(residency, C, {A: 3, B: 2})
    residency.job_finished({B: 2})
    assert not residency.is_crowded_out(C), "another version than the yielding one is free"


def test_a_version_stops_yielding_once_another_one_is_loaded() -> None:
    residency = residency_with(A)
    run_short(residency, C, {A: 1})
    load(residency, C)
    assert not residency.is_crowded_out(C)
    assert not yielding(residency)


def test_a_version_keeps_yielding_while_another_one_waits_for_memory() -> None:
    residency = residency_with(A)
    residency.found_no_memory(C, {A: 1})
    view = residency.claim_view(0)
    residency.claim_found_no_cold(view)
    assert yielding(residency) == {A}
    load(residency, B)  # B got its memory earlier
    assert yielding(residency) == {A}
    residency.memory_wait_ended(C)
    load(residency, C)
    assert not yielding(residency)


def test_a_version_stops_yielding_if_no_version_waits_for_memory() -> None:
    residency = residency_with(A)
    run_short(residency, C, {A: 1})
    residency.job_returned(C)
    residency.claim_found_no_cold(residency.claim_view(0))
    assert yielding(residency) == {A}, "C is still crowded out"
    residency.job_finished({})
    residency.claim_found_no_cold(residency.claim_view(0))
    assert not yielding(residency)


def test_a_claim_that_could_not_see_all_versions_ends_no_yielding() -> None:
    residency = residency_with(A)
    before = residency.claim_view(0)
    run_short(residency, C, {A: 1})  # while that claim is in flight
    residency.job_finished({})
    residency.claim_found_no_cold(before)
    assert yielding(residency) == {A}
    returning = residency.claim_view(0)  # the job of C isn't back in the queue yet
    residency.job_returned(C)
    residency.claim_found_no_cold(returning)
    assert yielding(residency) == {A}


def test_subscribers_are_notified_of_holdings_loads_and_memory() -> None:
    residency = Residency(BASE, BASE_STYLE)
    seen: list[Change] = []
    for change in Change:
        residency.subscribe(change, lambda change=change: seen.append(change))
    load(residency, A)
    assert set(seen) == set(Change)
    seen.clear()
    residency.evicted([A], host=())
    assert seen == [Change.HOLDINGS]
    residency.job_waits(B)
    residency.job_served(B)
    assert seen[1:] == [Change.LOADS]


def test_only_the_residency_writes_records() -> None:
    for path in sorted((ROOT / "worker").rglob("*.py")):
        tree = ast.parse(path.read_text())
        names = {node.func.id for node in ast.walk(tree) if is_call_of_name(node)}
        written = {target.attr for target in attribute_targets(tree)}
        if path.name != "residency.py":
            assert "AdapterRecord" not in names, path
            assert not written & RECORD_FIELDS, path


def is_call_of_name(node: ast.AST) -> TypeGuard[Any]:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name)


def attribute_targets(tree: ast.AST) -> Iterator[ast.Attribute]:
    """Yield the assigned attributes of objects other than `self`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            is_own = isinstance(node.value, ast.Name) and node.value.id == "self"
            yield from () if is_own else (node,)


NUM_VERSIONS, HOST_COPIES = 3, 1
VERSIONS = st.sampled_from([AdapterVersion(f"v{number}@1") for number in range(NUM_VERSIONS)])


class Transitions(RuleBasedStateMachine):
    """Runs loads, evictions, failures and jobs in any order that a worker can produce.

    A model has the contents of both memories and the number of waiting jobs. The residency and the
    view of claims must agree with the model after each step.
    """

    loads = Bundle("loads")
    """Versions that are loading. A lock per version allows one load at a time."""

    @initialize()
    def start(self) -> None:
        self.residency = Residency(BASE, BASE_STYLE)
        self.device: set[AdapterVersion] = set()
        self.host: list[AdapterVersion] = []
        self.loading: dict[AdapterVersion, str] = {}
        self.waiting: dict[AdapterVersion, int] = {}
        self.replicas: set[AdapterVersion] = set()
        self.surplus: set[AdapterVersion] = set()
        self.num_changes = 0
        self.residency.subscribe(Change.HOLDINGS, self._count_change)

    def _count_change(self) -> None:
        self.num_changes += 1

    @rule(version=VERSIONS)
    def a_job_waits(self, version: AdapterVersion) -> None:
        self.residency.job_waits(version)
        self.surplus.discard(version)
        self.waiting[version] = self.waiting.get(version, 0) + 1

    @rule(version=VERSIONS)
    def a_job_stops_waiting(self, version: AdapterVersion) -> None:
        if self.waiting.get(version):
            self.residency.job_served(version)
            self.waiting[version] -= 1

    @rule(target=loads, version=VERSIONS)
    def a_load_begins(self, version: AdapterVersion) -> object:
        if version in self.device or version in self.loading:
            return multiple()
        if version in self.host:
            self.residency.placing(version)
            self.loading[version] = "placing"
        else:
            self.residency.reading(version)
            self.loading[version] = "reading"
        return version

    @rule(target=loads, version=consumes(loads), is_copied=st.booleans())
    def files_were_read(self, version: AdapterVersion, is_copied: bool) -> AdapterVersion:
        if self.loading[version] == "reading":
            if is_copied:
                busy = [v for v in self.host if v in self.loading]
                idle = [v for v in self.host if v not in self.loading]
                self.host = [*busy, *idle[len(idle) - HOST_COPIES + 1 :], version]
            self.residency.was_read(version, BASE_STYLE, set(self.host))
            self.residency.placing(version)
            self.loading[version] = "placing"
        return version

    @rule(target=loads, version=consumes(loads), jobs=st.dictionaries(VERSIONS, st.integers(0, 3)))
    def memory_is_short(
        self, version: AdapterVersion, jobs: dict[AdapterVersion, int]
    ) -> AdapterVersion:
        if self.loading[version] == "placing":
            self.residency.queued_for_memory(version)
            self.residency.found_no_memory(
                version, {v: n for v, n in jobs.items() if v in self.device}
            )
            self.residency.memory_wait_ended(version)
        return version

    @rule(version=VERSIONS)
    def a_version_is_loaded(self, version: AdapterVersion) -> None:
        if self.a_load_begins(version) == version:
            self.files_were_read(version, is_copied=True)
            self.a_load_ends(version)

    @rule(version=VERSIONS)
    def a_version_is_prefetched(self, version: AdapterVersion) -> None:
        if self.a_load_begins(version) == version:
            self.files_were_read(version, is_copied=True)
            self.a_load_fails(version)

    @rule(version=consumes(loads))
    def a_load_fails(self, version: AdapterVersion) -> None:
        self.residency.not_loaded(version, is_copied=version in self.host)
        del self.loading[version]

    @rule(version=consumes(loads))
    def a_load_ends(self, version: AdapterVersion) -> None:
        if self.loading[version] == "reading":
            self.a_load_fails(version)
            return
        before = self.num_changes
        self.residency.became_resident(version)
        assert self.num_changes > before, "the holdings have changed"
        del self.loading[version]
        self.device.add(version)

    @rule(version=VERSIONS, is_elsewhere=st.booleans())
    def the_pool_replies(self, version: AdapterVersion, is_elsewhere: bool) -> None:
        if is_elsewhere:
            self.residency.held_elsewhere([version])
            if version in self.residency.held:
                self.replicas.add(version)

    @rule(version=VERSIONS, standing=st.sampled_from(ReplicaStanding))
    def the_pool_counts_replicas(self, version: AdapterVersion, standing: ReplicaStanding) -> None:
        """The version may have been evicted before the pool's reply."""
        is_gone = standing is ReplicaStanding.GONE
        gone = self.residency.replicas_standing({version: standing}, 0)
        assert gone == ({version} if is_gone else set())
        if is_gone and version in self.replicas:
            self.surplus.add(version)
        if is_gone or standing is ReplicaStanding.SOLE:
            self.replicas.discard(version)

    @precondition(lambda self: self.device)
    @rule(data=st.data())
    def a_version_is_evicted(self, data: st.DataObject) -> None:
        version = data.draw(st.sampled_from(sorted(self.device)))
        self.leaves_the_device(version, set(self.host))

    def leaves_the_device(self, version: AdapterVersion, host: set[AdapterVersion]) -> None:
        self.residency.evicted([version], host)
        for place in (self.device, self.replicas, self.surplus):
            place.discard(version)

    @rule(version=VERSIONS)
    def the_pool_forgets(self, version: AdapterVersion) -> None:
        if version in self.loading:
            return
        self.host = [copy for copy in self.host if copy != version]
        if version in self.device:
            self.leaves_the_device(version, set())
        else:
            self.residency.not_loaded(version, is_copied=False)
        self.residency.forgotten(version)

    @rule(jobs=st.dictionaries(VERSIONS, st.integers(0, 3)))
    def a_job_finishes(self, jobs: dict[AdapterVersion, int]) -> None:
        self.residency.job_finished(jobs)

    @invariant()
    def states_match_the_places_of_the_weights(self) -> None:
        for number in range(NUM_VERSIONS):
            version = AdapterVersion(f"v{number}@1")
            state = self.residency.state(version)
            assert (state is State.RESIDENT) == (version in self.device)
            assert (state is State.READING) == (self.loading.get(version) == "reading")
            assert (state is State.PLACING) == (self.loading.get(version) == "placing")
            is_idle_copy = version in self.host and version not in self.device
            if version not in self.loading:
                assert (state is State.IN_HOST_MEMORY) == is_idle_copy

    @invariant()
    def the_pool_sees_resident_versions_except_surplus_replicas(self) -> None:
        residency = self.residency
        assert residency.held == {BASE, *self.device} - self.surplus
        assert residency.surplus == self.surplus
        assert set(residency.replicas) == self.replicas

    @invariant()
    def a_claim_sees_what_is_held_or_awaited(self) -> None:
        view = self.residency.claim_view(0)
        awaited = {v for v, number in self.waiting.items() if number and v not in self.device}
        assert view.held == self.residency.held | awaited
        assert set(view.residents) <= view.held
        assert not set(view.residents) & set(view.refused)
        assert 0 <= view.max_cold <= MAX_LOADING
        assert view == self.residency.claim_view(0), "reading the view changes nothing"


Transitions.TestCase.settings = settings(max_examples=200, stateful_step_count=40)
TestTransitions = Transitions.TestCase
