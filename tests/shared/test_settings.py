"""Settings, API keys and weights of tenants: their flags, variables and files."""

from pathlib import Path
from typing import Any

import pytest

from shared.api_keys import ApiKey, api_keys, is_loopback, metrics_key
from shared.errors import SettingsError
from shared.settings import (
    ApiSettings,
    PoolSettings,
    WorkerSettings,
    drop_unknown_variables,
    load_settings,
)
from shared.tenant_weights import parse_tenant_weights

WORKER = {"model": "m"}
SERVICES = {
    # Variables that Kubernetes sets for Services named `lorikeet` and `lorikeet-redis`.
    "LORIKEET_SERVICE_HOST": "10.0.0.1",
    "LORIKEET_SERVICE_PORT": "80",
    "LORIKEET_SERVICE_PORT_HTTP": "80",
    "LORIKEET_PORT": "tcp://10.0.0.1:80",
    "LORIKEET_PORT_80_TCP": "tcp://10.0.0.1:80",
    "LORIKEET_PORT_80_TCP_PROTO": "tcp",
    "LORIKEET_PORT_80_TCP_PORT": "80",
    "LORIKEET_PORT_80_TCP_ADDR": "10.0.0.1",
    "LORIKEET_REDIS_SERVICE_HOST": "10.0.0.2",
    "LORIKEET_REDIS_PORT": "tcp://10.0.0.2:6379",
    "LORIKEET_REDIS_PORT_6379_TCP_ADDR": "10.0.0.2",
}


def test_there_may_be_no_time_to_drain_or_to_come_back() -> None:
    assert load_settings(WorkerSettings, **WORKER, drain_s=0).drain_s == 0
    assert load_settings(ApiSettings, disconnect_grace_s=0).disconnect_grace_s == 0


def test_the_limits_of_the_queue_follow_the_settings() -> None:
    limits = load_settings(ApiSettings, retain_mb=3, retain_s=2, max_waiting_mb=5).queue_limits
    assert (limits.retain_bytes, limits.retain_ms) == (3 * 2**20, 2000)
    assert limits.max_bytes == 5 * 2**20


INVALID: list[tuple[type[PoolSettings], str, Any, str]] = [
    *(
        (ApiSettings, name, value, "")
        for name in ("retain_s", "deadline_s")
        for value in ("inf", "nan", "-1", "0.0001", "1e300")
    ),
    *((WorkerSettings, "drain_s", value, "") for value in ("inf", "nan", "-1", "1e300")),
    (ApiSettings, "disconnect_grace_s", -1, ""),
    *(
        (cls, name, 10**18, ".*less than or equal")
        for cls in (ApiSettings, WorkerSettings)
        for name in cls.model_fields
        if "max_" in name or name in ("retain_mb", "kv_cache_mb", "adapter_memory_mb", "threads")
    ),
    *(
        (ApiSettings, "cors_origins", [origin], ".* isn't an origin")
        for origin in ("a.example", "https://a/", "https://*.example", "HTTPS://A")
    ),
    *(
        (ApiSettings, "root_path", path, "")
        for path in ("llm", "/llm/", "/", "/a b", "/a//b", "/{a}")
    ),
    *(
        (cls, "adapter_source", template, "")
        for cls in (ApiSettings, WorkerSettings)
        for template in ("s3://bucket", "s3://{name}/x", "./{name}", "ftp://h/{name}")
    ),
]


@pytest.mark.parametrize(("cls", "name", "value", "reason"), INVALID)
def test_an_invalid_value_is_refused_with_the_name_of_its_flag(
    cls: type[PoolSettings], name: str, value: Any, reason: str
) -> None:
    given = WORKER if cls is WorkerSettings else {}
    with pytest.raises(SettingsError, match=f"--{name.replace('_', '-')}: {reason}"):
        load_settings(cls, **{**given, name: value})


def test_the_adapters_variable_contains_several_separated_by_spaces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LORIKEET_ADAPTERS", " a=./x  b=./y\n")
    assert load_settings(WorkerSettings, **WORKER).adapters == ("a=./x", "b=./y")
    monkeypatch.setenv("LORIKEET_ADAPTERS", "")
    assert load_settings(WorkerSettings, **WORKER).adapters == ()


def test_an_adapter_flag_may_contain_spaces() -> None:
    given = load_settings(WorkerSettings, **WORKER, adapters=["a=./my folder"])
    assert given.adapters == ("a=./my folder",)


def test_the_variables_of_kubernetes_services_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SERVICES.items():
        monkeypatch.setenv(name, value)
    assert load_settings(ApiSettings).port == ApiSettings.model_fields["port"].default
    assert load_settings(ApiSettings, port=1).port == 1
    assert load_settings(WorkerSettings, **WORKER).model == "m"


