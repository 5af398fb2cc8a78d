"""The chart's values, and the objects that it makes, validated by Helm and schemas."""

import json
import os
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from helm_chart import (
    CHART,
    EXAMPLES,
    HELM,
    VENV,
    Manifest,
    Refused,
    container_of,
    plain_env,
    pod_specs,
    rendered,
    rendered_text,
    run,
)

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


def test_batches_fetch_images_as_front_ends_do() -> None:
    hosts, size = "image_private_hosts={pictures.internal}", "max_body_bytes=40000000"
    found = rendered("trial", f"api.settings.{hosts}", f"api.settings.{size}")
    (control,) = [spec for component, spec in pod_specs(found) if component == "control"]
    env = plain_env(control)
    assert env["LORIKEET_IMAGE_PRIVATE_HOSTS"] == "pictures.internal"
    assert env["LORIKEET_MAX_BODY_BYTES"] == "40000000"


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


TYPES = {
    "ScaledObject": "@kubernetes-models/keda/keda.sh/v1alpha1/ScaledObject",
    "ServiceMonitor": "@kubernetes-models/prometheus-operator/"
    "monitoring.coreos.com/v1/ServiceMonitor",
}
"""Module that describes each kind of object which isn't part of Kubernetes."""
UNKNOWN = "Couldn't find schema for kind"
VALIDATOR = Path(__file__).with_name("validate.mjs").read_text()


def custom(manifests: list[Manifest]) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] in TYPES]


def refusals(manifests: list[Manifest], folder: Path) -> str:
    """Return why the packages' schemas refuse objects; empty if they don't.

    Their validators check values but ignore unknown fields, which TypeScript finds.
    """
    validator = VENV / "validate.mjs"  # Node finds packages beside the script
    validator.write_text(VALIDATOR)
    documents = folder / "manifests.json"
    documents.write_text(json.dumps([[TYPES[m["kind"]], m["kind"], m] for m in manifests]))
    values = run(VENV / "bin" / "node", validator, documents)
    typed = VENV / "manifests.ts"
    typed.write_text(
        "\n".join(
            f"import type {{ I{m['kind']} as T{i} }} from '{TYPES[m['kind']]}';\n"
            f"export const m{i}: T{i} = {json.dumps(m)};"
            for i, m in enumerate(manifests)
        )
    )
    flags = ["--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--target", "es2022"]
    compiler = VENV / "node_modules" / "typescript" / "bin" / "tsc"
    fields = run(VENV / "bin" / "node", compiler, *flags, typed)
    return values.stdout + values.stderr + fields.stdout + fields.stderr


@pytest.mark.parametrize("example", EXAMPLES)
def test_helm_finds_no_fault(example: str) -> None:
    done = run(HELM, "lint", "--strict", CHART, "-f", CHART / "examples" / f"{example}.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("release", ["1.27", "1.37"])  # the chart's oldest one, and the newest
def test_kubernetes_accepts_every_object(release: str, tmp_path: Path) -> None:
    file = tmp_path / "manifests.yaml"
    file.write_text("\n---\n".join(rendered_text(example) for example in EXAMPLES))
    manifests = [m for m in yaml.safe_load_all(file.read_text()) if m]
    done = run(VENV / "bin" / "kubernetes-validate", "--strict", "-k", release, file)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(UNKNOWN) == len(custom(manifests))
    assert done.stdout.count("passed for resource") == len(manifests) - len(custom(manifests))


def test_keda_and_prometheus_accept_their_objects(tmp_path: Path) -> None:
    manifests = [m for example in EXAMPLES for m in custom(rendered(example))]
    assert {m["kind"] for m in manifests} == set(TYPES)
    assert refusals(manifests, tmp_path) == ""


def test_a_misspelt_field_and_a_wrong_value_of_an_object_are_found(tmp_path: Path) -> None:
    (manifest, *_) = [m for m in rendered("keda") if m["kind"] == "ScaledObject"]
    manifest["spec"]["coolDownPeriod"] = 300
    manifest["spec"]["pollingInterval"] = 1.5
    found = refusals([manifest], tmp_path)
    assert "coolDownPeriod" in found
    assert "pollingInterval" in found


def test_the_chart_has_the_release_of_the_package() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (version("lorikeet-serve"),) * 2


def test_every_example_is_validated() -> None:
    assert {path.stem for path in (CHART / "examples").iterdir()} == set(EXAMPLES)
