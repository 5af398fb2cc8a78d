"""Every pod of the chart: privileges, secrets, probes, time to stop, and how it is scaled."""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from helm_chart import EXAMPLES, Manifest, container_of, of_kind, plain_env, pod_specs, rendered
from keda_player import Player, Rule

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


SLOTS = 64


def scaled_objects(example: str, *sets: str) -> dict[str, Manifest]:
    return of_kind(rendered(example, *sets), "ScaledObject")


def query_of(scaled: Manifest) -> str:
    return str(scaled["spec"]["triggers"][0]["metadata"]["query"])


def rule_of(example: str, worker: str, *sets: str) -> Rule:
    return Rule.of(scaled_objects(example, *sets)[f"lorikeet-{worker}"])


def player(rule: Rule) -> Player:
    return Player(rule=rule, cooldown_s=10, stabilization_s=5)


def test_keda_scales_the_deployment_of_the_worker() -> None:
    manifests = rendered("keda")
    (name,) = of_kind(manifests, "ScaledObject")
    spec = of_kind(manifests, "ScaledObject")[name]["spec"]
    assert spec["scaleTargetRef"] == {"name": name}
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (0, 4)
    # Otherwise each upgrade would undo what KEDA has set.
    assert "replicas" not in of_kind(manifests, "Deployment")[name]["spec"]


def test_the_query_reads_the_front_ends_that_prometheus_reads() -> None:
    manifests = rendered("keda")
    (scaled,) = of_kind(manifests, "ScaledObject").values()
    (monitor,) = of_kind(manifests, "ServiceMonitor").values()
    services = of_kind(manifests, "Service")
    query = query_of(scaled)
    found = [name for name in services if f'service="{name}"' in query]
    assert found == ["lorikeet-main-api"]
    labels = services[found[0]]["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {p["name"] for p in services[found[0]]["spec"]["ports"]}


def test_the_query_can_ask_for_more_labels() -> None:
    labels = ["prometheus.queryLabels.cluster=eu", "prometheus.queryLabels.stage=prod"]
    (scaled,) = scaled_objects("keda", *labels).values()
    asked = 'namespace="llm",service="lorikeet-main-api",cluster="eu",stage="prod"'
    assert query_of(scaled) == f"max(lorikeet_load{{{asked}}})"


def test_a_single_waiting_job_starts_a_worker_and_a_single_running_job_keeps_it() -> None:
    keda = player(rule_of("keda", "main-worker-gpu"))
    assert keda.replicas(0, 0, 0) == 0
    assert keda.replicas(1 / SLOTS, 0, 1) == 1
    assert keda.replicas(1 / SLOTS, 1, 1000) == 1
    assert keda.replicas(0, 1, 1005) == 1  # it cools down
    assert keda.replicas(0, 1, 1011) == 0


def test_a_full_worker_is_one_worker_and_more_jobs_are_more() -> None:
    rule = rule_of("keda", "main-worker-gpu")
    assert player(rule).replicas(SLOTS / SLOTS, 1, 0) == 1
    assert player(rule).replicas(3 * SLOTS / SLOTS, 1, 0) == 3
    assert player(rule).replicas(3.5, 1, 0) == 4
    assert player(rule).replicas(100, 1, 0) == rule.most


def test_a_pool_without_a_value_stays_as_it_is_and_equal_values_count_once() -> None:
    rule = rule_of("keda", "main-worker-gpu")
    assert rule.value([]) is None
    assert player(rule).replicas(None, 3, 1000) == 3
    assert rule.value([1.5, 1.5, 1.5]) == 1.5


@pytest.mark.parametrize(
    ("load", "l4", "h100"), [(0, 0, 0), (0.1, 1, 0), (4, 4, 0), (4.1, 4, 1), (6, 4, 2), (50, 4, 2)]
)
def test_the_second_worker_type_takes_what_the_first_leaves(
    load: float, l4: int, h100: int
) -> None:
    found = []
    for worker in ("l4", "h100"):
        rule = rule_of("pools", f"small-worker-{worker}")
        keda, replicas = player(rule), 0
        for now_s in range(0, 100, 20):
            replicas = keda.replicas(rule.value([load]), replicas, now_s)
        found.append(replicas)
    assert found == [l4, h100]


@pytest.mark.parametrize(
    ("number", "values", "worker", "less"),
    [
        (0, ("keda.enabled=false", "replicas=3"), "h100", 3),
        (2, ("name=cpu", "keda.enabled=true"), "cpu", 4 + 2),
    ],
    ids=["workers that always run", "a third type"],
)
def test_further_workers_take_what_the_others_leave(
    number: int, values: tuple[str, ...], worker: str, less: int
) -> None:
    sets = [f"pools[0].workers[{number}].{value}" for value in values]
    assert rule_of("pools", f"small-worker-{worker}", *sets).less == less


def test_headroom_is_a_smaller_target(tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text("worker: {keda: {target: 0.5}}")
    scaled = of_kind(rendered("pools", values=values), "ScaledObject")
    first, second = (Rule.of(scaled[f"lorikeet-small-worker-{name}"]) for name in ("l4", "h100"))
    assert player(first).replicas(1.0, 1, 0) == 2
    assert second.less == 2  # four workers at half of their slots


def test_pools_are_scaled_by_their_own_load() -> None:
    scaled = scaled_objects("pools", "pools[1].workers[0].keda.enabled=true").values()
    found = [re.findall(r'"lorikeet-(\w+)-api"', query_of(each)) for each in scaled]
    assert found == [["small"], ["small"], ["large"]]


def test_front_ends_are_scaled_and_stay_available() -> None:
    manifests = rendered("gpu")
    name = "lorikeet-main-api"
    assert "replicas" not in of_kind(manifests, "Deployment")[name]["spec"]
    hpa = of_kind(manifests, "HorizontalPodAutoscaler")[name]["spec"]
    assert hpa["scaleTargetRef"]["name"] == name
    assert hpa["minReplicas"] == 2
    assert of_kind(manifests, "PodDisruptionBudget")[name]["spec"]["maxUnavailable"] == 1


def test_a_gpu_is_free_before_another_worker_takes_it() -> None:
    strategies = {
        name: deployment["spec"]["strategy"]
        for example in ("trial", "gpu")
        for name, deployment in of_kind(rendered(example), "Deployment").items()
        if "worker" in name
    }
    assert strategies == {
        "lorikeet-main-worker-cpu": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "lorikeet-main-worker-l40s": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
    }


def test_a_claim_for_one_pod_is_free_before_the_next_pod_starts() -> None:
    sets = ["worker.cache.claim.create=true", "worker.cache.claim.accessMode=ReadWriteOnce"]
    manifests = rendered("trial", *sets)
    worker = of_kind(manifests, "Deployment")["lorikeet-main-worker-cpu"]
    assert worker["spec"]["strategy"] == {"type": "Recreate"}
    assert list(of_kind(manifests, "PersistentVolumeClaim")) == ["lorikeet-main-worker-cpu-cache"]