@pytest.mark.parametrize("name", ["LORIKEET_PROT", "LORIKEET_PORT_80", "LORIKEET_SERVICE"])
def test_other_unknown_variables_are_removed_with_a_warning(name: str) -> None:
    environ = {name: "80", "PATH": "/bin"}
    [warning] = drop_unknown_variables(environ)
    assert warning.startswith(f"unknown environment variable {name} is ignored")
    assert environ == {"PATH": "/bin"}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("LORIKEET_PROT", "LORIKEET_PORT"),
        ("LORIKEET_ADAPTER_ROOT", "LORIKEET_ADAPTER_ROOTS"),
        ("LORIKEET_MODLE", "LORIKEET_MODEL"),
        ("LORIKEET_QUARANTINE_SECONDS", "LORIKEET_QUARANTINE_S"),
    ],
)
def test_a_warning_suggests_the_variable_that_was_probably_meant(name: str, meant: str) -> None:
    [warning] = drop_unknown_variables({name: "1"})
    assert warning.endswith(f"{name} is ignored; did you mean {meant}?")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("LORIKEET_API_KEY", "LORIKEET_API_KEYS"),
        ("LORIKEET_API_KYES", "LORIKEET_API_KEYS"),
        ("LORIKEET_APIKEYS", "LORIKEET_API_KEYS"),
        ("LORIKEET_API_KEYFILE", "LORIKEET_API_KEY_FILE"),
        ("LORIKEET_METRIC_KEY", "LORIKEET_METRICS_KEY"),
        ("LORIKEET_ALLOW_ANONYMUS", "LORIKEET_ALLOW_ANONYMOUS"),
        ("LORIKEET_REDIS_URI", "LORIKEET_REDIS_URL"),
    ],
)
def test_a_misspelt_variable_that_protects_the_server_is_refused(name: str, meant: str) -> None:
    with pytest.raises(SettingsError, match=f"{name}; did you mean {meant}"):
        drop_unknown_variables({name: "a-secret-of-some-length"})


def test_a_variable_that_resembles_no_other_has_no_suggestion() -> None:
    assert drop_unknown_variables({"LORIKEET_SQUAWK": "1"}) == [
        "unknown environment variable LORIKEET_SQUAWK is ignored"
    ]


def test_variables_of_all_commands_and_of_services_are_known() -> None:
    settings = ("LORIKEET_URL", "LORIKEET_DATA_DIR", "LORIKEET_PORT", "LORIKEET_QUARANTINE_S")
    environ = {**SERVICES, **dict.fromkeys(settings, "1")}
    before = dict(environ)
    assert drop_unknown_variables(environ) == []
    assert environ == before


