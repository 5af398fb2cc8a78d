"""Streams of official clients may break only by a fault of a front end or its network."""

import pytest
from chaos_findings import fault, record

from ops.lab.chaos.checks.breaks import AFTER_S, unexplained_breaks

FRONT_END = fault(kind="kill-api", subject="front end", target="api-0")
NETWORK = fault(kind="drop-packets", subject="network", target="api-0")


@pytest.mark.parametrize(
    ("faults", "broken_s", "is_explained"),
    [
        ([FRONT_END], 111.0, True),
        ([FRONT_END], 109.9, False),
        ([FRONT_END], 112.1, False),
        ([NETWORK], 112.0 + AFTER_S, True),
        ([NETWORK], 113.0 + AFTER_S, False),
        ([fault(kind="freeze-redis", subject="Redis"), fault()], 111.0, False),
        ([fault(), FRONT_END], 111.0, True),
        ([], 111.0, False),
    ],
)
def test_a_break_is_explained_by_a_fault_of_its_connection_at_that_time(
    faults: list, broken_s: float, is_explained: bool
) -> None:
    broken = record(client="openai for Node", broken_s=broken_s)
    assert unexplained_breaks([record(), broken], faults) == ([] if is_explained else [broken])


def test_a_front_end_that_did_not_recover_explains_all_later_breaks() -> None:
    dead = fault(subject="front end", recovered_s=None)
    assert unexplained_breaks([record(broken_s=1e6)], [dead]) == []
