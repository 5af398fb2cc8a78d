"""Times observed for one answer."""

from api_support import metric_samples

from api.follow.transcript import Delta
from api.metrics import metrics as stream_timing
from api.metrics.metrics import Metrics, StreamTiming
from shared.protocol.events import Admitted
from shared.protocol.ids import JobId

ADMITTED = Admitted(job=JobId("j"), try_=1, prompt_tokens=3)


class Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


def test_queue_time_first_token_and_token_gaps_are_observed(
    monkeypatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(stream_timing, "time", clock)
    metrics = Metrics()
    answer = StreamTiming(metrics)
    for passed_s, step in (
        (1.0, ADMITTED),
        (0.5, Delta(0, "a", None)),
        (0.25, Delta(1, "b", None)),  # another choice, so there is no gap
        (2.0, ADMITTED),  # the job moved to another worker
        (0.75, Delta(0, "c", None)),
    ):
        clock.now_s += passed_s
        answer.record([step])
    found = metric_samples(metrics)
    assert found["lorikeet_queue_seconds_sum",] == 1.0
    assert found["lorikeet_queue_seconds_count",] == 1
    assert found["lorikeet_time_to_first_token_seconds_sum",] == 1.5
    assert found["lorikeet_time_to_first_token_seconds_count",] == 1
    assert found["lorikeet_inter_token_seconds_sum",] == 3.0
    assert found["lorikeet_inter_token_seconds_count",] == 1
