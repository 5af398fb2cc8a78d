"""Ends of processes are explained by faults, and loops are detected."""

import signal

from chaos_findings import fault

from ops.lab.chaos.checks.restarts import LOOP_ENDS, LOOP_S, loops, unexplained
from ops.lab.chaos.cluster.supervised import ProcessEnd


def test_an_end_is_explained_by_a_fault_of_the_same_process_at_that_time() -> None:
    ends = [
        ProcessEnd("worker-0", 110.5, -signal.SIGKILL),
        ProcessEnd("worker-1", 110.5, 1),
        ProcessEnd("worker-0", 150.0, 1),
    ]
    assert unexplained(ends, [fault(), fault(target="link of worker-9")]) == ends[1:]


def test_a_cut_link_explains_the_end_of_its_process() -> None:
    end = ProcessEnd("worker-1", 110.5, 1)
    assert unexplained([end], [fault(target="link of worker-1")]) == []


def test_a_process_that_ends_again_and_again_is_in_a_loop() -> None:
    quick = [ProcessEnd("a", i * LOOP_S / LOOP_ENDS, 1) for i in range(LOOP_ENDS)]
    slow = [ProcessEnd("b", i * LOOP_S, 1) for i in range(2 * LOOP_ENDS)]
    assert loops([*quick, *slow]) == ["a"]
