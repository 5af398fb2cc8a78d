"""Checks that a real Prometheus understands the dashboard and the alerts, and has data for them.

    python -m ops.docker.dashboard http://127.0.0.1:23333 [--key KEY] [--prometheus PROGRAM]

Needs a running Lorikeet, which gets load for half a minute, and Prometheus' program. KEY is an API
key of the tenant `admin`, which may read metrics as well; or --metrics-key names a key for those.
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

from ops.local.up import usable_port

OPS = Path(__file__).parents[1]
DASHBOARD = OPS / "grafana/dashboards/lorikeet.json"
ALERTS = OPS / "prometheus/alerts.yml"
LOAD_S = 30.0
CLIENTS = 24
RATE_INTERVAL = "15s"
"""What Grafana would put in place of `$__rate_interval`."""


@dataclass(frozen=True, slots=True)
class Query:
    """One expression of one panel."""

    panel: str
    expr: str


def queries(dashboard: Path = DASHBOARD) -> list[Query]:
    """Every expression of the dashboard."""
    panels = json.loads(dashboard.read_text())["panels"]
    return [Query(p["title"], t["expr"]) for p in panels for t in p.get("targets", ())]


@dataclass(frozen=True, slots=True)
class Server:
    """A running Lorikeet."""

    url: str
    key: str
    metrics_key: str

    def ask(self, path: str, body: dict[str, Any] | None = None) -> bytes:
        """What it answers."""
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        data = json.dumps(body).encode() if body else None
        with urlopen(Request(self.url + path, data, headers), timeout=120) as reply:
            answer: bytes = reply.read()
            return answer

    def models(self) -> list[str]:
        """What can be asked for."""
        return [card["id"] for card in json.loads(self.ask("/v1/models"))["data"]]

    def load(self, model: str, until_s: float) -> None:
        """Ask one model for answers, one after the other."""
        message = {"role": "user", "content": "Tell me about parrots."}
        while time.monotonic() < until_s:
            body = {"model": model, "messages": [message], "max_tokens": 32, "stream": True}
            self.ask("/v1/chat/completions", body)


@contextmanager
def prometheus(program: str, server: Server) -> Iterator[str]:
    """The URL of a Prometheus that scrapes `server` each second."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "key").write_text(server.metrics_key)
        (folder / "prometheus.yml").write_text(_configuration(server.url))
        (folder / "alerts.yml").write_text(ALERTS.read_text())
        address = f"127.0.0.1:{usable_port('127.0.0.1', 0)}"
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
    # JSON is YAML.
    return json.dumps({"global": seconds, "rule_files": ["alerts.yml"], "scrape_configs": [scrape]})


def _wait_until_ready(url: str, process: "subprocess.Popen[bytes]") -> None:
    while process.poll() is None:
        try:
            urlopen(f"{url}/-/ready", timeout=5).close()
            return
        except (URLError, ConnectionError):
            time.sleep(0.1)
    sys.exit(f"Prometheus ended with exit code {process.returncode}")


def values(url: str, query: Query) -> list[float]:
    """What the expression gives now, one value a series; NaN is left out."""
    expr = query.expr.replace("$__rate_interval", RATE_INTERVAL)
    with urlopen(f"{url}/api/v1/query?{urlencode({'query': expr})}", timeout=30) as reply:
        result = json.load(reply)["data"]["result"]
    found = [float(series["value"][1]) for series in result]
    return [value for value in found if not math.isnan(value)]


def alerts(url: str) -> dict[str, str]:
    """The state of each alert, `inactive` when there is nothing to alert of."""
    with urlopen(f"{url}/api/v1/rules", timeout=30) as reply:
        groups = json.load(reply)["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    return {r["name"]: r["state"] if r["health"] == "ok" else r["lastError"] for r in rules}


def check(server: Server, program: str) -> bool:
    """Load the server, print what each query gives meanwhile; whether all of them have data."""
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
    """Read the command line; exit code 1 when anything has no data."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--key", default="none", help="an API key of the server")
    parser.add_argument("--metrics-key", help="the server's key of its metrics, by default KEY")
    parser.add_argument("--prometheus", default="prometheus", help="Prometheus' program")
    args = parser.parse_args()
    server = Server(args.url, args.key, args.metrics_key or args.key)
    sys.exit(0 if check(server, args.prometheus) else 1)


if __name__ == "__main__":
    main()
