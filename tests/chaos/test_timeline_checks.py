"""The check of timelines finds each difference from the truth."""

import pytest

from ops.lab.chaos.checks.timelines import Logged, read_logs, timeline_problems

GOOD = (
    "1 accepted - \n2 queued - \n3 claimed w1 \n4 worker_lost w1 \n4 requeued w1 worker_lost\n"
    "5 claimed w2 \n6 requeued w2 released\n7 claimed w1 \n8 first_token w1 \n9 completed w1 \n"
)
CLAIMS = {(1, "w1"), (2, "w2"), (3, "w1")}
LOGGED = {"j": Logged(CLAIMS, {(3, "done")})}
COUNTS = {"retried": 1, "released": 1}


def test_a_true_timeline_has_no_problem() -> None:
    assert timeline_problems({"j": GOOD}, {"j": "done"}, LOGGED, COUNTS) == []


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ("5 claimed w2 \n", "held"),
        ("4 worker_lost w1 \n", "doesn't fit"),
        ("6 requeued w2 released\n", "follows one by w2"),
        ("9 completed w1 \n", "its ends are"),
        ("2 queued - \n", "begin with"),
    ],
)
def test_a_missing_event_is_found(wrong: str, problem: str) -> None:
    found = timeline_problems({"j": GOOD.replace(wrong, "")}, {"j": "done"}, LOGGED, COUNTS)
    assert any(problem.replace("held", "holds") in each for each in found), found


@pytest.mark.parametrize(
    ("logged", "counts", "problem"),
    [
        (Logged({*CLAIMS, (2, "w3")}), COUNTS, "it lacks claim 2 by w3"),
        (Logged(CLAIMS, {(2, "done")}), COUNTS, "claim 2 was ended as done"),
        (Logged(CLAIMS), {"retried": 2, "released": 1}, "retried: 2"),
    ],
)
def test_a_difference_from_logs_and_counts_is_found(
    logged: Logged, counts: dict[str, int], problem: str
) -> None:
    found = timeline_problems({"j": GOOD}, {"j": "done"}, {"j": logged}, counts)
    assert any(problem in each for each in found), found


def test_a_run_without_logged_claims_proves_nothing() -> None:
    found = timeline_problems({"j": GOOD}, {"j": "done"}, {}, COUNTS)
    assert any("no claims" in each for each in found)


def test_logs_of_killed_workers_are_read_up_to_their_last_line() -> None:
    line = '{"job_id":"j","try_":1,"worker":"w1","event":"job_claimed"}\n'
    end = '{"job_id":"j","try_":1,"state":"done","event":"job_ended"}\n'
    logs = [f"starting\n{line}", f"{end}{line[:30]}"]
    assert read_logs(logs) == {"j": Logged({(1, "w1")}, {(1, "done")})}
