"""Client of one tenant of a run. It creates batches, awaits their ends, and reads their results."""

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import httpx
import orjson

from ops.lab.hostile.batch_inputs import PATH

ENDED = {"completed", "failed", "expired", "cancelled"}
PAGE = 100
POLL_S = 0.5
MAX_POLLS = 600
TIMEOUT_S = 120.0
KEEP_ALIVE_S = 1.0
MAX_TRIES = 10
"""Maximum number of attempts of a call if the pool answers with 429 or 503."""


class BatchClient:
    """HTTP client of one tenant for files, batches and adapters."""

    def __init__(self, url: str, key: str) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        # Idle connections are closed before the server closes them, which could break a request.
        limits = httpx.Limits(keepalive_expiry=KEEP_ALIVE_S)
        self._http = httpx.AsyncClient(
            base_url=url, headers=headers, timeout=TIMEOUT_S, limits=limits, trust_env=False
        )

    async def __aenter__(self) -> "BatchClient":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    async def upload(self, content: bytes) -> str:
        """Upload an input file, and return its id."""
        form: dict[str, Any] = {"files": {"file": ("in.jsonl", content)}}
        return str((await self._call("POST", "/files", data={"purpose": "batch"}, **form))["id"])

    async def create(self, file_id: str) -> str:
        """Create a batch, and return its id."""
        body = {"input_file_id": file_id, "endpoint": PATH, "completion_window": "1h"}
        return str((await self._call("POST", "/batches", json=body))["id"])

    async def status_of_bad_batch(self, file_id: str, metadata: Mapping[str, str]) -> int:
        """Try to create a batch with too much metadata, and return the HTTP status."""
        body = {"input_file_id": file_id, "endpoint": PATH, "completion_window": "1h"}
        response = await self._http.post("/batches", json={**body, "metadata": metadata})
        return response.status_code

    async def batches(self) -> dict[str, dict[str, Any]]:
        """Return all batches of the tenant by id."""
        return {batch["id"]: batch for batch in await self._all("/batches")}

    async def until_ended(self) -> None:
        """Wait until all batches have ended."""
        for batch_id in await self.batches():
            await self._until_ended(batch_id)

    async def rows(self, file_id: str | None) -> list[dict[str, Any]]:
        """Return the lines of an output file, or no lines if `file_id` is None."""
        if not file_id:
            return []
        response = await self._http.get(f"/files/{file_id}/content")
        response.raise_for_status()
        return [orjson.loads(line) for line in response.content.splitlines()]

    async def delete_all(self) -> None:
        """Delete all batches and files."""
        for kind in ("batches", "files"):
            for item in await self._all(f"/{kind}"):
                await self._call("DELETE", f"/{kind}/{item['id']}")

    async def load_adapter(self, name: str, source: str) -> None:
        """Load an adapter from a URL."""
        await self._call(
            "POST", "/load_lora_adapter", json={"lora_name": name, "lora_path": source}
        )

    async def unload_adapter(self, name: str) -> None:
        """Unload an adapter."""
        await self._call("POST", "/unload_lora_adapter", json={"lora_name": name})

    async def _until_ended(self, batch_id: str) -> None:
        status = ""
        for _ in range(MAX_POLLS):
            status = (await self._call("GET", f"/batches/{batch_id}"))["status"]
            if status in ENDED:
                return
            await asyncio.sleep(POLL_S)
        raise TimeoutError(f"the batch {batch_id} is still {status}")

    async def _all(self, path: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        page: dict[str, Any] = {"has_more": True}
        while page["has_more"]:
            after = f"&after={found[-1]['id']}" if found else ""
            page = await self._call("GET", f"{path}?limit={PAGE}{after}")
            found += page["data"]
        return found

    async def _call(self, method: str, path: str, **sent: Any) -> Any:
        for _ in range(MAX_TRIES):
            response = await self._http.request(method, path, **sent)
            if response.status_code not in (429, 503):
                break
            await asyncio.sleep(float(response.headers.get("Retry-After", 1)))
        response.raise_for_status()
        is_json = "json" in response.headers.get("content-type", "")
        return response.json() if is_json else response.text


def num_done(batches: Mapping[str, Mapping[str, Any]]) -> int:
    """Return the total number of requests in `batches` that have ended."""
    counts = [batch["request_counts"] for batch in batches.values()]
    return sum(count["completed"] + count["failed"] for count in counts)


def statuses(batches: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the status of each batch."""
    return [batch["status"] for batch in batches.values()]
