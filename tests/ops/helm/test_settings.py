"""Settings in the chart's values: all are reachable, and others are refused."""

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml
from helm_chart import EXAMPLES, Refused, container_of, plain_env, pod_specs, rendered

from ops.lab.generate.helm_schema import SET_BY_THE_CHART
from shared.settings import (
    ENV_PREFIX,
    ApiSettings,
    ControlSettings,
    PoolSettings,
    WorkerSettings,
    load_settings,
)

CLASSES: dict[str, type[PoolSettings]] = {
    "api": ApiSettings,
    "control": ControlSettings,
    "worker": WorkerSettings,
}
VALUES: dict[str, dict[str, Any]] = {
    "settings": {"durability": "strict", "log_level": "debug"},
    "api": {
        "max_body_bytes": 40_000_000,
        "header_timeout_s": 2.5,
        "disconnect_grace_s": 0,
        "tenant_weights": ["red=4", "blue=0.5"],
        "root_path": "/llm",
        "cors_origins": ["https://a.example", "http://localhost:3000"],
    },
    "control": {"quarantine_s": 0, "dead_letter_days": 7},
    "worker": {
        "prefix_cache": False,
        "memory_fraction": 0.45,
        "kv_cache_mb": 1_000_000,
        "vllm_args": "--kv-cache-dtype fp8 --hf-overrides '{\"a\": 1}'",
        "dtype": "float16",
    },
}
"""Values whose text could get lost: large numbers, zero, fractions, switches, lists and quotes."""


def test_settings_that_the_chart_sets_itself_exist() -> None:
    for cls, names in SET_BY_THE_CHART.items():
        assert names <= set(cls.model_fields)


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_variable_is_a_setting_of_its_process(example: str) -> None:
    for component, spec in pod_specs(rendered(example)):
        names = {e["name"] for e in container_of(spec).get("env", ())}
        ours = {name for name in names if name.startswith(ENV_PREFIX)}
        if component == "redis":
            assert not ours
        else:
            fields = CLASSES[component].model_fields
            assert ours <= {f"{ENV_PREFIX}{name.upper()}" for name in fields}
            assert len(names) == len(container_of(spec)["env"]), "a variable is given twice"


def test_settings_arrive_as_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "values.yaml"
    parts = {name: {"settings": values} for name, values in VALUES.items() if name != "settings"}
    file.write_text(yaml.safe_dump({"settings": VALUES["settings"], **parts}))
    for component, spec in pod_specs(rendered("trial", values=file)):
        if component == "redis":
            continue
        for name in [name for name in os.environ if name.startswith(ENV_PREFIX)]:
            monkeypatch.delenv(name)
        for name, value in plain_env(spec).items():
            monkeypatch.setenv(name, value)
        settings = load_settings(CLASSES[component])
        expected = {**VALUES["settings"], **VALUES[component]}
        for name, value in expected.items():
            wanted = tuple(value) if isinstance(value, list) else value
            assert getattr(settings, name) == wanted, name


@pytest.mark.parametrize(
    ("argument", "explanation"),
    [
        ("api.settings.max_wating=5", "max_wating"),
        ("worker.settings.max_waiting=5", "max_waiting"),
        ("settings.drain_s=5", "drain_s"),
        ("worker.settings.dtype=float8", "float16"),
        ("worker.settings.lease_ms=10", "minimum"),
        ("api.settings.port=80", "port"),
        ("control.settings.quarantine=1", "quarantine"),
        ("worker.engine=vlm", "vllm"),
        ("redis.existingSecrets=a", "existingSecrets"),
        ("pools[0].bases=a", "bases"),
        ("pools[0].workers[0].gpu=1", "gpu"),
        ("pools[0].name=Main", "Main"),
        ("api.replicas=two", "integer"),
    ],
)
def test_misspelt_and_wrong_values_are_refused(argument: str, explanation: str) -> None:
    with pytest.raises(Refused, match=explanation):
        rendered("trial", argument)


WORKER, INGRESS = "pools[0].workers[0]", "pools[1].api.ingress"


