"""What the chart scales, and by which numbers. tests/e2e/test_scale_to_zero.py runs it."""

import re
from pathlib import Path

import pytest
from helm_chart import Manifest, of_kind, rendered
from keda_player import Player, Rule

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
