"""Properties of every pod that the chart makes: privileges, secrets, probes and time to stop."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from helm_chart import (
    EXAMPLES,
    Manifest,
    container_of,
    of_kind,
    plain_env,
    pod_specs,
    rendered,
)

from api.server import EXIT_S
from worker.service import HAND_OVER_S

SPARE_S = 5
SECRET_WORDS = ("KEY", "PASSWORD", "TOKEN", "AUTH", "REDIS_URL")


def pods(example: str) -> list[tuple[str, dict[str, Any]]]:
    found = list(pod_specs(rendered(example)))
    assert {"api", "control", "worker"} <= {component for component, _ in found}
    return found


@pytest.mark.parametrize("example", EXAMPLES)
def test_pods_have_few_privileges(example: str) -> None:
    for _, spec in pods(example):
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container_of(spec)["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_cluster_can_choose_user_and_groups(example: str) -> None:
    for _, spec in pod_specs(rendered(example, "fixedUser=false")):
        assert spec["securityContext"] == {
            "runAsNonRoot": True,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        }


def test_gpu_workers_can_have_a_runtime_class() -> None:
    classes = {
        component: spec.get("runtimeClassName")
        for component, spec in pod_specs(rendered("gpu", "worker.runtimeClassName=nvidia"))
    }
    assert classes == {"api": None, "control": None, "worker": "nvidia"}


@pytest.mark.parametrize("example", EXAMPLES)
def test_pods_can_write_where_their_images_do(example: str) -> None:
    for component, spec in pods(example):
        mounts = {m["mountPath"]: m for m in container_of(spec)["volumeMounts"]}
        needed = {"redis": {"/data"}, "worker": {"/tmp", "/cache"}}.get(component, {"/tmp"})
        assert needed <= {path for path, mount in mounts.items() if not mount.get("readOnly")}
        volumes = {v["name"] for v in spec.get("volumes", ())} | {"data"}
        assert {mount["name"] for mount in mounts.values()} <= volumes


def test_the_processes_of_vllm_have_shared_memory() -> None:
    specs = [spec for _, spec in pods("pools")]
    (vllm,) = [s for s in specs if plain_env(s).get("LORIKEET_ENGINE") == "vllm"]
    mounts = {m["mountPath"]: m["name"] for m in container_of(vllm)["volumeMounts"]}
    volumes = {v["name"]: v for v in vllm["volumes"]}
    assert volumes[mounts["/dev/shm"]]["emptyDir"]["medium"] == "Memory"


@pytest.mark.parametrize("example", EXAMPLES)
def test_secrets_are_in_no_manifest_and_front_ends_have_the_keys_of_the_secret(
    example: str,
) -> None:
    for component, spec in pods(example):
        for name, value in plain_env(spec).items():
            if any(word in name for word in SECRET_WORDS):
                assert "$(REDIS_PASSWORD)" in value, name
        references = {
            e["name"]: e["valueFrom"]["secretKeyRef"]
            for e in container_of(spec).get("env", ())
            if "secretKeyRef" in e.get("valueFrom", {})
        }
        if component == "api":
            assert references["LORIKEET_API_KEYS"]["name"] == "lorikeet-auth"
            assert references["LORIKEET_API_KEYS"]["optional"] is False
            # Without the key, Prometheus would read nothing, and KEDA would start no worker.
            needs_key = bool(of_kind(rendered(example), "ServiceMonitor"))
            assert references["LORIKEET_METRICS_KEY"]["optional"] is not needs_key
        else:
            assert not {"LORIKEET_API_KEYS", "LORIKEET_METRICS_KEY"} & set(references)


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_process_is_probed(example: str) -> None:
    for component, spec in pods(example):
        container = container_of(spec)
        probes = {kind: container[f"{kind}Probe"] for kind in ("startup", "readiness", "liveness")}
        if component == "api":
            paths = {kind: probe["httpGet"]["path"] for kind, probe in probes.items()}
            assert paths == {"startup": "/health", "readiness": "/ready", "liveness": "/health"}
        elif component != "redis":
            command = ["lorikeet", "health", component]
            assert [probe["exec"]["command"] for probe in probes.values()] == [command] * 3


def test_a_redis_that_is_away_for_minutes_ends_no_worker() -> None:
    for component, spec in pods("gpu"):
        if component in ("worker", "control"):
            liveness = container_of(spec)["livenessProbe"]
            assert liveness["periodSeconds"] * liveness["failureThreshold"] >= 600


def test_a_worker_has_time_to_load_its_model() -> None:
    manifests = rendered("trial", "worker.startSeconds=3601")
    (worker,) = of_type(manifests, "worker")
    probe = container_of(worker)["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 3601
    deployment = of_kind(manifests, "Deployment")["lorikeet-main-worker-cpu"]
    assert deployment["spec"]["progressDeadlineSeconds"] > 3601


@pytest.mark.parametrize("drain_s", [0, 30, 90.5, 600])
def test_pods_have_time_to_drain(drain_s: float, tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    settings = {"settings": {"drain_s": drain_s}}
    values.write_text(yaml.safe_dump({"api": settings, "worker": settings}))
    manifests = rendered("trial", values=values)
    (worker,) = of_type(manifests, "worker")
    (api,) = of_type(manifests, "api")
    rest = worker["terminationGracePeriodSeconds"] - drain_s
    assert rest >= HAND_OVER_S + SPARE_S
    delay = int(container_of(api)["lifecycle"]["preStop"]["exec"]["command"][1])
    rest = api["terminationGracePeriodSeconds"] - delay - math.ceil(drain_s)
    assert rest >= EXIT_S + SPARE_S


def test_each_worker_drains_for_its_own_time() -> None:
    times = {
        plain_env(spec)["LORIKEET_DRAIN_S"]: spec["terminationGracePeriodSeconds"]
        for spec in of_type(rendered("pools"), "worker")
    }
    assert times == {"30": 45, "120": 135}


def of_type(manifests: list[Manifest], component: str) -> Iterator[dict[str, Any]]:
    return (spec for found, spec in pod_specs(manifests) if found == component)


def test_images_follow_from_engine_and_gpus() -> None:
    images = {
        example: {container_of(s)["image"] for s in of_type(rendered(example), "worker")}
        for example in EXAMPLES
    }
    registry = "registry.example/lorikeet"
    assert images == {
        "trial": {"lorikeet-worker:0.2.0"},
        "gpu": {f"{registry}/lorikeet-worker-cuda:0.2.0"},
        "keda": {f"{registry}/lorikeet-worker-cuda:0.2.0"},
        "pools": {
            f"{registry}/lorikeet-worker-cuda:0.2.0",
            f"{registry}/lorikeet-worker-vllm:0.2.0",
        },
    }


@pytest.mark.parametrize("example", EXAMPLES)
def test_selectors_find_the_pods_of_one_deployment(example: str) -> None:
    deployments = of_kind(rendered(example), "Deployment").values()
    selectors = [d["spec"]["selector"]["matchLabels"] for d in deployments]
    for deployment, selector in zip(deployments, selectors, strict=True):
        labels = deployment["spec"]["template"]["metadata"]["labels"].items()
        assert [other for other in selectors if other.items() <= labels] == [selector]