@pytest.mark.parametrize(
    ("example", "arguments", "explanation"),
    [
        ("trial", ["redis.trial.enabled=false"], "pool main has no Redis"),
        ("trial", ["auth.existingSecret="], "auth.existingSecret: name the Secret"),
        ("keda", ["prometheus.serverAddress="], "prometheus.serverAddress: name the Prometheus"),
        ("pools", ["pools[1].workers[0].gpus=1"], "tensor_parallel"),
        ("keda", ["worker.cache.claim.accessMode=ReadWriteOnce"], None),
        (
            "keda",
            [f"{WORKER}.cache.claim.accessMode=ReadWriteOnce"],
            "ReadWriteOnce allows one pod",
        ),
        ("keda", [f"{WORKER}.keda.minReplicas=5"], "minReplicas is 5, but keda.max"),
        ("keda", [f"{WORKER}.keda.minReplicas=4"], None),
        ("gpu", ["api.autoscaling.minReplicas=11"], "api.autoscaling.minReplicas is 11"),
        ("trial", ["api.autoscaling.minReplicas=11"], None),  # it isn't enabled
        ("pools", ["pools[1].name=small"], "Deployment lorikeet-small-api"),
        ("pools", ["pools[0].workers[1].name=l4"], "two workers with the name l4"),
        ("pools", ["pools[1].workers[0].name=l4"], None),
        (
            "pools",
            ["pools[0].name=a", "pools[0].workers[0].name=b-api", "pools[1].name=a-worker-b"],
            "Deployment lorikeet-a-worker-b-api",
        ),
        ("pools", [f"{INGRESS}.path=/small/"], "address llm.example/small/"),
        ("pools", [f"{INGRESS}.path=/small", f"{INGRESS}.host=b.example"], None),
        ("pools", [f"{INGRESS}.path=/small", f"{INGRESS}.enabled=false"], None),
        ("trial", ["worker.extraEnv[0].name=LORIKEET_DRAIN_S"], "use settings.drain_s"),
        ("trial", ["pools[0].control.extraEnv[0].name=lorikeet_port"], "use settings.port"),
        ("trial", ["api.extraEnv[0].name=OTEL_EXPORTER_OTLP_HEADERS"], None),
    ],
)
def test_values_that_contradict_each_other_are_refused(
    example: str, arguments: list[str], explanation: str | None
) -> None:
    expected = pytest.raises(Refused, match=explanation) if explanation else nullcontext()
    with expected:
        rendered(example, *arguments)


def test_a_worker_gets_base_and_adapters_of_its_pool() -> None:
    (worker,) = [spec for component, spec in pod_specs(rendered("gpu")) if component == "worker"]
    env = plain_env(worker)
    assert env["LORIKEET_MODEL"] == "Qwen/Qwen2.5-7B-Instruct"
    assert env["LORIKEET_ADAPTERS"] == "sql=org/sql-lora support=/adapters/support"
    assert env["LORIKEET_ADAPTER_ROOTS"] == "/adapters hub:org"
    assert env["LORIKEET_DEVICE"] == "cuda"
    assert container_of(worker)["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_a_worker_on_cpus_has_as_many_threads_as_its_limit() -> None:
    (worker,) = [spec for component, spec in pod_specs(rendered("trial")) if component == "worker"]
    threads = [e for e in container_of(worker)["env"] if e["name"] == "LORIKEET_THREADS"]
    assert [e["valueFrom"]["resourceFieldRef"]["resource"] for e in threads] == ["limits.cpu"]


def test_pools_share_a_redis_under_names_of_their_own() -> None:
    found = {
        (component, plain_env(spec)["LORIKEET_POOL"])
        for component, spec in pod_specs(rendered("pools"))
    }
    parts = ("api", "control", "worker")
    assert found == {(part, pool) for part in parts for pool in ("small", "large")}


def test_a_pool_can_have_a_redis_of_its_own() -> None:
    urls = {
        e["valueFrom"]["secretKeyRef"]["name"]
        for _, spec in pod_specs(rendered("pools", "pools[1].redis.existingSecret=other"))
        for e in container_of(spec)["env"]
        if e["name"] == "LORIKEET_REDIS_URL"
    }
    assert urls == {"lorikeet-redis", "other"}
