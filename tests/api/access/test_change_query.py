"""Cursors of the audit log are ids of Redis' streams, or refused."""

import httpx
from api_support import error_of

URL = "/v1/audit_log"
LARGEST = 2**64 - 1


REFUSED = (
    *("", "0", "0-0", "00-000", "-", "+", "(1-0", "1-0-0", "1-", "a-b", "\u0663-\u0661", "1-0\n"),
    *(f"{LARGEST + 1}-0", f"0-{LARGEST + 1}", "99999999999999999999-0"),
)


async def test_a_cursor_that_no_page_ends_with_is_a_400(http: httpx.AsyncClient) -> None:
    for after in REFUSED:
        reply = await http.get(URL, params={"after": after})
        assert error_of(reply) == (400, "invalid_value", "after"), after


async def test_an_id_of_a_stream_is_a_cursor(http: httpx.AsyncClient) -> None:
    for after in ("0-1", "1-0", f"{LARGEST}-{LARGEST}"):
        assert (await http.get(URL, params={"after": after})).status_code == 200
