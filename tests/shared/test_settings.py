import pytest

from shared.errors import SettingsError
from shared.settings import (
    ApiSettings,
    PoolSettings,
    WorkerSettings,
    drop_unknown_variables,
    load_settings,
)

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


@pytest.mark.parametrize("value", ["inf", "nan", "-1", "0.0001", "1e300"])
@pytest.mark.parametrize("name", ["retain_s", "deadline_s"])
def test_an_invalid_duration_is_refused(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"--{name.replace('_', '-')}: "):
        load_settings(ApiSettings, **{name: value})


@pytest.mark.parametrize("value", ["inf", "nan", "-1", "1e300"])
def test_an_infinite_drain_time_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match="--drain-s: "):
        load_settings(WorkerSettings, **WORKER, drain_s=value)


def test_a_worker_may_have_no_time_to_drain() -> None:
    assert load_settings(WorkerSettings, **WORKER, drain_s=0).drain_s == 0


def test_a_client_may_have_no_time_to_come_back() -> None:
    assert load_settings(ApiSettings, disconnect_grace_s=0).disconnect_grace_s == 0
    with pytest.raises(SettingsError, match="--disconnect-grace-s: "):
        load_settings(ApiSettings, disconnect_grace_s=-1)


def test_the_limits_of_the_queue_follow_the_settings() -> None:
    limits = load_settings(ApiSettings, retain_mb=3, retain_s=2, max_waiting_mb=5).queue_limits
    assert (limits.retain_bytes, limits.retain_ms) == (3 * 2**20, 2000)
    assert limits.max_bytes == 5 * 2**20


@pytest.mark.parametrize(
    ("cls", "name"),
    [
        *((ApiSettings, name) for name in ApiSettings.model_fields if name.startswith("max_")),
        *((WorkerSettings, name) for name in WorkerSettings.model_fields if "max_" in name),
        (ApiSettings, "retain_mb"),
        *((WorkerSettings, name) for name in ("kv_cache_mb", "adapter_memory_mb", "threads")),
    ],
)
def test_a_huge_number_is_refused(cls: type[PoolSettings], name: str) -> None:
    given = WORKER if cls is WorkerSettings else {}
    with pytest.raises(SettingsError, match=f"--{name.replace('_', '-')}: .*less than or equal"):
        load_settings(cls, **{**given, name: 10**18})


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


@pytest.mark.parametrize("origin", ["a.example", "https://a/", "https://*.example", "HTTPS://A"])
def test_other_values_than_origins_are_refused(origin: str) -> None:
    with pytest.raises(SettingsError, match=r"--cors-origins: .* isn't an origin"):
        load_settings(ApiSettings, cors_origins=[origin])


@pytest.mark.parametrize("path", ["llm", "/llm/", "/", "/a b", "/a//b", "/{a}"])
def test_a_root_path_begins_and_does_not_end_with_a_slash(path: str) -> None:
    with pytest.raises(SettingsError, match="--root-path"):
        load_settings(ApiSettings, root_path=path)


@pytest.mark.parametrize("engine", ["vllm", "simulated"])
def test_only_the_native_engine_quantises(engine: str) -> None:
    with pytest.raises(SettingsError, match="--quantize int8 needs --engine native"):
        load_settings(WorkerSettings, **WORKER, engine=engine, quantize="int8")


@pytest.mark.parametrize("cls", [ApiSettings, WorkerSettings])
@pytest.mark.parametrize("template", ["s3://bucket", "s3://{name}/x", "./{name}", "ftp://h/{name}"])
def test_a_source_that_is_no_template_is_refused(cls: type[PoolSettings], template: str) -> None:
    more = WORKER if cls is WorkerSettings else {}
    with pytest.raises(SettingsError, match="--adapter-source: "):
        load_settings(cls, **more, adapter_source=template)
    assert load_settings(cls, **more, adapter_source="").adapter_source is None
