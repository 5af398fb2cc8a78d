"""The dashboard and the alerts, checked against a front end's metrics without Prometheus.

`python -m ops.lab.dashboard` checks them with a real one.
"""

import asyncio
import json
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import yaml
from api_support import ScriptedWorker, register_models, running_app
from prometheus_client.parser import text_string_to_metric_families
from queue_support import eventually

from ops.lab.dashboard import ALERTS, DASHBOARD, OPS, queries
from shared.settings import ApiSettings
from shared.store.adapters.registry import Registry
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews

BODY = {"model": "extract", "messages": [{"role": "user", "content": "hi"}]}
FROM_PROMETHEUS = {"up": {"job", "instance"}}
ADDED_BY_PROMETHEUS = {"job", "instance"}
OURS = re.compile(r"\b(?:lorikeet_\w+|up)\b")
GROUPED = re.compile(r"\bby \(([\w, ]*)\)")
COMPARISON = re.compile(r"max\((?P<metric>\w+)\) (?P<operator>==|>) 0")
MATCHED = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"")

COMPOSE = yaml.safe_load((OPS.parent / "docker-compose.yml").read_text())
PROMETHEUS = yaml.safe_load((OPS / "prometheus/prometheus.yml").read_text())
SOURCE = yaml.safe_load((OPS / "grafana/provisioning/datasources/prometheus.yml").read_text())
PROVIDER = yaml.safe_load((OPS / "grafana/provisioning/dashboards/lorikeet.yml").read_text())


def alert_expressions() -> Iterator[tuple[str, str]]:
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        yield from ((rule["alert"], rule["expr"]) for rule in group["rules"])


@pytest.fixture
async def client(
    redis_url: str, pool: str, redis: Redis, keys: Keys
) -> AsyncIterator[httpx.AsyncClient]:
    """Client of a front end with two models."""
    await register_models(Registry(redis, keys))
    async with (
        running_app(ApiSettings(redis_url=redis_url, pool=pool)) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        yield client


@pytest.fixture
async def labels(client: httpx.AsyncClient, queue: Queue, views: PoolViews) -> dict[str, set[str]]:
    """Return the labels of each metric, after one answered request and while another waits."""
    worker = await ScriptedWorker.start(queue)
    answered, _ = await worker.serve(client.post("/v1/chat/completions", json=BODY))
    assert answered.status_code == 200
    waits = asyncio.create_task(client.post("/v1/chat/completions", json=BODY))

    async def is_waiting() -> bool:
        return bool((await views.counts()).waiting)

    await eventually(is_waiting)
    text = (await client.get("/metrics")).text
    await worker.answer(await worker.take())
    await waits
    found: dict[str, set[str]] = defaultdict(set, {k: set(v) for k, v in FROM_PROMETHEUS.items()})
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] |= set(sample.labels)
    return found


async def test_every_expression_uses_metrics_and_labels_that_exist(
    labels: dict[str, set[str]],
) -> None:
    found = [(query.panel, query.expr) for query in queries()]
    for where, expr in [*found, *alert_expressions()]:
        names = OURS.findall(re.sub(r'"[^"]*"', '""', expr))
        assert names, where
        assert not [name for name in names if name not in labels], where
        grouped = {word for group in GROUPED.findall(expr) for word in re.findall(r"\w+", group)}
        known = ADDED_BY_PROMETHEUS.union(*(labels[name] for name in names))
        assert grouped | set(MATCHED.findall(expr)) <= known, where


async def test_a_pool_without_workers_is_reported_only_while_work_waits(
    client: httpx.AsyncClient, queue: Queue
) -> None:
    expr = dict(alert_expressions())["LorikeetNoWorkers"]

    async def fires() -> bool:
        return is_true(expr, (await client.get("/metrics")).text)

    async def is_quiet() -> bool:
        return not await fires()

    assert await is_quiet()
    waits = asyncio.create_task(client.post("/v1/chat/completions", json=BODY))
    await eventually(fires)
    worker = await ScriptedWorker.start(queue)
    await eventually(is_quiet)  # the job still waits, but a worker is alive
    await worker.answer(await worker.take())
    await waits


def is_true(expr: str, text: str) -> bool:
    """Evaluate comparisons such as `max(metric) > 0 and max(metric) == 0` for one front end."""
    families = text_string_to_metric_families(text)
    values = {s.name: s.value for family in families for s in family.samples if not s.labels}
    parts = [COMPARISON.fullmatch(part) for part in expr.split(" and ")]
    assert all(parts), expr
    return all(
        values[part["metric"]] > 0 if part["operator"] == ">" else values[part["metric"]] == 0
        for part in parts
        if part
    )


async def test_the_manual_names_every_metric(labels: dict[str, set[str]]) -> None:
    manual = (OPS / "docs/monitoring.md").read_text()
    ours = [n for n in labels if n.startswith("lorikeet_") and not n.endswith("_created")]
    names = {re.sub("_(bucket|sum|count)$", "", name) for name in ours}
    assert not sorted(name for name in names if f"`{name}`" not in manual)


def test_panels_have_distinct_ids_and_do_not_overlap() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for p in (panel["gridPos"] for panel in panels)
        for x in range(p["x"], p["x"] + p["w"])
        for y in range(p["y"], p["y"] + p["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


def test_grafana_finds_its_source_and_its_dashboard() -> None:
    (source,) = SOURCE["datasources"]
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert {p["datasource"]["uid"] for p in panels if "datasource" in p} == {source["uid"]}
    assert source["url"] == "http://prometheus:9090"
    assert source["jsonData"]["timeInterval"] == PROMETHEUS["global"]["scrape_interval"]
    grafana = COMPOSE["services"]["grafana"]
    (provider,) = PROVIDER["providers"]
    folder = provider["options"]["path"]
    assert f"./ops/grafana/dashboards:{folder}:ro" in grafana["volumes"]
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{folder}/{DASHBOARD.name}"


def test_prometheus_reaches_the_front_ends_with_its_key() -> None:
    (scrape,) = PROMETHEUS["scrape_configs"]
    assert scrape["job_name"] == "lorikeet"
    api, prometheus = COMPOSE["services"]["api"], COMPOSE["services"]["prometheus"]
    (target,) = scrape["dns_sd_configs"]
    assert (target["names"], target["port"]) == (["api"], api["environment"]["LORIKEET_PORT"])
    (secret,) = prometheus["secrets"]
    assert scrape["authorization"]["credentials_file"] == f"/run/secrets/{secret}"
    assert COMPOSE["secrets"][secret] == {"environment": "LORIKEET_METRICS_KEY"}
    assert api["environment"]["LORIKEET_METRICS_KEY"].startswith("${LORIKEET_METRICS_KEY:?")
    assert api["environment"]["LORIKEET_API_KEYS"].endswith("}${ADMIN_KEY:+,admin:}${ADMIN_KEY:-}")
    assert PROMETHEUS["rule_files"] == [ALERTS.name]
