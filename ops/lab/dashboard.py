"""Checks the dashboard and the alerts with a real Prometheus.

    python -m ops.lab.dashboard http://127.0.0.1:23333 [--key KEY] [--prometheus PROGRAM]

The check succeeds if every expression is valid, every panel has data and no alert fires. It needs
the program `prometheus` and a running Lorikeet, which is put under load for half a minute. KEY is
an API key of the server. If KEY belongs to the tenant `admin`, it can also read the metrics.
Otherwise, give the metrics key with --metrics-key.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import Request, urlopen

from ops.local.ports import free_port

OPS = Path(__file__).parents[1]
DASHBOARD = OPS / "grafana/dashboards/lorikeet.json"
ALERTS = OPS / "prometheus/alerts.yml"
LOAD_S = 30.0
CLIENTS = 100
RATE_INTERVAL = "15s"
"""Value that replaces Grafana's variable `$__rate_interval`."""


@dataclass(frozen=True, slots=True)
class Query:
    """A Prometheus expression in a panel of the dashboard."""

    panel: str
    expr: str


def queries(dashboard: Path = DASHBOARD) -> list[Query]:
    """Return every expression of the dashboard."""
    panels = json.loads(dashboard.read_text())["panels"]
    return [Query(p["title"], t["expr"]) for p in panels for t in p.get("targets", ())]


@dataclass(frozen=True, slots=True)
class Server:
    """A running Lorikeet."""

    url: str
    key: str
    metrics_key: str

    def ask(self, path: str, body: dict[str, Any] | None = None) -> bytes:
        """Send a GET, or a POST if `body` is given, and return the body of the reply."""
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        data = json.dumps(body).encode() if body else None
        with urlopen(Request(self.url + path, data, headers), timeout=120) as reply:
            answer: bytes = reply.read()
            return answer

    def models(self) -> list[str]:
        """Return the names of the served models."""
        return [card["id"] for card in json.loads(self.ask("/v1/models"))["data"]]

    def load(self, model: str, until_s: float) -> None:
        """Request answers from `model` one by one, until `until_s` on the monotonic clock."""
        message = {"role": "user", "content": "Tell me about parrots."}
        while time.monotonic() < until_s:
            body = {"model": model, "messages": [message], "max_tokens": 32, "stream": True}
            self.ask("/v1/chat/completions", body)


@contextmanager
def prometheus(program: str, server: Server) -> Iterator[str]:
    """Provide the URL of a Prometheus that scrapes `server` every second during the block."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "key").write_text(server.metrics_key)
        (folder / "prometheus.yml").write_text(_configuration(server.url))
        (folder / "alerts.yml").write_text(ALERTS.read_text())
        address = f"127.0.0.1:{free_port()}"
        command = [program, f"--config.file={folder}/prometheus.yml"]
        command += [f"--storage.tsdb.path={folder}/data", f"--web.listen-address={address}"]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            _wait_until_ready(f"http://{address}", process)
            yield f"http://{address}"
        finally:
            process.terminate()
            process.wait()


def _configuration(url: str) -> str:
    scrape = {
        "job_name": "lorikeet",
        "authorization": {"credentials_file": "key"},
        "static_configs": [{"targets": [urlsplit(url).netloc]}],
    }
    seconds = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    # JSON is valid YAML.
    return json.dumps({"global": seconds, "rule_files": ["alerts.yml"], "scrape_configs": [scrape]})


def _wait_until_ready(url: str, process: "subprocess.Popen[bytes]") -> None:
    while process.poll() is None:
        try:
            urlopen(f"{url}/-/ready", timeout=5).close()
            return
        except (URLError, ConnectionError):
            time.sleep(0.1)
    sys.exit(f"Prometheus ended with status {process.returncode}")


def values(url: str, query: Query) -> list[float]:
    """Return the current values of the series that the query selects, without NaN values."""
    expr = query.expr.replace("$__rate_interval", RATE_INTERVAL)
    with urlopen(f"{url}/api/v1/query?{urlencode({'query': expr})}", timeout=30) as reply:
        result = json.load(reply)["data"]["result"]
    found = [float(series["value"][1]) for series in result]
    return [value for value in found if not math.isnan(value)]


def alerts(url: str) -> dict[str, str]:
    """Return the state of each alert, by the alert's name.

    The state is `inactive` if the alert's condition is false. If an alert can't be evaluated,
    its state is the error message.
    """
    with urlopen(f"{url}/api/v1/rules", timeout=30) as reply:
        groups = json.load(reply)["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    return {r["name"]: r["state"] if r["health"] == "ok" else r["lastError"] for r in rules}


def check(server: Server, program: str) -> bool:
    """Put the server under load, and print the results of all queries and alerts.

    Return whether every query has data and every alert is inactive.
    """
    until_s = time.monotonic() + LOAD_S
    models = server.models()
    with prometheus(program, server) as url, ThreadPoolExecutor(CLIENTS) as pool:
        loads = [pool.submit(server.load, models[i % len(models)], until_s) for i in range(CLIENTS)]
        time.sleep(LOAD_S * 0.8)
        found = [(query, values(url, query)) for query in queries()]
        states = alerts(url)
        for load in loads:
            load.result()
    for query, numbers in found:
        shown = " ".join(f"{number:.4g}" for number in numbers[:6]) or "NO DATA"
        print(f"{query.panel:38} {shown:50} {query.expr}")
    for name, state in states.items():
        print(f"alert {name:32} {state}")
    return all(numbers for _, numbers in found) and set(states.values()) == {"inactive"}


def main() -> None:
    """Run the check, and exit with status 1 if it fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="URL of the server")
    parser.add_argument("--key", default="none", help="API key of the server")
    parser.add_argument("--metrics-key", help="key of the server's metrics; by default KEY")
    parser.add_argument("--prometheus", default="prometheus", help="program to run as Prometheus")
    args = parser.parse_args()
    server = Server(args.url, args.key, args.metrics_key or args.key)
    sys.exit(0 if check(server, args.prometheus) else 1)


if __name__ == "__main__":
    main()
