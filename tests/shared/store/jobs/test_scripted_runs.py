"""Scripted runs of the machine of test_properties.py through the branches of the scripts.

After each operation, Redis must have exactly what the model expects.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from queue_machine import ABLE, OTHER_API, PLAIN, TIGHT, QueueMachine
from queue_support import API, NEVER_MS

from shared.errors import ErrorCode
from shared.protocol.capabilities import EVERYTHING
from shared.protocol.embeddings import EmbeddingParams
from shared.protocol.jobs import JobState

QUEUED, RUNNING, DONE, FAILED, CANCELLED, EXPIRED, DEAD = JobState
WAYS_TO_LOSE_JOBS = ("release", "lose_replies_and_reconcile", "leave", "die")


class Script:
    """Operations of a machine, each followed by a check of all invariants and by an audit."""

    def __init__(self, machine: QueueMachine) -> None:
        self.machine = machine

    def __getattr__(self, name: str) -> Callable[..., None]:
        def operate(*args: Any, **options: Any) -> None:
            getattr(self.machine, name)(*args, **options)
            self.machine.every_index_is_true()
            self.machine.run(self.machine.checks.check_owners())

        return operate

    def states(self) -> list[JobState]:
        return [known.state for known in self.machine.model.jobs.values()]

    def suspects(self) -> int:
        return sum(known.is_suspect for known in self.machine.model.jobs.values())

    def die_of_first_job(self, times: int = 1) -> None:
        for _ in range(times):
            self.start({"a@1"})
            self.claim(-1, sequences=1)
            self.die(-1)


@pytest.fixture
def play(redis_url: str) -> Iterator[Script]:
    """A pool whose jobs all end after the test, as the model expects it."""
    QueueMachine.url = redis_url
    machine = QueueMachine()
    yield Script(machine)
    machine.teardown()


def test_poison_jobs_quarantine_their_version(play: Script) -> None:
    play.enqueue([{}] * 4)
    for num_dead in range(3):
        play.die_of_first_job(times=3)
        assert play.states().count(DEAD) == num_dead + 1
    assert play.states() == [DEAD] * 3 + [FAILED]
    play.enqueue([{}, {"version": "b@1"}])
    play.release_quarantine()
    play.enqueue([{}, {}])
    play.die_of_first_job(times=3)
    assert play.states()[4:] == [QUEUED, DEAD, FAILED]
    play.erase(0)


def test_a_job_that_is_done_clears_its_version(play: Script) -> None:
    for _ in range(3):
        play.enqueue([{}])
        play.die_of_first_job(times=3)
        play.enqueue([{}])
        play.start()
        play.claim()
        play.finish(-1)
        play.leave()
    assert play.states() == [DEAD, DONE] * 3
    assert not any(version.is_quarantined for version in play.machine.model.versions.values())


def test_a_job_of_a_quarantined_version_ends_or_is_served_after_a_release(
    play: Script,
) -> None:
    play.enqueue([{}])
    play.start({"a@1"})
    play.claim()
    play.enqueue([{}] * 3)
    play.die_of_first_job(times=9)
    assert play.states() == [RUNNING] + [DEAD] * 3
    play.release()
    play.claim()
    assert play.states()[0] is QUEUED
    play.release_quarantine()
    play.claim()
    play.enqueue([{}])
    play.die_of_first_job(times=3)
    assert play.states() == [RUNNING] + [DEAD] * 4
    play.release()
    play.sweep()
    assert play.states()[0] is FAILED


def test_deaths_in_a_batch_make_suspects_that_run_alone(play: Script) -> None:
    play.enqueue([{}] * 2)
    for num_suspects in (0, 2):
        play.start()
        play.claim()
        play.die()
        assert play.suspects() == num_suspects
    play.enqueue([{"version": "b@1", "priority": 1}])
    for number in range(2):  # the first worker drains, and the second one is idle
        play.start()
        play.claim(number)
        play.claim(number)
    play.claim(0)
    play.enqueue([{"version": "b@1"}])
    play.start({"b@1"})
    play.claim(2)
    play.load_and_drop(2, {"a@1", "b@1"})
    play.enqueue([{"version": "b@1"}])
    play.claim(2)  # skips the suspect for which the first worker drains
    assert play.states() == [RUNNING, QUEUED, RUNNING, RUNNING, RUNNING]
    play.finish(-4)
    play.claim(0)
    for _ in range(3):
        play.release(0)
        play.claim(0)


def test_a_worker_that_was_only_silent_is_not_charged(play: Script) -> None:
    play.enqueue([{}] * 2)
    for _ in range(2):
        play.start()
        play.claim()
        play.die()
    play.speak_again(0)
    assert play.suspects() == 0
    for _ in range(2):
        play.start()
        play.claim()
        play.die()
    assert play.suspects() == 2
    play.speak_again()
    play.die_of_first_job()
    assert play.states() == [QUEUED, QUEUED]


def test_calls_of_earlier_claims_are_fenced(play: Script) -> None:
    play.enqueue([{}])
    play.start()
    play.start()
    play.claim(0)
    play.publish(0)
    play.release(0)
    play.publish(0)
    play.finish(0)
    play.claim(1)
    play.publish(1, is_of_another_claim=True)
    for is_stored in (True, False):
        play.publish(1, is_stored=is_stored)
    play.release(1)
    play.claim(0)
    for number in range(2):
        play.beat(number)
        play.finish(number)
    play.finish(2)
    for number in range(3):
        play.finish(number)
    play.publish(2)
    play.cancel(0)
    play.erase(0)
    play.finish(2)


def test_tokens_survive_their_worker(play: Script) -> None:
    play.enqueue([{}, {}])
    for lose in WAYS_TO_LOSE_JOBS:
        play.start()
        play.claim(-1)
        for number in (-1, -2):
            for is_stored in (False, number == -1, False):
                play.publish(number, is_stored=is_stored)
        getattr(play, lose)(-1)
    play.publish(-1)  # its worker is dead


def test_cancelled_jobs_end_whatever_their_worker_does(play: Script) -> None:
    play.start()
    play.enqueue([{}])
    play.cancel(-1)
    for lose in WAYS_TO_LOSE_JOBS:
        play.enqueue([{}])
        play.start()
        play.claim(-1)
        play.cancel(-1)
        play.publish(-1)
        play.beat(-1)
        getattr(play, lose)(-1)
    play.enqueue([{}] * 3)
    play.claim()
    for number in (-1, -2):
        play.cancel(number)
    play.finish(-1, state=CANCELLED)
    play.finish(-2)
    play.finish(-3, state=CANCELLED)
    assert play.states() == [CANCELLED] * 6 + [DONE, CANCELLED]
    for number in (0, -1, -2):
        play.cancel(number)
        play.erase(number)
        play.cancel(number)


def test_jobs_end_at_their_deadlines(play: Script) -> None:
    late = {"is_expired": True}
    play.enqueue([late, {}, {**late, "version": "b@1"}, {}])
    play.start({"a@1"})
    play.claim(sequences=1)
    assert play.states() == [EXPIRED, RUNNING, QUEUED, QUEUED]
    play.sweep()
    play.stall()
    play.overrun(0)
    assert play.states() == [EXPIRED, EXPIRED, EXPIRED, QUEUED]
    play.beat(0)
    play.finish(0)


def test_tenants_share_the_pool_by_weight_and_use(play: Script) -> None:
    play.start({"a@1", "b@1"})
    for weight in (1.0, 4.0):
        of_both = [{"tenant": "t1", "weight": weight}, {"tenant": "t2", "cost": 40}]
        play.enqueue([{**each, "version": v} for v in ("a@1", "b@1") for each in of_both])
        play.claim(sequences=3)
        for number, used in ((-3, 2), (-2, 100)):
            play.finish(number, used=used)
        play.fail(-1, ErrorCode.INTERNAL)
    play.enqueue([{"priority": number, "cost": 400} for number in (0, -1, 1, 1, 1, 1)])
    play.enqueue([{"tenant": "t2"}, {"tenant": "t3", "cost": 50}, {"tenant": "t3"}])
    play.cancel(-2)
    play.enqueue([{"tenant": "t3"}])
    while QUEUED in play.states():
        play.claim(sequences=2)
        play.finish(-1)
        play.finish(-2)


def test_preemptible_jobs_take_idle_capacity_only(play: Script) -> None:
    batch = {"is_preemptible": True, "priority": 1}
    play.start()
    play.enqueue([{**batch, "cost": 50}, batch, {"priority": -1}])
    play.claim(idle=0)
    assert play.states() == [QUEUED, QUEUED, RUNNING]
    play.claim(most=30, idle=8)
    play.claim(idle=1)
    assert play.states() == [RUNNING, QUEUED, RUNNING]
    play.enqueue([{}, {}])
    play.claim(sequences=2, idle=0)
    assert play.states() == [RUNNING, QUEUED, RUNNING, RUNNING, RUNNING]
    play.finish(1, used=30)
    play.release()
    play.start()
    play.claim(0, sequences=0)
    play.claim(1, sequences=6, idle=6)
    play.claim(0, sequences=8, idle=1)
    play.enqueue([batch, {"tenant": "t2"}])
    play.load_and_drop(0, {"a@1"})
    play.load_and_drop(1, {"a@1"})
    play.enqueue([{"version": "b@1"}])
    play.claim(0, sequences=1, idle=0, max_cold=1)
    play.claim(0, idle=0, max_cold=1)  # takes none of its own version, which are preemptible


def test_own_jobs_go_before_later_foreign_ones(play: Script) -> None:
    play.start({"a@1"})
    play.claim()
    play.claim(sequences=0)  # it no longer waits for jobs
    play.enqueue([{}, {"version": "b@1"}])
    play.claim(sequences=1, max_cold=1, load_ms=-1)
    assert play.states() == [RUNNING, QUEUED]


def test_a_version_that_no_worker_holds_has_one_loader(play: Script) -> None:
    play.start({"a@1"})
    play.start(set())
    play.enqueue([{"version": version} for version in ("b@1", "c@1", "b@1", "a@1", "a@1")])
    play.claim(0, sequences=1, max_cold=1)
    assert play.states() == [QUEUED, QUEUED, QUEUED, RUNNING, QUEUED]
    play.claim(1, max_cold=1)
    assert play.states() == [RUNNING, QUEUED, RUNNING, RUNNING, QUEUED]
    play.enqueue([{"version": "b@1"}])
    play.claim(0, sequences=1, max_cold=2, load_ms=-1)
    assert play.states() == [RUNNING, RUNNING, RUNNING, RUNNING, QUEUED, QUEUED]
    play.claim(0, max_cold=2)
    play.load_and_drop(1, {"b@1"})
    play.enqueue([{"version": "a@1"}])
    play.claim(0, sequences=1, max_cold=1)
    play.claim(0, sequences=1, max_cold=1, steal_ms=-1)
    play.enqueue([{"version": "b@1"}, {"version": "a@1"}])
    play.claim(0, sequences=1, max_cold=1, steal_ms=-1)
    play.release(1)
    play.claim(1)
    play.shrink(0, NEVER_MS)
    assert QUEUED not in play.states()[:6]


def test_full_queues_refuse_jobs(play: Script) -> None:
    play.enqueue([{"key": "k 1"}] * 2, replace(TIGHT, max_waiting=0))
    play.enqueue([{}] * 4, TIGHT)
    play.enqueue([{"tenant": "t2"}] * 2, TIGHT)
    play.enqueue([{"tenant": "t2", "version": "b@1", "key": "k 2"}] * 3, TIGHT)
    assert len(play.states()) == 5
    play.enqueue([{"tenant": "t3", "version": "b@1"}] * 2, TIGHT)
    assert len(play.states()) == 6
    play.cancel(0)
    play.start()
    play.claim(sequences=1)
    play.enqueue([{}, {"tenant": "t3"}, {}], TIGHT)
    assert len(play.states()) == 8


def test_an_api_key_is_charged_with_what_its_jobs_use(play: Script) -> None:
    limited = {"is_limited": True, "cost": 80}
    play.enqueue([limited] * 3)
    assert len(play.states()) == 2
    play.cancel(1)
    play.enqueue([{**limited, "cost": 121}, limited, {**limited, "key": "k 1", "cost": 10}])
    assert len(play.states()) == 4
    play.start()
    play.claim()
    play.publish(0, is_stored=True, spends=60)
    play.begin_another_day()
    for _ in range(2):
        play.publish(0, is_stored=True, spends=60)
    play.enqueue([{**limited, "cost": 1}])
    play.publish(1, is_stored=True, spends=80)
    play.publish(0, is_stored=True, spends=100)
    play.finish(0, used=400, state=CANCELLED)
    play.release()
    play.begin_another_day()
    play.claim()
    play.fail(-1, ErrorCode.INTERNAL)
    play.finish(-2, used=100)
    for _ in range(3):
        play.begin_another_day()
    play.enqueue([limited])


def test_requests_with_one_key_share_a_job(play: Script) -> None:
    keyed = {"key": "k 1"}
    play.enqueue([keyed, keyed, {"key": "k 2"}, {**keyed, "tenant": "t2"}])
    play.start()
    play.claim(sequences=1)
    play.abandon(0, API, NEVER_MS)
    play.enqueue([keyed])  # a client has come back
    play.finish(0)
    play.enqueue([keyed])
    assert len(play.states()) == 2
    play.erase(0)
    play.cancel(1)
    play.enqueue([keyed, {**keyed, "tenant": "t2"}])
    assert len(play.states()) == 3
    for code, is_kept in ((ErrorCode.INVALID_VALUE, True), (ErrorCode.UNAVAILABLE, False)):
        num_jobs = len(play.states())
        play.enqueue([{"key": f"{code} 1"}])
        play.cancel(-2)
        play.claim()
        play.fail(-1, code)
        play.enqueue([{"key": f"{code} 1"}])
        assert len(play.states()) == num_jobs + 1 + (not is_kept)
    play.claim()
    for number in (-1, -1):  # the first job runs, and the second one waits
        play.abandon(number, API, 0)
        play.enqueue([{"key": f"{ErrorCode.UNAVAILABLE} 1"}])


def test_jobs_without_clients_are_cancelled(play: Script) -> None:
    play.enqueue([{}, {"keeps_running": True}, {}, {}])
    play.start()
    play.claim(sequences=2)
    play.attach(0, OTHER_API)
    play.attach(0, OTHER_API)
    play.publish(0)
    play.abandon(0, API, 0)
    play.abandon(0, OTHER_API, NEVER_MS)
    play.attach(0, API)
    play.abandon(0, API, NEVER_MS)
    play.attach(0, OTHER_API)
    play.release()
    play.abandon(0, OTHER_API, NEVER_MS)
    play.abandon(1, API, 0)
    play.abandon(2, API, NEVER_MS)
    play.let_grace_pass()
    assert play.states() == [CANCELLED, QUEUED, CANCELLED, QUEUED]
    play.attach(0, OTHER_API)
    play.claim()
    play.abandon(3, API, NEVER_MS)
    play.let_grace_pass()
    play.publish(-1)
    play.finish(-1, state=CANCELLED)
    assert play.states()[3] is CANCELLED


def test_a_dead_front_end_has_no_clients(play: Script) -> None:
    play.enqueue([{}, {}, {"keeps_running": True}, {}, {}])
    play.start()
    play.attach(0, OTHER_API)
    play.attach(1, OTHER_API)
    play.claim(sequences=4)
    play.abandon(3, API, NEVER_MS)
    for number in range(4):
        play.publish(number)
    play.fall_silent(API)
    play.abandon(1, OTHER_API, 0)
    play.sweep()
    jobs = list(play.machine.model.jobs.values())
    assert [known.is_abandoned for known in jobs] == [False, False, False, True, False]
    play.fall_silent(OTHER_API)
    play.sweep()
    assert [known.is_abandoned for known in jobs] == [True, False, False, True, False]
    play.stall()
    for api in (API, API, OTHER_API):
        play.revive(api)
    play.attach(0, OTHER_API)
    play.let_grace_pass()
    play.sweep()
    assert [bool(known.cancelled_by) for known in jobs] == [False, True, False, True, False]


def test_limited_workers_get_only_jobs_that_they_serve(play: Script) -> None:
    dora, embedding = {"version": "c@1"}, {"embedding": EmbeddingParams()}
    play.enqueue([dora, embedding])
    play.start(serves=PLAIN)
    play.enqueue([dora, embedding, {}])
    assert len(play.states()) == 3
    play.claim()
    play.start(serves=ABLE)
    play.claim(1, sequences=1)
    play.enqueue([dora, {**dora, **embedding}, {}, dora])
    play.claim(0)
    play.claim(1)
    assert QUEUED in play.states()
    play.start(serves=EVERYTHING)
    play.claim(2, sequences=1)
    play.enqueue([embedding, {**dora, **embedding}])
    play.claim(2, sequences=1, max_cold=1, load_ms=-1)
    play.load_and_drop(2, {"b@1"})
    play.claim(2, sequences=1, max_cold=1)
    play.shrink(0, NEVER_MS)
    play.die(2)
    play.claim(0)
    play.enqueue([embedding, {}])
