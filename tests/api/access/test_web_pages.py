"""Requests of web pages: those of listed sites may call the API, and others change nothing."""

import asyncio
import itertools
import socket

import httpx
import pytest
from api_support import RunningApp, ScriptedWorker, error_of
from key_support import bearer, new_key
from pydantic import SecretStr, ValidationError
from raw_client import BODY, CHAT, with_settings
from structlog.testing import capture_logs

from shared.settings import ApiSettings
from shared.store.access.key_store import KeyStore
from shared.store.views.pool_views import PoolViews

OWN = (
    *("localhost:8000", "LOCALHOST", "localhost.:8000", "a.localhost:1", "127.0.0.1:8000"),
    *("[::1]:8000", "[::1]", "10.1.2.3:23333", "api:23333", "host.docker.internal:23333"),
    *("lorikeet-api.default.svc.cluster.local:23333", socket.gethostname()),
)
FOREIGN = (
    *("evil.example:8000", "EVIL.example", "127.0.0.1.evil.example", "localhost.evil.example"),
    *("evil.example.", "evil-localhost.example", "[::1", "x.internal.example", "1.2.3"),
)
SITE, OTHER = "https://app.example", "https://evil.example"
BACKGROUND = {**BODY, "background": True}
KEY = "blue-" + "b" * 20
LISTED = with_settings(cors_origins=(SITE,))


async def test_the_servers_own_names_and_all_addresses_are_accepted(
    http: httpx.AsyncClient,
) -> None:
    for host in OWN:
        reply = await http.get("/v1/models", headers={"Host": host})
        assert reply.status_code == 200, host


ROUTES = (
    *(("GET", "/v1/jobs"), ("GET", "/v1/models"), ("GET", "/v1/pool"), ("GET", "/metrics")),
    *(("GET", "/ready"), ("POST", CHAT), ("POST", "/v1/load_lora_adapter")),
)


async def test_a_name_that_a_page_may_have_rebound_is_refused_without_a_key(
    http: httpx.AsyncClient, worker: ScriptedWorker, views: PoolViews
) -> None:
    for host in FOREIGN:
        page = {"Host": host, "Origin": f"http://{host}"}
        for method, path in ROUTES:
            body = BACKGROUND if path == CHAT else None
            reply = await http.request(method, path, headers=page, json=body)
            assert error_of(reply)[:2] == (403, "permission_denied"), (host, path)
            assert "--allowed-hosts" in reply.text
        assert (await http.get("/health", headers=page)).status_code == 200
    assert (await views.counts()).waiting == 0


async def test_a_request_without_host_comes_from_no_browser(server: RunningApp) -> None:
    address = httpx.URL(server.url)
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(b"GET /v1/models HTTP/1.0\r\n\r\n")
    assert (await reader.readline()).split()[1] == b"200"
    writer.close()


@with_settings(api_keys=(SecretStr(f"blue:{KEY}"),))
async def test_keys_work_under_every_name(direct: httpx.AsyncClient, store: KeyStore) -> None:
    secret, _ = await new_key(store)
    for key in (secret, KEY):
        headers = {**bearer(key), "Host": "llm.example", "Origin": SITE}
        assert (await direct.get("/v1/models", headers=headers)).status_code == 200
        assert (await direct.post(CHAT, json=BACKGROUND, headers=headers)).status_code == 202


@pytest.mark.parametrize(
    "changes", [{"allowed_hosts": ("llm.example",)}, {"allowed_hosts": ("*",)}]
)
async def test_listed_names_are_accepted(http: httpx.AsyncClient, settings: ApiSettings) -> None:
    accepts_all = settings.allowed_hosts == ("*",)
    for host, is_accepted in (("llm.example:1", True), ("evil.example", accepts_all)):
        reply = await http.get("/v1/models", headers={"Host": host})
        assert reply.status_code == (200 if is_accepted else 403), host


