"""States of adapter versions, their events, and the view of them that claims use."""

import ast
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeGuard

from shared.protocol.ids import AdapterVersion
from shared.protocol.queue_replies import ReplicaStanding
from worker.adapters.load_policy import MAX_LOADING, REFUSED_S
from worker.adapters.records import AdapterRecord
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


def test_another_version_than_the_yielding_one_may_free_memory() -> None:
    residency = residency_with(A, B)
    run_short(residency, C, {A: 3, B: 2})
    residency.job_finished({B: 2})
    assert not residency.is_crowded_out(C)
    assert yielding(residency) == {B}


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


def test_freed_memory_lets_crowded_out_versions_be_claimed() -> None:
    residency = residency_with(A)
    run_short(residency, C, {A: 1})
    residency.memory_freed()
    assert not residency.is_crowded_out(C)


def test_a_replica_that_was_given_up_is_evicted_first_until_it_is_used() -> None:
    residency = residency_with(A, B)
    residency.held_elsewhere([A, B])
    gone = residency.replicas_standing({A: ReplicaStanding.GONE, B: ReplicaStanding.NEEDED}, 0)
    assert (gone, residency.surplus, set(residency.replicas)) == ({A}, {A}, {B})
    assert residency.held == {BASE, B}
    assert residency.is_resident(A)
    residency.job_waits(A)
    assert residency.surplus == set()


def test_only_versions_that_others_hold_too_are_replicas() -> None:
    residency = residency_with(A)
    residency.replicas_standing({A: ReplicaStanding.SURPLUS}, 0)
    assert residency.replicas == {}


def test_a_replica_that_was_evicted_before_the_pools_reply_is_not_surplus() -> None:
    residency = residency_with(A)
    residency.held_elsewhere([A])
    residency.evicted([A], host=())
    assert residency.replicas_standing({A: ReplicaStanding.GONE}, 0) == {A}
    assert residency.surplus == set()


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
