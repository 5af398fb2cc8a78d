"""HTTP requests to Ollama's API, for scenarios of programs. Needs only httpx."""

import json
import os
from collections.abc import Iterator
from typing import Any

import httpx

KEY = {"Authorization": f"Bearer {os.environ.get('OLLAMA_API_KEY', '')}"}
http = httpx.Client(base_url=os.environ.get("OLLAMA_HOST", ""), headers=KEY, timeout=60)


def post(path: str, body: dict[str, Any]) -> Any:
    return http.post(path, json=body).raise_for_status().json()


def lines(path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the objects of a stream. Each line is one."""
    with http.stream("POST", path, json=body) as reply:
        reply.raise_for_status()
        assert reply.headers["content-type"].startswith("application/x-ndjson")
        for line in reply.iter_lines():
            yield json.loads(line)
