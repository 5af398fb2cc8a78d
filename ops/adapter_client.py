"""Client of the API's adapter routes, for `lorikeet adapters`."""

from collections.abc import Callable
from urllib.parse import quote

import httpx

from ops.adapter_body import AdapterBody
from ops.server_client import Body, ServerClient, ServerError

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 660.0
"""Maximum seconds to wait for a reply.

The limit is longer than the front end's default `deadline_s`, so that the front end reports a late
request before this client gives up.
"""

IN_PLACE = "set 'load_inplace' to True"
"""Advice in the server's error if a name is in use. `load` advises `--replace` instead."""


REPLACE = "set 'replace' to True"
"""The server's advice if `push` sends a name that is in use."""
TAKEN = "give --replace, or --canary N to try the new version out"
"""Advice that `push` gives instead of `REPLACE`."""
OCTETS = "application/octet-stream"
NOT_FOUND = 404


class AdapterClient(ServerClient):
    """Manages the adapters of one server.

    Every method raises `ServerError` if the server can't be reached or refuses the request.
    """

    timeout = httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)

    def adapters(self) -> Body:
        """Return all adapters with their versions."""
        return self._call("GET", "/v1/adapters")

    def load(self, name: str, path: str, *, replace: bool) -> Body:
        """Load an adapter and return it.

        `replace` allows the adapter to replace another adapter with the same name.
        """
        body = {"lora_name": name, "lora_path": path, "load_inplace": replace}
        try:
            self._send(
                "POST", "/v1/load_lora_adapter", json=body
            )  # replies with text, as vLLM does
        except ServerError as error:  # the server's message is for programs, as in vLLM
            raise ServerError(str(error).replace(IN_PLACE, "give --replace")) from None
        return self._call("GET", f"/v1/adapters/{_quoted(name)}")

    def push(
        self,
        name: str,
        body: AdapterBody,
        on_sent: Callable[[int], None],
        *,
        replace: bool,
        canary: float | None = None,
    ) -> Body:
        """Send the files of an adapter and return the adapter.

        `on_sent` gets the size of each sent piece. `replace` has the same meaning as in `load`.
        With `canary`, the adapter becomes the candidate of its name, and answers this share of the
        requests, in percent.
        """
        query = {"name": name, "replace": str(replace).lower()}
        if canary is not None:
            query["canary"] = f"{canary:g}"
        headers = {"Content-Type": OCTETS, "Content-Length": str(body.num_bytes)}
        try:
            return self._call(
                "POST",
                "/v1/adapters",
                params=query,
                content=body.chunks(on_sent),
                headers={**self.options["headers"], **headers},
            )
        except ServerError as error:
            raise ServerError(str(error).replace(REPLACE, TAKEN)) from None

    def unload(self, name: str) -> str:
        """Unload an adapter, and return its name."""
        return str(self._call("DELETE", f"/v1/adapters/{_quoted(name)}")["id"])

    def validate(self, path: str) -> Body:
        """Check the adapter at `path` without loading it, and return the findings."""
        return self._call("POST", "/v1/adapters/validate", json={"lora_path": path})

    def roll_back(self, name: str, version: str | None = None) -> Body:
        """Restore `version` of an adapter, by default the previous one, and return the adapter."""
        query = "" if version is None else f"?version={_quoted(version)}"
        return self._call("POST", f"/v1/adapters/{_quoted(name)}/rollback{query}")

    def release(self, name: str) -> Body:
        """Release an adapter from quarantine, and return it."""
        return self._call("POST", f"/v1/adapters/{_quoted(name)}/release")

    def adapter(self, name: str) -> Body:
        """Return one adapter with its versions."""
        return self._call("GET", f"/v1/adapters/{_quoted(name)}")

    def check_free(self, name: str) -> None:
        """Check that no adapter has this name."""
        try:
            version = self.adapter(name).get("version")  # none while a worker fetches the first one
        except ServerError as error:
            if error.status != NOT_FOUND:
                raise
            return
        if version is not None:
            raise ServerError(f"{name} is in use, by {version}; {TAKEN}")

    def set_candidate(self, name: str, wanted: Body) -> Body:
        """Set the candidate that the request body `wanted` describes, and return the adapter."""
        return self._call("PUT", f"/v1/adapters/{_quoted(name)}/candidate", json=wanted)

    def candidate(self, name: str) -> Body:
        """Return an adapter's candidate, and how its answers differ from the current version's."""
        return self._call("GET", f"/v1/adapters/{_quoted(name)}/candidate")

    def promote(self, name: str, version: str | None = None) -> Body:
        """Promote the candidate and return the adapter.

        If `version` is given and isn't the candidate's version, the server refuses the request.
        """
        query = "" if version is None else f"?version={_quoted(version)}"
        return self._call("POST", f"/v1/adapters/{_quoted(name)}/candidate/promote{query}")

    def drop(self, name: str) -> Body:
        """Drop the candidate of an adapter, and return the adapter."""
        return self._call("DELETE", f"/v1/adapters/{_quoted(name)}/candidate")

    def pin(self, name: str, replicas: int) -> int:
        """Keep an adapter on at least `replicas` workers, and return that number.

        0 removes the pin.
        """
        path = f"/v1/adapters/{_quoted(name)}/pin"
        if replicas:
            pinned = self._call("PUT", path, json={"min_replicas": replicas})
        else:
            pinned = self._call("DELETE", path)
        return int(pinned["min_replicas"])

    def changes(self, name: str | None, limit: int) -> Body:
        """Return the newest `limit` changes of adapter `name`, or of all adapters and API keys."""
        only = "" if name is None else f"&adapter={_quoted(name)}"
        return self._call("GET", f"/v1/audit_log?limit={limit}{only}")


def _quoted(text: str) -> str:
    """Quote a name or version for a URL. `text` may contain bytes that aren't UTF-8."""
    return quote(text, errors="surrogateescape")
