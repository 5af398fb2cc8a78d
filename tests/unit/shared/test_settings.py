import pytest

from shared.errors import SettingsError
from shared.settings import ApiSettings, PoolSettings, WorkerSettings, load_settings

WORKER = {"model": "m"}


@pytest.mark.parametrize("value", ["inf", "nan", "-1", "0.0001", "1e300"])
@pytest.mark.parametrize("name", ["retain_s", "deadline_s"])
def test_a_time_that_is_no_usable_number_of_ms_is_refused(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"--{name.replace('_', '-')}: "):
        load_settings(ApiSettings, **{name: value})


@pytest.mark.parametrize("value", ["inf", "nan", "-1", "1e300"])
def test_a_time_to_drain_that_never_ends_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match="--drain-s: "):
        load_settings(WorkerSettings, **WORKER, drain_s=value)


def test_a_worker_may_have_no_time_to_drain() -> None:
    assert load_settings(WorkerSettings, **WORKER, drain_s=0).drain_s == 0


@pytest.mark.parametrize(
    ("cls", "name"),
    [
        *((ApiSettings, name) for name in ApiSettings.model_fields if name.startswith("max_")),
        *((WorkerSettings, name) for name in WorkerSettings.model_fields if "max_" in name),
        *((WorkerSettings, name) for name in ("kv_cache_mb", "adapter_memory_mb", "threads")),
    ],
)
def test_a_huge_number_is_refused(cls: type[PoolSettings], name: str) -> None:
    given = WORKER if cls is WorkerSettings else {}
    with pytest.raises(SettingsError, match=f"--{name.replace('_', '-')}: .*less than or equal"):
        load_settings(cls, **{**given, name: 10**18})
