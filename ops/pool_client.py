"""Clients of the API's routes for operators: the pool's state, its jobs and its API keys."""

from collections.abc import Iterator, Mapping
from urllib.parse import quote

from ops.server_client import UNAUTHENTICATED, Body, ServerClient, ServerError

PAGE = 100
"""Jobs in one page of a list."""


class PoolClient(ServerClient):
    """Reads the state of the pool of one server.

    Every method of these clients raises `ServerError` if the server can't be reached or refuses the
    request.
    """

    def pool(self) -> Body:
        """Return the state of the pool."""
        return self._call("GET", "/v1/pool")


class JobClient(ServerClient):
    """Lists, cancels and retries jobs. Filters have the names and values of `GET /v1/jobs`."""

    def jobs(self, filters: Mapping[str, object], limit: int) -> Iterator[Body]:
        """Yield up to `limit` jobs that match the filters, newest first."""
        query = dict(filters)
        while limit > 0:
            page = self._call("GET", "/v1/jobs", params={**query, "limit": min(limit, PAGE)})
            yield from page["data"]
            if not page["has_more"]:
                return
            limit -= len(page["data"])
            query["after"] = page["last_id"]

    def job(self, job_id: str) -> Body:
        """Return a job with its timeline."""
        return self._call("GET", f"/v1/jobs/{_quoted(job_id)}")

    def cancel(self, job_id: str) -> Body:
        """Cancel a job, and return its state."""
        return self._call("POST", f"/v1/jobs/{_quoted(job_id)}/cancel")

    def retry(self, job_id: str) -> Body:
        """Enqueue a dead or failed job again, and return the new job."""
        return self._call("POST", f"/v1/jobs/{_quoted(job_id)}/retry")

    def act_on_many(self, action: str, filters: Mapping[str, object], *, dry_run: bool) -> Body:
        """Cancel or retry all jobs that match the filters, and return the numbers of jobs.

        `action` is `cancel` or `retry`. With `dry_run`, jobs are only counted.
        """
        return self._call("POST", f"/v1/jobs/{action}", json={**filters, "dry_run": dry_run})


class KeyClient(ServerClient):
    """Creates, lists and revokes API keys."""

    def is_open(self) -> bool:
        """Return whether the server accepts requests without a key."""
        try:
            ServerClient(self.url, None).check()
        except ServerError as error:
            if error.status == UNAUTHENTICATED:
                return False
            raise
        return True

    def listed(self) -> list[Body]:
        """Return all stored keys, oldest first."""
        found: list[Body] = self._call("GET", "/v1/keys")["data"]
        return found

    def create(self, wanted: Body) -> Body:
        """Create the key that the request body `wanted` describes. Return it with its secret."""
        return self._call("POST", "/v1/keys", json=wanted)

    def revoke(self, key_id: str, *, allows_lockout: bool) -> Body:
        """Revoke a key and return it. `allows_lockout` permits the last administrator's key."""
        query = {"allow_lockout": str(allows_lockout).lower()}
        return self._call("DELETE", f"/v1/keys/{_quoted(key_id)}", params=query)

    def open(self) -> list[Body]:
        """Revoke all keys, let the pool accept requests without a key, and return the keys."""
        found: list[Body] = self._call("DELETE", "/v1/keys", params={"opens_pool": "true"})["data"]
        return found


def _quoted(text: str) -> str:
    """Quote an id for a URL. `text` may contain bytes that aren't UTF-8."""
    return quote(text, safe="", errors="surrogateescape")
