"""The calls of the API that `lorikeet adapters` makes."""

from typing import Any
from urllib.parse import quote

import httpx
import orjson

from ops.chat.client import ServerError, reason_of, uses_environment

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 660.0
"""A little longer than a front end waits for a worker by default."""

Body = dict[str, Any]


class AdapterClient:
    """Manages the adapters of one server.

    Raises:
        ServerError: its URL is none; and of all methods, the server can't be reached, or refuses.
    """

    def __init__(self, url: str, api_key: str | None) -> None:
        self._url = url.rstrip("/")
        self._uses_environment = uses_environment(url)
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}

    def adapters(self) -> Body:
        """All of them."""
        return self._call("GET", "/v1/adapters")

    def load(self, name: str, path: str, *, replace: bool) -> Body:
        """Load one, or replace the one of this name."""
        body = {"lora_name": name, "lora_path": path, "load_inplace": replace}
        return self._call("POST", "/v1/load_lora_adapter", body)

    def unload(self, name: str) -> Body:
        """Unload one."""
        return self._call("POST", "/v1/unload_lora_adapter", {"lora_name": name})

    def validate(self, path: str) -> Body:
        """Check one without loading it."""
        return self._call("POST", "/v1/adapters/validate", {"lora_path": path})

    def roll_back(self, name: str) -> Body:
        """Go back to its previous version."""
        return self._call("POST", f"/v1/adapters/{quote(name)}/rollback")

    def _call(self, method: str, path: str, body: Body | None = None) -> Body:
        timeout = httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        try:
            with httpx.Client(trust_env=self._uses_environment, timeout=timeout) as http:
                url = f"{self._url}{path}"
                reply = http.request(method, url, json=body, headers=self._headers)
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            message = f"no answer from {self._url}: {reason}; `lorikeet up` starts a server"
            raise ServerError(message) from None
        if not reply.is_success:
            raise ServerError(reason_of(reply.status_code, reply.content))
        found: Body = orjson.loads(reply.content)
        return found
