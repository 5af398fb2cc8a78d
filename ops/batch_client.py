"""Client of the API's batches, for `lorikeet batch`."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx

from ops.server_client import Body, ServerClient, ServerError, reason_of

DIGEST = "lorikeet_sha256"
"""Field of a batch's metadata that has the input file's digest. `find` searches this field."""
ENDED = {"completed", "failed", "expired", "cancelled"}
MAX_PAGES = 50
"""Maximum number of pages of the batch list that `find` searches."""


class BatchClient(ServerClient):
    """Runs batches on one server.

    Every method raises `ServerError` if the server can't be reached or refuses the request.
    """

    def find(self, file: Path) -> Body | None:
        """Return the newest batch of a file, unless that batch failed, expired or was cancelled."""
        digest = _digest(file)
        for batch in self._batches():
            if (batch["metadata"] or {}).get(DIGEST) == digest:
                return batch if batch["status"] not in ENDED - {"completed"} else None
        return None

    def create(self, file: Path, endpoint: str, window: str) -> Body:
        """Upload a file, and start a batch of its requests that must end within `window`."""
        with file.open("rb") as content:
            stored = self._call(
                "POST", "/v1/files", data={"purpose": "batch"}, files={"file": content}
            )
        body = {
            "input_file_id": stored["id"],
            "endpoint": endpoint,
            "completion_window": window,
            "metadata": {DIGEST: _digest(file)},
        }
        return self._call("POST", "/v1/batches", json=body)

    def get(self, batch_id: str) -> Body:
        """Return a batch.

        Raises:
            Unavailable: the server can't answer at present.
        """
        return self._call("GET", f"/v1/batches/{batch_id}")

    def download(self, file_id: str, target: Path) -> None:
        """Download a file to `target`, which is created only when the download is complete."""
        partial = target.with_name(f"{target.name}.partial")
        url = f"{self.url}/v1/files/{file_id}/content"
        with httpx.stream("GET", url, **self.options) as response:
            if not response.is_success:
                raise ServerError(reason_of(response.status_code, response.read(), self.url))
            with partial.open("wb") as content:
                for piece in response.iter_bytes():
                    content.write(piece)
        partial.replace(target)

    def _batches(self) -> Iterator[Body]:
        after: dict[str, str] = {}
        for _ in range(MAX_PAGES):
            page = self._call("GET", "/v1/batches", params={"limit": "100", **after})
            yield from page["data"]
            if not page["has_more"]:
                return
            after = {"after": page["last_id"]}


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
