"""Client of the API's batches, for `lorikeet batch`."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import orjson

from ops.chat.client import ServerError, reason_of, server_url, uses_environment

DIGEST = "lorikeet_sha256"
"""Name in a batch's metadata of its input's digest, by which the input's batch is found again."""
ENDED = {"completed", "failed", "expired", "cancelled"}
TIMEOUT_S = 60.0
"""Maximum seconds between two pieces of a reply or of an upload."""
MAX_PAGES = 50
"""Maximum number of pages of the list of batches that are searched."""

Body = dict[str, Any]


class Unavailable(ServerError):
    """The server can't be reached, or can't answer at present."""


class BatchClient:
    """Runs batches on one server.

    Every method raises `ServerError` if the server can't be reached or refuses the request.
    """

    def __init__(self, url: str, api_key: str | None) -> None:
        """Create a client.

        Raises:
            ServerError: `url` isn't a URL.
        """
        root = server_url(url)
        self._http = httpx.Client(
            base_url=root,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=TIMEOUT_S,
            trust_env=uses_environment(root),
        )

    def __enter__(self) -> "BatchClient":
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self._http.close()

    def find(self, file: Path) -> Body | None:
        """Return the newest batch of a file if it runs or has run to its end, else None."""
        digest = _digest(file)
        for batch in self._batches():
            if (batch["metadata"] or {}).get(DIGEST) == digest:
                return batch if batch["status"] not in ENDED - {"completed"} else None
        return None

    def create(self, file: Path, endpoint: str, window: str) -> Body:
        """Upload a file, and start a batch of it."""
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
        """Write a file of the server to `target`, which appears as a whole."""
        partial = target.with_name(f"{target.name}.partial")
        with self._http.stream("GET", f"/v1/files/{file_id}/content") as response:
            if not response.is_success:
                raise ServerError(reason_of(response.status_code, response.read()))
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

    def _call(self, method: str, path: str, **sent: Any) -> Body:
        try:
            response = self._http.request(method, path, **sent)
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            message = (
                f"no answer from {self._http.base_url}: {reason}; `lorikeet up` starts a server"
            )
            raise Unavailable(message) from None
        if not response.is_success:
            kind = Unavailable if response.status_code in (429, 503) else ServerError
            raise kind(reason_of(response.status_code, response.content))
        body: Body = orjson.loads(response.content)
        return body


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