@LISTED
async def test_a_form_of_another_site_changes_nothing(
    http: httpx.AsyncClient, worker: ScriptedWorker, views: PoolViews
) -> None:
    for origin, (method, path) in itertools.product(
        ("http://evil.example", "null", "http://localhost:1"),
        (("POST", CHAT), ("POST", "/v1/files"), ("DELETE", "/v1/jobs/x")),
    ):
        reply = await http.request(method, path, headers={"Origin": origin}, json=BACKGROUND)
        assert reply.status_code == 403, (origin, path)
        assert "--cors-origins" in reply.text
    assert (await views.counts()).waiting == 0


@LISTED
async def test_pages_of_the_server_and_of_listed_sites_may_send_requests(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    own = str(http.base_url).rstrip("/")
    proxied = {"Origin": "https://llm.example", "Sec-Fetch-Site": "same-origin"}
    for headers in ({"Origin": own}, {"Origin": SITE}, proxied, {}):
        assert (await http.post(CHAT, json=BACKGROUND, headers=headers)).status_code == 202


PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,idempotency-key",
}


def allowed(reply: httpx.Response) -> str | None:
    return reply.headers.get("access-control-allow-origin")


@LISTED
async def test_a_listed_site_may_ask_whether_its_pages_may_send_requests(
    http: httpx.AsyncClient,
) -> None:
    reply = await http.options(CHAT, headers={"Origin": SITE, **PREFLIGHT})
    assert (reply.status_code, allowed(reply)) == (200, SITE)
    assert "idempotency-key" in reply.headers["access-control-allow-headers"]
    # Pins and candidates are set by PUT.
    assert {"PUT", "DELETE"} <= set(reply.headers["access-control-allow-methods"].split(", "))
    assert "access-control-allow-credentials" not in reply.headers
    refused = await http.options(CHAT, headers={"Origin": OTHER, **PREFLIGHT})
    assert (refused.status_code, allowed(refused)) == (400, None)


@LISTED
async def test_pages_can_read_answers_errors_and_lorikeets_headers(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = await http.get("/v1/models", headers={"Origin": SITE})
    assert allowed(listed) == SITE
    exposed = listed.headers["access-control-expose-headers"]
    for name in ("X-Lorikeet-Job", "X-Lorikeet-Warning", "X-Request-Id", "Retry-After"):
        assert name in exposed
    wrong = await http.post(CHAT, content=b"{", headers={"Origin": SITE})
    assert (wrong.status_code, allowed(wrong)) == (400, SITE)

    async def broken(*_: object, **__: object) -> None:
        raise KeyError("secret")

    monkeypatch.setattr("api.answers.draft.Draft.of", broken)
    with capture_logs():  # the log would render the exception, which takes seconds
        failed = await http.post(CHAT, json=BACKGROUND, headers={"Origin": SITE})
    assert (failed.status_code, allowed(failed)) == (500, SITE)
    assert allowed(await http.get("/v1/models", headers={"Origin": OTHER})) is None


async def test_by_default_no_page_may_call_the_api(http: httpx.AsyncClient) -> None:
    reply = await http.options(CHAT, headers={"Origin": SITE, **PREFLIGHT})
    assert (reply.status_code, allowed(reply)) == (405, None)
    assert allowed(await http.get("/health", headers={"Origin": SITE})) is None


@pytest.mark.parametrize("changes", [{"cors_origins": (SITE,)}, {"cors_origins": ("*",)}])
async def test_only_pages_of_listed_sites_may_manage_adapters_and_a_wildcard_lists_none(
    http: httpx.AsyncClient, settings: ApiSettings
) -> None:
    for origin in (SITE, OTHER, "null", "*"):
        is_listed = origin == SITE and SITE in settings.cors_origins
        method, status = ("GET", 200) if is_listed else ("DELETE", 403)
        reply = await http.request(method, "/v1/adapters/extract", headers={"Origin": origin})
        assert reply.status_code == status, origin
    shown = allowed(await http.get("/health", headers={"Origin": SITE}))
    assert shown in settings.cors_origins


@pytest.mark.parametrize("host", ["http://llm.example", "llm.example:80", "a b", ".example", ""])
def test_an_allowed_host_is_a_name(host: str) -> None:
    with pytest.raises(ValidationError, match="the name of a host"):
        ApiSettings(allowed_hosts=(host,))
