"""Counters of one app."""

from api_support import metric_samples

from api.metrics.metrics import MAX_MODELS, OTHER_MODELS, Metrics
from shared.protocol.results import Usage


def test_models_beyond_a_limit_share_one_label() -> None:
    metrics, usage = Metrics(), Usage(prompt_tokens=2, completion_tokens=1)
    for number in (*range(MAX_MODELS + 3), 0):
        metrics.count_tokens(f"m{number}", usage)
    found = metric_samples(metrics)
    assert found["lorikeet_prompt_tokens_total", "m0"] == 4
    assert found["lorikeet_prompt_tokens_total", OTHER_MODELS] == 6
    assert sum(name == "lorikeet_completion_tokens_total" for name, *_ in found) == MAX_MODELS + 1
