"""Random transitions of adapter versions, compared with a simple model of the residency."""

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
from worker.adapters.load_policy import MAX_LOADING
from worker.adapters.records import State
from worker.adapters.residency import Change, Residency
from worker.text.prompt_style import BASE_STYLE

BASE = AdapterVersion("base@1")
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
        self.num_changes = 0
        self.residency.subscribe(Change.HOLDINGS, self._count_change)

    def _count_change(self) -> None:
        self.num_changes += 1

    @rule(version=VERSIONS)
    def a_job_waits(self, version: AdapterVersion) -> None:
        self.residency.job_waits(version)
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

    @precondition(lambda self: self.replicas)
    @rule(standing=st.sampled_from(ReplicaStanding))
    def the_pool_counts_replicas(self, standing: ReplicaStanding) -> None:
        version = min(self.replicas)
        self.residency.replicas_standing({version: standing}, 0)
        if standing in {ReplicaStanding.GONE, ReplicaStanding.SOLE}:
            self.replicas.discard(version)

    @precondition(lambda self: self.device)
    @rule(data=st.data())
    def a_version_is_evicted(self, data: st.DataObject) -> None:
        version = data.draw(st.sampled_from(sorted(self.device)))
        self.residency.evicted([version], set(self.host))
        self.device.discard(version)
        self.replicas.discard(version)

    @rule(version=VERSIONS)
    def the_pool_forgets(self, version: AdapterVersion) -> None:
        if version in self.loading:
            return
        self.host = [copy for copy in self.host if copy != version]
        if version in self.device:
            self.residency.evicted([version], host=())
            self.device.discard(version)
            self.replicas.discard(version)
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
        assert residency.held == {BASE, *self.device} - residency.surplus
        assert residency.surplus <= self.device
        assert set(residency.replicas) == self.replicas
        assert not residency.surplus & set(residency.replicas)

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
