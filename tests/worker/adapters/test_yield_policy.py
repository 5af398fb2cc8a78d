from shared.protocol.ids import AdapterVersion
from worker.adapters.yield_policy import Room

A, B, C = (AdapterVersion(f"{name}@1") for name in "abc")


def crowd_out(room: Room, version: AdapterVersion, jobs: dict[AdapterVersion, int]) -> None:
    """A job of `version` finds no room, and waits no longer."""
    room.want(version, jobs)
    room.wait_no_more(version)
    room.crowd_out(version)


def test_the_adapter_with_fewest_jobs_makes_room() -> None:
    room = Room()
    crowd_out(room, C, {A: 3, B: 2})
    assert (room.crowded_out, room.yielding) == ({C}, {B})


def test_each_that_finds_no_room_has_another_one_make_room() -> None:
    room = Room()
    crowd_out(room, C, {A: 3, B: 2})
    crowd_out(room, C, {A: 3, B: 2})
    crowd_out(room, C, {A: 3, B: 2})
    assert room.yielding == {A, B}


def test_who_was_crowded_out_may_be_claimed_when_the_last_job_of_another_has_ended() -> None:
    room = Room()
    crowd_out(room, C, {A: 3, B: 2})
    room.job_gone({A: 2, B: 2})
    room.job_gone({A: 2, B: 1})
    assert room.crowded_out
    room.job_gone({A: 2})
    assert not room.crowded_out
    assert room.yielding == {B}, "not to be claimed before the one that it makes room for"


def test_it_needs_not_be_the_one_that_was_to_make_room() -> None:
    room = Room()
    crowd_out(room, C, {A: 3, B: 2})
    room.job_gone({B: 2})
    assert not room.crowded_out
    assert room.yielding == {B}


def test_without_anybody_to_make_room_any_end_may_help() -> None:
    room = Room()
    crowd_out(room, C, {C: 1, A: 0})
    assert not room.yielding
    room.job_gone({})
    assert not room.crowded_out


def test_whoever_made_room_is_claimed_again_once_somebody_is_in_its_place() -> None:
    room = Room()
    crowd_out(room, C, {A: 1})
    room.loaded()
    assert not room.crowded_out
    assert not room.yielding


def test_whoever_made_room_is_claimed_again_if_nobody_wants_it_any_more() -> None:
    room = Room()
    crowd_out(room, C, {A: 1})
    room.returned()
    room.claim_begins()
    room.claimed_no_cold()
    assert room.yielding == {A}, "it isn't free yet"
    room.job_gone({})
    room.claim_begins()
    room.claimed_no_cold()
    assert not room.yielding


def test_a_claim_that_could_not_see_who_was_crowded_out_tells_nothing() -> None:
    room = Room()
    room.claim_begins()
    crowd_out(room, C, {A: 1})  # while the claim is on its way
    room.job_gone({})
    room.claimed_no_cold()
    assert room.yielding == {A}
    room.claim_begins()  # its job isn't back in the queue yet
    room.returned()
    room.claimed_no_cold()
    assert room.yielding == {A}
    crowd_out(room, C, {A: 1})
    room.returned()
    room.claim_begins()  # it is refused in this one
    room.job_gone({})
    room.claimed_no_cold()
    assert room.yielding == {A}


def test_memory_that_was_freed_otherwise_may_do() -> None:
    room = Room()
    crowd_out(room, C, {A: 1})
    room.memory_freed()
    assert not room.crowded_out


def test_nobody_stops_making_room_while_somebody_waits_for_it() -> None:
    room = Room()
    room.claim_begins()
    room.want(C, {A: 1})
    room.claimed_no_cold()
    assert room.yielding == {A}
    room.claim_begins()
    room.claimed_no_cold()
    assert room.yielding == {A}
    room.loaded()  # another one, which had its memory before
    assert room.yielding == {A}
    room.wait_no_more(C)
    room.loaded()
    assert not room.yielding


def test_who_asks_again_has_somebody_else_make_room_only_if_nobody_does() -> None:
    room = Room()
    room.want(C, {A: 3, B: 2})
    room.want(C, {A: 3, B: 1})
    assert room.yielding == {B}
    room.want(C, {A: 3})
    assert room.yielding == {A, B}


def test_only_an_end_that_leaves_an_adapter_without_jobs_may_make_room() -> None:
    room = Room()
    room.want(C, {A: 2, B: 1})
    assert not room.job_gone({A: 1, B: 1})
    assert room.job_gone({A: 1})
