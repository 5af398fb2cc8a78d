"""What an observation of an attack finds."""

import pytest

from ops.lab.hostile.neighbour import Waits
from ops.lab.hostile.observation import Observation


def test_waits_of_later_times_are_added() -> None:
    waits = Waits(health_s=2, stream_s=1, num_health=1, failures=["a"])
    waits.add(Waits(health_s=1, stream_s=3, num_health=2, num_streams=4, failures=["b"] * 9))
    assert waits == Waits(2, 3, 3, 4, ["a", "b", "b", "b", "b"])


@pytest.mark.parametrize(
    ("changes", "failure"),
    [
        ({}, None),
        ({"attacked": Waits(health_s=1.2)}, "waited 1.20 s longer: health_s"),
        ({"attacked": Waits(stream_s=2.5)}, "waited 2.50 s longer: stream_s"),
        ({"attacked": Waits(failures=["x"])}, "request of the other tenant failed: x"),
        ({"memory_mib": {"worker": [100.0, 165.0]}}, "worker grew from 100.0 to 165.0 MiB"),
        ({"ended": ["worker"]}, "the process worker ended"),
    ],
)
def test_a_run_fails_for_its_reason(changes: dict[str, object], failure: str | None) -> None:
    observed = Observation()
    for name, value in changes.items():
        setattr(observed, name, value)
    found = observed.faults(compares=True)
    assert len(found) == (failure is not None)
    assert failure is None or failure in found[0]