@pytest.mark.parametrize(
    "origin", ["*", "https://a.example", "http://localhost:3000", "http://[::1]:80", "app://x"]
)
def test_web_sites_are_given_by_their_origin(origin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORIKEET_CORS_ORIGINS", f"{origin} https://b.example")
    assert load_settings(ApiSettings).cors_origins == (origin, "https://b.example")


@pytest.mark.parametrize("engine", ["vllm", "simulated"])
def test_only_the_native_engine_quantises(engine: str) -> None:
    with pytest.raises(SettingsError, match="--quantize int8 needs --engine native"):
        load_settings(WorkerSettings, **WORKER, engine=engine, quantize="int8")


def test_an_empty_template_of_sources_is_none() -> None:
    assert load_settings(ApiSettings, adapter_source="").adapter_source is None
    assert load_settings(WorkerSettings, **WORKER, adapter_source="").adapter_source is None


A, B = "a" * 24, "b" * 24


def keys(**given: Any) -> tuple[ApiKey, ...]:
    return api_keys(load_settings(ApiSettings, **given))


def test_keys_that_may_contain_a_colon_are_given_for_tenants() -> None:
    given = keys(api_keys=[f"red:{A}", f"red:{B}", f"blue-2:{A}:{B}"])
    assert given == (ApiKey("red", A), ApiKey("red", B), ApiKey("blue-2", f"{A}:{B}"))


def test_a_tenant_without_a_name_is_identified_by_a_hash_of_its_key() -> None:
    first, second = keys(api_keys=[A, B])
    assert (first.secret, second.secret) == (A, B)
    assert first.tenant.startswith("key-")
    assert first.tenant != second.tenant
    assert first == keys(api_keys=[A])[0]


@pytest.mark.parametrize("text", [f"{A},red:{B}", f"{A} red:{B}", f" {A}\n,red:{B}, "])
def test_the_variable_holds_keys_separated_by_commas_or_spaces(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("LORIKEET_API_KEYS", text)
    assert [key.secret for key in keys()] == [A, B]


def test_a_file_contains_one_key_per_line(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"red:{A}\n\n{B}\n")
    assert [key.secret for key in keys(api_key_file=file)] == [A, B]
    assert len(keys(api_key_file=file, api_keys=["green:" + "c" * 16])) == 3


@pytest.mark.parametrize("bad", ["tiny", "red:tiny", f"re.d:{A}", f":{A}", "é" * 20])
def test_an_invalid_key_is_named_by_its_position_and_not_shown(bad: str) -> None:
    with pytest.raises(SettingsError, match="--api-key: key 2 is") as refused:
        keys(api_keys=[A, bad])
    assert bad.removeprefix("red:") not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"api_key_file": Path("/nothing")}, "--api-key-file: can't read /nothing: "),
        ({"api_keys": [f"red:{A}", f"blue:{A}"]}, "tenants red and blue have the same key"),
        (
            {"api_keys": [A], "allow_anonymous": True},
            "--allow-anonymous and --api-key contradict",
        ),
    ],
)
def test_contradictory_or_missing_keys_are_refused(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        keys(**given)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_without_keys_only_this_machine_is_served(host: str) -> None:
    assert is_loopback(host)
    assert keys(host=host) == ()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.1", "example.org", "127.0.0.1.nip"])
def test_without_keys_the_network_is_refused_unless_asked_for(host: str) -> None:
    with pytest.raises(SettingsError, match=r"needs API keys: give --api-key .*--allow-anonymous"):
        keys(host=host)
    assert keys(host=host, allow_anonymous=True) == ()
    assert len(keys(host=host, api_keys=[A])) == 1


def test_the_repr_of_settings_does_not_contain_keys() -> None:
    settings = load_settings(ApiSettings, api_keys=[f"red:{A}"], metrics_key=B)
    assert A not in repr(settings)
    assert B not in repr(settings)
    assert A not in repr(api_keys(settings))


def key_of_metrics(**given: Any) -> str | None:
    settings = load_settings(ApiSettings, **given)
    return metrics_key(settings, api_keys(settings))


def test_metrics_may_have_a_separate_key(monkeypatch: pytest.MonkeyPatch) -> None:
    assert key_of_metrics(metrics_key=B, api_keys=[f"red:{A}"]) == B
    assert key_of_metrics() is None
    monkeypatch.setenv("LORIKEET_METRICS_KEY", B)
    assert key_of_metrics() == B
    monkeypatch.setenv("LORIKEET_METRICS_KEY", "")
    assert key_of_metrics() is None


@pytest.mark.parametrize("bad", ["b" * 15, "b" * 20 + "\xe9", "b" * 10 + " " + "b" * 10, A])
def test_a_metrics_key_that_is_malformed_or_an_api_key_is_refused_and_not_shown(bad: str) -> None:
    with pytest.raises(SettingsError, match=r"--metrics-key: (the key|only)") as refused:
        key_of_metrics(metrics_key=bad, api_keys=[f"red:{A}"])
    assert bad not in str(refused.value)


def test_weights_are_separated_by_commas_or_spaces() -> None:
    assert parse_tenant_weights(["red=4, blue-2=0.5", "key-0123456789ab=1000\nx=0.001"]) == {
        "red": 4,
        "blue-2": 0.5,
        "key-0123456789ab": 1000,
        "x": 0.001,
    }


NO_WEIGHTS = (
    *("red", "red=", "=4", "red=-1", "red=1e3", "red=inf", "red=nan", "red=.5"),
    *("r d=1", "red:4", "x=1=2"),
)
TOO_SMALL_OR_LARGE = ("red=0", "red=0.0009", "red=1000.1", "red=1" + "0" * 400)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        *((bad, r"--tenant-weight '.*: isn't NAME=WEIGHT") for bad in NO_WEIGHTS),
        *((bad, "must be from 0.001 to 1000") for bad in TOO_SMALL_OR_LARGE),
    ],
)
def test_another_form_or_weight_is_refused(bad: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        parse_tenant_weights([bad])


def test_a_tenant_has_one_weight() -> None:
    assert parse_tenant_weights(["red=4", "red=4.0"]) == {"red": 4}
    with pytest.raises(SettingsError, match="the tenant red has two weights"):
        parse_tenant_weights(["red=4 red=5"])


def test_the_setting_comes_from_flags_or_from_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings(ApiSettings).weight_by_tenant == {}
    given = load_settings(ApiSettings, tenant_weights=["red=4", "blue=2"])
    assert given.weight_by_tenant == {"red": 4, "blue": 2}
    monkeypatch.setenv("LORIKEET_TENANT_WEIGHTS", "red=4, blue=2")
    assert load_settings(ApiSettings).weight_by_tenant == {"red": 4, "blue": 2}
    monkeypatch.setenv("LORIKEET_TENANT_WEIGHTS", "red=0")
    with pytest.raises(SettingsError, match="red=0"):
        load_settings(ApiSettings)
